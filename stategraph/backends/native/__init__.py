"""Native CPU kernels: numba functions of arrays that XLA calls directly, without Python in the call; and threads for kernels."""

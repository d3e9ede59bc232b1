"""Random loops over arrays as kernels, compared with XLA."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.backends.codegen.running import natively
from tests.fuzz.arrays import generate

pytest.importorskip("llvmlite")

COUNT = 8


def compare(seed: int) -> None:
    function, args = generate(seed)
    wanted = jax.tree.leaves(jax.jit(function)(*args))
    for found, value in zip(natively(function, *args), wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=2e-3, atol=2e-3, err_msg=f"seed {seed}")


@pytest.mark.parametrize("seed", range(COUNT))
def test_random_loops(seed: int) -> None:
    compare(seed)

"""Who is connected with whom: for every pre neuron, the list of its post neurons.

``CSR`` (compressed sparse rows) holds the lists one after another in ``indices``; those of row ``i`` are
``indices[indptr[i]:indptr[i + 1]]``. A list may name a neuron twice (two synapses). The weights are no part of it:
``csr * weight`` puts both together, for ``spikes @ (csr * weight)``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from stategraph.errors import describe

if TYPE_CHECKING:
    from stategraph.event.weighted import Weighted


class CSR:
    """The synapses from ``shape[0]`` pre to ``shape[1]`` post neurons.

    ``spikes @ csr`` counts what arrives, ``spikes @ (csr * weight)`` weighs it, and ``csr @ events`` goes from post to pre
    neurons.

    Args:
      indptr: where each row begins in ``indices``, and the end of the last: ``(pre + 1,)`` whole numbers.
      indices: the post neuron of each synapse, ``(synapses,)`` whole numbers. Arrays that are read-only are not copied.
      shape: how many pre and post neurons there are.

    Raises:
      ValueError: when the rows are not in order, or a synapse leads to a neuron that is not there.

    Example:

    >>> from stategraph import event
    >>> csr = event.CSR([0, 2, 2, 3], [0, 1, 1], (3, 2))
    >>> csr
    CSR(3 -> 2, 3 synapses)
    >>> csr.todense(0.5)
    Array([[0.5, 0.5],
           [0. , 0. ],
           [0. , 0.5]], dtype=float32)
    """

    __array_ufunc__ = None  # NumPy leaves the operators to this class

    def __init__(self, indptr: Any, indices: Any, shape: Sequence[int]) -> None:
        starts, posts = np.asarray(indptr), np.asarray(indices)
        sizes = np.asarray(shape)
        if sizes.shape != (2,) or not np.issubdtype(sizes.dtype, np.integer) or (sizes < 0).any():
            raise ValueError(f"the shape of connections is two whole numbers, (pre, post), not {shape!r}")
        pre, post = (int(size) for size in sizes)
        _check(starts, posts, pre, post)
        self.shape = (pre, post)
        self.size = int(posts.size)
        """How many synapses there are."""
        self.width = int(np.diff(starts).max(initial=0))
        """The length of the longest row."""
        self.indptr: jax.Array = _kept(starts)
        self.indices: jax.Array = _kept(posts)
        """The post neuron of each synapse."""

    @classmethod
    def from_dense(cls, matrix: Any) -> CSR:
        """The synapses where a matrix ``(pre, post)`` is not zero."""
        given = np.asarray(matrix)
        if given.ndim != 2:
            raise ValueError(f"a matrix has two axes, not the shape {given.shape}")
        counts = np.count_nonzero(given, axis=1)
        return cls(np.append(0, np.cumsum(counts)), np.nonzero(given)[1], given.shape)

    @functools.cached_property
    def rows(self) -> jax.Array:
        """The pre neuron of each synapse; made when first asked for."""
        return _kept(np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(np.asarray(self.indptr))))

    @functools.cached_property
    def by_post(self) -> tuple[CSR, jax.Array]:
        """The same synapses, listed for each post neuron; made when first asked for.

        Returns:
          The connectivity from post to pre neurons, and for each of its synapses the number that it has here:
          ``weight[order]`` are its weights. Synapses of a post neuron ascend by pre neuron.
        """
        order = np.arange(self.size, dtype=np.int32)
        given = scipy.sparse.csr_matrix(
            (order, np.asarray(self.indices), np.asarray(self.indptr)), self.shape
        )
        columns = given.tocsc()
        return CSR(columns.indptr, columns.indices, self.shape[::-1]), _kept(columns.data)

    def todense(self, weight: Any = 1.0) -> jax.Array:
        """The matrix ``(pre, post)``: the sum of the weights of all synapses between two neurons."""
        values = jnp.asarray(weight)
        return jnp.zeros(self.shape, values.dtype).at[self.rows, self.indices].add(values)

    def __mul__(self, weight: Any) -> Weighted:
        from stategraph.event.weighted import Weighted

        return Weighted(self, weight)

    __rmul__ = __mul__

    def __rmatmul__(self, events: Any) -> jax.Array:
        arrived: jax.Array = events @ (self * 1.0)
        return arrived

    def __matmul__(self, events: Any) -> jax.Array:
        arrived: jax.Array = (self * 1.0) @ events
        return arrived

    def __repr__(self) -> str:
        return f"CSR({self.shape[0]} -> {self.shape[1]}, {self.size} synapses)"


def _kept(numbers: np.ndarray) -> jax.Array:
    """An array that outlives the trace in which it may be made, and that nobody else changes."""
    with jax.ensure_compile_time_eval():
        return jnp.array(numbers, jnp.int32, copy=numbers.flags.writeable)


def _check(indptr: np.ndarray, indices: np.ndarray, pre: int, post: int) -> None:
    problem = None
    if indptr.shape != (pre + 1,):
        problem = f"indptr has the shape {indptr.shape}; for {pre} rows it is {(pre + 1,)}"
    elif indices.ndim != 1:
        problem = f"indices has the shape {indices.shape}; it has one axis"
    elif not all(np.issubdtype(a.dtype, np.integer) for a in (indptr, indices) if a.size):
        problem = f"indptr ({indptr.dtype}) and indices ({indices.dtype}) are whole numbers"
    elif indptr[0] != 0 or indptr[-1] != indices.size or (np.diff(indptr) < 0).any():
        problem = f"indptr ascends from 0 to the number of synapses, {indices.size}"
    elif indices.size and (indices.min() < 0 or indices.max() >= post):
        wrong = int(np.flatnonzero((indices < 0) | (indices >= post))[0])
        problem = f"synapse {wrong} leads to neuron {int(indices[wrong])}, and there are {post}"
    elif indices.size >= 2**31:
        problem = f"{indices.size} synapses are more than 32-bit numbers can count"
    if problem is not None:
        raise ValueError(describe(f"This is no connectivity from {pre} to {post} neurons.", why=problem))

"""The primitive ``event.csr_ring``: events whose synapses have delays, added to a ring buffer."""

from __future__ import annotations

from typing import Any

from stategraph import _jax
from stategraph.backends.events.dispatch import choose
from stategraph.backends.events.primitives import csr_p
from stategraph.backends.events.ring import ring_apart


def csr_ring(
    total: Any, events: Any, weight: Any, indptr: Any, indices: Any, base: Any, shape: tuple[int, int]
) -> Any:
    """``event.csr_ring`` of events ``(pre,)`` and a buffer ``(size + post,)``, or of batches of both; ``shape`` is
    (pre, size).
    """
    return csr_ring_p.bind(total, events, weight, indptr, indices, base, shape=shape)


def _aval(total: Any, *operands: Any, shape: Any) -> Any:
    return _jax.strong_aval(total)


csr_ring_p = _jax.new_operation("event.csr_ring", _aval, apart=ring_apart(csr_p.bind))
_jax.lower_by(csr_ring_p, choose)

"""The primitive ``event.compact``: the places of events instead of an array with a value for everyone.

Few of those who might spike do, so the list of them is much shorter than the array. It has room for all; what a kernel
does not write costs no memory, as long as nobody looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from stategraph import _jax
from stategraph.backends.events.dispatch import choose
from stategraph.backends.events.primitives import Lanes, one_by_one


def compact(events: Any) -> Any:
    """``event.compact`` of an array of bool: ``int32[1 + size]``, their number and then their places, in order."""
    return compact_p.bind(events)


def _aval(events: Any) -> Any:
    if events.dtype != jnp.bool_:
        raise TypeError(f"events are listed of an array of bool, not of {events.dtype}")
    return _jax.resized_aval(_jax.strong_aval(events.update(dtype=jnp.dtype(jnp.int32))), (1 + events.size,))


def _lanes(operands: Sequence[Any], axes: Sequence[int | None]) -> Lanes:
    return one_by_one(compact_p, operands, axes)


compact_p = _jax.new_operation("event.compact", _aval, on_batch=_lanes)
_jax.lower_by(compact_p, choose)

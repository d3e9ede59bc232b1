"""The primitives ``event.list`` and ``event.append``: a list of events that grows as a loop goes.

It is ``event.compact`` of what the loop would stack, without the stack: the bools of a step are listed while they are in the
cache. The pass ``outline-recording`` makes these ops.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.backends.events.dispatch import choose


def _list(*, room: int, number: int) -> Any:
    return _jax.array_aval((1 + room,), np.int32)


def _appended(listed: Any, events: Any, base: Any) -> Any:
    if events.dtype != jnp.bool_:
        raise TypeError(f"events are listed of an array of bool, not of {events.dtype}")
    return _jax.strong_aval(listed)


list_p = _jax.new_operation("event.list", _list)
append_p = _jax.new_operation("event.append", _appended)
for _primitive in (list_p, append_p):
    _jax.lower_by(_primitive, choose)

"""What is on its way between modules within one step: sent by a projection, used by a population.

It is no State and no attribute: it is gone when the step is over. So it has to be used where it was sent: in the same run of
the same function, be it plain Python, the body of a loop or a compiled function. Elsewhere it is refused, because eager and
compiled code would do different things.
"""

from __future__ import annotations

import functools
from typing import Any
from weakref import WeakKeyDictionary, ref

import attrs

from stategraph import _jax
from stategraph.errors import describe
from stategraph.graph.node import Node
from stategraph.ir.location import Location
from stategraph.recording import LOCAL


@attrs.define(eq=False)
class Parcel:
    """A value on its way: with the function that is being traced (None in plain Python), and the line that sent it."""

    value: Any
    frame: Any
    at: Location
    used: bool = False


_ARRIVED: WeakKeyDictionary[Node, dict[str, Parcel]] = WeakKeyDictionary()


def _frame() -> Any:
    """The function that is being traced, innermost; None in plain Python."""
    frames = (_jax.frame_of(trace) for trace in _jax.trace_chain(None))
    return next((frame for frame in frames if frame is not None), None)


def send(receiver: Node, key: str, value: Any) -> None:
    """Send a value to a module, under a key that nothing else arrives under in this step."""
    frame = _frame()
    parcels = _ARRIVED.setdefault(receiver, {})
    if key in parcels and parcels[key].frame is frame:
        raise ValueError(
            describe(
                f"{type(receiver).__name__} is sent {key!r} twice in one step.",
                at=_jax.here(),
                why=f"what was sent at {parcels[key].at} is not used yet",
                fix="call the receiving population once after the projections, in each step; "
                "after a step that failed, population.clear_inputs()",
            )
        )
    parcel = parcels[key] = Parcel(value, frame, _jax.here())
    if LOCAL.recorder is not None:
        LOCAL.recorder.finishing[id(receiver), key] = functools.partial(
            _check_used, ref(receiver), key, parcel
        )


def _check_used(reference: ref[Node], key: str, parcel: Parcel) -> None:
    """Raise the error for what a traced function has sent and not used: eager Python would use it in the next step."""
    receiver = reference()
    parcels = {} if receiver is None else _ARRIVED.get(receiver, {})
    if parcel.frame is None or parcel.used or parcels.get(key) is not parcel:
        return
    del parcels[key]
    raise ValueError(
        describe(
            f"{type(receiver).__name__} is sent {key!r}, and does not use it in this step.",
            at=parcel.at,
            why="what is on its way when a loop body or compiled function ends would be lost",
            fix="call the projection before the population that it sends to, with the spikes of the last step, "
            "population.get_spike()",
        )
    )


def look(receiver: Node, key: str) -> Any:
    """A value that was sent in this step; None if there is none."""
    parcel = _ARRIVED.get(receiver, {}).get(key)
    if parcel is None:
        return None
    if parcel.frame is not _frame():
        raise ValueError(
            describe(
                f"{type(receiver).__name__} uses {key!r} in another function than it was sent in.",
                at=_jax.here(),
                why=f"sent at {parcel.at}: one is inside of a loop body or compiled function, the other outside",
                fix="call projections and the populations they send to in the same function; "
                "population.clear_inputs() forgets what was sent",
            )
        )
    parcel.used = True
    return parcel.value


def take(receiver: Node, key: str) -> Any:
    """A value that was sent in this step, which is used up by this."""
    value = look(receiver, key)
    del _ARRIVED[receiver][key]
    return value


def keys(receiver: Node) -> tuple[str, ...]:
    """Under which keys something was sent and is not used yet, in the order of sending."""
    return tuple(_ARRIVED.get(receiver, ()))


def forget(receiver: Node) -> None:
    """Throw away what was sent."""
    _ARRIVED.pop(receiver, None)

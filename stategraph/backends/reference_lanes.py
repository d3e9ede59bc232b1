"""What ``xform.vmap`` means: a Python loop over the lanes.

Every lane starts from the State as it is before the op (its slice, where States are mapped), runs the body,
and gives its results and what it leaves in the States. These are stacked afterwards. Only where lanes talk
to each other (collectives over the op's named axis) they cannot run one after another: then the body runs
under ``jax.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.backends.reference_values import ExecutionError, Leaves
from stategraph.ir.core import Op
from stategraph.ir.lanes import LANE_REDUCTIONS, lane_names, lane_writes, private_states, state_axes

Ends = tuple[list[Any], dict[str, Leaves]]
"""Results, and the leaves of the States that were written."""
Lane = Callable[[Sequence[Any], Sequence[Leaves]], Ends]
"""Runs one lane, given its arguments and the leaves of mapped States."""


def run_lanes(machine: Any, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """The results of the op; the interpreter's store then holds what the lanes left."""
    mapped, private = state_axes(op, "in_states"), private_states(op)
    store: dict[str, Leaves] = machine.store
    start = dict(store)
    written = sorted({write.symbol for write in lane_writes(op)} & store.keys() - private)

    def lane(arguments: Sequence[Any], own: Sequence[Leaves]) -> Ends:
        store.update(start)
        store.update(zip(mapped, own, strict=True))
        try:
            results: list[Any] = machine.region(op.regions[0], arguments)
            return results, {path: store[path] for path in written}
        finally:
            store.update(start)

    run = _together if op.attributes["size"] == 0 or _talks(op) else _in_turn
    results, left = run(op, lane, operands, [start[path] for path in mapped], written)
    store.update(left)
    return results


def _in_turn(
    op: Op, lane: Lane, operands: Sequence[Any], own: Sequence[Leaves], written: Sequence[str]
) -> Ends:
    axes, kept = list(state_axes(op, "in_states").values()), state_axes(op, "out_states")
    ends = []
    for i in range(op.attributes["size"]):
        arguments = [_slice(x, i, axis) for x, axis in zip(operands, op.attributes["in_axes"], strict=True)]
        ends.append(
            lane(
                arguments,
                [tuple(_slice(x, i, axis) for x in leaves) for leaves, axis in zip(own, axes, strict=True)],
            )
        )
    results = [
        _joined([values[j] for values, _ in ends], axis, f"result {j}")
        for j, axis in enumerate(op.attributes["out_axes"])
    ]
    left = {}
    for path in written:
        columns = zip(*(states[path] for _, states in ends), strict=True)
        left[path] = tuple(_joined(list(column), kept.get(path), f"State @{path}") for column in columns)
    return results, left


def _together(
    op: Op, lane: Lane, operands: Sequence[Any], own: Sequence[Leaves], written: Sequence[str]
) -> Ends:
    axes, kept = list(state_axes(op, "in_states").values()), state_axes(op, "out_states")
    size, named = op.attributes["size"], lane_names(op.attributes)

    def run(number: Any, arguments: Sequence[Any], leaves: Sequence[Leaves]) -> Any:
        results, left = lane(arguments, leaves)
        return results, [left[path] for path in written]

    out_axes = (list(op.attributes["out_axes"]), [kept.get(path) for path in written])
    whole = jax.vmap(
        run, in_axes=(0, list(op.attributes["in_axes"]), axes), out_axes=out_axes, axis_size=size, **named
    )
    results, left = whole(jnp.arange(size), list(operands), list(own))
    return results, dict(zip(written, left, strict=True))


def _talks(op: Op) -> bool:
    """Whether the body mentions the op's named axis, or reduces over all lanes."""
    if next(op.walk(*(f"jax.{name}" for name in LANE_REDUCTIONS)), None) is not None:
        return True
    name = op.attributes["axis_name"]
    if name is None:
        return False
    return any(
        name in (value if isinstance(value, tuple) else (value,))
        for inner in op.walk()
        for value in inner.attributes.values()
    )


def _slice(x: Any, i: int, axis: int | None) -> Any:
    return x if axis is None else jax.lax.index_in_dim(x, i, axis, keepdims=False)


def _joined(values: list[Any], axis: int | None, what: str) -> Any:
    """What the lanes gave as one array: stacked, or the one value that they all have."""
    if axis is not None:
        return jnp.stack(values, axis)
    first, *others = values
    if not any(map(_jax.is_tracer, values)) and any(bits(first) != bits(other) for other in others):
        raise ExecutionError(f"{what} differs between lanes, and the op says that it does not")
    return first


def bits(x: Any) -> bytes:
    """An array's bits, those of keys included."""
    return np.asarray(jax.random.key_data(x) if _jax.is_key_array(x) else x).tobytes()

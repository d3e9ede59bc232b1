"""Lanes in eager Python: the meaning that the compiled form is compared with.

Under ``jax.disable_jit()`` the function runs once per lane, in a Python loop. Inside a JAX trace that
StateGraph does not follow, and where lanes talk to each other over a named axis, it runs under ``jax.vmap``,
with the lane's values in the States. Either way the States that it touches are found by tracing it on one
lane first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.augment.lanes import (
    Chosen,
    Lanes,
    NewStates,
    argument_axes,
    gain_lanes,
    inside_lanes,
    kept_axis,
    lane_count,
    lane_of,
    mapped_states,
    reachable_states,
    result_axes,
    selection,
)
from stategraph.backends.reference_lanes import bits
from stategraph.backends.vmap import undeclared
from stategraph.eager_writes import writable_here
from stategraph.errors import BatchAxisError
from stategraph.ir.lanes import LANE_REDUCTIONS, lane_names
from stategraph.ir.location import Location
from stategraph.state import State
from stategraph.tracing.tracer import accessed_states


@attrs.define(eq=False)
class _Call:
    """One call: what each lane gets, and which States it may change."""

    function: Callable[..., Any]
    spec: Lanes
    tree: Any
    size: int
    mapped: list[Chosen]
    touched: dict[str, State[Any]] = attrs.Factory(dict)
    written: dict[str, State[Any]] = attrs.Factory(dict)
    random: dict[str, State[Any]] = attrs.Factory(dict)
    """Written States of which every lane gets a key."""
    before: dict[str, Any] = attrs.Factory(dict)
    existing: set[int] = attrs.Factory(set)
    """The States that there were before the call, by id."""
    talks: bool = False
    """Whether lanes talk to each other."""
    out_tree: Any = None

    def kept(self, path: str) -> int | None:
        """Where the lanes of a written State are kept."""
        state = self.touched[path]
        axis = kept_axis(selection("out_states", self.spec.out_states), path, state)
        return axis if axis is not None else next((c.axis for c in self.mapped if c.state is state), None)

    def run(
        self, flat: Sequence[Any], own: Sequence[Any], keys: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """One lane: its results, and what it leaves in the written States."""
        self.restore()
        for chosen, value in zip(self.mapped, own, strict=True):
            chosen.state.value = value
        for state, key in zip(self.random.values(), keys, strict=True):
            state.value = key
        args, kwargs = jax.tree.unflatten(self.tree, flat)
        with inside_lanes(chosen.state for chosen in self.mapped):
            results, self.out_tree = jax.tree.flatten(self.function(*args, **kwargs))
        return results, [state.value for state in self.written.values()]

    def births(self) -> dict[str, State[Any]]:
        """The States that a lane created and a Node keeps."""
        if self.spec.isolated:
            return {}
        found = reachable_states(self.function)
        return {path: state for path, state in found.items() if id(state) not in self.existing}

    def adopt(self, births: Mapping[str, Any]) -> None:
        """Give the States that lanes created all lanes' values."""
        new = self.spec.new or NewStates()
        for path, state in self.births().items():
            if path not in births:
                continue
            if new.excluded(path, state):
                state._outlive(jax.tree.map(lambda x: x[0], births[path]))
            else:
                state._outlive(births[path])
                gain_lanes(state, self.size, new)

    def undeclared(self, differing: Mapping[str, Location]) -> str:
        """The message for written States that lanes leave different."""
        states = {path: self.touched[path] for path in differing}
        return undeclared(differing, _jax.line_in_charge(), self.spec.called(self.function, states))

    def restore(self) -> None:
        for path, value in self.before.items():
            self.touched[path].value = value


def eager_lanes(
    function: Callable[..., Any], spec: Lanes, args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """What ``vmap(function)(*args, **kwargs)`` returns, with what it does to State."""
    from stategraph.augment.vmap import is_random

    leaves, tree, axes = argument_axes(spec.in_axes, args, kwargs)
    mapped = mapped_states(selection("in_states", spec.in_states), function)
    size = lane_count(spec, leaves, axes, mapped)
    call = _Call(function, spec, tree, size, mapped)
    keep_alive = reachable_states(function)
    call.existing = set(map(id, keep_alive.values()))
    own: list[Any] = []
    with writable_here():
        try:
            _find_touched(call, leaves, axes)
            call.random = {p: s for p, s in call.written.items() if is_random(s) and call.kept(p) is None}
            own = [chosen.state.value for chosen in call.mapped]
            keys = [jax.random.split(state.value, size + 1) for state in call.random.values()]
            looped = _jax.under_disable_jit() and size > 0 and not call.talks
            run = _in_turn if looped else _together
            results, left, births = run(call, leaves, axes, own, [key[1:] for key in keys])
        finally:
            call.restore()
    for state, key in zip(call.random.values(), keys, strict=True):
        state.value = key[0]
    if not spec.isolated:
        for (path, state), value in zip(call.written.items(), left, strict=True):
            if path not in call.random:
                state.value = value
    call.adopt(births)
    return jax.tree.unflatten(call.out_tree, results)


def _find_touched(call: _Call, leaves: Sequence[Any], axes: Sequence[int | None]) -> None:
    """Trace the function on the types of one lane."""
    wholes = [chosen.state.value for chosen in call.mapped]
    fitting = []
    try:
        for chosen in call.mapped:
            try:
                lanes = [
                    _first(leaf, lane_of(chosen, _jax.typeof(leaf), call.size, call.spec.caller), chosen.axis)
                    for leaf in chosen.state._peek()
                ]
            except Exception:
                if chosen.named:
                    raise
                continue
            chosen.state.value = jax.tree.unflatten(jax.tree.structure(chosen.state.value), lanes)
            fitting.append(chosen)
        flat = [_example(leaf, axis) for leaf, axis in zip(leaves, axes, strict=True)]
        args, kwargs = jax.tree.unflatten(call.tree, flat)
        named = [(call.spec.axis_name, call.size)] if call.spec.axis_name is not None else []
        with jax.disable_jit(False), _jax.named_axes(named):
            read, call.written, body = accessed_states(call.function, args, kwargs)
        call.talks = bool(_jax.equations_of(body, LANE_REDUCTIONS)) or (
            bool(named) and _jax.talks_over(body, named[0][0])
        )
    finally:
        for chosen, value in zip(call.mapped, wholes, strict=True):
            chosen.state.value = value
    call.touched = {**read, **call.written}
    touched = {id(state) for state in call.touched.values()}
    for chosen in call.mapped:
        if id(chosen.state) in touched and chosen not in fitting:
            lane_of(chosen, _jax.typeof(chosen.state._peek()[0]), call.size, call.spec.caller)
    call.mapped = fitting  # also those that only a derivative rule reads, which the trace has not run
    call.touched.update(
        (f"mapped {i}", chosen.state) for i, chosen in enumerate(fitting) if id(chosen.state) not in touched
    )
    call.before = {path: state.value for path, state in call.touched.items()}


def _first(leaf: Any, lane: Any, axis: int) -> Any:
    """A value of the type of one lane."""
    return jnp.zeros(lane.shape, lane.dtype) if 0 in leaf.shape else _slice(leaf, 0, axis)


def _example(leaf: Any, axis: int | None) -> Any:
    aval = _jax.typeof(leaf)
    shape = aval.shape if axis is None else (*aval.shape[:axis], *aval.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def _in_turn(
    call: _Call,
    leaves: Sequence[Any],
    axes: Sequence[int | None],
    own: Sequence[Any],
    keys: Sequence[Any],
) -> tuple[list[Any], list[Any], dict[str, Any]]:
    ends = []
    births: dict[str, list[Any]] = {}
    for i in range(call.size):
        flat = [
            leaf if axis is None else _slice(leaf, i, axis) for leaf, axis in zip(leaves, axes, strict=True)
        ]
        slices = [
            jax.tree.map(lambda x, i=i, axis=chosen.axis: _slice(x, i, axis), value)
            for chosen, value in zip(call.mapped, own, strict=True)
        ]
        ends.append(call.run(flat, slices, [key[i] for key in keys]))
        for path, state in call.births().items():
            births.setdefault(path, []).append(state.value)
    born = {
        path: jax.tree.map(lambda *parts: jnp.stack(parts), *values)
        for path, values in births.items()
        if len(values) == call.size
    }
    out_axes = result_axes(call.spec.out_axes, call.out_tree, list(map(np.ndim, ends[0][0])))
    results = [
        _joined([values[j] for values, _ in ends], axis, "a result") for j, axis in enumerate(out_axes)
    ]
    left: list[Any] = []
    differing = {}
    for j, (path, state) in enumerate(call.written.items()):
        values = [states[j] for _, states in ends]
        axis = call.kept(path)
        if axis is not None:
            left.append(jax.tree.map(lambda *parts, a=axis: jnp.stack(parts, a), *values))
            continue
        left.append(values[0])
        if (
            not call.spec.isolated
            and path not in call.random
            and any(_bits(value) != _bits(values[0]) for value in values)
        ):
            differing[path] = state.source_location
    if differing:
        raise BatchAxisError(call.undeclared(differing))
    return results, left, born


def _together(
    call: _Call,
    leaves: Sequence[Any],
    axes: Sequence[int | None],
    own: Sequence[Any],
    keys: Sequence[Any],
) -> tuple[list[Any], list[Any], dict[str, Any]]:
    keeps = [call.kept(path) for path in call.written]
    differs: dict[str, Any] = {}
    out_axes: list[Any] = []

    def lane(number: Any, flat: Any, slices: Any, lane_keys: Any) -> Any:
        results, left = call.run(flat, slices, lane_keys)
        out_axes[:] = result_axes(call.spec.out_axes, call.out_tree, list(map(np.ndim, results)))
        kept = []
        for (path, state), value, axis in zip(call.written.items(), left, keeps, strict=True):
            forgotten = call.spec.isolated or path in call.random
            if not forgotten and axis is None and any(map(_jax.depends_on_lane, jax.tree.leaves(value))):
                differs[path] = state.source_location
            kept.append(call.before[path] if forgotten else value)
        if differs:
            raise BatchAxisError(call.undeclared(differs))
        # Results go out with their lanes in front; where they are wanted is known only now.
        return (
            [value for value, axis in zip(results, out_axes, strict=True) if axis is not None],
            [value for value, axis in zip(results, out_axes, strict=True) if axis is None],
            kept,
            {path: state.value for path, state in call.births().items()},
        )

    names = lane_names({"axis_name": call.spec.axis_name, "spmd_axis_name": call.spec.spmd_axis_name})
    in_axes = (0, list(axes), [chosen.axis for chosen in call.mapped], [0] * len(keys))
    forgotten = [call.spec.isolated or path in call.random for path in call.written]
    keep = [None if gone else axis for gone, axis in zip(forgotten, keeps, strict=True)]
    whole = jax.vmap(lane, in_axes=in_axes, out_axes=(0, None, keep, 0), axis_size=call.size, **names)
    stacked, single, left, born = whole(jnp.arange(call.size), list(leaves), list(own), list(keys))
    parts = iter(stacked), iter(single)
    return (
        [next(parts[1]) if axis is None else jnp.moveaxis(next(parts[0]), 0, axis) for axis in out_axes],
        left,
        born,
    )


def _slice(x: Any, i: int, axis: int) -> Any:
    return jax.lax.index_in_dim(jnp.asarray(x), i, axis, keepdims=False)


def _joined(values: Sequence[Any], axis: int | None, what: str) -> Any:
    if axis is not None:
        return jnp.stack([jnp.asarray(value) for value in values], axis)
    if any(_bits(value) != _bits(values[0]) for value in values):
        raise ValueError(f"out_axes says that {what} is the same in every lane, but it depends on the lane")
    return values[0]


def _bits(value: Any) -> list[bytes]:
    return [bits(leaf) for leaf in jax.tree.leaves(value)]

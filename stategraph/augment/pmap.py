"""One lane per device: ``pmap`` is ``shard_map`` over a mesh with one axis, with the axis taken out of what a
lane sees, as ``vmap`` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from stategraph.augment.lanes import (
    Lanes,
    argument_axes,
    kept_axis,
    lane_count,
    mapped_states,
    reachable_states,
    result_axes,
    selection,
)
from stategraph.augment.shard_map import ShardedFunction, shard_map
from stategraph.state import State

_MISSING: Any = object()
Axes = Sequence[tuple[State[Any], int]]


class PmappedFunction:
    """A function with one lane per device; made by ``pmap``."""

    def __init__(self, function: Callable[..., Any], lanes: Lanes, devices: Sequence[Any] | None) -> None:
        if not callable(function):
            raise TypeError(f"pmap needs a function, not a {type(function).__name__}")
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.lanes = lanes
        self.devices = None if devices is None else tuple(devices)
        self._made: dict[Any, ShardedFunction] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        lanes, function = self.lanes, self.function
        leaves, tree, axes = argument_axes(lanes.in_axes, args, kwargs)
        mapped = mapped_states(selection("in_states", lanes.in_states), function)
        size = lane_count(lanes, leaves, axes, mapped)
        taken = [(c.state, c.axis) for c in mapped if c.named or _fits(c.state, c.axis, size)]
        kept = self._kept(taken)
        key = (
            size,
            tree,
            tuple(axes),
            *(tuple((id(s), axis) for s, axis in these) for these in (taken, kept)),
        )
        run = self._made.get(key)
        if run is None:
            run = self._made[key] = self._make(size, tree, axes, taken, kept)
        return run(leaves)

    def _kept(self, taken: Axes) -> list[tuple[State[Any], int]]:
        """The States in which the lanes' values are stacked, with the axis."""
        wanted = selection("out_states", self.lanes.out_states)
        found = {id(state): (state, axis) for state, axis in taken}
        named = {id(state): ("", state) for _, those in wanted if isinstance(those, list) for state in those}
        reached = {} if not wanted else reachable_states(self.function)
        for path, state in (*((path, state) for path, state in reached.items()), *named.values()):
            axis = kept_axis(wanted, path, state)
            if axis is not None:
                found[id(state)] = (state, axis)
        return list(found.values())

    def _make(
        self, size: int, tree: Any, axes: Sequence[int | None], taken: Axes, kept: Axes
    ) -> ShardedFunction:
        name = self.lanes.axis_name or "devices"
        made: ShardedFunction = shard_map(
            _one_lane(self.function, tree, axes, self.lanes.out_axes, taken, kept),
            self._mesh(size, name),
            in_specs=([_spec(axis, name) for axis in axes],),
            out_specs=jax.tree.map(
                lambda axis: _spec(axis, name), self.lanes.out_axes, is_leaf=lambda axis: axis is None
            ),
            state_in_specs={state: _state_specs(state, axis, name) for state, axis in taken},
            state_out_specs={state: _state_specs(state, axis, name) for state, axis in kept},
            check_vma=False,  # else gradients with respect to shared values would be sums over lanes
        )
        return made

    def _mesh(self, size: int, name: str) -> Mesh:
        devices = self.devices if self.devices is not None else tuple(jax.local_devices())
        if not 0 < size <= len(devices):
            raise ValueError(
                f"pmap is given {size} lanes and has {len(devices)} devices, of which each runs one lane; "
                "use shard_map, whose devices take equal parts, or vmap on each of them"
            )
        return Mesh(np.array(devices[:size]), (name,))

    def __repr__(self) -> str:
        return f"<{getattr(self.function, '__qualname__', repr(self.function))} over devices>"


def _fits(state: State[Any], axis: int, size: int) -> bool:
    return all(-len(x.shape) <= axis < len(x.shape) and x.shape[axis] == size for x in state._peek())


def _spec(axis: int | None, name: str) -> PartitionSpec:
    if axis is None:
        return PartitionSpec()
    if not isinstance(axis, int) or axis < 0:
        raise ValueError(f"out_axes holds {axis!r}; for pmap an axis is an int of at least 0, or None")
    return PartitionSpec(*[None] * axis, name)


def _state_specs(state: State[Any], axis: int, name: str) -> PartitionSpec:
    if axis < 0:
        ranks = {len(leaf.shape) for leaf in state._peek()}
        if len(ranks) != 1:
            raise ValueError(f"{state._describe()} has leaves of several ranks; give its axis from the front")
        axis += ranks.pop()
    return _spec(axis, name)


def _one_lane(
    function: Callable[..., Any],
    tree: Any,
    axes: Sequence[int | None],
    out_axes: Any,
    taken: Axes,
    kept: Axes,
) -> Callable[..., Any]:
    """``function`` on shards that have an axis of size 1 where the lanes lie."""

    @functools.wraps(function)
    def run(leaves: Sequence[Any]) -> Any:
        given = [x if a is None else jax.lax.squeeze(x, (a,)) for x, a in zip(leaves, axes, strict=True)]
        args, kwargs = jax.tree.unflatten(tree, given)
        for state, axis in taken:
            state.value = jax.tree.map(lambda x, a=axis: jax.lax.squeeze(x, (a,)), state.value)
        results, out_tree = jax.tree.flatten(function(*args, **kwargs))
        for state, axis in kept:
            state.value = jax.tree.map(lambda x, a=axis: jax.numpy.expand_dims(x, a), state.value)
        places = result_axes(out_axes, out_tree, [jax.numpy.ndim(x) for x in results])
        whole = [
            x if a is None else jax.numpy.expand_dims(x, a) for x, a in zip(results, places, strict=True)
        ]
        return jax.tree.unflatten(out_tree, whole)

    return run


def pmap(
    fn: Callable[..., Any] = _MISSING,
    axis_name: str | None = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    devices: Sequence[Any] | None = None,
    in_states: Any = None,
    out_states: Any = None,
) -> Any:
    """A function that runs one lane on every device; ``fn`` may read and write State.

    It is ``vmap`` with the lanes on devices: data parallelism, when States that are shared (the parameters) are
    updated with what a ``jax.lax.pmean`` over ``axis_name`` made equal.

    Args:
      fn: a function of one lane's arguments.
      axis_name: a name by which ``jax.lax.psum`` and the like address all lanes.
      in_axes: along which axis of each positional argument its lanes lie, as for ``vmap``; None for what every
        lane gets whole.
      out_axes: where the lanes go in each result; None for a result that is the same in every lane.
      axis_size: the number of lanes, where no argument tells; at most the number of devices.
      devices: the devices that run the lanes, those of this process when not given.
      in_states: States whose lanes lie along axis 0: a State, a list or mapping of States, a filter, or
        ``{axis: those}``.
      out_states: States that keep what the lanes write, along axis 0, likewise.

    Returns:
      A function of the arguments of all lanes.

    Raises:
      StateAccessError: lanes may leave different values in a State that is neither in ``in_states`` nor in
        ``out_states``.
      ValueError: there are more lanes than devices.

    Example:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> total = sg.State(0.)
    >>> def add(x):
    ...     total.value += jax.lax.psum(x, "lanes")
    ...     return x + 1
    >>> sg.augment.pmap(add, axis_name="lanes")(jnp.arange(1.) + 4)
    Array([5.], dtype=float32)
    >>> float(total.value)
    4.0
    """
    lanes = Lanes(in_axes, out_axes, axis_name, axis_size, in_states, out_states, False)
    if fn is _MISSING:
        return lambda function: PmappedFunction(function, lanes, devices)
    return PmappedFunction(fn, lanes, devices)

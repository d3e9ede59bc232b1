"""Collective operations over lanes: ensembles of independent instances of a model, in one model.

A State that ``init_state`` creates in every lane is one State with the lanes along its first axis; it
remembers that, so that a reset gives every lane its own value again and ``Vmap`` maps it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from stategraph.augment.lanes import LANES, has_lanes, selection
from stategraph.augment.new_states import run_lanes
from stategraph.nn.collective import call_of, calls_of, check_accepted, init_one, reset_nodes
from stategraph.nn.redraw import parameters_to_draw, redraw
from stategraph.state import State
from stategraph.typing import Filter, PathParts
from stategraph.util.filter import Any as AnyOf
from stategraph.util.filter import to_predicate

N = TypeVar("N")


def vmap_call_all_fns(
    target: N,
    fn_name: str,
    args: Sequence[Any] | Any = (),
    kwargs: Mapping[str, Any] | None = None,
    axis_size: int | None = None,
    node_to_exclude: Filter = None,
    state_tag: str | None = None,
    fn_if_not_exist: str = "raise",
    state_to_exclude: Filter = None,
    in_states: Any = None,
    out_states: Any = None,
) -> N:
    """Call one method of every Node of a model, once per lane.

    Args:
      target, fn_name, args, kwargs, node_to_exclude, fn_if_not_exist: as in ``call_all_fns``. Every lane gets
        the same arguments, and random numbers of its own.
      axis_size: how many lanes; may be left out where ``in_states`` tell.
      state_to_exclude: a filter: which States that the methods create get no lane axis, but the value that
        the first lane gave them.
      state_tag: a tag for the States that the methods create.
      in_states, out_states: what becomes of States that exist before, as in ``augment.vmap``.

    Returns:
      The model.

    Example:

    >>> import stategraph as sg
    >>> class Noise(sg.nn.Module):
    ...     def draw(self, n):
    ...         self.x = sg.State(sg.random.rand(n))
    >>> sg.nn.vmap_call_all_fns(Noise(), "draw", kwargs={"n": 3}, axis_size=4).x.shape
    (4, 3)
    """
    given = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    named = dict(kwargs or {})
    found = _nodes(target, fn_name, named, node_to_exclude, fn_if_not_exist)

    def lane() -> None:
        for path, node in found:
            call_of(path, node, fn_name, node_to_exclude)(given, named)

    run_lanes(
        "nn.vmap_call_all_fns",
        target,
        lane,
        axis_size=axis_size,
        state_tag=state_tag,
        state_to_exclude=state_to_exclude,
        in_states=in_states,
        out_states=out_states,
    )
    return target


def vmap_init_all_states(
    target: N,
    *init_args: Any,
    axis_size: int | None = None,
    node_to_exclude: Filter = None,
    state_to_exclude: Filter = None,
    state_tag: str | None = None,
    in_states: Any = None,
    out_states: Any = None,
    parameters: Filter = False,
    fn_if_not_exist: str = "pass",
    **init_kwargs: Any,
) -> N:
    """Initialise a model as an ensemble of ``axis_size`` independent instances.

    The States that ``init_state`` creates have the instances along a new first axis; random initial values
    are drawn once per instance.

    Args:
      target, *init_args, node_to_exclude, fn_if_not_exist, **init_kwargs: as in ``init_all_states``.
      axis_size: how many instances; may be left out where ``in_states`` tell.
      state_to_exclude: a filter: which of the new States are shared by all instances.
      state_tag: a tag for the new States.
      in_states, out_states: what becomes of States that exist before, as in ``augment.vmap``.
      parameters: whether parameters get the axis too, each instance with a draw of its own: True, or a filter
        that says which. A module is made again for that, with the arguments that it was made with. By
        default all instances share the parameters.

    Returns:
      The model.

    Example:

    >>> import stategraph as sg
    >>> class Cell(sg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = sg.ParamState(sg.random.randn(4, 64))
    ...     def init_state(self, batch_size):
    ...         self.h = sg.HiddenState(sg.random.rand(batch_size, 64))
    >>> cell = sg.nn.vmap_init_all_states(Cell(), batch_size=2, axis_size=8)
    >>> cell.h.shape, cell.w.shape
    ((8, 2, 64), (4, 64))
    >>> sg.nn.vmap_init_all_states(cell, batch_size=2, axis_size=8, parameters=True).w.shape
    (8, 4, 64)
    """
    found = _nodes(target, "init_state", init_kwargs, node_to_exclude, fn_if_not_exist)
    drawn = parameters_to_draw(target, parameters)

    def lane() -> None:
        redraw(target, drawn)
        for path, node in found:
            init_one(call_of(path, node, "init_state", node_to_exclude), init_args, init_kwargs)

    with _drawing(drawn.values()) as kept:
        run_lanes(
            "nn.vmap_init_all_states",
            target,
            lane,
            axis_size=axis_size,
            state_tag=state_tag,
            state_to_exclude=state_to_exclude,
            in_states=in_states,
            out_states=_kept(out_states, kept),
        )
    return target


class _Drawing(threading.local):
    """The parameters that the initialisation which runs draws for every lane, with the lanes that they had before."""

    found: dict[int, tuple[State[Any], Any]] | None = None


_DRAWING = _Drawing()


@contextlib.contextmanager
def _drawing(drawn: Iterable[State[Any]]) -> Iterator[Mapping[int, Any]]:
    """While parameters are drawn for every lane: those of ``drawn``, and those that initialisations inside of the lanes
    draw for lanes of their own; afterwards these are noted as lanes, the outer ones first.
    """
    outer = _DRAWING.found
    mine = {id(state): (state, state.metadata.pop(LANES, None)) for state in drawn}
    _DRAWING.found = mine
    try:
        yield mine
    except BaseException:
        for state, before in mine.values():
            state.metadata.pop(LANES, None)
            if before is not None:
                state.metadata[LANES] = before
        raise
    finally:
        _DRAWING.found = outer
    for state, _ in mine.values():
        state.metadata[LANES] = (state._peek()[0].shape[0], *state.metadata.get(LANES, ()))
    if outer is not None:
        for key, drew in mine.items():
            outer.setdefault(key, drew)


def _nodes(
    target: Any, fn_name: str, kwargs: Mapping[str, Any], node_to_exclude: Filter, fn_if_not_exist: str
) -> list[tuple[PathParts, Any]]:
    """The Nodes whose method is called, by path, in order."""
    calls = calls_of(target, fn_name, node_to_exclude, fn_if_not_exist)
    check_accepted(calls, fn_name, kwargs)
    return [(call.path, call.node) for call in calls]


def _kept(out_states: Any, drawn: Mapping[int, Any]) -> Any:
    """``out_states`` with some States, by their ``id``, kept along axis 0 as well."""
    kept: dict[int, Any] = {0: lambda path, state: id(state) in drawn}
    for axis, those in selection("out_states", out_states):
        wanted = _among(those) if isinstance(those, list) else those
        kept[axis] = AnyOf(kept[axis], wanted) if axis in kept else wanted
    return kept


def _among(states: list[State[Any]]) -> Any:
    return to_predicate(lambda path, state: any(state is one for one in states))


def vmap_reset_all_states(
    target: N,
    *reset_args: Any,
    axis_size: int | None = None,
    node_to_exclude: Filter = None,
    state_to_exclude: Filter = None,
    state_tag: str | None = None,
    in_states: Any = None,
    out_states: Any = None,
    fn_if_not_exist: str = "pass",
    **reset_kwargs: Any,
) -> N:
    """Reset every instance of an ensemble that ``vmap_init_all_states`` made.

    Args:
      target, *reset_args, node_to_exclude, fn_if_not_exist, **reset_kwargs: as in ``reset_all_states``.
      axis_size: how many instances; may be left out when some State has them.
      state_to_exclude, state_tag: what holds for States that ``reset_state`` creates, as in
        ``vmap_init_all_states``.
      in_states, out_states: States with lanes, as in ``augment.vmap``; by default those that
        ``vmap_init_all_states`` gave lanes.

    Returns:
      The model.
    """
    found = _nodes(target, "reset_state", reset_kwargs, node_to_exclude, fn_if_not_exist)
    reset_lanes(
        "nn.vmap_reset_all_states",
        target,
        found,
        reset_args,
        reset_kwargs,
        node_to_exclude,
        axis_size=axis_size,
        state_to_exclude=state_to_exclude,
        state_tag=state_tag,
        in_states=has_lanes if in_states is None else in_states,
        out_states=out_states,
    )
    return target


def reset_lanes(
    operation: str,
    target: Any,
    nodes: Sequence[tuple[PathParts, Any]],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    node_to_exclude: Filter,
    *,
    in_states: Any = has_lanes,
    **lanes: Any,
) -> None:
    """``reset_nodes`` once per lane."""
    run_lanes(
        operation,
        target,
        lambda: reset_nodes(nodes, args, kwargs, node_to_exclude),
        in_states=in_states,
        **lanes,
    )

"""Creating State over lanes: every lane makes its own, and one State keeps them all along its first axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stategraph.augment.lanes import Lanes, NewStates
from stategraph.augment.vmap import MappedFunction, check_axis_name, mesh_axes
from stategraph.backends.vmap import Caller
from stategraph.typing import Filter

_MISSING: Any = object()


def vmap_new_states(
    fun: Callable[..., Any] = _MISSING,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: str | None = None,
    axis_size: int | None = None,
    spmd_axis_name: str | Sequence[str] | None = None,
    state_tag: str | None = None,
    state_to_exclude: Filter = None,
    in_states: Any = None,
    out_states: Any = None,
) -> Any:
    """A function that runs ``fun`` on many lanes at once, in which ``fun`` may create State.

    A State that ``fun`` creates and assigns to an attribute of a model is one State afterwards, with the
    lanes along a new first axis. Lanes draw independent random numbers. Called eagerly, whatever else ``fun``
    assigns to attributes of the model stays assigned too, as after a plain call. A State that nothing keeps
    ends with its lane.

    Args:
      fun: a function of one lane's arguments.
      in_axes, out_axes, axis_name, axis_size, spmd_axis_name: as in ``vmap``.
      state_tag: a tag for the States that ``fun`` creates.
      state_to_exclude: a filter: which of them are one value without a lane axis, that of the first lane.
      in_states, out_states: what becomes of States that exist before, as in ``vmap``.

    Returns:
      A function of the arguments of all lanes.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Cell(sg.nn.Module):
    ...     def init_state(self):
    ...         self.v = sg.ShortTermState(sg.random.rand(2))
    >>> cell = Cell()
    >>> sg.augment.vmap_new_states(cell.init_state, axis_size=5)()
    >>> cell.v.shape
    (5, 2)
    """
    check_axis_name(axis_name)
    spec = Lanes(
        in_axes,
        out_axes,
        axis_name,
        axis_size,
        in_states,
        out_states,
        False,
        NewStates(state_tag, state_to_exclude),
        spmd_axis_name=mesh_axes(spmd_axis_name),
        caller=Caller("augment.vmap_new_states", forgets=False),
    )
    if fun is _MISSING:
        return lambda function: MappedFunction(function, spec)
    return MappedFunction(fun, spec)


def run_lanes(
    operation: str,
    target: Any,
    lane: Callable[[], None],
    *,
    axis_size: int | None,
    in_states: Any,
    out_states: Any = None,
    state_tag: str | None = None,
    state_to_exclude: Filter = None,
) -> None:
    """Do what a collective operation does to a model once per lane."""
    MappedFunction(
        lane,
        Lanes(
            0,
            0,
            None,
            axis_size,
            in_states,
            out_states,
            False,
            NewStates(state_tag, state_to_exclude),
            caller=Caller(operation, forgets=False),
            target=target,
        ),
    )()

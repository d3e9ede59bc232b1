"""What a derivative is taken with respect to: States and arguments, which of them there are, and what has none.

Shared by ``grad``, the other derivatives and ``vjp``. Conventions: with neither States nor ``argnums`` a derivative is taken
with respect to argument 0, or, for a function of no arguments, to the trainable States that it touches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import jax
import jax.numpy as jnp

from stategraph import _jax, units
from stategraph.errors import TraceError, describe
from stategraph.graph.filters import to_predicate
from stategraph.state import ParamState, State
from stategraph.util.mapping import FlattedDict


@attrs.frozen(eq=False)
class Wanted:
    """What a gradient is taken with respect to, and what is returned."""

    states: Any
    argnums: int | tuple[int, ...] | None
    has_aux: bool
    holomorphic: bool
    allow_int: bool
    unit_aware: bool = False
    """Whether a derivative has the unit of the value over that of what it belongs to."""
    check_states: bool = True
    """Whether a State that the function does not read is an error; else its derivative is zero."""

    def for_call(self, args: Sequence[Any]) -> Wanted:
        """The conventions for what was not said."""
        if self.states is None and self.argnums is None:
            return attrs.evolve(self, states=...) if not args else attrs.evolve(self, argnums=0)
        return self


def selected(
    wanted: Any, touched: Mapping[str, State[Any]]
) -> tuple[list[State[Any]], Callable[[list[Any]], Any]]:
    """(the States meant, how to arrange their gradients): one State, a list or tuple, a mapping, a filter, or
    ``...``.
    """
    if isinstance(wanted, State):
        return [wanted], lambda grads: grads[0]
    if isinstance(wanted, Mapping):
        _only_states(list(wanted.values()))
        if isinstance(wanted, FlattedDict):  # all that a model holds: what has no gradient was not meant
            wanted = {key: state for key, state in wanted.items() if _may_have_gradient(state)}
        keys, states = list(wanted), list(wanted.values())
        return states, lambda grads: dict(zip(keys, grads, strict=True))
    if isinstance(wanted, (list, tuple)) and all(isinstance(item, State) for item in wanted):
        kind = type(wanted)
        return list(wanted), lambda grads: kind(grads)
    predicate = to_predicate(ParamState if wanted is ... or wanted is True else wanted)
    found = {path: state for path, state in touched.items() if predicate(tuple(path.split(".")), state)}
    return list(found.values()), lambda grads: dict(zip(found, grads, strict=True))


def _may_have_gradient(state: State[Any]) -> bool:
    """Whether a State is a parameter, or holds nothing but numbers with a gradient: no integers, no keys."""
    return isinstance(state, ParamState) or all(
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in state._peek()
    )


def _only_states(items: Sequence[Any]) -> None:
    for item in items:
        if not isinstance(item, State):
            raise TypeError(
                f"grad_states holds a {type(item).__name__}; give States, for example model.states(stategraph.ParamState)"
            )


def wanted_of(
    grad_states: Any,
    argnums: Any,
    has_aux: Any,
    holomorphic: bool = False,
    allow_int: bool = False,
    *,
    unit_aware: bool = False,
    check_states: bool = True,
) -> Wanted:
    """What the user asked for; an int (or ints) in the place of States is ``argnums``."""
    if isinstance(grad_states, int) and not isinstance(grad_states, bool) and argnums is None:
        grad_states, argnums = None, grad_states
    if (
        isinstance(grad_states, (tuple, list))
        and grad_states
        and all(isinstance(i, int) for i in grad_states)
        and argnums is None
    ):
        grad_states, argnums = None, tuple(grad_states)
    return Wanted(
        grad_states,
        tuple(argnums) if isinstance(argnums, (list, tuple)) else argnums,
        bool(has_aux),
        holomorphic,
        allow_int,
        unit_aware,
        check_states,
    )


def reading(function: Callable[..., Any], wanted: Wanted) -> Callable[..., Any]:
    """The function, which first reads the States that are asked for where it need not (``check_states=False``)."""
    if wanted.check_states or wanted.states is None:
        return function
    states = list(wanted.states.values()) if isinstance(wanted.states, Mapping) else wanted.states
    named = [s for s in (states if isinstance(states, (list, tuple)) else [states]) if isinstance(s, State)]

    @functools.wraps(function)
    def reads(*args: Any, **kwargs: Any) -> Any:
        for state in named:
            state.value  # noqa: B018
        return function(*args, **kwargs)

    return reads


def states_key(states: Any) -> Any:
    """What identifies the States asked for, for the cache of eager calls."""
    if states is None or states is ... or isinstance(states, (State, type)):
        return states
    if isinstance(states, Mapping):
        return functools.partial(dict, *states.values(), **{repr(k): i for i, k in enumerate(states)})
    if isinstance(states, (list, tuple)):
        return functools.partial(type(states), *states)
    return states


def positions_of(wanted: Wanted, args: Sequence[Any]) -> tuple[int, ...]:
    """The positional arguments to differentiate; raises ``TypeError`` for one that is not there or has no
    gradient.
    """
    positions = (
        ()
        if wanted.argnums is None
        else (wanted.argnums,)
        if isinstance(wanted.argnums, int)
        else tuple(wanted.argnums)
    )
    positions = tuple(p + len(args) if p < 0 else p for p in positions)
    for position in positions:
        if not 0 <= position < len(args):
            raise TypeError(
                f"argnums says argument {position}, but the function was called with {len(args)} positional arguments"
            )
    for leaf in jax.tree.leaves([args[p] for p in positions]):
        _check_dtype(lambda: "an argument", _jax.typeof(leaf), wanted)
    return positions


def combine(wanted: Wanted, state_grads: Any, arg_grads: Any) -> Any:
    if wanted.states is None:
        return arg_grads
    return state_grads if wanted.argnums is None else (state_grads, arg_grads)


def split_aux(result: Any, has_aux: bool) -> tuple[Any, Any]:
    """(value, aux) of what the differentiated function returned."""
    if not has_aux:
        return result, None
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TypeError(f"with has_aux=True the function returns (value, aux), not {type(result).__name__}")
    return result[0], result[1]


def _check_read(states: Sequence[State[Any]], touched: Mapping[str, State[Any]]) -> None:
    """Every State asked for is one that the function reads."""
    for state in states:
        if not any(state is other for other in touched.values()):
            raise TraceError(
                describe(
                    f"The gradient is asked for {state._describe()}, which the function never reads.",
                    state=state._describe(),
                    created=state.source_location,
                    at=_jax.line_in_charge(),
                    why=f"it reads {', '.join(touched) or 'no State'}",
                    fix="leave it out, pass `...` for all trainable States that the function touches, or check_states=False for zeros",
                )
            )


def selected_and_read(
    wanted: Wanted, read: Mapping[str, State[Any]]
) -> tuple[list[State[Any]], Callable[[list[Any]], Any]]:
    """The States to differentiate, each of them read and of a type that has a gradient, and how to arrange
    the gradients.
    """
    states, arrange = selected(wanted.states, read)
    if not states:
        raise TraceError(
            describe(
                "There is no State to differentiate.",
                at=_jax.line_in_charge(),
                why=f"the function reads {', '.join(f'{name} ({type(s).__name__})' for name, s in read.items()) or 'no State'}",
                fix="name the States: grad(f, model.states(stategraph.ParamState)), or make them ParamState",
            )
        )
    _check_read(states, read)
    for state in states:
        for leaf in state._peek():
            _check_dtype(state._describe, leaf, wanted)
    return states, arrange


def _check_dtype(what: Callable[[], str], aval: Any, wanted: Wanted) -> None:
    dtype = aval.dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        if not wanted.holomorphic:
            raise TypeError(
                f"{what()} is complex ({_jax.type_of(aval)}); pass holomorphic=True if the function is"
            )
    elif not jnp.issubdtype(dtype, jnp.floating) and not wanted.allow_int:
        raise TypeError(
            f"the gradient is asked for {what()} of type {dtype}{list(aval.shape)}; only floats have one (allow_int=True gives zeros)"
        )


def check_loss(value: Any, wanted: Wanted) -> None:
    aval = _jax.typeof(value) if isinstance(value, (jax.Array, float, int)) else None
    if units.is_quantity(value):
        raise TypeError(
            describe(
                "The differentiated function returns a quantity.",
                at=_jax.line_in_charge(),
                why="a derivative without units would be that of a number in some unit",
                fix="unit_aware=True for a derivative with units, or return the number: loss.to_decimal(unit)",
            )
        )
    if aval is None or aval.shape != ():
        shape = "no array" if aval is None else f"of shape {tuple(aval.shape)}"
        raise TypeError(
            f"the differentiated function must return a scalar; its value is {shape}"
            + (" (or use has_aux=True)" if aval is None else "")
        )
    if not jnp.issubdtype(aval.dtype, jnp.floating) and not wanted.holomorphic:
        raise TypeError(f"the differentiated function must return a float, not {aval.dtype}")

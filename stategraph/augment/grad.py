"""Gradients with respect to States and arguments.

Inside a trace ``grad`` runs the function once and records it as one ``xform.grad`` op, whose body may read
and write State; the compiler differentiates the body after State has been hoisted out of it. Called eagerly,
that program is compiled and kept.

Conventions: with neither States nor ``argnums`` the gradient is taken with respect to argument 0, or, for a
function of no arguments, to the trainable States that it touches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.augment.eager import eager_gradient
from stategraph.augment.primitive import transformation
from stategraph.compile.cached import run_cached
from stategraph.compile.identity import ByValue, looked_into
from stategraph.errors import TraceError, describe
from stategraph.graph.filters import to_predicate
from stategraph.recording import LOCAL, Recorder, Token
from stategraph.state import ParamState, State
from stategraph.tracing.roots import find_names
from stategraph.util.mapping import FlattedDict

_MISSING: Any = object()


grad_p = transformation("stategraph_grad", "stategraph.augment.grad", "the gradient of a function over State")


@attrs.frozen(eq=False)
class Wanted:
    """What a gradient is taken with respect to, and what is returned."""

    states: Any
    argnums: int | tuple[int, ...] | None
    has_aux: bool
    holomorphic: bool
    allow_int: bool

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


@looked_into
class GradientFunction:
    """A function that returns gradients; made by ``grad`` and ``value_and_grad``."""

    def __init__(
        self, function: Callable[..., Any], wanted: Wanted, value_first: bool, with_value: bool
    ) -> None:
        if not callable(function):
            raise TypeError(f"grad needs a function, not a {type(function).__name__}")
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.wanted = wanted
        self.value_first = value_first
        self.with_value = with_value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        wanted = self.wanted.for_call(args)
        positions = positions_of(wanted, args)
        recorder = LOCAL.recorder
        if recorder is not None:
            parts = record_gradient(recorder, self.function, wanted, positions, args, kwargs)
        elif _jax.DISABLE_JIT.value or _jax.current_trace() is not None:
            select = functools.partial(_selected_and_read, wanted)
            parts = eager_gradient(
                self.function, wanted, positions, args, kwargs, select, functools.partial(_parted, wanted)
            )
        else:

            def body_of(function: Callable[..., Any]) -> Callable[..., Any]:
                def body(arguments: Any, others: Any) -> Any:
                    found = LOCAL.recorder
                    assert found is not None
                    return self._arrange(
                        *record_gradient(found, function, wanted, positions, arguments, others)
                    )

                return body

            flags, states = self._said()
            return run_cached("grad", (self.function,), flags.value, body_of, (args, kwargs), also=(states,))
        return self._arrange(*parts)

    def _said(self) -> tuple[Any, ...]:
        """What a gradient is, besides the function's, for the cache of eager calls."""
        wanted = self.wanted
        flags = (self.value_first, self.with_value, wanted.has_aux, wanted.holomorphic, wanted.allow_int)
        return (ByValue((*flags, wanted.argnums)), _StatesKey(wanted.states))

    def _arrange(self, grads: Any, value: Any, aux: Any) -> Any:
        has_aux = self.wanted.has_aux
        if self.value_first:
            return ((value, aux) if has_aux else value), grads
        found = (grads, *((value,) if self.with_value else ()), *((aux,) if has_aux else ()))
        return found if len(found) > 1 else grads

    def __repr__(self) -> str:
        return f"<gradient of {getattr(self.function, '__qualname__', repr(self.function))}>"


def _StatesKey(states: Any) -> Any:
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


def _parted(wanted: Wanted, result: Any) -> tuple[Any, Any]:
    """(value, aux) of what the differentiated function returned."""
    if not wanted.has_aux:
        _check_loss(result, wanted)
        return result, None
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TypeError(f"with has_aux=True the function returns (value, aux), not {type(result).__name__}")
    _check_loss(result[0], wanted)
    return result[0], result[1]


def record_gradient(
    recorder: Recorder,
    function: Callable[..., Any],
    wanted: Wanted,
    positions: Sequence[int],
    args: Sequence[Any],
    kwargs: dict[str, Any],
) -> tuple[Any, Any, Any]:
    """(gradients, value, aux) as values of the program being traced."""
    leaves, tree = jax.tree.flatten([args[p] for p in positions])
    kept: dict[str, Any] = {}

    def run(*flat: Any) -> list[Any]:
        given = list(args)
        for position, value in zip(positions, jax.tree.unflatten(tree, flat), strict=True):
            given[position] = value
        value, aux = _parted(wanted, function(*given, **kwargs))
        rest, kept["aux"] = jax.tree.flatten(aux)
        return [value, *rest]

    name = getattr(function, "__name__", type(function).__name__)
    avals = [_jax.typeof(leaf) for leaf in leaves]
    before = list(zip(recorder.avals, recorder.trees, strict=True))
    jaxpr, consts = _jax.trace_flat(run, avals, traced_for="stategraph grad", name=name)
    body = _jax.close_over(jaxpr)
    tokens, arrange = _state_tokens(recorder, function, wanted, body)
    loss, *aux_avals = (var.aval for var in jaxpr.outvars)
    entry = [
        before[token] if token < len(before) else recorder.entry[token] or ((), None) for token in tokens
    ]
    gradients = [
        _jax.gradient_aval(aval) for aval in (*avals, *(aval for given, _ in entry for aval in given))
    ]
    results = grad_p.bind(
        *consts,
        *leaves,
        jaxpr=body,
        num_consts=len(consts),
        tokens=tuple(tokens),
        out_avals=(loss, *aux_avals, *gradients),
        holomorphic=wanted.holomorphic,
        allow_int=wanted.allow_int,
    )
    value, rest = results[0], results[1 : 1 + len(aux_avals)]
    flat = results[1 + len(aux_avals) :]
    arg_grads: Any = jax.tree.unflatten(tree, flat[: len(leaves)])
    if isinstance(wanted.argnums, int):
        (arg_grads,) = arg_grads
    elif wanted.argnums is not None:
        arg_grads = tuple(arg_grads)
    per_state = []
    offset = len(leaves)
    for given_avals, given_tree in entry:
        chunk = flat[offset : offset + len(given_avals)]
        offset += len(given_avals)
        per_state.append(chunk[0] if given_tree is None else jax.tree.unflatten(given_tree, chunk))
    return (
        _combine(wanted, arrange(per_state) if wanted.states is not None else None, arg_grads),
        value,
        jax.tree.unflatten(kept["aux"], rest),
    )


def _combine(wanted: Wanted, state_grads: Any, arg_grads: Any) -> Any:
    if wanted.states is None:
        return arg_grads
    return state_grads if wanted.argnums is None else (state_grads, arg_grads)


def _state_tokens(
    recorder: Recorder, function: Callable[..., Any], wanted: Wanted, body: Any
) -> tuple[list[Token], Callable[[list[Any]], Any]]:
    if wanted.states is None:
        return [], lambda grads: None
    read: dict[Token, None] = {}
    for eqn in _jax.equations_of(body, ("state_read",)):
        read[eqn.params["token"]] = None
    born = {eqn.params["token"] for eqn in _jax.equations_of(body, ("state_alloc",))}
    names, _ = find_names(function)
    touched = {}
    for token in read:
        owner = recorder.owners[token]
        if token not in born:
            touched[names.get(id(owner)) or owner.name or f"state{int(token)}"] = owner
    states, arrange = _selected_and_read(wanted, touched)
    return [recorder.tokens[id(state)] for state in states], arrange


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
                    fix="leave it out, or pass `...` for all trainable States that the function touches",
                )
            )


def _selected_and_read(
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


def _check_loss(value: Any, wanted: Wanted) -> None:
    aval = _jax.typeof(value) if isinstance(value, (jax.Array, float, int)) else None
    if aval is None or aval.shape != ():
        shape = "no array" if aval is None else f"of shape {tuple(aval.shape)}"
        raise TypeError(
            f"the differentiated function must return a scalar; its value is {shape}"
            + (" (or use has_aux=True)" if aval is None else "")
        )
    if not jnp.issubdtype(aval.dtype, jnp.floating) and not wanted.holomorphic:
        raise TypeError(f"the differentiated function must return a float, not {aval.dtype}")


def _make(
    function: Any,
    grad_states: Any,
    argnums: Any,
    has_aux: Any,
    holomorphic: bool,
    allow_int: bool,
    value_first: bool,
    with_value: bool,
) -> Any:
    if isinstance(grad_states, int) and not isinstance(grad_states, bool) and argnums is None:
        grad_states, argnums = None, grad_states
    if (
        isinstance(grad_states, (tuple, list))
        and grad_states
        and all(isinstance(i, int) for i in grad_states)
        and argnums is None
    ):
        grad_states, argnums = None, tuple(grad_states)
    argnums = tuple(argnums) if isinstance(argnums, (list, tuple)) else argnums
    wanted = Wanted(grad_states, argnums, bool(has_aux), holomorphic, allow_int)
    if function is _MISSING:
        return lambda f: GradientFunction(f, wanted, value_first, with_value)
    return GradientFunction(function, wanted, value_first, with_value)


def grad(
    fun: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    *,
    has_aux: bool | None = None,
    return_value: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Any:
    """The gradient of a scalar function of State and arguments.

    Args:
      fun: returns a scalar float, or ``(scalar, aux)`` with ``has_aux=True``. State that it writes is
        written, once.
      grad_states: a State, a list or mapping of States, a filter, or ``...`` for all trainable States that
        the function touches. Of ``model.states()`` those of integers or keys are left out, unless they are parameters.
      argnums: position(s) of arguments. An int given as second positional argument is ``argnums``.
      return_value: return the value as well.

    Returns:
      A function giving ``grads``, ``(grads, value)``, ``(grads, aux)`` or ``(grads, value, aux)``. Gradients
      have the structure that was asked for; with States and ``argnums`` they are ``(state_grads,
      arg_grads)``.

    Example:

    >>> import stategraph as sg
    >>> w = sg.ParamState(3.)
    >>> float(sg.augment.grad(lambda x: w.value ** 2 * x, w)(2.))
    12.0
    """
    return _make(fun, grad_states, argnums, has_aux, holomorphic, allow_int, False, return_value)


def value_and_grad(
    fun: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    *,
    has_aux: bool | None = None,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Any:
    """Like ``grad``, returning ``(value, grads)``, or ``((value, aux), grads)`` with ``has_aux=True``."""
    return _make(fun, grad_states, argnums, has_aux, holomorphic, allow_int, True, True)

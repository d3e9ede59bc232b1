"""Gradients with respect to States and arguments.

Inside a trace ``grad`` runs the function once and records it as one ``xform.grad`` op, whose body may read
and write State; the compiler differentiates the body after State has been hoisted out of it. Called eagerly,
that program is compiled and kept.

What it is taken with respect to is in ``wanted``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.augment.eager import eager_gradient
from stategraph.augment.primitive import transformation
from stategraph.augment.unit_aware import UnitsOf
from stategraph.augment.wanted import (
    Wanted,
    check_loss,
    combine,
    positions_of,
    reading,
    selected_and_read,
    split_aux,
    states_key,
    wanted_of,
)
from stategraph.compile.cached import run_cached
from stategraph.compile.identity import ByValue, looked_into
from stategraph.recording import LOCAL, Recorder, Token
from stategraph.tracing.roots import StateNames

_MISSING: Any = object()


grad_p = transformation("stategraph_grad", "stategraph.augment.grad", "the gradient of a function over State")


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
        if LOCAL.recorder is not None or _jax.DISABLE_JIT.value or _jax.current_trace() is not None:
            return self._run(self.function, wanted, positions, args, kwargs)

        def body_of(function: Callable[..., Any]) -> Callable[..., Any]:
            def body(arguments: Any, others: Any) -> Any:
                return self._run(function, wanted, positions, arguments, others)

            return body

        flags, states = self._said()
        return run_cached("grad", (self.function,), flags.value, body_of, (args, kwargs), also=(states,))

    def _run(
        self,
        function: Callable[..., Any],
        wanted: Wanted,
        positions: Sequence[int],
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        units = UnitsOf(wanted)
        function = units.taken_off(reading(function, wanted))
        recorder = LOCAL.recorder
        if recorder is not None:
            grads, value, aux = record_gradient(recorder, function, wanted, positions, args, kwargs)
        else:
            select = functools.partial(selected_and_read, wanted)
            part = functools.partial(_parted, wanted)
            grads, value, aux = eager_gradient(function, wanted, positions, args, kwargs, select, part)
        return self._arrange(units.of_gradient(grads), units.put_on(value), aux)

    def _said(self) -> tuple[Any, ...]:
        """What a gradient is, besides the function's, for the cache of eager calls."""
        wanted = self.wanted
        flags = (self.value_first, self.with_value, *attrs.astuple(attrs.evolve(wanted, states=None)))
        return (ByValue(flags), states_key(wanted.states))

    def _arrange(self, grads: Any, value: Any, aux: Any) -> Any:
        has_aux = self.wanted.has_aux
        if self.value_first:
            return ((value, aux) if has_aux else value), grads
        found = (grads, *((value,) if self.with_value else ()), *((aux,) if has_aux else ()))
        return found if len(found) > 1 else grads

    def __repr__(self) -> str:
        return f"<gradient of {getattr(self.function, '__qualname__', repr(self.function))}>"


def _parted(wanted: Wanted, result: Any) -> tuple[Any, Any]:
    """(value, aux) of what the differentiated function returned."""
    value, aux = split_aux(result, wanted.has_aux)
    check_loss(value, wanted)
    return value, aux


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
    tokens, arrange = state_tokens(recorder, function, wanted, body)
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
        combine(wanted, arrange(per_state) if wanted.states is not None else None, arg_grads),
        value,
        jax.tree.unflatten(kept["aux"], rest),
    )


def state_tokens(
    recorder: Recorder, function: Callable[..., Any], wanted: Wanted, body: Any
) -> tuple[list[Token], Callable[[list[Any]], Any]]:
    if wanted.states is None:
        return [], lambda grads: None
    read: dict[Token, None] = {}
    for eqn in _jax.equations_of(body, ("state_read",)):
        read[eqn.params["token"]] = None
    born = {eqn.params["token"] for eqn in _jax.equations_of(body, ("state_alloc",))}
    names = StateNames(function)
    touched = {
        names.of(recorder.owners[token]): recorder.owners[token] for token in read if token not in born
    }
    states, arrange = selected_and_read(wanted, touched)
    return [recorder.tokens[id(state)] for state in states], arrange


def _make(function: Any, wanted: Wanted, value_first: bool, with_value: bool) -> Any:
    if function is _MISSING:
        return lambda f: GradientFunction(f, wanted, value_first, with_value)
    return GradientFunction(function, wanted, value_first, with_value)


def grad(
    fun: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    holomorphic: bool = False,
    allow_int: bool = False,
    has_aux: bool | None = None,
    return_value: bool = False,
    unit_aware: bool = False,
    check_states: bool = True,
) -> Any:
    """The gradient of a scalar function of State and arguments.

    Args:
      fun: returns a scalar float, or ``(scalar, aux)`` with ``has_aux=True``. State that it writes is
        written, once.
      grad_states: a State, a list or mapping of States, a filter, or ``...`` for all trainable States that
        the function touches. Of ``model.states()`` those of integers or keys are left out, unless they are parameters.
      argnums: position(s) of arguments. An int given as second positional argument is ``argnums``.
      return_value: return the value as well.
      holomorphic: whether the function is holomorphic; only then may States, arguments and value be complex.
      allow_int: whether integers have a gradient too: zeros, of type ``float0``.
      unit_aware: whether the value may be a quantity, and each gradient has the value's unit over its own (extra
        ``units``). Without it a gradient has the unit of what it belongs to, and the value must be a number.
      check_states: whether a State in ``grad_states`` that the function does not read is an error; with False its
        gradient is zero.

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
    wanted = wanted_of(
        grad_states,
        argnums,
        has_aux,
        holomorphic,
        allow_int,
        unit_aware=unit_aware,
        check_states=check_states,
    )
    return _make(fun, wanted, False, return_value)


def value_and_grad(
    fun: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    *,
    has_aux: bool | None = None,
    holomorphic: bool = False,
    allow_int: bool = False,
    unit_aware: bool = False,
    check_states: bool = True,
) -> Any:
    """Like ``grad``, returning ``(value, grads)``, or ``((value, aux), grads)`` with ``has_aux=True``."""
    wanted = wanted_of(
        grad_states,
        argnums,
        has_aux,
        holomorphic,
        allow_int,
        unit_aware=unit_aware,
        check_states=check_states,
    )
    return _make(fun, wanted, True, True)

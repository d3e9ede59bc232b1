"""Gradients in eager Python: the meaning that the compiled form is compared with.

Used under ``jax.disable_jit()``. The States that the function touches are found by tracing it; then ``jax.value_and_grad`` runs the function itself, with
differentiated values in the States, and what it wrote is assigned at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategraph.recording import LOCAL
from stategraph.state import State
from stategraph.tracing.tracer import touched_states


def eager_gradient(function: Callable[..., Any], wanted: Any, args: Sequence[Any], kwargs: dict[str, Any], selected: Any) -> tuple[Any, Any, Any]:
    """(gradients, value, aux)."""
    with jax.disable_jit(False):
        touched, read = touched_states(function, args, kwargs)
    states, arrange = ([], lambda grads: None) if wanted.states is None else selected(wanted.states, read)
    positions = () if wanted.argnums is None else (wanted.argnums,) if isinstance(wanted.argnums, int) else tuple(wanted.argnums)
    before = {path: state.value for path, state in touched.items()}

    def pure(diff: Any) -> Any:
        given = list(args)
        for position, value in zip(positions, diff[0], strict=True):
            given[position] = value
        for state, value in zip(states, diff[1], strict=True):
            state.value = value
        result = function(*given, **kwargs)
        value, aux = result if wanted.has_aux else (result, None)
        return value, (aux, {path: state.value for path, state in touched.items()})

    outer, LOCAL.writable = LOCAL.writable, True
    try:
        start = ([args[p] for p in positions], [state.value for state in states])
        differentiated = jax.value_and_grad(pure, has_aux=True, holomorphic=wanted.holomorphic, allow_int=wanted.allow_int)
        (value, (aux, after)), (arg_grads, state_grads) = differentiated(start)
    except BaseException:
        _assign(touched, before)
        raise
    finally:
        LOCAL.writable = outer
    _assign(touched, after)
    gradients: Any = tuple(arg_grads) if not isinstance(wanted.argnums, int) else arg_grads[0]
    if wanted.states is not None:
        gradients = arrange(state_grads) if wanted.argnums is None else (arrange(state_grads), gradients)
    return gradients, value, aux


def _assign(states: dict[str, State[Any]], values: dict[str, Any]) -> None:
    outer, LOCAL.writable = LOCAL.writable, True
    try:
        for path, value in values.items():
            states[path].value = value
    finally:
        LOCAL.writable = outer

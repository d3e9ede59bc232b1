"""Gradients in eager Python: the meaning that the compiled form is compared with.

Used under ``jax.disable_jit()``. The States that the function touches are found by tracing it; then ``jax.value_and_grad`` runs the function itself, with
differentiated values in the States, and what it wrote is assigned at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from stategraph.recording import LOCAL
from stategraph.state import State
from stategraph.tracing.tracer import touched_states


def eager_gradient(
    function: Callable[..., Any],
    wanted: Any,
    positions: Sequence[int],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    select: Callable[[Mapping[str, State[Any]]], Any],
    part: Callable[[Any], tuple[Any, Any]],
) -> tuple[Any, Any, Any]:
    """(gradients, value, aux). ``select`` finds the States meant among those that are read, ``part`` takes the function's result apart."""
    with jax.disable_jit(False):
        touched, read = touched_states(function, args, kwargs)
    states, arrange = ([], lambda grads: None) if wanted.states is None else select(read)
    before = {path: state.value for path, state in touched.items()}

    def pure(diff: Any) -> Any:
        given = list(args)
        for position, value in zip(positions, diff[0], strict=True):
            given[position] = value
        for state, value in zip(states, diff[1], strict=True):
            state.value = value
        start = {path: jax.tree.leaves(state.value) for path, state in touched.items()}
        value, aux = part(function(*given, **kwargs))
        end = {path: state.value for path, state in touched.items()}
        written.update(path for path in touched if not _same_leaves(jax.tree.leaves(end[path]), start[path]))
        return value, (aux, end)

    written: set[str] = set()
    outer, LOCAL.writable = LOCAL.writable, True
    try:
        start = ([args[p] for p in positions], [state.value for state in states])
        differentiated = jax.value_and_grad(pure, has_aux=True, holomorphic=wanted.holomorphic, allow_int=wanted.allow_int)
        (value, (aux, after)), (arg_grads, state_grads) = differentiated(start)
    finally:
        for path, state in touched.items():
            state.value = before[path]
        LOCAL.writable = outer
    for path in touched:
        if path in written:
            touched[path].value = after[path]
    gradients: Any = tuple(arg_grads) if not isinstance(wanted.argnums, int) else arg_grads[0]
    if wanted.states is not None:
        gradients = arrange(state_grads) if wanted.argnums is None else (arrange(state_grads), gradients)
    return gradients, value, aux


def _same_leaves(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))

"""``make_jaxpr``: what a function over State is to JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax

from stategraph.compile.jit import JittedFunction
from stategraph.state import State


def make_jaxpr(
    fun: Callable[..., Any],
    static_argnums: int | Iterable[int] = (),
    static_argnames: str | Iterable[str] = (),
    return_shape: bool = False,
) -> Callable[..., Any]:
    """A function that gives ``(jaxpr, states)`` for its arguments instead of running ``fun``.

    The jaxpr is pure: its inputs are the leaves of the States that are read (``states``, in that order),
    captured arrays, and the arguments; its outputs are the results and the leaves of the States that are
    written. With ``return_shape`` the shapes of the results come second: ``(jaxpr, shapes, states)``.
    """

    def traced(*args: Any, **kwargs: Any) -> Any:
        jitted = JittedFunction(
            fun, static_argnums=static_argnums or None, static_argnames=static_argnames or None
        )
        lowered = jitted.trace(*args, **kwargs).lower()
        executable, live = lowered.executable, lowered.traced.trace.states
        order = dict.fromkeys(path for path, _ in (*executable.donated, *executable.kept))
        states: tuple[State[Any], ...] = tuple(live[path] for path in order)
        if not return_shape:
            return executable.body, states
        out_tree = lowered.traced.trace.out_tree
        avals = executable.body.out_avals[: out_tree.num_leaves]
        shapes = jax.tree.unflatten(out_tree, [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals])
        return executable.body, shapes, states

    return traced

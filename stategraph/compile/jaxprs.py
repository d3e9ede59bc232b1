"""``make_jaxpr``: what a function over State is to JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from stategraph import _jax
from stategraph.compile.jit import JittedFunction
from stategraph.state import State


def make_jaxpr(
    fun: Callable[..., Any],
    static_argnums: int | Iterable[int] = (),
    static_argnames: str | Iterable[str] = (),
    axis_env: Sequence[tuple[str, int]] | None = None,
    return_shape: bool = False,
    return_only_write: bool = False,
) -> Callable[..., Any]:
    """A function that gives ``(jaxpr, states)`` for its arguments instead of running ``fun``.

    The jaxpr is pure. Its inputs are the leaves of ``states``, one State after the other, then those of the
    arguments; its outputs are the results of ``fun``, then the leaves of the same States afterwards.

    Args:
      fun: any callable that reads and writes State; it does not run, so no State changes.
      static_argnums, static_argnames: arguments that are part of the program, as for ``jit``.
      axis_env: axes that collectives such as ``jax.lax.psum`` may name, as (name, size).
      return_shape: whether the shapes of the results come second: ``(jaxpr, shapes, states)``.
      return_only_write: whether the outputs have only the States that are written; these are the first of
        ``states``.

    Example:

    >>> import jax.extend
    >>> import stategraph as sg
    >>> total, gain = sg.State(1.), sg.State(2.)
    >>> def add(x):
    ...     total.value += gain.value * x
    ...     return x + 1
    >>> jaxpr, states = sg.compile.make_jaxpr(add)(3.)
    >>> states == (total, gain)
    True
    >>> [float(y) for y in jax.extend.core.jaxpr_as_fun(jaxpr)(*(s.value for s in states), 3.)]  # 3 + 1, total, gain
    [4.0, 7.0, 2.0]
    """

    def traced(*args: Any, **kwargs: Any) -> Any:
        jitted = JittedFunction(
            fun, static_argnums=static_argnums or None, static_argnames=static_argnames or None
        )
        with _jax.named_axes(axis_env or ()):
            lowered = jitted.trace(*args, **kwargs).lower()
            executable, record = lowered.executable, lowered.traced.trace
            written = {path for path, _ in executable.written}
            touched = dict.fromkeys(
                path for path, _ in (*executable.written, *executable.donated, *executable.kept)
            )
            states: dict[str, State[Any]] = {p: record.states[p] for p in touched if p in record.states}
            before = {(p, i): leaf for p, state in states.items() for i, leaf in enumerate(state._peek())}
            given = [*executable.donated, *executable.kept]
            captured = list(executable.program.captured.values())
            count = record.out_tree.num_leaves

            def pure(*inputs: Any) -> list[Any]:
                held = dict(zip(before, inputs, strict=False))
                operands = [*(held[leaf] for leaf in given), *captured, *inputs[len(before) :]]
                outputs = _jax.eval_body(*_jax.body_parts(executable.body), *operands)
                held |= zip(
                    executable.written, outputs[len(outputs) - len(executable.written) :], strict=True
                )
                sizes = {path: len(executable.program.states[path].result_types) for path in states}
                returned = [path for path in states if path in written or not return_only_write]
                return [*outputs[:count], *(held[path, i] for path in returned for i in range(sizes[path]))]

            arguments = executable.input_avals[len(given) + len(captured) :]
            avals = [*map(_jax.typeof, before.values()), *arguments]
            inputs = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in avals]
            jaxpr = jax.make_jaxpr(pure)(*inputs)
        if not return_shape:
            return jaxpr, tuple(states.values())
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in jaxpr.out_avals[:count]]
        return jaxpr, jax.tree.unflatten(record.out_tree, shapes), tuple(states.values())

    return traced

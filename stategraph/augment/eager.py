"""Derivatives in eager Python: the meaning that the compiled form is compared with.

Used under ``jax.disable_jit()``, and inside JAX traces that are not ours. The States that the function
touches are found by tracing it; then JAX differentiates the function itself, with differentiated values in
the States, and what it wrote is assigned at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.augment.lanes import reachable_states
from stategraph.eager_writes import writable_here
from stategraph.state import State
from stategraph.tracing.tracer import touched_states

Select = Callable[[Mapping[str, State[Any]]], tuple[list[State[Any]], Callable[[list[Any]], Any]]]
"""From the States that are read to (the States meant, how to arrange what belongs to them)."""


class Purified:
    """A function over State as a pure one: ``(differentiated arguments, values of States) -> (value, (aux,
    States afterwards))``.

    It runs inside ``with``, which puts back what the States held; ``commit`` then assigns what the function
    wrote.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        positions: Sequence[int],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        select: Select | None,
        part: Callable[[Any], tuple[Any, Any]],
    ) -> None:
        self.function, self.positions, self.args, self.kwargs, self.part = (
            function,
            positions,
            args,
            kwargs,
            part,
        )
        with jax.disable_jit(False):
            self.touched, read = touched_states(function, args, kwargs)
        self.states: list[State[Any]]
        self.arrange: Callable[[list[Any]], Any]
        self.states, self.arrange = ([], lambda grads: None) if select is None else select(read)
        self.before = {path: state.value for path, state in self.touched.items()}
        self.written: set[str] = set()
        self.existing = reachable_states(function)
        self.start = ([args[p] for p in positions], [state.value for state in self.states])
        self._scope = writable_here()

    def __call__(self, diff: Any) -> Any:
        touched = self.touched
        given = list(self.args)
        for position, value in zip(self.positions, diff[0], strict=True):
            given[position] = value
        for state, value in zip(self.states, diff[1], strict=True):
            state.value = value
        start = {path: jax.tree.leaves(state.value) for path, state in touched.items()}
        value, aux = self.part(self.function(*given, **self.kwargs))
        end = {path: state.value for path, state in touched.items()}
        self.written.update(
            path for path in touched if not _same_leaves(jax.tree.leaves(end[path]), start[path])
        )
        return value, (aux, (end, {path: state.value for path, state in self._born().items()}))

    def _born(self) -> dict[str, State[Any]]:
        """States that the function created and a Node keeps."""
        known = set(map(id, self.existing.values()))
        return {path: s for path, s in reachable_states(self.function).items() if id(s) not in known}

    def __enter__(self) -> Purified:
        self._scope.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        for path, state in self.touched.items():
            state.value = self.before[path]
        self._scope.__exit__(*exc)

    def commit(self, after: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
        """Assign what the function wrote."""
        end, born = after
        for path in self.touched:
            if path in self.written:
                self.touched[path].value = end[path]
        for path, state in self._born().items():
            if path in born:
                state._outlive(born[path])


def eager_gradient(
    function: Callable[..., Any],
    wanted: Any,
    positions: Sequence[int],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    select: Select,
    part: Callable[[Any], tuple[Any, Any]],
) -> tuple[Any, Any, Any]:
    """(gradients, value, aux). ``select`` finds the States meant among those that are read, ``part`` takes
    the function's result apart.
    """
    pure = Purified(function, positions, args, kwargs, None if wanted.states is None else select, part)
    with pure:
        differentiated = jax.value_and_grad(
            pure, has_aux=True, holomorphic=wanted.holomorphic, allow_int=wanted.allow_int
        )
        (value, (aux, after)), (arg_grads, state_grads) = differentiated(pure.start)
    pure.commit(after)
    gradients: Any = tuple(arg_grads) if not isinstance(wanted.argnums, int) else arg_grads[0]
    if wanted.states is not None:
        gradients = (
            pure.arrange(state_grads) if wanted.argnums is None else (pure.arrange(state_grads), gradients)
        )
    return gradients, value, aux


class EagerProduct:
    """One run of a function over State, linearized by JAX: what ``products.Recording`` is inside a trace."""

    def __init__(
        self,
        function: Callable[..., Any],
        wanted: Any,
        positions: Sequence[int],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        select: Select,
        part: Callable[[Any], tuple[Any, Any]],
        mode: str,
    ) -> None:
        self.pure = Purified(
            function, positions, args, kwargs, None if wanted.states is None else select, part
        )
        self.arrange_states = self.pure.arrange
        self.flat, self._tree = jax.tree.flatten(self.pure.start)
        self.arg_tree = jax.tree.structure(self.pure.start[0])
        self.state_trees = [jax.tree.structure(value) for value in self.pure.start[1]]
        self.inputs = [_jax.typeof(leaf) for leaf in self.flat]
        self._active = [i for i, aval in enumerate(self.inputs) if _jax.has_tangent(aval)]
        primals = [jnp.asarray(self.flat[i]) for i in self._active]
        with self.pure:
            if mode == "jvp":
                _, linear, rest = jax.linearize(self._moving, *primals, has_aux=True)
                self._linear: Callable[..., Any] = lambda *tangents: linear(
                    *_jax.cast_like(tangents, primals)
                )
            else:
                outputs, pull, rest = jax.vjp(self._moving, *primals, has_aux=True)
                self._linear = lambda *cotangents: pull(_jax.cast_like(cotangents, outputs))
        self.value, (self.aux, after) = rest
        self.pure.commit(after)
        leaves, self.value_tree = jax.tree.flatten(self.value)
        self.outputs = [_jax.typeof(jnp.asarray(leaf)) for leaf in leaves]
        self._results = self.outputs if mode == "jvp" else self.inputs

    def _moving(self, *moving: Any) -> Any:
        full = list(self.flat)
        for i, x in zip(self._active, moving, strict=True):
            full[i] = x
        value, rest = self.pure(jax.tree.unflatten(self._tree, full))
        leaves = [jnp.asarray(x) for x in jax.tree.leaves(value)]
        return [x for x in leaves if _jax.has_tangent(_jax.typeof(x))], (value, rest)

    def linear(self, seeds: Sequence[Any], lanes: int | None = None) -> list[Any]:
        """What the tangents of the inputs (cotangents of the outputs) become; of as many as there are
        lanes.
        """
        if lanes is None:
            return list(self._linear(*seeds))
        found = [self._linear(*(seed[lane] for seed in seeds)) for lane in range(lanes)]
        if not found:
            return [
                jnp.zeros((0, *aval.shape), aval.dtype) for aval in self._results if _jax.has_tangent(aval)
            ]
        return [jnp.stack(column) for column in zip(*found, strict=True)]


def _same_leaves(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))

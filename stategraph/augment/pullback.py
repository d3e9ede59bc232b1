"""``vjp`` and ``jvp``: one run of a function over State, and its linear map.

Inside a trace a pullback is an op of the program, which runs the function again on copies of the States as
they were: what is cheap is computed once all the same (equal ops are merged), a loop is run twice. Called
eagerly, the function is traced, and JAX keeps what the pullback needs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.augment.derivatives import product_of
from stategraph.augment.products import Product, Recording, arranged
from stategraph.augment.wanted import Wanted, positions_of, selected_and_read, split_aux, wanted_of
from stategraph.backends.params import treedef_of
from stategraph.backends.pure import pure_function
from stategraph.compile.cached import run_cached
from stategraph.errors import TraceError, describe, underivable
from stategraph.recording import LOCAL
from stategraph.state import State
from stategraph.tracing.pause import paused_gc
from stategraph.tracing.tracer import trace_function


def vjp(
    fun: Callable[..., Any],
    *primals: Any,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = 0,
    has_aux: bool = False,
) -> Any:
    """The value of a function over State, and its pullback: from cotangents of the value to those of States
    and arguments.

    Args:
      fun: returns arrays of any shape and structure, or ``(value, aux)`` with ``has_aux=True``. It runs once,
        now: State that it writes is written.
      *primals: its arguments.
      grad_states: as in ``grad``; without them and without arguments, all trainable States that the function
        touches.
      argnums: position(s) of the arguments to differentiate; None for States only.

    Returns:
      ``(value, pullback)``, or ``(value, pullback, aux)``. ``pullback(cotangent)``, for a cotangent like the
      value, gives what ``grad`` gives; it may be called any number of times and writes no State. Derivatives
      are taken at what the States hold when ``fun`` runs.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> w, count = sg.ParamState(jnp.array([2., 3.])), sg.State(0)
    >>> def f(x):
    ...     count.value += 1
    ...     return w.value * x
    >>> value, pullback = sg.augment.vjp(f, 5., grad_states=w)
    >>> pullback(jnp.array([1., 0.]))
    (Array([5., 0.], dtype=float32), Array(2., dtype=float32, weak_type=True))
    >>> int(count.value)
    1
    """
    wanted = wanted_of(grad_states, argnums if primals else None, has_aux, True, True).for_call(primals)
    positions = positions_of(wanted, primals)
    part = functools.partial(split_aux, has_aux=has_aux)
    product: Product
    if LOCAL.recorder is None and not _jax.under_disable_jit() and _jax.current_trace() is None:
        product = _Traced(fun, wanted, positions, primals, part)
    else:
        product = product_of(fun, wanted, positions, primals, {}, part, "vjp")
    linear = product.call() if isinstance(product, Recording) else product.linear

    def pullback(cotangent: Any) -> Any:
        return arranged(
            product,
            wanted,
            linear(_seeds("cotangent", cotangent, product.value_tree, product.outputs, "value")),
        )

    return (product.value, pullback, product.aux) if has_aux else (product.value, pullback)


def jvp(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> Any:
    """The value of a function over State, and how it changes when its arguments move along ``tangents``.

    Args:
      fun: returns arrays of any shape and structure, or ``(value, aux)`` with ``has_aux=True``. It runs once;
        State that it writes is written once.
      primals: its arguments.
      tangents: one for each argument, with its structure and shapes.

    Returns:
      ``(value, tangent)``, or ``(value, tangent, aux)``.

    Example:

    >>> import stategraph as sg
    >>> w = sg.State(3.)
    >>> value, tangent = sg.augment.jvp(lambda x: w.value * x ** 2, (2.,), (1.,))
    >>> float(value), float(tangent)
    (12.0, 12.0)
    """
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"{name} of jvp is a tuple or list of arguments, not a {type(given).__name__}")
    tree = jax.tree.structure(list(primals))
    seeds = _seeds(
        "tangents",
        list(tangents),
        tree,
        [_jax.typeof(leaf) for leaf in jax.tree.leaves(list(primals))],
        "primals",
    )
    positions = tuple(range(len(primals)))
    wanted = Wanted(None, positions, has_aux, True, True)
    part = functools.partial(split_aux, has_aux=has_aux)

    def body_of(fun: Callable[..., Any]) -> Callable[..., Any]:
        def run(arguments: Any, seeds: Any) -> Any:
            product = product_of(fun, wanted, positions, arguments, {}, part, "jvp")
            moved = iter(product.linear(seeds))
            found = [next(moved) if _jax.has_tangent(aval) else None for aval in product.outputs]
            return product.value, found, product.aux

        return run

    operands = (tuple(primals), seeds)
    if LOCAL.recorder is None and not _jax.under_disable_jit() and _jax.current_trace() is None:
        value, found, aux = run_cached("jvp", (fun,), (has_aux,), body_of, operands)
    else:
        value, found, aux = body_of(fun)(*operands)
    leaves, value_tree = jax.tree.flatten(value)
    filled = [_jax.zero_tangent(leaf) if x is None else x for x, leaf in zip(found, leaves, strict=True)]
    tangent = jax.tree.unflatten(value_tree, filled)
    return (value, tangent, aux) if has_aux else (value, tangent)


def _seeds(name: str, given: Any, tree: Any, avals: Sequence[Any], like: str) -> list[Any]:
    """The leaves of tangents or cotangents that matter, checked against what they belong to."""
    leaves, found = jax.tree.flatten(given)
    if found != tree:
        raise TypeError(f"the {name} must have the structure of the {like}, {tree}, and has {found}")
    seeds = []
    for leaf, aval in zip(leaves, avals, strict=True):
        if np.shape(leaf) != tuple(aval.shape):
            raise TypeError(
                f"a leaf of the {name} has shape {np.shape(leaf)}; the {like} has {_jax.type_of(aval)} there"
            )
        if _jax.has_tangent(aval):
            seeds.append(jnp.asarray(leaf, aval.dtype))
    return seeds


class _Traced:
    """One run of a function called eagerly, as a program that JAX differentiates: a ``Product``."""

    def __init__(
        self,
        function: Callable[..., Any],
        wanted: Wanted,
        positions: Sequence[int],
        args: Sequence[Any],
        part: Callable[[Any], tuple[Any, Any]],
    ) -> None:
        record = trace_function(function, args, {})
        if record.born:
            first = next(iter(record.born.values()))
            raise TraceError(
                describe(
                    f"{first._describe()} is created by the function given to vjp, and kept.",
                    created=first.source_location,
                    why="vjp, called eagerly, runs a function on the States that there are",
                    fix="create the State before",
                )
            )
        read = {op.symbol for op in record.program.walk("state.read")}
        touched = {path: state for path, state in record.states.items() if path in read}
        states: list[State[Any]] = []
        self.arrange_states: Callable[[list[Any]], Any] = lambda grads: None
        if wanted.states is not None:
            states, self.arrange_states = selected_and_read(wanted, touched)
        with paused_gc():
            pure = pure_function(record.program)
        self._live = record.states
        path_of = {id(state): path for path, state in record.states.items()}
        chosen, self.arg_tree = jax.tree.flatten([args[p] for p in positions])
        before = {path: jax.tree.leaves(state.value) for path, state in record.states.items()}
        paths = [path_of[id(state)] for state in states]
        self.state_trees = [jax.tree.structure(state.value) for state in states]
        flat = [*chosen, *(leaf for path in paths for leaf in before[path])]
        self.inputs = [_jax.typeof(leaf) for leaf in flat]
        self._active = [i for i, aval in enumerate(self.inputs) if _jax.has_tangent(aval)]
        written: list[Any] = []

        def moving(*leaves: Any) -> tuple[list[Any], Any]:
            full = list(flat)
            for i, leaf in zip(self._active, leaves, strict=True):
                full[i] = leaf
            given = list(args)
            for position, value in zip(
                positions, jax.tree.unflatten(self.arg_tree, full[: len(chosen)]), strict=True
            ):
                given[position] = value
            rest = iter(full[len(chosen) :])
            held = {**before, **{path: [next(rest) for _ in before[path]] for path in paths}}
            inputs = [held[path][i] for path, i in pure.read]
            found = pure.run(*inputs, *pure.program.captured.values(), *jax.tree.leaves((tuple(given), {})))
            count = len(pure.program.body.yielded)
            value, aux = part(jax.tree.unflatten(record.out_tree, found[:count]))
            outputs = [jnp.asarray(x) for x in jax.tree.leaves(value)]
            return [x for x in outputs if _jax.has_tangent(_jax.typeof(x))], (value, aux, found[count:])

        primals = [jnp.asarray(flat[i]) for i in self._active]
        _, self._pull, (self.value, self.aux, written) = jax.vjp(jax.jit(moving), *primals, has_aux=True)
        self._commit(pure.program, pure.written, written)
        leaves, self.value_tree = jax.tree.flatten(self.value)
        self.outputs = [_jax.typeof(leaf) for leaf in leaves]

    def _commit(self, program: Any, places: Sequence[tuple[str, int]], written: Sequence[Any]) -> None:
        new: dict[str, list[Any]] = {}
        for (path, _), leaf in zip(places, written, strict=True):
            new.setdefault(path, []).append(leaf)
        for path, leaves in new.items():
            state, changed = self._live[path], program.states[path].final_tree
            tree = jax.tree.structure(state.value) if changed is None else treedef_of(changed)
            state.value = jax.tree.unflatten(tree, leaves)

    def linear(self, seeds: Sequence[Any], lanes: int | None = None) -> list[Any]:
        """The gradients of the outputs weighted with cotangents, with respect to the differentiable
        inputs.
        """
        try:
            return list(self._pull(list(seeds)))
        except (TypeError, ValueError) as error:
            raise underivable("The derivative", _jax.line_in_charge(), error) from error

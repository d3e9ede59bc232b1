"""What derivatives mean: ``xform.grad``, ``jvp``, ``vjp``, and functions that bring a rule of their own.

``xform.grad`` runs its body under ``jax.vjp``. Its values are then JAX's tracers, which know the concrete value
underneath: ``bool`` and ``int`` of a condition work as they do in ``jax.grad`` of plain Python, so loops and branches
are run as always, and nested gradients need nothing more. Functions with derivative rules become ``jax.custom_jvp`` and
``jax.custom_vjp`` functions only there; elsewhere their rules do not matter.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.backends.reference_values import Leaves, Store, no_tangent, nothing_stacked
from stategraph.ir.core import Constant, Op, Region, Value


def state_paths(op: Op) -> list[str]:
    """The States that an ``xform.grad`` differentiates with respect to."""
    return [str(getattr(symbol, "path", symbol)) for symbol in op.attributes.get("states", ())]


def grad(machine: Any, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """The value, its companions, the gradients; State is written as if the body had run once."""
    paths = state_paths(op)
    order = list(machine.store)

    def body(arguments: Sequence[Any], leaves: Sequence[Leaves]) -> tuple[Any, Any]:
        store = {**machine.store, **dict(zip(paths, leaves, strict=True))}
        inner = attrs.evolve(machine, frame=machine.frame.new_child(), store=store, differentiating=True)
        value, *others = inner.region(op.regions[0], arguments)
        return value, (others, inner.store)

    wanted = [machine.store[path] for path in paths]
    value, pullback, (others, store) = jax.vjp(body, list(operands), wanted, has_aux=True)
    gradients, state_gradients = pullback(jnp.ones_like(value))
    machine.store.clear()
    machine.store.update(
        {path: store[path] for path in [*order, *(path for path in store if path not in order)]}
    )
    return [value, *others, *gradients, *(leaf for leaves in state_gradients for leaf in leaves)]


def product(machine: Any, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """``jvp`` and ``vjp``: the body's results, then tangents or gradients, lane by lane."""
    (region,) = op.regions
    seeds, arguments = operands[: -len(region.args) or None], operands[len(operands) - len(region.args) :]
    paths = state_paths(op)
    sizes = [len(machine.store[path]) for path in paths]
    flat = [*arguments, *(leaf for path in paths for leaf in machine.store[path])]
    active = [i for i, x in enumerate(flat) if _jax.has_tangent(_jax.typeof(x))]
    out_active = _active(region.yielded[: op.attributes["outputs"]])

    def body(*moving: Any) -> tuple[Any, Any]:
        full = list(flat)
        for i, x in zip(active, moving, strict=True):
            full[i] = x
        rest = iter(full[len(arguments) :])
        leaves = {
            path: tuple(next(rest) for _ in range(size)) for path, size in zip(paths, sizes, strict=True)
        }
        inner = attrs.evolve(
            machine, frame=machine.frame.new_child(), store={**machine.store, **leaves}, differentiating=True
        )
        values = inner.region(region, full[: len(arguments)])
        return [values[i] for i in out_active], (values, inner.store)

    primals = [flat[i] for i in active]
    if op.name == "xform.jvp":
        _, linear, (values, store) = jax.linearize(body, *primals, has_aux=True)
    else:
        outputs, pull, (values, store) = jax.vjp(body, *primals, has_aux=True)

        def linear(*cotangents: Any) -> Any:
            return pull(_jax.cast_like(cotangents, outputs))

    machine.store.update(store)
    lanes = op.attributes["lanes"]
    if lanes is None:
        return [*values, *linear(*seeds)]
    found = [linear(*(seed[lane] for seed in seeds)) for lane in range(lanes)]
    if not found:
        return [*values, *(nothing_stacked(result.type) for result in op.results[len(values) :])]
    return [*values, *(jnp.stack(column) for column in zip(*found, strict=True))]


# ------------------------------------------------------------------------------- functions with a rule of their own


@jax.tree_util.register_pytree_node_class
class _Captured:
    """Arrays, and the values of the program that they are."""

    def __init__(self, arrays: Sequence[Any], values: tuple[Value, ...]) -> None:
        self.arrays = arrays
        self.values = values

    def tree_flatten(self) -> tuple[Sequence[Any], tuple[Value, ...]]:
        return self.arrays, self.values

    @classmethod
    def tree_unflatten(cls, values: tuple[Value, ...], arrays: Sequence[Any]) -> _Captured:
        return cls(list(arrays), values)

    def __len__(self) -> int:
        return len(self.arrays)


_Context = tuple[_Captured, Store]
"""What a function with a derivative rule uses from outside."""


def custom_jvp(machine: Any, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    if "recursive" in op.attributes:
        return enclosing_rule(machine, op, operands)
    if not machine.differentiating:
        return _body(machine, op, operands)
    call, jvp = op.regions
    bound = attrs.evolve(machine)
    active, out_active = _active(op.operands), _active(op.results)
    count = len(op.results)

    @jax.custom_jvp
    def function(context: _Context, args: Sequence[Any]) -> tuple[list[Any], Store]:
        return isolated(bound, call, context, args)

    @function.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        context, args = primals
        given = [tangents[1][i] for i in active]
        flat, _ = isolated(bound, jvp, context, [*args, *given], function)
        moved = iter(flat[count:])
        out = [next(moved) if i in out_active else no_tangent(flat[i]) for i in range(count)]
        return (flat[:count], context[1]), (out, tangents[0][1])

    return with_rule(machine, function, op, operands)


def custom_vjp(machine: Any, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    if "recursive" in op.attributes:
        return enclosing_rule(machine, op, operands)
    if not machine.differentiating:
        return _body(machine, op, operands)
    call, forward, backward = op.regions
    bound = attrs.evolve(machine)
    active, out_active = _active(op.operands), _active(op.results)
    count = len(op.results)

    @jax.custom_vjp
    def function(context: _Context, args: Sequence[Any]) -> tuple[list[Any], Store]:
        return isolated(bound, call, context, args)

    def fwd(context: _Context, args: Sequence[Any]) -> Any:
        flat, _ = isolated(bound, forward, context, args, function)
        return (flat[:count], context[1]), (context, flat[count:])

    def bwd(kept: Any, cotangents: Any) -> Any:
        context, residuals = kept
        given = [cotangents[0][i] for i in out_active]
        moved = iter(isolated(bound, backward, context, [*residuals, *given], function)[0])
        return (None, cotangents[1]), [next(moved) if i in active else None for i in range(len(op.operands))]

    function.defvjp(fwd, bwd)
    return with_rule(machine, function, op, operands)


def with_rule(machine: Any, function: Callable[..., Any], op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """Call a function that has a rule. What it captures, State included, goes in and out explicitly.

    Under its rule the function itself does not run: State that it would have written stays as it was.
    """
    results: list[Any]
    results, store = function(context_of(machine, op), list(operands))
    machine.store.update(store)
    return results


def context_of(machine: Any, op: Op) -> _Context:
    """What the regions of ``op`` use from outside: values, and State."""
    inside = [value for region in op.regions for value in _defined(region)]
    taken = dict.fromkeys(v for inner in op.walk() for v in inner.operands if not isinstance(v, Constant))
    symbols = dict.fromkeys(inner.symbol for inner in op.walk("state.read", "state.write"))
    captured = {value: machine.frame[value] for value in taken if value not in set(inside)}
    return _Captured(list(captured.values()), tuple(captured)), {
        path: machine.store[path] for path in symbols if path in machine.store
    }


def isolated(
    machine: Any,
    region: Region,
    context: _Context,
    args: Sequence[Any],
    rule: Callable[..., Any] | None = None,
) -> tuple[list[Any], Store]:
    """Run a region that sees nothing but its context and its arguments; ``rule`` is the function whose
    rule it is."""
    captured, store = context
    rules = (
        machine.rules if rule is None else (*machine.rules, lambda operands: rule(context, list(operands))[0])
    )
    frame = ChainMap(dict(zip(captured.values, captured.arrays, strict=True)))
    inner = attrs.evolve(machine, frame=frame, store=dict(store), rules=rules)
    return inner.region(region, args), {path: inner.store[path] for path in store}


def enclosing_rule(machine: Any, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """A rule that calls the function it belongs to."""
    if not machine.differentiating or not machine.rules:
        return _body(machine, op, operands)
    results: Sequence[Any] = machine.rules[-op.attributes["recursive"]](operands)
    return results


def _body(machine: Any, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """The function itself."""
    results: Sequence[Any] = machine.region(op.regions[0], operands)
    return results


def _active(values: Sequence[Value]) -> list[int]:
    return [i for i, value in enumerate(values) if _jax.has_tangent(_jax.aval_of(value.type))]


def _defined(region: Region) -> Iterator[Value]:
    yield from region.args
    for op in region.walk():
        yield from op.results
        for nested in op.regions:
            yield from nested.args

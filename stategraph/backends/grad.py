"""Expanding derivatives: JAX's own forward and reverse mode on the pure body.

The body of an ``xform.grad``, ``xform.jvp`` or ``xform.vjp`` becomes a jaxpr (derivative rules kept), JAX
differentiates it, and the result is imported as ops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from stategraph import _jax
from stategraph.backends.emit import emit_region
from stategraph.backends.pin import pin_host_effects
from stategraph.backends.reverse import Reverse, zeros
from stategraph.errors import underivable
from stategraph.ir.core import Op, Value
from stategraph.ir.location import Location
from stategraph.passes.edit import REWRITER
from stategraph.passes.expand_transforms import EXPANDERS, FUNCTIONS, Expansion, Transformed


def expand_grad(op: Op, again: bool) -> Expansion:
    """The ops that compute the body's results and the gradient of the first with respect to the operands.

    ``again`` says that the result will itself be differentiated, so that functions must keep their derivative
    rules.
    """
    (region,) = op.regions
    pin_host_effects(region)
    ops, values, gradients = Reverse(region, again).gradient()
    arguments = dict(zip(region.args, op.operands, strict=True))
    for arg, operand in arguments.items():
        REWRITER.replace_uses(arg, operand)
    results = [arguments.get(value, value) for value in values]
    for result, gradient in zip(op.results[len(values) :], gradients, strict=True):
        if gradient is None:
            more, (gradient,) = zeros(result.type)
            ops += more
        results.append(arguments.get(gradient, gradient))
    return ops, results


def gradient_function(op: Op) -> Transformed:
    """``expand_grad`` as a function."""
    (region,) = op.regions
    pin_host_effects(region)
    body, captured = emit_region(region, region.args, differentiable=True, name="grad")
    run = _jax.body_as_function(body)
    count = len(captured)

    def differentiated(*flat: Any) -> list[Any]:
        def loss(*wrt: Any) -> Any:
            first, *rest = run(*flat[:count], *wrt)
            return first, rest

        positions = tuple(range(len(flat) - count))
        (value, rest), gradients = jax.value_and_grad(
            loss,
            positions,
            has_aux=True,
            holomorphic=op.attributes["holomorphic"],
            allow_int=op.attributes["allow_int"],
        )(*flat[count:])
        return [value, *rest, *gradients]

    return differentiated, [*captured, *op.operands]


def _expanded(
    op: Op, again: bool, what: str, function: Callable[..., list[Any]], operands: list[Value]
) -> Expansion:
    """The ops that JAX records when it traces the function."""
    from stategraph.tracing.importer import import_inline

    avals = [_jax.aval_of(value.type) for value in operands]
    try:
        jaxpr, consts = _jax.trace_flat(function, avals, traced_for="stategraph grad", name=op.name)
    except (TypeError, ValueError) as error:
        raise underivable(f"The {what}", _place(op), error) from error
    return import_inline(jaxpr, consts, operands, op.location, keep_rules=again)


def expand_jvp(op: Op, again: bool) -> Expansion:
    """The ops that compute the body's results and how the outputs change along the tangents, one lane after
    another where there are lanes.
    """
    return _expanded(op, again, "derivative", *jvp_function(op))


def jvp_function(op: Op) -> Transformed:
    """``expand_jvp`` as a function."""
    return _product_function(op, _pushed if op.attributes["lanes"] is None else _pushed_lanes)


def expand_vjp(op: Op, again: bool) -> Expansion:
    """The ops that compute the body's results and the gradients of the outputs weighted with the cotangents."""
    return _expanded(op, again, "derivative", *vjp_function(op, again))


def vjp_function(op: Op, again: bool = False) -> Transformed:
    """``expand_vjp`` as a function."""
    return _product_function(op, _pulled if op.attributes["lanes"] is None else _pulled_lanes, again)


Pure = Callable[..., tuple[list[Any], list[Any]]]
"""From the differentiable arguments to (differentiable outputs, all results)."""


def _pushed(pure: Pure, primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    _, moved, values = jax.jvp(pure, primals, _jax.cast_like(tangents, primals), has_aux=True)
    return values, moved


def _pushed_lanes(pure: Pure, primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    if not tangents:
        outputs, values = pure(*primals)
        return values, [jax.numpy.zeros((0, *x.shape), x.dtype) for x in outputs]
    return jax.vmap(lambda lane: _pushed(pure, primals, lane), out_axes=(None, 0))(tangents)


def _pulled(pure: Pure, primals: list[Any], cotangents: list[Any]) -> tuple[list[Any], list[Any]]:
    outputs, pull, values = jax.vjp(pure, *primals, has_aux=True)
    return values, pull(_jax.cast_like(cotangents, outputs))


def _pulled_lanes(pure: Pure, primals: list[Any], cotangents: list[Any]) -> tuple[list[Any], list[Any]]:
    outputs, pull, values = jax.vjp(pure, *primals, has_aux=True)
    if not cotangents:
        return values, [jax.numpy.zeros((0, *x.shape), x.dtype) for x in primals]
    return values, jax.vmap(lambda lane: pull(_jax.cast_like(lane, outputs)))(cotangents)


def _product_function(
    op: Op, derive: Callable[[Pure, list[Any], list[Any]], tuple[list[Any], list[Any]]], again: bool = False
) -> Transformed:
    (region,) = op.regions
    pin_host_effects(region)
    body, captured = emit_region(region, region.args, differentiable=True, again=again, name="derivative")
    run = _jax.body_as_function(body)
    count, seeds = len(captured), len(op.operands) - len(region.args)
    active = [i for i, arg in enumerate(region.args) if _jax.has_tangent(_jax.aval_of(arg.type))]
    outputs = region.yielded[: op.attributes["outputs"]]
    out_active = [i for i, value in enumerate(outputs) if _jax.has_tangent(_jax.aval_of(value.type))]

    def differentiated(*flat: Any) -> list[Any]:
        given = list(flat[count + seeds :])

        def pure(*moving: Any) -> tuple[list[Any], list[Any]]:
            full = list(given)
            for i, x in zip(active, moving, strict=True):
                full[i] = x
            values = run(*flat[:count], *full)
            return [values[i] for i in out_active], values

        values, moved = derive(pure, [given[i] for i in active], list(flat[count : count + seeds]))
        return [*values, *moved]

    return differentiated, [*captured, *op.operands]


def _place(op: Op) -> Location:
    """Where the derivative is taken; where its body begins when no line of the user's says so."""
    return next((inner.location for inner in (op, *op.walk()) if inner.location.known), op.location)


EXPANDERS["xform.grad"] = expand_grad
EXPANDERS["xform.jvp"] = expand_jvp
EXPANDERS["xform.vjp"] = expand_vjp
FUNCTIONS["xform.grad"] = gradient_function
FUNCTIONS["xform.jvp"] = jvp_function
FUNCTIONS["xform.vjp"] = vjp_function

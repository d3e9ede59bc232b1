"""Expanding gradients: JAX's own reverse mode on the pure body.

The body of an ``xform.grad`` becomes a jaxpr (derivative rules kept), JAX differentiates it, and the result is imported as ops.
"""

from __future__ import annotations

from typing import Any

import jax

from stategraph import _jax
from stategraph.backends.emit import emit_region
from stategraph.backends.pin import pin_host_effects
from stategraph.errors import LoweringError
from stategraph.ir.core import Op, Value
from stategraph.passes.expand_transforms import EXPANDERS, Expansion


def expand_grad(op: Op, again: bool) -> Expansion:
    """The ops that compute the body's results and the gradient of the first with respect to the operands.

    ``again`` says that the result will itself be differentiated, so that functions must keep their derivative rules.
    """
    from stategraph.tracing.importer import import_inline

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
            loss, positions, has_aux=True, holomorphic=op.attributes["holomorphic"], allow_int=op.attributes["allow_int"]
        )(*flat[count:])
        return [value, *rest, *gradients]

    avals = [_jax.aval_of(value.type) for value in (*captured, *op.operands)]
    try:
        jaxpr, consts = _jax.trace_flat(differentiated, avals, traced_for="stategraph grad", name="grad")
    except (TypeError, ValueError) as error:
        raise LoweringError(f"the gradient at {op.location} cannot be taken: {error}") from error
    operands: list[Value] = [*captured, *op.operands]
    return import_inline(jaxpr, consts, operands, op.location, keep_rules=again)


EXPANDERS["xform.grad"] = expand_grad

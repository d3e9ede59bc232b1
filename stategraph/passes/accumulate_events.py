"""Sparse products add to the sum that they are part of: ``g + spikes @ W`` needs no array for what arrives.

``add(g, event.csr(…))`` becomes ``event.csr_add(g, …)``, which a kernel computes in the memory of ``g``: at low rates
the zeros, the second array and the addition would cost more than the events. So do gradients to weights, which
collect ``event.csr_outer`` step by step: a step then costs what its events cost, and not what all synapses do.
"""

from __future__ import annotations

import attrs

from stategraph.ir.core import Op, Program
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.patterns import Pattern, PatternRewriter, apply_patterns
from stategraph.passes.registry import register

ADDED = {"event.csr": "event.csr_add", "event.csr_outer": "event.csr_outer_add"}
"""Products, and the ops that add them to a sum."""


class AddOfProduct(Pattern):
    """add(g, event.csr(…)) -> event.csr_add(g, …) where nobody else takes the product; so with event.csr_outer"""

    name = "sum with a sparse product"
    ops = ("jax.add", "jax.add_any")
    exactness = "reduction-order"

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        for product, total in (op.operands[::-1], op.operands):
            inner = product.defining_op
            if (
                inner is not None
                and inner.name in ADDED
                and inner.parent is op.parent  # what was lifted out of a loop stays there
                and list(product.users) == [op]
                and total is not product
                and total.type == op.result.type == product.type
            ):
                operands = [total, *inner.operands]
                added = Op(ADDED[inner.name], operands, [op.result.type], dict(inner.attributes))
                rewriter.replace_with(op, added)
                rewriter.erase(inner)
                return True
        return False


@register
@attrs.frozen
class AccumulateEvents(Pass):
    """Add sparse products of events in place."""

    name = "accumulate-events"
    exactness = "reduction-order"

    def run(self, program: Program, context: Context) -> None:
        if next(program.walk(*ADDED), None) is None:
            return
        for name, times in apply_patterns(program, [AddOfProduct()], context).items():
            context.report(program.name, name, times=times)

"""Products of events ask for finite weights: with this pass a program checks that they are, when it runs.

    "check-weights,default"

An ordinary product adds ``0 * w`` for every silent neuron, which is NaN where ``w`` is not finite; an event product does
not look at it. The pass stands first in a pipeline, where State is still read in the place where the user reads it. It
looks for the products that ``rewrite-events`` may rewrite, and puts a runtime check before each, which names the State
that holds the weights and the line of the product.
"""

from __future__ import annotations

import attrs

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.tree import Tree
from stategraph.ir.types import TensorType
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER
from stategraph.passes.event_facts import event_facts
from stategraph.passes.event_origin import OPENED, entering
from stategraph.passes.event_products import Product, shape_of
from stategraph.passes.infer_events import annotate
from stategraph.passes.lower_checks import CHECK
from stategraph.passes.registry import register
from stategraph.passes.rewrite_events import candidates

_NOTHING = Tree("tuple", (Tree("tuple", ()), Tree("dict", ())))
"""A check whose message has no values."""
_BOOL = TensorType("bool")


@register
@attrs.frozen
class CheckWeights(Pass):
    """Check at run time that the weights of products that events may take part in are finite."""

    name = "check-weights"
    exactness = "reduction-order"  # of programs with finite weights

    def run(self, program: Program, context: Context) -> None:
        annotate(program, event_facts(program))
        for product in candidates(program):
            _check(product, context)


def _check(product: Product, context: Context) -> None:
    op, weights = product.op, product.weights
    held = holder(weights)
    finite = _emit(op, "jax.is_finite", [weights], TensorType("bool", shape_of(weights)), {})
    axes = tuple(range(len(shape_of(weights))))
    every = _emit(op, "jax.reduce_and", [finite], _BOOL, {"axes": axes})
    failed = _emit(op, "jax.not", [every], _BOOL, {})
    message = (
        f"the weights of a product with events, {held}, are not all finite: {op.name} gives NaN for silent neurons, "
        "and an event product leaves them out"
    )
    check = Op(CHECK, [failed], (), {"message": message, "values": _NOTHING}, (), op.location)
    REWRITER.insert_before(op, check)
    context.explain(op, "checks its weights", reason="event products ask for finite weights")


def _emit(
    op: Op, name: str, operands: list[Value], type_: TensorType, attributes: dict[str, object]
) -> Value:
    new = Op(name, operands, [type_], attributes, (), op.location)
    REWRITER.insert_before(op, new)
    return new.result


def holder(value: Value) -> str:
    """Where a value comes from, in words: the nearest State, or else an argument."""
    seen: set[Value] = set()
    queue = [value]
    argument = ""
    for here in queue:
        if here in seen or isinstance(here, Constant) or len(seen) > OPENED:
            continue
        seen.add(here)
        owner = here.owner
        if isinstance(owner, Region):
            queue += entering(owner, here.index)
            if owner.parent_op is None and not argument:
                argument = f"the argument {here.name}" if here.name else ""
        elif owner is not None and owner.name == "state.read":
            return f"State @{owner.symbol}"
        elif owner is not None:
            queue += owner.operands
    return argument or "which are computed"

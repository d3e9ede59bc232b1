"""Loops carry only what changes from trip to trip, and stack only what differs from trip to trip.

1. A carry that the body yields unchanged is its initial value: the body closes over it.
2. Two carries that begin equal and are yielded equal are one carry.
3. A stacked output that is the same on every trip is a broadcast after the loop; one that repeats a stacked
   input is that input.
4. A stacked output of which only the last element is taken becomes a carry, or is one already (``return h,
   h``).

Carries that nobody needs are ``dce``'s.
"""

from __future__ import annotations

from typing import Any

import attrs

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import (
    LOOPS,
    REWRITER,
    carries,
    is_gradient,
    keep_carries,
    same_value,
)
from stategraph.passes.loop_outputs import replace_invariant_outputs, replace_last_outputs
from stategraph.passes.registry import register


@register
@attrs.frozen
class SimplifyLoops(Pass):
    """Close over unchanged carries, merge equal ones, and unstack outputs that need no stack."""

    name = "simplify-loops"
    last: bool = True
    """Turn outputs of which only the last element is used into carries."""

    def run(self, program: Program, context: Context) -> None:
        # inside a differentiated body a closed-over value collects gradients in another order than a carry
        enter_gradients = context.allows("reduction-order")
        for loop in _inner_first(program.body, enter_gradients):
            self._simplify(loop, context)

    def _simplify(self, loop: Op, context: Context) -> None:
        closed = merged = 0
        for _ in range(carries(loop) + 1):  # every round but the last removes a carry
            closed_now, merged_now = _close_over(loop), _merge(loop)
            closed, merged = closed + closed_now, merged + merged_now
            if not closed_now and not merged_now:
                break
        if closed:
            context.report(loop, "closed over carries that never change", carries=closed)
        if merged:
            context.report(loop, "merged carries that are always equal", carries=merged)
        if loop.name == "flow.scan":
            unstacked = replace_invariant_outputs(loop)
            if unstacked:
                context.report(loop, "unstacked outputs that are known without the loop", outputs=unstacked)
            if self.last:
                last = replace_last_outputs(loop)
                if last:
                    context.report(loop, "kept only the last element of stacked outputs", outputs=last)


def _inner_first(region: Region, enter_gradients: bool) -> list[Op]:
    found: list[Op] = []
    for op in region.ops:
        if op.regions and (enter_gradients or not is_gradient(op)):
            for inner in op.regions:
                found += _inner_first(inner, enter_gradients)
            if op.name in LOOPS:
                found.append(op)
    return found


def _close_over(loop: Op) -> int:
    body = loop.regions[-1]
    kept = []
    for i in range(carries(loop)):
        init, arg, result, yielded = loop.operands[i], body.args[i], loop.results[i], body.yielded[i]
        unchanged = yielded is arg or same_value(yielded, init)
        if not unchanged or not init.type == arg.type == result.type:
            kept.append(True)
            continue
        for region in loop.regions:
            REWRITER.replace_uses(region.args[i], init)
        REWRITER.replace_uses(result, init)
        kept.append(False)
    if not all(kept):
        keep_carries(loop, kept)
    return kept.count(False)


def _merge(loop: Op) -> int:
    body = loop.regions[-1]
    first: dict[tuple[Any, ...], int] = {}
    kept = []
    for i in range(carries(loop)):
        key = (body.args[i].type, loop.results[i].type, _key(loop.operands[i]), _key(body.yielded[i]))
        twin = first.setdefault(key, i)
        kept.append(twin == i)
        if twin != i:
            for region in loop.regions:
                REWRITER.replace_uses(region.args[i], region.args[twin])
            REWRITER.replace_uses(loop.results[i], loop.results[twin])
    if not all(kept):
        keep_carries(loop, kept)
    return kept.count(False)


def _key(value: Value) -> Any:
    return value.key() if isinstance(value, Constant) else value

"""Branches return only what depends on the branch.

A result that is the same outer value (or constant) in all branches is that value; two results that are equal
in every branch are one result.
"""

from __future__ import annotations

from typing import Any

import attrs

from stategraph.ir.core import Constant, Op, Program, Value
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, home, keep_operands, keep_results, same_value
from stategraph.passes.registry import register


@register
@attrs.frozen
class SimplifyBranches(Pass):
    """Replace results of branches that do not depend on the branch taken, and merge equal ones."""

    name = "simplify-branches"

    def run(self, program: Program, context: Context) -> None:
        for op in reversed(list(program.walk("flow.cond"))):  # inner ones first
            kept = _keep(op)
            if all(kept):
                continue
            for region in op.regions:
                keep_operands(region.terminator, kept)
            keep_results(op, kept)
            context.report(op, "dropped results that do not depend on the branch", results=kept.count(False))


def _keep(op: Op) -> list[bool]:
    """Replace what can be replaced; whether each result is still needed for itself."""
    kept = []
    seen: dict[tuple[Any, ...], Value] = {}
    for i, result in enumerate(op.results):
        values = [region.yielded[i] for region in op.regions]
        first = values[0]
        same = all(same_value(value, first) for value in values)
        if same and first.type == result.type and home(first) not in op.regions:
            REWRITER.replace_uses(result, first)
            kept.append(False)
            continue
        key = (result.type, *(value.key() if isinstance(value, Constant) else value for value in values))
        twin = seen.setdefault(key, result)
        REWRITER.replace_uses(result, twin)
        kept.append(twin is result)
    return kept

"""Common subexpressions: of two pure ops that compute the same, the first stays.

Two ops are the same when name, operands, attributes and result types are; constants count by type and bits,
attributes by type and value (1, 1.0 and true differ, as do 0.0 and -0.0). A region sees the ops computed
before it in the regions around it, except in bodies that are meant to be on their own: rematerialised ones
compute again on purpose, and derivative rules must not look outside.
"""

from __future__ import annotations

from typing import Any

import attrs

from stategraph.ir.attributes import Opaque, Record
from stategraph.ir.core import Constant, Op, Program, Region
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import EFFECTS_OF, LOOPS, REWRITER, is_gradient, is_plain_body
from stategraph.passes.registry import register

Key = tuple[Any, ...]
Table = dict[Key, Op]
_SHARING = (*LOOPS, "flow.cond", "xform.grad", "xform.jvp", "xform.vjp")
"""Ops whose bodies may use what was computed before them, as may plain calls."""


@register
@attrs.frozen
class Cse(Pass):
    """Compute equal pure values once, also across the borders of loops and branches."""

    name = "cse"

    def run(self, program: Program, context: Context) -> None:
        doomed: list[Op] = []
        _visit(program.body, {}, doomed, context)
        REWRITER.erase_all(doomed)


def _visit(region: Region, known: Table, doomed: list[Op], context: Context) -> None:
    rules = EFFECTS_OF
    added: list[Key] = []
    for op in region.ops:
        if op.regions:
            # merging a value in a differentiated body adds up what its uses send back before it is
            # multiplied, not after
            if not is_gradient(op) or context.allows("fast-math"):
                shares = op.name in _SHARING or (op.name == "flow.call" and is_plain_body(op))
                for inner in op.regions:
                    _visit(inner, known if shares else {}, doomed, context)
            continue
        results = op.results
        if not results or rules[op.name](op):
            continue
        operands = [value if type(value) is not Constant else value.key() for value in op.operands]
        key: Key = (op.name, *operands) if operands else (op.name, results[0].type)
        while (first := known.setdefault(key, op)) is not op:
            if _same(first, op):
                for old, new in zip(results, first.results, strict=True):
                    REWRITER.replace_uses(old, new)
                doomed.append(op)
                break
            key = (key,)  # the next of the ops with these operands
        else:
            added.append(key)
    for key in added:  # what was computed in here is not seen outside
        del known[key]


def _same(a: Op, b: Op) -> bool:
    """Whether two ops of one name and with equal operands compute the same."""
    if [result.type for result in a.results] != [result.type for result in b.results]:
        return False
    return same_attribute(a.attributes, b.attributes)


def same_attribute(a: Any, b: Any) -> bool:
    """Whether two attribute values are the same data; things that cannot be looked into are the same only
    when identical.
    """
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool(a.hex() == b.hex())
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same_attribute, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_attribute(value, b[key]) for key, value in a.items())
    if isinstance(a, Record):
        return a.name == b.name and same_attribute(a.fields, b.fields)
    if isinstance(a, Opaque):
        return a.name == b.name and a.payload is b.payload and a.payload is not None
    return bool(a == b)

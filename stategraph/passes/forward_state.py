"""Store-to-load forwarding within each region.

One walk over a region's ops knows, for every State, the values that it holds at that point. A read of known
values is replaced by them; a write that is overwritten before anybody looks is dropped, and so is one that
writes what is already there. What remains is at most one read per State, moved to the top, and one write,
moved to the end. Ops with State accesses in their regions are looked at through their effects;
``hoist-state`` takes these away.
"""

from __future__ import annotations

import attrs

from stategraph.ir.core import Op, Program, Region, Value
from stategraph.ir.effects import READ, UNKNOWN_EFFECT
from stategraph.ir.registry import definition_of, effects_of
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, same_value
from stategraph.passes.registry import register


@attrs.define
class Accesses:
    """The State ops that stand in one region after forwarding, by symbol."""

    reads: dict[str, Op] = attrs.Factory(dict)
    writes: dict[str, Op] = attrs.Factory(dict)
    allocs: dict[str, Op] = attrs.Factory(dict)

    def __bool__(self) -> bool:
        return bool(self.reads or self.writes)


@register
@attrs.frozen
class ForwardState(Pass):
    """Replace reads of State by the values written before them, and drop writes that nobody sees."""

    name = "forward-state"

    def run(self, program: Program, context: Context) -> None:
        for op in list(program.walk()):
            for region in op.regions:
                forward(region)
        forward(program.body)


def forward(region: Region) -> Accesses:
    """Forward State within ``region`` (not inside its ops) and say which State ops remain."""
    known: dict[str, list[Value]] = {}
    found = Accesses()
    middle: list[Op] = []
    late_reads: set[str] = set()
    for op in region.ops[:-1]:
        if op.name == "state.read":
            path = op.attributes["symbol"]
            values = known.get(path)
            if values is not None:
                _drop(op, values)
                continue
            known[path] = list(op.results)
            if path in late_reads:
                middle.append(op)  # an op above may write this State: the read stays below it
            else:
                found.reads[path] = op
        elif op.name == "state.write":
            path = op.attributes["symbol"]
            values = known.get(path)
            if (
                values is not None
                and len(values) == len(op.operands)
                and all(map(same_value, values, op.operands))
            ):
                _drop(op, ())
                continue
            earlier = found.writes.pop(path, None)
            if earlier is not None:
                _drop(earlier, ())
            found.writes[path] = op
            known[path] = list(op.operands)
        elif op.name == "state.alloc":
            path = op.attributes["symbol"]
            known[path] = list(op.operands)
            found.allocs[path] = op
            middle.append(op)
        else:
            if op.regions or definition_of(op.name) is None:
                _observe(op, known, found, middle, late_reads)
            middle.append(op)
    region.ops = [*found.reads.values(), *middle, *found.writes.values(), region.ops[-1]]
    return found


def _observe(
    op: Op, known: dict[str, list[Value]], found: Accesses, middle: list[Op], late_reads: set[str]
) -> None:
    """An op whose regions touch State: writes before it must stand before it, and what it writes is unknown
    after it.
    """
    for effect in effects_of(op):
        unknown = effect.kind == UNKNOWN_EFFECT and definition_of(op.name) is None
        paths = (
            list({*known, *found.writes}) if unknown else [effect.symbol] if effect.symbol is not None else []
        )
        for path in paths:
            pending = found.writes.pop(path, None)
            if pending is not None:
                middle.append(pending)
            if effect.kind != READ:
                known.pop(path, None)
                late_reads.add(path)


def _drop(op: Op, values: list[Value] | tuple[()]) -> None:
    for result, value in zip(op.results, values, strict=True):
        REWRITER.replace_uses(result, value)
    for operand in op.operands:
        operand._users.remove(op)
    op.operands = []
    op.parent = None

"""A State that lives only inside the program is a value.

``state.alloc`` of a State that does not outlive the program is removed together with its writes, once
forwarding has replaced all reads. A State born in the program that outlives it (``born``) becomes an output:
its last values are written at the end.
"""

from __future__ import annotations

import attrs

from stategraph.ir.core import Op, Program, Region
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER
from stategraph.passes.forward_state import forward
from stategraph.passes.registry import register


@register
@attrs.frozen
class EliminateLocalState(Pass):
    """Turn States that are created and forgotten inside the program into plain values."""

    name = "eliminate-local-state"

    def run(self, program: Program, context: Context) -> None:
        for op in list(program.walk("state.alloc")):
            symbol = program.states.get(op.attributes["symbol"])
            if symbol is None or not symbol.born:
                context.explain(
                    op, "became a value", reason="the State is created and forgotten inside the program"
                )
        for op in list(program.walk()):
            for region in op.regions:
                eliminate(region, program)
        eliminate(program.body, program)
        forward(program.body)


def eliminate(region: Region, program: Program | None) -> None:
    """Remove the local States of one region whose reads have all been forwarded."""
    allocs = [op for op in region.ops if op.name == "state.alloc"]
    if not allocs:
        return
    accesses: dict[str, list[Op]] = {op.attributes["symbol"]: [] for op in allocs}
    for op in region.walk("state.read", "state.write"):
        if op.attributes["symbol"] in accesses:
            accesses[op.attributes["symbol"]].append(op)
    doomed = []
    for alloc in allocs:
        path = alloc.attributes["symbol"]
        users = accesses[path]
        if any(op.name == "state.read" or op.parent is not region for op in users):
            continue
        born = program is not None and path in program.states and program.states[path].born
        if not born:
            doomed += [alloc, *users]
            continue
        if not users:
            write = Op("state.write", alloc.operands, (), {"symbol": path}, (), alloc.location)
            write.parent = region
            region.ops.insert(len(region.ops) - 1, write)
        doomed.append(alloc)
    REWRITER.erase_all(doomed)

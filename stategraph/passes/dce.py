"""Dead-code elimination: what nobody needs goes, down to single carries of loops and results of branches.

*Needed* are ops with effects that someone outside can notice, and whatever they take. Need flows through
region ops value by value: a result of a branch needs what the branches yield there, a carry of a loop its
initial value and what the body yields there. So a carry that only feeds itself is never reached. Reading
State keeps no op; writing does, in nested bodies too, except to a State that is born and dies inside an op
that nobody needs.
"""

from __future__ import annotations

import attrs

from stategraph.ir.core import Op, Program, Region, Value
from stategraph.ir.effects import READ
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import (
    EFFECTS_OF,
    REWRITER,
    is_plain_body,
    keep_args,
    keep_carries,
    keep_operands,
    keep_results,
)
from stategraph.passes.registry import register


@register
@attrs.frozen
class Dce(Pass):
    """Remove what nobody needs: ops, carries of loops, stacked outputs, results of branches, unused region
    arguments.
    """

    name = "dce"

    def run(self, program: Program, context: Context) -> None:
        need = _Need(program)
        doomed: list[Op] = []
        _sweep(program.body, need, doomed, context)
        REWRITER.erase_all(doomed)


class _Need:
    """The ops that are needed, and those results of region ops and region arguments that are."""

    def __init__(self, program: Program) -> None:
        self.ops: set[Op | Program] = {program}
        self.values: set[Value] = set()
        self._inside: dict[Op, list[Op]] = {}  # writes that matter only if this op is needed
        self._stack: list[Value] = [*program.body.yielded]
        self._born = {path for path, symbol in program.states.items() if symbol.born}
        for root in self._roots(program.body, {}):
            self._need(root)
        self._spread()

    def _roots(self, region: Region, local: dict[str, Op]) -> list[Op]:
        """Every op with an effect but reading; ``local`` says in which op a State lives and dies."""
        rules = EFFECTS_OF
        roots: list[Op] = []
        for op in region.ops:
            for inner in op.regions:
                born = {
                    o.symbol: op for o in inner.ops if o.name == "state.alloc" and o.symbol not in self._born
                }
                roots += self._roots(inner, {**local, **born} if born else local)
            for effect in rules[op.name](op):
                if effect.kind == READ:
                    continue
                if effect.symbol in local:
                    self._inside.setdefault(local[effect.symbol], []).append(op)
                else:
                    roots.append(op)
        return roots

    def _need(self, op: Op | Program) -> None:
        """``op`` and the ops around it are needed, with what they take in any case."""
        while isinstance(op, Op) and op not in self.ops:
            self.ops.add(op)
            self._stack += _always(op)
            for inner in self._inside.get(op, ()):
                self._need(inner)
            op = _around(op)

    def _spread(self) -> None:
        stack, ops, values = self._stack, self.ops, self.values
        while stack:
            value = stack.pop()
            owner = value.owner
            if owner is None:
                continue  # a constant
            if type(owner) is Op and not owner.regions:
                if owner not in ops:
                    ops.add(owner)
                    stack += owner.operands
                    if _around(owner) not in ops:
                        self._need(_around(owner))
            elif value not in values:
                values.add(value)
                if type(owner) is Op:
                    self._need(owner)
                    stack += _behind_result(owner, value.index)
                elif isinstance(owner, Region) and isinstance(owner.owner, Op):
                    stack += _behind_arg(owner.owner, value.index)


def _around(op: Op) -> Op | Program:
    return op.parent.owner  # type: ignore[union-attr, return-value]


def _always(op: Op) -> list[Value]:
    """What an op that is needed takes, whichever of its results are."""
    if op.name == "flow.scan" or is_plain_body(op):
        return []
    if op.name == "flow.while":
        return op.regions[0].yielded
    if op.name == "flow.cond":
        return op.operands
    return [*op.operands, *(value for region in op.regions for value in region.yielded)]


def _behind_result(op: Op, index: int) -> list[Value]:
    """What result ``index`` of a region op comes from."""
    if op.name == "flow.while" or (op.name == "flow.scan" and index < op.attributes["carry"]):
        return [op.operands[index], op.regions[-1].yielded[index]]
    if op.name in ("flow.scan", "flow.cond") or is_plain_body(op):
        return [region.yielded[index] for region in op.regions]
    return []


def _behind_arg(op: Op, index: int) -> list[Value]:
    """What argument ``index`` of a region of ``op`` comes from."""
    if op.name == "flow.while" or (op.name == "flow.scan" and index < op.attributes["carry"]):
        return [op.operands[index], op.regions[-1].yielded[index]]
    return [op.operands[index]] if op.name == "flow.scan" or is_plain_body(op) else []


def _sweep(region: Region, need: _Need, doomed: list[Op], context: Context) -> None:
    """Collect the ops of ``region`` and below that are not needed, and narrow the region ops that are."""
    ops = need.ops
    doomed += [op for op in region.ops[:-1] if op not in ops]
    for op in region.ops[:-1]:
        if op.regions and op in ops:
            _narrow(op, need.values, context)
            for inner in op.regions:
                _sweep(inner, need, doomed, context)


def _narrow(op: Op, needed: set[Value], context: Context) -> None:
    """Drop the results, arguments and operands of a region op that nobody needs."""
    if op.name in ("flow.while", "flow.scan"):
        _narrow_loop(op, needed, context)
        return
    if op.name != "flow.cond" and not is_plain_body(op):
        return
    kept = [result in needed for result in op.results]
    if not all(kept):
        for region in op.regions:
            keep_operands(region.terminator, kept)
        keep_results(op, kept)
    if op.name != "flow.cond":
        kept = [arg in needed for arg in op.regions[0].args]
        if not all(kept):
            keep_operands(op, kept)
            keep_args(op.regions[0], kept)


def _narrow_loop(loop: Op, needed: set[Value], context: Context) -> None:
    columns = zip(loop.results, *(region.args for region in loop.regions), strict=False)
    count = loop.attributes["carry"] if loop.name == "flow.scan" else len(loop.operands)
    kept = [
        any(value in needed for value in column) for column, _ in zip(columns, range(count), strict=False)
    ]
    if not all(kept):
        keep_carries(loop, kept)
        context.report(loop, "dropped carries that nobody reads", carries=kept.count(False))
    if loop.name == "flow.while":
        return
    count = sum(kept)
    kept = [True] * count + [result in needed for result in loop.results[count:]]
    if not all(kept):
        keep_operands(loop.regions[0].terminator, kept)
        keep_results(loop, kept)
        context.report(loop, "dropped stacked outputs that nobody reads", outputs=kept.count(False))
    kept = [True] * count + [arg in needed for arg in loop.regions[0].args[count:]]
    if not all(kept):
        keep_operands(loop, kept)
        keep_args(loop.regions[0], kept)

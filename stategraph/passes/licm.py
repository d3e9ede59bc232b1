"""Loop-invariant code motion: a pure op whose operands come from outside of the loop runs once, before it.

Not moved are ops with effects, ops that may run forever (the loop may have no trips), whatever stands in a
branch (it may not be taken), and large arrays filled with one number: they cost nothing inside, where the
compiler below fuses them, and memory outside.
"""

from __future__ import annotations

import attrs

from stategraph.ir.core import Op, Program, Region, Value
from stategraph.ir.registry import is_pure, may_diverge
from stategraph.ir.types import TensorType
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import LOOPS, is_gradient
from stategraph.passes.registry import register

_FILLING = ("jax.broadcast_in_dim", "jax.iota")


@register
@attrs.frozen
class Licm(Pass):
    """Move loop-invariant ops out of loops."""

    name = "licm"
    max_bytes: int = 256
    """Arrays that are one number repeated stay in the loop when they are larger than this."""

    def run(self, program: Program, context: Context) -> None:
        self._visit(program.body, False, context)

    def _visit(self, region: Region, is_loop: bool, context: Context) -> list[Op]:
        """Tidy the loops in ``region``; when it is a loop body itself, take out its invariant ops and return
        them.
        """
        kept: list[Op] = []
        moved: list[Op] = []
        for op in region.ops:
            placed = [op]
            # in a differentiated body, a value moved out of a loop collects what all trips send back before
            # it is multiplied
            if op.regions and (not is_gradient(op) or context.allows("fast-math")):
                placed = [*self._out_of(op, context), op]
            for candidate in placed:
                if is_loop and self._is_invariant(candidate, region):
                    candidate.parent = None  # those that take its results see that it is outside
                    moved.append(candidate)
                else:
                    candidate.parent = region
                    kept.append(candidate)
        region.ops = kept
        return moved

    def _out_of(self, op: Op, context: Context) -> list[Op]:
        free = [found for inner in op.regions for found in self._visit(inner, op.name in LOOPS, context)]
        if free:
            context.report(op, "moved invariant ops out of the loop", ops=len(free))
        return free

    def _is_invariant(self, op: Op, body: Region) -> bool:
        for operand in op.operands:
            if _stands_in(operand, body):
                return False
        if not op.results or op.name == "flow.yield" or not is_pure(op):
            return False
        if op.regions:
            if may_diverge(op) or any(_stands_in(v, body) for nested in op.walk() for v in nested.operands):
                return False
        return op.name not in _FILLING or not self._is_large_filling(op)

    def _is_large_filling(self, op: Op) -> bool:
        operands = op.operands
        scalar = not operands or (isinstance(operands[0].type, TensorType) and operands[0].type.size == 1)
        return scalar and op.result.type.nbytes > self.max_bytes


def _stands_in(value: Value, region: Region) -> bool:
    """Whether ``value`` is an argument of ``region`` or the result of an op directly in it."""
    owner = value.owner
    return (owner.parent if type(owner) is Op else owner) is region

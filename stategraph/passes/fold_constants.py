"""Constant folding: what is known while compiling is computed while compiling.

A pure ``jax.*`` op on constants is evaluated by the backend's hook (``hooks.evaluate``) when its results are
small; a branch whose index is a constant becomes the branch taken; a loop of no trips becomes its initial
values. No algebra happens here: ``x - x``, ``x * 0`` and ``0 + x`` are no constants, as x may be NaN,
infinite or -0.0.
"""

from __future__ import annotations

import attrs
import numpy as np

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.registry import is_pure
from stategraph.ir.types import TensorType, Type, numpy_dtype
from stategraph.passes import hooks
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, splice
from stategraph.passes.registry import register

_FILLING = ("jax.broadcast_in_dim", "jax.pad")


@register
@attrs.frozen
class FoldConstants(Pass):
    """Evaluate ops on constants, take branches that are known, drop loops of no trips."""

    name = "fold-constants"
    max_elements: int = 16
    """Results with more elements than this stay computed."""

    def run(self, program: Program, context: Context) -> None:
        doomed: list[Op] = []
        self._visit(program.body, doomed, context)
        REWRITER.erase_all(doomed)

    def _visit(self, region: Region, doomed: list[Op], context: Context) -> None:
        placed: list[Op] = []
        pending = region.ops[::-1]
        restructured = False
        while pending:
            op = pending.pop()
            replacement = self._dissolve(op, context) if op.regions else None
            if replacement is not None:
                pending += reversed(replacement)
                restructured = True
                continue
            placed.append(op)
            for inner in op.regions:
                self._visit(inner, doomed, context)
            if not op.regions and op.operands and self._fold(op):
                doomed.append(op)
        if restructured:
            region.ops = placed

    def _dissolve(self, op: Op, context: Context) -> list[Op] | None:
        """The ops that stand for a branch or loop that is known, None when it is not."""
        if op.name == "flow.cond" and isinstance(op.operands[0], Constant):
            index = min(max(int(op.operands[0].data), 0), len(op.regions) - 1)
            context.report(op, "took the only branch that can run", branch=index)
            return splice(op, op.regions[index], ())
        if op.name == "flow.scan" and op.attributes["length"] == 0:
            return _without_trips(op, context)
        return None

    def _fold(self, op: Op) -> bool:
        if not op.name.startswith("jax.") or not op.results:
            return False
        if not all(isinstance(operand, Constant) for operand in op.operands):
            return False
        if not all(isinstance(r.type, TensorType) and r.type.size <= self.max_elements for r in op.results):
            return False
        if op.name in _FILLING and any(r.type.nbytes > op.operands[0].type.nbytes for r in op.results):
            return False  # is read more easily than its elements, and costs nothing
        if not is_pure(op) or _names_an_axis(op):
            return False
        arrays = hooks.evaluate(op)
        if arrays is None:
            return False
        for result, array in zip(op.results, arrays, strict=True):
            REWRITER.replace_uses(result, Constant(array, result.type))
        return True


def _names_an_axis(op: Op) -> bool:
    """Whether the op speaks of a mapped or mesh axis: then its value depends on where it runs."""
    return any(
        "axis_name" in key or key in ("axes_names", "axis_index_groups") for key in op.attributes
    ) or any(
        key == "axes" and isinstance(value, tuple) and any(isinstance(axis, str) for axis in value)
        for key, value in op.attributes.items()
    )


def _without_trips(op: Op, context: Context) -> list[Op] | None:
    """What a scan of length 0 leaves: its initial values, and outputs without elements."""
    count = op.attributes["carry"]
    if any(
        init.type != result.type for init, result in zip(op.operands[:count], op.results[:count], strict=True)
    ):
        return None  # the initial value is weakly typed, the result is not
    if not all(isinstance(result.type, TensorType) for result in op.results[count:]):
        return None
    context.report(op, "dropped a loop of no trips")
    outputs = [filled(result.type, op) for result in op.results[count:]]
    values: list[Value] = [*op.operands[:count], *(output.result for output in outputs)]
    for result, value in zip(op.results, values, strict=True):
        REWRITER.replace_uses(result, value)
    REWRITER.detach(op)
    for output in outputs:
        output.parent = op.parent
    op.parent = None
    return outputs


def filled(type_: Type, at: Op) -> Op:
    """An op that makes zeros of a tensor type."""
    assert isinstance(type_, TensorType)
    zero = Constant(np.zeros((), numpy_dtype(type_.dtype)), TensorType(type_.dtype, (), type_.weak))
    attributes = {"shape": type_.shape, "broadcast_dimensions": (), "sharding": None}
    return Op("jax.broadcast_in_dim", [zero], [type_], attributes, location=at.location)

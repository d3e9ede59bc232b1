"""What a kernel rounds otherwise than the ops one by one would, and what of a region has to be in it for that.

A kernel rounds ``a * b + c`` once, multiplies the literals of ``(x * c) * d``, and has a polynomial for ``expm1(x) / x``
(``backends.codegen.fusing``). What an op computes must not depend on what else a program asks for, so

- where a loop has event products, all that rounds and that a kernel can hold is in one (``rounds``);
- what an op is fused with is in its kernel; if it is in another one too, or outside, it is computed twice (``complete``).
"""

from __future__ import annotations

from stategraph.ir.clone import clone_op
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.types import TensorType
from stategraph.passes.edit import REWRITER
from stategraph.passes.native_ops import (
    ELEMENTWISE,
    EVENTS,
    FLOAT_ONLY,
    FLOATS,
    INLINED,
    REDUCTIONS,
    SUMS,
    why_not,
)

EXACT = frozenset(
    f"jax.{name}"
    for name in [
        "max",
        "min",
        "neg",
        "abs",
        "sign",
        "select_n",
        "clamp",
        "stop_gradient",
        "copy",
        "copy_p",
        "floor",
        "ceil",
        "round",
        "reduce_max",
        "reduce_min",
        "bitcast_convert_type",
    ]
)
"""Ops that round nothing."""
_ROUNDING = (
    ELEMENTWISE | FLOAT_ONLY | EVENTS | REDUCTIONS.keys() | {"jax.cumsum", "jax.scatter-add"}
) - EXACT
_ROUNDING |= {"jax.dot_general"}


def rounds(op: Op) -> bool:
    """Whether an op, or one in its regions, rounds floats."""
    return any(
        one.name in _ROUNDING and any(_is_float(result) for result in one.results) for one in (op, *op.walk())
    )


def complete(group: list[Op], region: Region) -> list[Op]:
    """The ops of a group and copies of those that they are fused with, in the order of the region, where the copies are put.

    Args:
      group: ops of the region that become a kernel.
      region: a region that may be changed.
    """
    inside, copies, left = set(group), dict[Op, Op](), list(group)
    while left:
        op = left.pop()
        for index, operand in enumerate(list(op.operands)):
            owner = operand.owner
            if not isinstance(owner, Op) or owner.parent is not region or owner in inside:
                continue
            if not _is_fused(op, owner, operand) or why_not(owner) is not None:
                continue
            if owner not in copies:
                copy = copies[owner] = clone_op(owner, {})
                REWRITER.insert_after(owner, copy)
                inside.add(copy)
                left.append(copy)
            REWRITER.set_operands(
                op, [*op.operands[:index], copies[owner].results[operand.index], *op.operands[index + 1 :]]
            )
    return [op for op in region.ops if op in inside] if copies else group


def _is_fused(op: Op, owner: Op, value: Value) -> bool:
    """Whether a kernel computes ``op`` otherwise if it knows that ``owner`` computes one of its operands."""
    if not _is_float(value):
        return False
    if owner.name in INLINED:
        inner = owner.regions[0].yielded[value.index].owner
        return isinstance(inner, Op) and _is_fused(op, inner, owner.regions[0].yielded[value.index])
    if op.name in INLINED:
        return owner.name in ("jax.mul", "jax.expm1") or (owner.name == "jax.div" and _has_literal(owner))
    if op.name in SUMS:
        return owner.name == "jax.mul"
    if op.name == "jax.mul":
        return owner.name in ("jax.mul", "jax.div") and _has_literal(op) and _has_literal(owner)
    return op.name == "jax.div" and owner.name == "jax.expm1"


def _has_literal(op: Op) -> bool:
    return any(type(operand) is Constant for operand in op.operands)


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype in FLOATS

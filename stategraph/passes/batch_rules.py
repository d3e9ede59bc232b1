"""What an op of a loop body becomes when it runs once for all steps: the *step axis* stands first in every operand that
differs from step to step, and in the results.

    RULES["jax.transpose"](batch) -> the stacked result

A rule sees the op through a ``Batch``. Ops without a rule stay in the loop; so do ops that say where their result lies
(``sharding``), because that says nothing about the step axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from stategraph.ir.core import Op, Value
from stategraph.ir.types import KeyType, TensorType, Type

ELEMENTWISE = frozenset(
    f"jax.{name}"
    for names in (
        ("abs", "neg", "sign", "floor", "ceil", "is_finite", "convert_element_type", "copy"),
        (
            "add",
            "add_any",
            "sub",
            "mul",
            "div",
            "max",
            "min",
            "pow",
            "integer_pow",
            "square",
            "sqrt",
            "rsqrt",
        ),
        ("exp", "exp2", "expm1", "log", "log1p", "logistic", "erf", "sin", "cos", "tan", "tanh", "atan2"),
        ("eq", "ne", "ge", "gt", "le", "lt", "and", "or", "xor", "not", "select_n", "clamp"),
    )
    for name in names
)
"""Ops whose results have the shape of their operands, one element at a time; operands may also be single numbers."""


def stacked(type_: Type, length: int) -> Type:
    """The type of ``length`` values of a type, one behind the other."""
    if isinstance(type_, TensorType):
        return TensorType(type_.dtype, (length, *type_.shape), type_.weak)
    assert isinstance(type_, KeyType)
    return KeyType(type_.impl, (length, *type_.shape))


@attrs.define
class Batch:
    """One op on its way out of the loop."""

    op: Op
    operands: Sequence[Value]
    """What it takes outside: stacked values, and values that are the same on every step."""
    moving: Sequence[bool]
    """Which of them are stacked."""
    length: int
    ops: list[Op]
    """Where the new ops go."""

    def emit(self, name: str, operands: Sequence[Value], type_: Type, attributes: dict[str, Any]) -> Value:
        op = Op(name, operands, [type_], attributes, location=self.op.location)
        self.ops.append(op)
        return op.result

    def same(self, operands: Sequence[Value], **changes: Any) -> Value:
        """The op itself on stacked operands, with some attributes changed."""
        result = self.op.result
        attributes = {**self.op.attributes, **changes}
        return self.emit(self.op.name, operands, stacked(result.type, self.length), attributes)

    def aligned(self, index: int, shape: tuple[int, ...]) -> Value:
        """Operand ``index`` with a step axis, of as many axes as the result; single numbers that do not move stay as they
        are.
        """
        value, own = self.operands[index], self.op.operands[index].type
        assert isinstance(own, TensorType)
        moves, single = self.moving[index], bool(shape) and not own.shape
        if (single and not moves) or (moves and not single):
            return value
        wanted = (self.length, *(shape if single else own.shape))
        kept = () if single else range(1, len(wanted))
        attributes = {
            "shape": wanted,
            "broadcast_dimensions": (0,) if moves else tuple(kept),
            "sharding": None,
        }
        return self.emit("jax.broadcast_in_dim", [value], TensorType(own.dtype, wanted, own.weak), attributes)

    def transposed(self, value: Value, permutation: tuple[int, ...]) -> Value:
        """``value`` with its axes in another order."""
        if permutation == tuple(range(len(permutation))):
            return value
        assert isinstance(value.type, TensorType)
        shape = tuple(value.type.shape[i] for i in permutation)
        type_ = TensorType(value.type.dtype, shape, value.type.weak)
        return self.emit("jax.transpose", [value], type_, {"permutation": permutation})

    def reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        """``value`` in another shape."""
        assert isinstance(value.type, TensorType)
        if value.type.shape == shape:
            return value
        type_ = TensorType(value.type.dtype, shape, value.type.weak)
        attributes = {"new_sizes": shape, "dimensions": None, "sharding": None}
        return self.emit("jax.reshape", [value], type_, attributes)


def shape_of(value: Value) -> tuple[int, ...]:
    assert isinstance(value.type, TensorType)
    return value.type.shape


def _later(axes: Sequence[int]) -> tuple[int, ...]:
    """Axes, where the step axis has come before them."""
    return tuple(axis + 1 for axis in axes)


def _elementwise(batch: Batch) -> Value:
    shape = shape_of(batch.op.result)
    return batch.same([batch.aligned(i, shape) for i in range(len(batch.operands))])


def _broadcast(batch: Batch) -> Value:
    attributes = batch.op.attributes
    return batch.same(
        batch.operands,
        shape=(batch.length, *attributes["shape"]),
        broadcast_dimensions=(0, *_later(attributes["broadcast_dimensions"])),
    )


def _slice(batch: Batch) -> Value:
    start, limit, strides = (batch.op.attributes[k] for k in ("start_indices", "limit_indices", "strides"))
    return batch.same(
        batch.operands,
        start_indices=(0, *start),
        limit_indices=(batch.length, *limit),
        strides=None if strides is None else (1, *strides),
    )


def _concatenate(batch: Batch) -> Value:
    shape = shape_of(batch.op.result)
    parts = [batch.aligned(i, shape) for i in range(len(batch.operands))]
    return batch.same(parts, dimension=batch.op.attributes["dimension"] + 1)


def _dot(batch: Batch) -> Value:
    """The step axis is a batch axis where both sides have it, else a free axis of the side that does, which becomes the
    left one.
    """
    attributes = batch.op.attributes
    sides = list(zip(batch.operands, *attributes["dimension_numbers"], batch.moving, strict=True))
    sides = [
        (value, _later(taken), _later(kept), True) if moves else (value, tuple(taken), tuple(kept), False)
        for value, taken, kept, moves in sides
    ]
    (_, left, left_batch, moves_left), (_, right, right_batch, moves_right) = sides
    if moves_left and moves_right:
        numbers = ((left, right), ((0, *left_batch), (0, *right_batch)))
        return batch.same(batch.operands, dimension_numbers=numbers)
    precision = attributes["precision"]
    if moves_right:
        sides.reverse()
        precision = None if precision is None else precision[::-1]
    numbers = ((sides[0][1], sides[1][1]), (sides[0][2], sides[1][2]))
    operands = [sides[0][0], sides[1][0]]
    type_ = batch.op.result.type
    assert isinstance(type_, TensorType)
    product = batch.emit(
        batch.op.name,
        operands,
        TensorType(type_.dtype, product_shape(operands, numbers), type_.weak),
        {**attributes, "dimension_numbers": numbers, "precision": precision},
    )
    # batch axes, step, free axes of the one side, free axes of the other
    count, rank = len(left_batch), len(type_.shape)
    middle = count + 1
    if moves_right:
        middle += len(shape_of(batch.operands[1])) - 1 - len(right) - count
    return batch.transposed(
        product, (count, *range(count), *range(middle, rank + 1), *range(count + 1, middle))
    )


def _events(batch: Batch) -> Value:
    """``event.dense`` of the events of all steps, one batch; the matrix stays the same."""
    events, matrix = batch.operands
    shape, result = shape_of(events), batch.op.result.type
    assert isinstance(events.type, TensorType) and isinstance(result, TensorType)
    rows = math.prod(shape[:-1])
    flat = batch.reshaped(events, (rows, shape[-1]))
    flat.event = batch.op.operands[0].event
    type_ = TensorType(result.dtype, (rows, result.shape[-1]), result.weak)
    sent = batch.emit(batch.op.name, [flat, matrix], type_, dict(batch.op.attributes))
    return batch.reshaped(sent, (batch.length, *result.shape))


def product_shape(operands: Sequence[Value], numbers: Any) -> tuple[int, ...]:
    """The shape of a ``dot_general``: batch axes, free axes of the left side, free axes of the right side."""
    contracting, batches = numbers
    shape = tuple(shape_of(operands[0])[i] for i in batches[0])
    for operand, taken, kept in zip(operands, contracting, batches, strict=True):
        shape += tuple(n for i, n in enumerate(shape_of(operand)) if i not in taken and i not in kept)
    return shape


Rule = Callable[[Batch], Value]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "jax.broadcast_in_dim": _broadcast,
    "jax.concatenate": _concatenate,
    "jax.dot_general": _dot,
    "event.dense": _events,
    "jax.reduce_max": lambda batch: batch.same(batch.operands, axes=_later(batch.op.attributes["axes"])),
    "jax.reduce_sum": lambda batch: batch.same(batch.operands, axes=_later(batch.op.attributes["axes"])),
    "jax.reshape": lambda batch: batch.same(
        batch.operands, new_sizes=(batch.length, *batch.op.attributes["new_sizes"])
    ),
    "jax.slice": _slice,
    "jax.squeeze": lambda batch: batch.same(
        batch.operands, dimensions=_later(batch.op.attributes["dimensions"])
    ),
    "jax.transpose": lambda batch: batch.same(
        batch.operands, permutation=(0, *_later(batch.op.attributes["permutation"]))
    ),
}
"""How to batch each op that can be."""


def has_rule(op: Op) -> bool:
    """Whether an op can run once for all steps."""
    attributes = op.attributes
    if op.name not in RULES or op.regions or len(op.results) != 1 or "effects" in attributes:
        return False
    if attributes.get("sharding") is not None or attributes.get("out_sharding") is not None:
        return False
    if op.name == "jax.reshape" and attributes.get("dimensions") is not None:
        return False
    if op.name == "jax.dot_general" and not isinstance(attributes["precision"], tuple | None):
        return False
    return all(isinstance(value.type, TensorType) for value in (*op.operands, op.result))


def work(op: Op) -> int:
    """Multiplications of a ``dot_general`` in one step."""
    ((left, _), _) = op.attributes["dimension_numbers"]
    shape = shape_of(op.operands[0])
    count: int = math.prod(shape_of(op.result)) * math.prod(shape[i] for i in left)
    return count

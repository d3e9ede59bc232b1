"""Ops whose result's elements are elements of their operand: which one, for each element of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stategraph.backends.codegen.arithmetic import convert
from stategraph.backends.codegen.keys import COUNT
from stategraph.backends.codegen.llvm import literal, llvm_type
from stategraph.backends.codegen.schedule import tensor
from stategraph.ir.core import Op
from stategraph.ir.types import numpy_dtype

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block


def read_at(block: Block, op: Op, index: Sequence[str]) -> str:
    """The element of ``op``'s result at ``index``."""
    return _RULES[op.name](block, op, index)


def _load(block: Block, op: Op, index: Sequence[str]) -> str:
    source = op.operands[0]
    return block.load(source, block.offset(index, tensor(source).shape))


def _iota(block: Block, op: Op, index: Sequence[str]) -> str:
    return convert(block.f, index[op.attributes["dimension"]], "i64", tensor(op.result).dtype)


def _count(block: Block, op: Op, index: Sequence[str]) -> str:
    shape, axes = tensor(op.result).shape, op.attributes["axes"]
    return convert(block.f, block.offset(index[-axes:], shape[-axes:]), "i64", "u32")


def _broadcast(block: Block, op: Op, index: Sequence[str]) -> str:
    shape = tensor(op.operands[0]).shape
    axes = op.attributes["broadcast_dimensions"]
    return _load(
        block, op, ["0" if size == 1 else index[axis] for axis, size in zip(axes, shape, strict=True)]
    )


def _added(block: Block, a: str, b: int | str) -> str:
    if b in (0, "0"):
        return a
    return str(b) if a == "0" else block.f.let(f"add nsw i64 {a}, {b}")


def _slice(block: Block, op: Op, index: Sequence[str]) -> str:
    starts = op.attributes["start_indices"]
    strides = op.attributes["strides"] or (1,) * len(starts)
    found = []
    for position, start, stride in zip(index, starts, strides, strict=True):
        if stride != 1 and position != "0":
            position = block.f.let(f"mul nsw i64 {position}, {stride}")
        found.append(_added(block, position, start))
    return _load(block, op, found)


def _dynamic_slice(block: Block, op: Op, index: Sequence[str]) -> str:
    starts = block.start_index(op, 1)
    return _load(block, op, [_added(block, i, start) for i, start in zip(index, starts, strict=True)])


def _transpose(block: Block, op: Op, index: Sequence[str]) -> str:
    found = ["0"] * len(index)
    for position, axis in zip(index, op.attributes["permutation"], strict=True):
        found[axis] = position
    return _load(block, op, found)


def _reverse(block: Block, op: Op, index: Sequence[str]) -> str:
    found = list(index)
    for axis in op.attributes["dimensions"]:
        size = tensor(op.result).shape[axis]
        if size > 1:
            found[axis] = block.f.let(f"sub nsw i64 {size - 1}, {found[axis]}")
    return _load(block, op, found)


def _reshape(block: Block, op: Op, index: Sequence[str]) -> str:
    return block.load(op.operands[0], "0")


def _gather(block: Block, op: Op, index: Sequence[str]) -> str:
    """The general gather without batch dimensions."""
    f, attributes = block.f, op.attributes
    source, starts = tensor(op.operands[0]), tensor(op.operands[1])
    numbers: dict[str, Any] = dict(attributes["dimension_numbers"].fields)
    sizes: Sequence[int] = attributes["slice_sizes"]
    batch = [i for axis, i in enumerate(index) if axis not in numbers["offset_dims"]]
    offsets = iter([index[axis] for axis in numbers["offset_dims"]])
    found = ["0" if axis in numbers["collapsed_slice_dims"] else next(offsets) for axis in range(len(sizes))]
    fills = attributes["mode"].member == "FILL_OR_DROP"
    valid: list[str] = []
    for k, axis in enumerate(numbers["start_index_map"]):
        start = block.load(op.operands[1], block.offset([*batch, str(k)], starts.shape))
        last = source.shape[axis] - sizes[axis]
        clamped = block.clamped(start, starts.dtype, last)
        if fills:
            wide = convert(f, start, starts.dtype, "i64")
            valid.append(f.let(f"icmp eq i64 {wide}, {clamped}"))
        found[axis] = _added(block, found[axis], clamped)
    value = _load(block, op, found)
    for condition in valid:
        filling = attributes["fill_value"]
        missing = literal(_missing(source.dtype) if filling is None else filling, source.dtype)
        type_ = llvm_type(source.dtype)
        value = f.let(f"select i1 {condition}, {type_} {value}, {type_} {missing}")
    return value


def _missing(dtype: str) -> Any:
    """What JAX gives for an index that is not there."""
    if dtype[0] == "f":
        return np.nan
    if dtype == "bool":
        return True
    limits = np.iinfo(numpy_dtype(dtype))
    return limits.min if dtype[0] == "i" else limits.max


_RULES: dict[str, Callable[[Block, Op, Sequence[str]], str]] = {
    "jax.iota": _iota,
    COUNT: _count,
    "jax.broadcast_in_dim": _broadcast,
    "jax.slice": _slice,
    "jax.dynamic_slice": _dynamic_slice,
    "jax.transpose": _transpose,
    "jax.rev": _reverse,
    "jax.reshape": _reshape,
    "jax.squeeze": _reshape,
    "jax.expand_dims": _reshape,
    "jax.gather": _gather,
}

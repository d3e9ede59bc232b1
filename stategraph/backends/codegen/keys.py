"""Random keys as pairs of 32-bit numbers: a region with keys, written with ordinary arrays.

A key of ``key<fry>[S]`` is ``u32[S, 2]``. What is done with keys becomes the hash of JAX's default generator, threefry with
two words (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011), of numbers that are
counted: the same bits. Two ops exist only here:

- ``keys.count``: the position of an element in the last ``axes`` axes, as u32;
- ``keys.hash``: of (key's two words, two counts), elementwise; ``word`` says which of the two words of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stategraph.backends.codegen.llvm import Function
from stategraph.ir.clone import ValueMap
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.types import KeyType, TensorType, Type, numpy_dtype
from stategraph.passes.native_ops import INLINED

COUNT, HASH = "keys.count", "keys.hash"
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def hashed(f: Function, key: Sequence[str], counts: Sequence[str]) -> tuple[str, str]:
    """The two words of the hash: 20 rounds."""

    def add(a: str, b: str | int) -> str:
        return f.let(f"add i32 {a}, {b}")

    parity = f.let(f"xor i32 {f.let(f'xor i32 {key[0]}, {key[1]}')}, {_PARITY}")
    words = (key[0], key[1], parity)
    a, b = add(counts[0], key[0]), add(counts[1], key[1])
    for group in range(5):
        for by in _ROTATIONS[group % 2]:
            a = add(a, b)
            b = f.let(f"xor i32 {a}, {f.call('llvm.fshl.i32', 'u32', b, b, str(by))}")
        a = add(a, words[(group + 1) % 3])
        b = add(add(b, words[(group + 2) % 3]), group + 1)
    return a, b


def without_keys(region: Region, partitionable: bool) -> Region:
    """A region that does the same with arrays in the place of keys; the region itself where there are none.

    Args:
      region: one that a kernel can hold.
      partitionable: JAX's option ``jax_threefry_partitionable``: which numbers are hashed.
    """
    inner = [value for op in region.walk() for value in (*op.operands, *op.results)]
    if not any(isinstance(value.type, KeyType) for value in (*region.args, *inner)):
        return region
    return _Writer(partitionable).region(region)


def _plain(type_: Type) -> Type:
    return TensorType("u32", (*type_.shape, 2)) if isinstance(type_, KeyType) else type_


def _shape(value: Value) -> tuple[int, ...]:
    """Without the words of keys."""
    type_ = value.type
    if not isinstance(type_, TensorType | KeyType):
        raise TypeError(f"no kernel computes with {type_}")
    return type_.shape


def _number(value: int, dtype: str = "u32") -> Constant:
    return Constant(np.asarray(value, numpy_dtype(dtype)), TensorType(dtype))


class _Writer:
    """Copies a region and writes what is done with keys out."""

    def __init__(self, partitionable: bool) -> None:
        self.partitionable = partitionable
        self.values: ValueMap = {}
        self.target = Region()

    def region(self, region: Region) -> Region:
        outer, self.target = self.target, Region(_plain(arg.type) for arg in region.args)
        self.values.update(zip(region.args, self.target.args, strict=True))
        for op in region.ops:
            self.copy(op)
        made, self.target = self.target, outer
        return made

    def copy(self, op: Op) -> None:
        rule = _RULES.get(op.name)
        moves = any(isinstance(value.type, KeyType) for value in (*op.operands, *op.results))
        if rule is not None:
            self.values[op.result] = rule(self, op)
        elif moves and op.name in _MOVED:
            operands = [self.value(value) for value in op.operands]
            more, attributes = _MOVED[op.name](op)
            if op.name == "jax.select_n" and _shape(op.operands[0]):
                operands[0] = self.shaped(operands[0], (*_shape(op.operands[0]), 1))
            self.values[op.result] = self.op(
                op.name, [*operands, *more], _plain(op.result.type), **{**op.attributes, **attributes}
            )
        else:
            regions = op.regions[:1] if op.name in INLINED else op.regions
            new = Op(
                op.name,
                [self.value(value) for value in op.operands],
                [_plain(result.type) for result in op.results],
                op.attributes,
                [self.region(inner) for inner in regions],
                op.location,
            )
            self.values.update(zip(op.results, new.results, strict=True))
            self.target.append(new)

    # -------------------------------------------------------------------------------------------------- values

    def value(self, value: Value) -> Value:
        if isinstance(value, Constant):
            return Constant(value.data, value.type)
        return self.values[value]

    def op(self, name: str, operands: Sequence[Value], type_: Type, **attributes: Any) -> Value:
        return self.target.append(Op(name, operands, [type_], attributes)).result

    def shaped(self, value: Value, shape: Sequence[int]) -> Value:
        """The same elements in another shape."""
        type_ = value.type
        if not isinstance(type_, TensorType) or type_.shape == tuple(shape):
            return value
        return self.op("jax.reshape", [value], TensorType(type_.dtype, tuple(shape)), dimensions=None)

    def binary(self, name: str, a: Value, b: Value | int, dtype: str = "u32") -> Value:
        """An elementwise op of two operands, whose axes of length one stand for any length."""
        other = _number(b, dtype) if isinstance(b, int) else b
        shape = np.broadcast_shapes(_shape(a), _shape(other))
        result = "bool" if name in ("lt", "eq") else dtype
        return self.op(f"jax.{name}", [a, other], TensorType(result, shape))

    def select(self, which: Value, no: Value, yes: Value) -> Value:
        shape = np.broadcast_shapes(*map(_shape, (which, no, yes)))
        return self.op("jax.select_n", [which, no, yes], TensorType("u32", shape))

    def converted(self, value: Value, dtype: str) -> Value:
        return self.op("jax.convert_element_type", [value], TensorType(dtype, _shape(value)))

    def words(self, key: Value, axes: int) -> list[Value]:
        """The two words of a key, with ``axes`` axes of length one behind the key's own."""
        shape = _shape(key)[:-1]
        found = []
        for word in range(2):
            start, stop = (0,) * len(shape) + (word,), (*shape, word + 1)
            part = self.op(
                "jax.slice", [key], TensorType("u32", (*shape, 1)), start_indices=start, limit_indices=stop, strides=None
            )  # fmt: skip
            found.append(self.shaped(part, (*shape, *(1,) * axes)))
        return found

    def count(self, outer: Sequence[int], shape: Sequence[int]) -> Value:
        """The position of each element in the axes of ``shape``, behind the axes ``outer``."""
        if math.prod(shape) == 1:
            return _number(0)
        return self.op(COUNT, [], TensorType("u32", (*outer, *shape)), axes=len(shape))

    def hash(self, key: Sequence[Value], high: Value, low: Value) -> tuple[Value, Value]:
        shape = np.broadcast_shapes(*map(_shape, (*key, high, low)))
        first, second = (
            self.op(HASH, [*key, high, low], TensorType("u32", shape), word=word) for word in range(2)
        )
        return first, second

    def pair(self, outer: Sequence[int], first: Value, second: Value) -> Value:
        """``u32[outer, 2]`` of two values with a last axis of length one, or of numbers."""
        last = self.binary("and", self.count((), (*outer, 2)), 1)
        return self.select(self.binary("eq", last, 1), first, second)

    def halves(self, key: Sequence[Value], position: Value, size: int) -> Value:
        """The numbers below ``size`` hashed as JAX's older layout does: the first half with the second half."""
        half = (size + 1) // 2
        is_first = self.binary("lt", position, half)
        at = self.select(is_first, self.binary("sub", position, half), position)
        other = self.binary("add", at, half)
        if size % 2:
            other = self.select(self.binary("lt", other, size), _number(0), other)
        first, second = self.hash(key, at, other)
        return self.select(is_first, second, first)

    # ------------------------------------------------------------------------------------------ what keys are for

    def seed(self, op: Op) -> Value:
        seeds = self.value(op.operands[0])
        type_ = seeds.type
        if not isinstance(type_, TensorType):
            raise TypeError(f"a seed of the type {type_}")
        outer = type_.shape
        high: Value = _number(0)
        if type_.dtype in ("i64", "u64"):
            shifted = self.binary("shift_right_logical", seeds, 32, type_.dtype)
            high = self.shaped(self.converted(shifted, "u32"), (*outer, 1))
        low = self.shaped(self.converted(seeds, "u32"), (*outer, 1))
        return self.pair(outer, high, low)

    def fold_in(self, op: Op) -> Value:
        key, data = (self.value(value) for value in op.operands)
        words = self.words(key, 1)
        number = self.converted(data, "u32")
        number = self.shaped(number, (*_shape(number), 1))
        first, second = self.hash(words, _number(0), number)
        return self.pair(_shape(op.result), first, second)

    def split(self, op: Op) -> Value:
        key = self.value(op.operands[0])
        outer, shape = _shape(op.operands[0]), tuple(op.attributes["shape"])
        words = self.words(key, len(shape) + 1)
        position = self.count(outer, (*shape, 2))
        if not self.partitionable:
            return self.halves(words, position, 2 * math.prod(shape))
        number = self.binary("shift_right_logical", position, 1)
        first, second = self.hash(words, _number(0), number)
        return self.select(self.binary("eq", self.binary("and", position, 1), 1), first, second)

    def bits(self, op: Op) -> Value:
        key = self.value(op.operands[0])
        outer, shape = _shape(op.operands[0]), tuple(op.attributes["shape"])
        width, size = op.attributes["bit_width"], math.prod(shape)
        words, position = self.words(key, len(shape)), self.count(outer, shape)
        if width == 64:
            second_number = position if self.partitionable else self.binary("add", position, size)
            numbers = (_number(0), second_number) if self.partitionable else (position, second_number)
            first, second = (self.converted(word, "u64") for word in self.hash(words, *numbers))
            bits = self.binary("or", self.binary("shift_left", first, 32, "u64"), second, "u64")
        elif self.partitionable:
            bits = self.binary("xor", *self.hash(words, _number(0), position))
        else:
            parts = 32 // width
            at = position if parts == 1 else self.binary("div", position, parts)
            bits = self.halves(words, at, -(-size // parts))
            if parts > 1:
                place = self.binary("mul", self.binary("rem", position, parts), width)
                bits = self.binary("shift_right_logical", bits, place)
        if width < 32:
            bits = self.converted(bits, f"u{width}")
        return self.shaped(bits, _shape(op.result))

    def same(self, op: Op) -> Value:
        return self.value(op.operands[0])


_RULES: dict[str, Callable[[_Writer, Op], Value]] = {
    "jax.random_seed": _Writer.seed,
    "jax.random_fold_in": _Writer.fold_in,
    "jax.random_split": _Writer.split,
    "jax.random_bits": _Writer.bits,
    "jax.random_wrap": _Writer.same,
    "jax.random_unwrap": _Writer.same,
    "jax.random_clone": _Writer.same,
}

Moved = Callable[[Op], tuple[list[Value], dict[str, Any]]]
"""(operands behind the others, attributes that change) of an op that moves keys, for arrays of their words."""


def _slice(op: Op) -> tuple[list[Value], dict[str, Any]]:
    old = op.attributes
    changed = {"start_indices": (*old["start_indices"], 0), "limit_indices": (*old["limit_indices"], 2)}
    if old["strides"] is not None:
        changed["strides"] = (*old["strides"], 1)
    return [], changed


def _broadcast(op: Op) -> tuple[list[Value], dict[str, Any]]:
    return [], {
        "broadcast_dimensions": (*op.attributes["broadcast_dimensions"], len(_shape(op.result))),
    }


def _transpose(op: Op) -> tuple[list[Value], dict[str, Any]]:
    return [], {"permutation": (*op.attributes["permutation"], len(_shape(op.result)))}


def _unchanged(op: Op) -> tuple[list[Value], dict[str, Any]]:
    return [], {}


def _one_index_more(op: Op) -> tuple[list[Value], dict[str, Any]]:
    return [_number(0, "i32")], {}


_MOVED: dict[str, Moved] = {
    "jax.slice": _slice,
    "jax.broadcast_in_dim": _broadcast,
    "jax.transpose": _transpose,
    "jax.dynamic_slice": _one_index_more,
    "jax.dynamic_update_slice": _one_index_more,
    **dict.fromkeys(
        ["jax.squeeze", "jax.expand_dims", "jax.reshape", "jax.concatenate", "jax.select_n"], _unchanged
    ),
    **dict.fromkeys(["jax.rev", "jax.copy", "jax.copy_p", "jax.stop_gradient"], _unchanged),
}

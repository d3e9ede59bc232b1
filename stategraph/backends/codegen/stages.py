"""Ops that are code of their own: loops and branches, event products, what puts arrays together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stategraph.backends.codegen import pieces
from stategraph.backends.codegen.arithmetic import convert
from stategraph.backends.codegen.clusters import accumulate, identity
from stategraph.backends.codegen.events import Recorded, appended, compact
from stategraph.backends.codegen.llvm import is_float, item_size, literal, llvm_type
from stategraph.backends.codegen.made import jit
from stategraph.backends.codegen.matrices import dense
from stategraph.backends.codegen.places import Memory, Scalar, Target
from stategraph.backends.codegen.products import csr
from stategraph.backends.codegen.schedule import tensor
from stategraph.backends.codegen.synapses import change, outer, ring
from stategraph.ir.core import Op, Region, Value
from stategraph.passes.native_ops import REDUCTIONS

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block

Stage = Callable[["Block", Op, Sequence[str]], None]


def _place(block: Block, value: Value, pointer: str) -> None:
    """Say where an argument of a region is."""
    type_ = tensor(value)
    block.places[value] = (
        Scalar(block.f.load(pointer, type_.dtype)) if type_.size == 1 else Memory(pointer, type_.dtype)
    )


def _begin(block: Block, operands: Sequence[Value], targets: Sequence[str]) -> None:
    """Put the initial values of a loop where its carries live."""
    for operand, target in zip(operands, targets, strict=True):
        block.fill(target, operand, block.place(operand))


def _scan(block: Block, op: Op, targets: Sequence[str]) -> None:
    f, region = block.f, op.regions[0]
    count, length = op.attributes["carry"], op.attributes["length"]
    _begin(block, op.operands[:count], targets[:count])
    stacked = [
        place if isinstance(place, Scalar) else block.memory(operand)
        for operand, place in ((operand, block.place(operand)) for operand in op.operands[count:])
    ]
    listed = {
        i: Recorded.of(block, targets[i], tensor(region.yielded[i]).size, length)
        for i, result in enumerate(op.results)
        if result in block.listed
    }
    with f.loop(length) as step:
        ends = None
        if length > 1:
            is_first, is_last = (f.let(f"icmp eq i64 {step}, {at}") for at in (0, length - 1))
            ends = is_first, is_last
        if op.attributes["reverse"]:
            step = f.let(f"sub nsw i64 {length - 1}, {step}")
        for arg, target in zip(region.args[:count], targets, strict=False):
            _place(block, arg, target)
        for arg, place in zip(region.args[count:], stacked, strict=True):
            if isinstance(place, Scalar):
                block.places[arg] = place
            else:
                _place(block, arg, _row(block, place, arg, step))
        goals = [Target(target, arg) for arg, target in zip(region.args[:count], targets, strict=False)]
        for index, value in enumerate(region.yielded[count:], count):
            if index in listed:
                listed[index].step = step
                goals.append(Target(listed[index].row))
            else:
                goals.append(
                    Target(targets[index] if length == 1 else _row(block, targets[index], value, step))
                )
        outside, block.kernel.repeated = (
            block.kernel.repeated,
            block.kernel.repeated or length >= pieces.STEPS,
        )
        inner = block.inner(region, goals, ends, tuple(listed.values()))
        block.kernel.repeated = outside
        for index, recorded in listed.items():
            recorded.now(inner, inner.yielded[index])
    for recorded in listed.values():
        recorded.finish(length)


def _row(block: Block, pointer: str, value: Value, step: str) -> str:
    """The memory of one row of stacked values."""
    type_ = tensor(value)
    position = step if type_.size == 1 else block.f.let(f"mul nsw i64 {step}, {type_.size}")
    return block.f.address(pointer, position, type_.dtype)


def _while(block: Block, op: Op, targets: Sequence[str]) -> None:
    f = block.f
    condition, body = op.regions
    _begin(block, op.operands, targets)
    head, inside, done = f.fresh("while"), f.fresh("body"), f.fresh("done")
    slot = f.variable("bool")
    f.jump(head)
    f.label(head)
    for arg, target in zip(condition.args, targets, strict=True):
        _place(block, arg, target)
    block.inner(condition, [Target(slot)])
    f.emit(f"br i1 {f.load(slot, 'bool')}, label {inside}, label {done}")
    f.label(inside)
    for arg, target in zip(body.args, targets, strict=True):
        _place(block, arg, target)
    block.inner(body, [Target(target, arg) for arg, target in zip(body.args, targets, strict=True)])
    f.jump(head)
    f.label(done)


def _cond(block: Block, op: Op, targets: Sequence[str]) -> None:
    f, index = block.f, op.operands[0]
    dtype, given = tensor(index).dtype, block.scalar_of(index)
    type_, last = llvm_type(dtype), len(op.regions) - 1
    for number, region in enumerate(op.regions):
        if last == 0:
            block.inner(region, [Target(target) for target in targets])
            return
        if dtype == "bool":
            here = given if number else f.let(f"xor i1 {given}, true")
        elif number == 0:
            here = f.let(f"icmp sle {type_} {given}, 0")
        else:
            here = f.let(f"icmp {'sge' if number == last else 'eq'} {type_} {given}, {number}")
        with f.when(here):
            _branch(block, region, [Target(target) for target in targets])


def _branch(block: Block, region: Region, targets: Sequence[Target]) -> None:
    """A region whose registers are not seen after it."""
    before = dict(block.places)
    block.inner(region, targets)
    block.places.clear()
    block.places.update(before)


def _concatenate(block: Block, op: Op, targets: Sequence[str]) -> None:
    axis, shape = op.attributes["dimension"], tensor(op.result).shape
    outer = inner = 1
    for number, size in enumerate(shape):
        outer *= size if number < axis else 1
        inner *= size if number > axis else 1
    dtype, begin = tensor(op.result).dtype, 0
    row = shape[axis] * inner
    for operand in op.operands:
        length = tensor(operand).shape[axis] * inner
        source = block.memory(operand) if tensor(operand).size > 1 else _spilled(block, operand)
        with block.f.loop(outer) as i:
            target = block.f.address(targets[0], _affine(block, i, row, begin), dtype)
            block.f.copy(
                target,
                block.f.address(source, _affine(block, i, length, 0), dtype),
                length * item_size(dtype),
            )
        begin += length


def _split(block: Block, op: Op, targets: Sequence[str]) -> None:
    axis, whole = op.attributes["axis"], tensor(op.operands[0])
    outer, inner = math.prod(whole.shape[:axis]), math.prod(whole.shape[axis + 1 :])
    source = block.memory(op.operands[0]) if whole.size > 1 else _spilled(block, op.operands[0])
    dtype, begin, row = whole.dtype, 0, whole.shape[axis] * inner
    for result, target in zip(op.results, targets, strict=True):
        length = tensor(result).shape[axis] * inner
        with block.f.loop(outer) as i:
            block.f.copy(
                block.f.address(target, _affine(block, i, length, 0), dtype),
                block.f.address(source, _affine(block, i, row, begin), dtype),
                length * item_size(dtype),
            )
        begin += length


def _running_sum(block: Block, op: Op, targets: Sequence[str]) -> None:
    f, source, axis = block.f, tensor(op.operands[0]), op.attributes["axis"]
    where = block.memory(op.operands[0]) if source.size > 1 else _spilled(block, op.operands[0])
    kind = "fadd" if is_float(source.dtype) else "add"
    total, length = f.variable(source.dtype), source.shape[axis]
    with f.nest([*source.shape[:axis], *source.shape[axis + 1 :]]) as around:
        f.store(literal(0, source.dtype), total, source.dtype)
        with f.loop(length) as step:
            if op.attributes["reverse"]:
                step = f.let(f"sub nsw i64 {length - 1}, {step}")
            position = block.offset([*around[:axis], step, *around[axis:]], source.shape)
            found, so_far = f.load(where, source.dtype, position), f.load(total, source.dtype)
            so_far = f.let(f"{kind} {llvm_type(source.dtype)} {so_far}, {found}")
            f.store(so_far, total, source.dtype)
            f.store(so_far, targets[0], source.dtype, position)


def _product(block: Block, op: Op, targets: Sequence[str]) -> None:
    """A small product of matrices."""
    f, (left, right) = block.f, (tensor(value) for value in op.operands)
    (lefts, rights), _ = op.attributes["dimension_numbers"]
    rows = [axis for axis in range(len(left.shape)) if axis not in lefts]
    columns = [axis for axis in range(len(right.shape)) if axis not in rights]
    dtype, total = left.dtype, f.variable(left.dtype)
    free = [*(left.shape[axis] for axis in rows), *(right.shape[axis] for axis in columns)]
    with f.nest(free) as index:
        f.store(literal(0, dtype), total, dtype)
        with f.nest([left.shape[axis] for axis in lefts]) as inner:
            ours = dict(zip((*rows, *lefts), (*index[: len(rows)], *inner), strict=True))
            theirs = dict(zip((*columns, *rights), (*index[len(rows) :], *inner), strict=True))
            a = block.load(op.operands[0], block.offset([ours[i] for i in range(len(ours))], left.shape))
            b = block.load(op.operands[1], block.offset([theirs[i] for i in range(len(theirs))], right.shape))
            type_, flags = llvm_type(dtype), f.contract
            product = f.let(f"fmul {flags}{type_} {a}, {b}")
            f.store(f.let(f"fadd {flags}{type_} {f.load(total, dtype)}, {product}"), total, dtype)
        f.store(f.load(total, dtype), targets[0], dtype, block.offset(index, free))


def _spilled(block: Block, value: Value) -> str:
    """Memory that holds one number."""
    slot = block.f.variable(tensor(value).dtype)
    block.f.store(block.scalar_of(value), slot, tensor(value).dtype)
    return slot


def _affine(block: Block, i: str, factor: int, begin: int) -> str:
    scaled = block.f.let(f"mul nsw i64 {i}, {factor}")
    return block.f.let(f"add nsw i64 {scaled}, {begin}")


def _update_slice(block: Block, op: Op, targets: Sequence[str]) -> None:
    f, shape, part = block.f, tensor(op.operands[0]).shape, tensor(op.operands[1]).shape
    dtype = tensor(op.result).dtype
    starts = block.start_index(op, 2)
    block.fill(targets[0], op.operands[0], block.place(op.operands[0]))
    with f.nest(part) as counters:
        where = [f.let(f"add nsw i64 {i}, {start}") for i, start in zip(counters, starts, strict=True)]
        value = block.load(op.operands[1], block.offset(counters, part))
        f.store(value, targets[0], dtype, block.offset(where, shape))


def _scatter(block: Block, op: Op, targets: Sequence[str]) -> None:
    """A scatter without batch dimensions; updates beyond the borders are dropped, or moved inside with the mode CLIP."""
    f, attributes = block.f, op.attributes
    result, starts, updates = (tensor(value) for value in (op.result, *op.operands[1:]))
    numbers = dict(attributes["dimension_numbers"].fields)
    clips = attributes["mode"].member == "CLIP"
    window = [axis for axis in range(len(result.shape)) if axis not in numbers["inserted_window_dims"]]
    inner = numbers["update_window_dims"]
    outer = [axis for axis in range(len(updates.shape)) if axis not in inner]
    sizes = [1] * len(result.shape)
    for axis, at in zip(window, inner, strict=True):
        sizes[axis] = updates.shape[at]
    block.fill(targets[0], op.operands[0], block.place(op.operands[0]))
    with f.nest([updates.shape[axis] for axis in outer]) as batch:
        begins, inside = ["0"] * len(result.shape), "true"
        for k, axis in enumerate(numbers["scatter_dims_to_operand_dims"]):
            start = block.load(op.operands[1], block.offset([*batch, str(k)], starts.shape))
            begins[axis] = block.clamped(start, starts.dtype, result.shape[axis] - sizes[axis])
            if not clips:
                same = f.let(f"icmp eq i64 {convert(f, start, starts.dtype, 'i64')}, {begins[axis]}")
                inside = f.let(f"and i1 {inside}, {same}")
        with f.when(inside), f.nest([updates.shape[axis] for axis in inner]) as offsets:
            at = dict(zip((*outer, *inner), (*batch, *offsets), strict=True))
            where = list(begins)
            for axis, offset in zip(window, offsets, strict=True):
                where[axis] = f.let(f"add nsw i64 {begins[axis]}, {offset}")
            value = block.load(op.operands[2], block.offset([at[i] for i in range(len(at))], updates.shape))
            position = block.offset(where, result.shape)
            if op.name != "jax.scatter":
                kind = "fadd" if is_float(result.dtype) else "add"
                old = f.load(targets[0], result.dtype, position)
                value = f.let(f"{kind} {llvm_type(result.dtype)} {old}, {value}")
            f.store(value, targets[0], result.dtype, position)


def _stack(block: Block, op: Op, targets: Sequence[str]) -> None:
    f, axis, shape = block.f, op.attributes["axis"], tensor(op.result).shape
    for number, operand in enumerate(op.operands):
        part = tensor(operand)
        with f.nest(part.shape) as index:
            value = block.load(operand, block.offset(index, part.shape))
            where = block.offset([*index[:axis], str(number), *index[axis:]], shape)
            f.store(value, targets[0], part.dtype, where)


def _reduce(block: Block, op: Op, targets: Sequence[str]) -> None:
    """In a function of its own: the order of a sum does not depend on what is around it."""
    source = tensor(op.operands[0])
    where = block.memory(op.operands[0]) if source.size > 1 else _spilled(block, op.operands[0])
    outlined = pieces.Outlined(block)
    with outlined.written():
        _reduced(block, op, outlined.parameter(where, "ptr"), outlined.parameter(targets[0], "ptr"))


def _reduced(block: Block, op: Op, where: str, target: str) -> None:
    f, source, axes = block.f, tensor(op.operands[0]), op.attributes["axes"]
    kept = [axis for axis in range(len(source.shape)) if axis not in axes]
    slot = f.variable(source.dtype)
    with f.nest([source.shape[axis] for axis in kept]) as outer:
        f.store(identity(op), slot, source.dtype)
        with f.nest([source.shape[axis] for axis in axes]) as inner:
            index = dict(zip((*kept, *axes), (*outer, *inner), strict=True))
            position = block.offset([index[axis] for axis in range(len(index))], source.shape)
            accumulate(f, op, slot, f.load(where, source.dtype, position))
        to = block.offset(outer, tensor(op.result).shape)
        f.store(f.load(slot, source.dtype), target, source.dtype, to)


STAGES: dict[str, Stage] = {
    "flow.scan": _scan,
    "flow.while": _while,
    "flow.cond": _cond,
    "jax.concatenate": _concatenate,
    "jax.split": _split,
    "jax.cumsum": _running_sum,
    "jax.dot_general": _product,
    "jax.dynamic_update_slice": _update_slice,
    "jax.stack": _stack,
    "jax.scatter": _scatter,
    "jax.scatter-add": _scatter,
    "event.csr": csr,
    "event.csr_add": csr,
    "event.csr_ring": ring,
    "event.csr_outer": outer,
    "event.csr_outer_add": outer,
    "event.csr_change": change,
    "event.dense": dense,
    "event.compact": compact,
    "event.append": appended,
    "event.jit": jit,
    **dict.fromkeys(REDUCTIONS, _reduce),
}

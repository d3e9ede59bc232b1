"""Event ops other than sums: values and changes of the synapses of active neurons, and sums in a ring buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stategraph.backends.codegen.arithmetic import convert
from stategraph.backends.codegen.events import array, bounds, each_active, kept_events, lanes, moved
from stategraph.backends.codegen.functions import Maths
from stategraph.backends.codegen.llvm import Function, item_size, llvm_type
from stategraph.backends.codegen.schedule import tensor
from stategraph.ir.core import Op

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block


def outer(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.csr_outer``, and ``event.csr_outer_add``, which begins with a sum that comes first."""
    f = block.f
    *total, pre, post, indptr, indices = op.operands
    dtype, shape = tensor(op.result).dtype, op.attributes["shape"]
    starts, ends = array(block, indptr), array(block, indices)
    sent, sent_as = kept_events(block, pre)
    other, other_as = kept_events(block, post)
    if total:
        block.fill(targets[0], op.result, block.place(total[0]))
    else:
        f.clear(targets[0], tensor(op.result).size * item_size(dtype))
    batch = tensor(pre).shape[:-1]
    with f.nest(batch) as lane:
        if batch:
            sent = moved(block, sent, lane[0], shape[0], sent_as)
            other = moved(block, other, lane[0], shape[1], other_as)
        with each_active(block, pre, sent, sent_as) as (row, value):
            factor = None if value is None else convert(f, value, sent_as, dtype)
            begin, end = bounds(block, starts, row)
            with f.loop(end, begin) as synapse:
                post_neuron = f.let(f"sext i32 {f.load(ends, 'i32', synapse)} to i64")
                found = convert(f, f.load(other, other_as, post_neuron), other_as, dtype)
                if factor is not None:
                    found = f.let(f"fmul {f.contract}{llvm_type(dtype)} {found}, {factor}")
                where = f.address(targets[0], synapse, dtype)
                arrived = f.let(f"fadd {f.contract}{llvm_type(dtype)} {f.load(where, dtype)}, {found}")
                f.store(arrived, where, dtype)


def ring(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.csr_ring``."""
    f, target = block.f, targets[0]
    total, events, weight, indptr, indices, base = op.operands
    dtype, size = tensor(op.result).dtype, op.attributes["shape"][1]
    post = tensor(total).shape[-1] - size
    block.fill(target, op.result, block.place(total))
    starts, places = array(block, indptr), array(block, indices)
    weights = None if tensor(weight).shape == () else array(block, weight)
    one = block.scalar_of(weight) if weights is None else ""
    first = f.let(f"sext i32 {block.scalar_of(base)} to i64")
    real = llvm_type(dtype)
    with lanes(block, op, events, target) as (given, kept, buffer):
        with each_active(block, events, given, kept) as (row, value):
            begin, end = bounds(block, starts, row)
            with f.loop(end, begin) as synapse:
                sent = f.load(weights, dtype, synapse) if weights is not None else one
                if value is not None:
                    sent = f.let(f"fmul {f.contract}{real} {sent}, {value}")
                place = f.let(f"sext i32 {f.load(places, 'i32', synapse)} to i64")
                place = f.let(f"add nsw i64 {place}, {first}")
                beyond = f.let(f"icmp sge i64 {place}, {size}")
                around = f.let(f"sub nsw i64 {place}, {size}")
                where = f.address(buffer, f.let(f"select i1 {beyond}, i64 {around}, i64 {place}"), dtype)
                f.store(f.let(f"fadd {f.contract}{real} {f.load(where, dtype)}, {sent}"), where, dtype)
        slot, nbytes = f.address(buffer, first, dtype), post * item_size(dtype)
        f.copy(f.address(buffer, str(size), dtype), slot, nbytes)
        f.clear(slot, nbytes)


def change(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.csr_change``."""
    f, target = block.f, targets[0]
    weight, events, others, amount, indptr, indices, *order = op.operands
    dtype, up = tensor(weight).dtype, op.attributes["up"]
    maths = Maths(f, dtype)
    block.fill(target, weight, block.place(weight))
    starts, ends = array(block, indptr), array(block, indices)
    places = array(block, order[0]) if order else None
    other, other_as = kept_events(block, others)
    given, kept = kept_events(block, events)
    by = block.scalar_of(amount)
    with each_active(block, events, given, kept) as (row, value):
        factor = by if value is None else maths.mul(by, value)
        begin, end = bounds(block, starts, row)
        with f.loop(end, begin) as synapse:
            neuron = f.let(f"sext i32 {f.load(ends, 'i32', synapse)} to i64")
            partner = convert(f, f.load(other, other_as, neuron), other_as, dtype)
            place = synapse
            if places is not None:
                place = f.let(f"sext i32 {f.load(places, 'i32', synapse)} to i64")
            where = f.address(target, place, dtype)
            old = f.load(where, dtype)
            by_weight = _dependence(f, maths, old, op)
            moved_by = factor if by_weight is None else maths.mul(factor, by_weight)
            difference = maths.mul(moved_by, partner, f.contract)
            new = (maths.add if up else maths.sub)(old, difference, f.contract)
            f.store(_bounded(maths, new, op), where, dtype)


def _dependence(f: Function, maths: Maths, weight: str, op: Op) -> str | None:
    """How much the weight itself changes the change; None for not at all."""
    low, high, mu = (op.attributes[name] for name in ("low", "high", "mu"))
    if mu == 0:
        return None
    up = op.attributes["up"]
    distance = maths.sub(maths.number(high), weight) if up else maths.sub(weight, maths.number(low))
    # like XLA, which divides by a literal by multiplying with its inverse
    flags = "arcp " if f.contract else ""
    distance = maths.binary("fdiv", distance, maths.number(high - low), flags)
    if mu == 1:
        return distance
    return f.call("powf" if maths.dtype == "f32" else "pow", maths.dtype, distance, maths.number(mu))


def _bounded(maths: Maths, x: str, op: Op) -> str:
    """The weight between its bounds; NaN stays NaN."""
    low, high = (maths.number(op.attributes[name]) for name in ("low", "high"))
    x = maths.select(maths.compare("olt", x, low), low, x)
    return maths.select(maths.compare("ogt", x, high), high, x)

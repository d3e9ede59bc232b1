"""``event.csr``, and ``event.csr_add``, which begins with a sum that comes first.

From pre to post the rows of active neurons are added up. Where threads share loops over the post neurons they share that
too: each looks at all rows, at those synapses whose post neuron is in its range. In a row that is sorted they lie together;
one that is not is looked at from its beginning to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stategraph.backends.codegen.arithmetic import convert
from stategraph.backends.codegen.events import active, array, bounds, each_active, lanes
from stategraph.backends.codegen.llvm import Function, item_size, literal, llvm_type
from stategraph.backends.codegen.pieces import Outlined, Shared
from stategraph.backends.codegen.schedule import tensor
from stategraph.ir.core import Op

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block

FEW = 8
"""From post to pre neurons every synapse is looked at when more than one of so many is active."""
LINES = 6
"""How many cache lines of a row memory is asked for."""


def csr(block: Block, op: Op, targets: Sequence[str]) -> None:
    product = _Product(block, op)
    if not product.clear:
        block.fill(targets[0], op.result, block.place(op.operands[0]))
    with lanes(block, op, product.events, targets[0]) as (given, kept, target):
        if op.attributes["transposed"]:
            product.backward(given, kept, target)
        else:
            product.forward(given, kept, target)


class _Product:
    """The product of one op."""

    def __init__(self, block: Block, op: Op) -> None:
        self.block = block
        self.clear = op.name == "event.csr"
        self.events, weight, indptr, indices, *self.by_post = op.operands[0 if self.clear else 1 :]
        self.dtype = tensor(weight).dtype
        if tensor(self.events).dtype not in ("bool", self.dtype):
            raise TypeError(f"events of {tensor(self.events).dtype} and weights of {self.dtype}")
        self.real = llvm_type(self.dtype)
        self.width = tensor(op.result).shape[-1]
        self.rows, self.synapses = tensor(self.events).shape[-1], tensor(indices).size
        self.starts, self.posts = array(block, indptr), array(block, indices)
        self.weights = None if tensor(weight).shape == () else array(block, weight)
        self.one = block.scalar_of(weight) if self.weights is None else ""

    @property
    def f(self) -> Function:
        return self.block.f

    def sent(self, synapse: str, value: str | None) -> str:
        found = self.one if self.weights is None else self.f.load(self.weights, self.dtype, synapse)
        return found if value is None else self.f.let(f"fmul {self.real} {found}, {value}")

    def add(self, target: str, neuron: str, arriving: str) -> None:
        where = self.f.address(target, neuron, self.dtype)
        total = self.f.let(f"fadd {self.real} {self.f.load(where, self.dtype)}, {arriving}")
        self.f.store(total, where, self.dtype)

    def neuron(self, indices: str, synapse: str) -> str:
        return self.f.let(f"sext i32 {self.f.load(indices, 'i32', synapse)} to i64")

    def announce(self, row: str) -> None:
        """Ask for the synapses of a row."""
        f = self.f
        begin = self.neuron(self.starts, row)
        f.declarations["declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"] = None
        for line in range(min(LINES, -(-self.synapses * 4 // 64))):
            place = f.let(f"add nsw i64 {begin}, {16 * line}")
            where = f.let(f"getelementptr i32, ptr {self.posts}, i64 {place}")
            f.emit(f"call void @llvm.prefetch.p0(ptr {where}, i32 0, i32 3, i32 1)")

    # ---------------------------------------------------------------------------------------------- pre to post

    def forward(self, given: str, kept: str, target: str) -> None:
        block, nbytes = self.block, item_size(self.dtype)
        found = active(block, self.events, given, kept)
        shared = {loop.size for loop in block.shared.values() if loop is not None}
        if self.width not in shared or len(tensor(self.events).shape) > 1:
            if self.clear:
                self.f.clear(target, self.width * nbytes)
            with each_active(block, self.events, given, kept, self.announce, found) as (row, value):
                begin, end = bounds(block, self.starts, row)
                self.send(begin, end, value, target)
            return
        part = Outlined(block, Shared(self.width))
        outside = self.starts, self.posts, self.weights, self.one
        with part.written():
            self.starts, self.posts, given, target, *listed = (
                part.parameter(name, "ptr") for name in (self.starts, self.posts, given, target, *found)
            )
            if self.weights is None:
                self.one = part.parameter(self.one, self.real)
            else:
                self.weights = part.parameter(self.weights, "ptr")
            self.piece(given, kept, target, (listed[0], listed[1]))
        self.starts, self.posts, self.weights, self.one = outside

    def piece(self, given: str, kept: str, target: str, found: tuple[str, str]) -> None:
        """The rows, of neurons in a range."""
        f, nbytes = self.f, item_size(self.dtype)
        if self.clear:
            size = f.let(f"mul nuw nsw i64 {f.let('sub nuw nsw i64 %to, %from')}, {nbytes}")
            f.clear(f.address(target, "%from", self.dtype), size)
        starts_late = f.let("icmp ne i64 %from, 0")
        ends_early = f.let(f"icmp ne i64 %to, {self.width}")
        first, last = f.variable("i64"), f.variable("i64")
        with each_active(self.block, self.events, given, kept, self.announce, found) as (row, value):
            begin, end = bounds(self.block, self.starts, row)
            for slot, all_of_it, is_part, bound in (
                (first, begin, starts_late, "%from"),
                (last, end, ends_early, "%to"),
            ):
                f.store(all_of_it, slot, "i64")
                with f.when(is_part):
                    place = f"call i64 @SPLIT(ptr {self.posts}, i64 {begin}, i64 {end}, i64 {bound})"
                    f.store(f.let(place), slot, "i64")
            lower, upper = f.load(first, "i64"), f.load(last, "i64")
            mixed = f.let(f"icmp slt i64 {f.let(f'or i64 {lower}, {upper}')}, 0")
            with f.when(f.let(f"xor i1 {mixed}, true")):
                self.send(lower, upper, value, target)
            with f.when(mixed), f.loop(end, begin) as synapse:  # in no order
                post = self.neuron(self.posts, synapse)
                from_here = f.let(f"icmp sge i64 {post}, %from")
                inside = f.let(f"and i1 {from_here}, {f.let(f'icmp slt i64 {post}, %to')}")
                with f.when(inside):
                    self.add(target, post, self.sent(synapse, value))

    def send(self, begin: str, end: str, value: str | None, target: str) -> None:
        """Synapses of one neuron, one after another."""
        factor = self.sent("0", value) if self.weights is None else ""
        with self.f.loop(end, begin) as synapse:
            post = self.neuron(self.posts, synapse)
            self.add(target, post, factor or self.sent(synapse, value))

    # ---------------------------------------------------------------------------------------------- post to pre

    def backward(self, given: str, kept: str, target: str) -> None:
        block, f, dtype, real = self.block, self.f, self.dtype, self.real
        found = active(block, self.events, given, kept) if self.by_post else None
        many = "true"
        if found is not None:
            many = f.let(f"icmp sgt i64 {f.load(found[1], 'i64')}, {self.rows // FEW}")
            with f.when(f.let(f"xor i1 {many}, true")):
                if self.clear:
                    f.clear(target, self.width * item_size(dtype))
                columns, pres, order = (array(block, index) for index in self.by_post)
                with each_active(block, self.events, given, kept, found=found) as (column, value):
                    begin, end = bounds(block, columns, column)
                    with f.loop(end, begin) as synapse:
                        pre = self.neuron(pres, synapse)
                        place = "0" if self.weights is None else self.neuron(order, synapse)
                        self.add(target, pre, self.sent(place, value))
        total = f.variable(dtype)
        with f.when(many), f.loop(self.width) as row:
            f.store(literal(0, dtype) if self.clear else f.load(target, dtype, row), total, dtype)
            begin, end = bounds(block, self.starts, row)
            with f.loop(end, begin) as synapse:
                post = self.neuron(self.posts, synapse)
                arrives = self.sent(synapse, convert(f, f.load(given, kept, post), kept, dtype))
                f.store(f.let(f"fadd reassoc {real} {f.load(total, dtype)}, {arrives}"), total, dtype)
            f.store(f.load(total, dtype), target, dtype, row)

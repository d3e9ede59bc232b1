"""The code of a cluster: one loop in which every elementwise op takes its turn, and reductions gather.

Each is a function of its own, which the kernel calls with the addresses and numbers that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stategraph.backends.codegen import pieces
from stategraph.backends.codegen.arithmetic import RULES, Element, convert
from stategraph.backends.codegen.indexing import read_at
from stategraph.backends.codegen.keys import COUNT
from stategraph.backends.codegen.llvm import Function, is_float, literal, llvm_type
from stategraph.backends.codegen.pieces import Outlined, Shared
from stategraph.backends.codegen.places import Memory, Scalar
from stategraph.backends.codegen.quotients import VECTOR, block_of, in_blocks, quotients
from stategraph.backends.codegen.schedule import Cluster, is_same, space_of, tensor
from stategraph.ir.core import Constant, Op, Value
from stategraph.ir.types import numpy_dtype
from stategraph.passes.native_ops import REDUCTIONS

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block
    from stategraph.backends.codegen.events import Parts
    from stategraph.backends.codegen.turning import Turn


class ClusterWriter(Outlined):
    """Writes one loop of elementwise ops, as a function that the kernel calls."""

    def __init__(
        self,
        block: Block,
        cluster: Cluster,
        turn: Turn | None = None,
        slots: dict[Op, str] | None = None,
    ) -> None:
        super().__init__(block, block.shared[cluster])
        self.turn = turn
        """If the cluster is at the turn of a loop: what else is done there."""
        self.slots: dict[Op, str] = {} if slots is None else slots
        """Memory of the kernel for reductions."""
        self.cluster = cluster
        self.names: dict[Value, str] = {}
        self.loaded: dict[tuple[str, str], str] = {}
        self.counters: list[str] = []
        self.linear = "0"

    def write(self) -> None:
        self.call()
        self.place()

    def call(self) -> None:
        """Write the function, and its call."""
        lists = self.lists()
        for parts in lists:
            parts.clear(self.block)
        with self.written():
            self.body()
            for parts in lists:
                parts.add(self)

    def lists(self) -> list[Parts]:
        """What each thread lists of what it stores."""
        if self.shared is None:
            return []
        ops = dict.fromkeys([*self.cluster.ops, *(self.turn.first.ops if self.turn is not None else ())])
        found = (self.block.parts_of(op.result) for op in ops)
        return [parts for parts in found if parts is not None]

    def place(self) -> None:
        """Say where the values are."""
        block = self.block
        for op, slot in self.slots.items():
            block.places[op.result] = Scalar(block.f.load(slot, tensor(op.result).dtype))
        for op in self.cluster.ops:
            if op.result in block.stores:
                kept = block.small.get(op.result, op.result)
                block.places[op.result] = Memory(block.stores[op.result][0], tensor(kept).dtype)

    def body(self) -> None:
        """The loop."""
        ops, space = self.cluster.ops, self.cluster.space
        totals = {op: self.start(op) for op in ops if op.name in REDUCTIONS}
        flat = all(op in totals or self.block.is_flat(op, space) for op in ops)
        if flat:
            space = (int(np.prod(space)),)
        found = quotients(self) if flat and space[0] >= VECTOR else None
        if found is not None:
            rest = [op for op in ops if op not in found.late]
            in_blocks(self, space[0], found, lambda: self.ops(rest, totals))
        elif self.shared is not None:
            with self.f.loop("%to", "%from") as counter:
                self.begin([counter])
                self.ops(ops, totals)
        else:
            with self.f.nest(space) as counters:
                self.begin(counters, space)
                self.ops(ops, totals)
        for op, slot in totals.items():
            dtype = tensor(op.result).dtype
            if op not in self.slots:
                self.slots[op] = self.outer.variable(dtype)
            self.f.store(self.f.load(slot, dtype), self.parameter(self.slots[op], "ptr"), dtype)

    def begin(self, counters: list[str], space: Sequence[int] | None = None) -> None:
        """Begin with another element, where no value is in a register."""
        self.counters = counters
        self.linear = counters[0] if space is None else self.block.offset(counters, space)
        self.names.clear()
        self.loaded.clear()

    def ops(self, ops: Sequence[Op], totals: dict[Op, str]) -> None:
        """What is done for one element: ops, and all that is stored."""
        for op in ops:
            if op in totals:
                accumulate(self.f, op, totals[op], self.value(op.operands[0]))
            else:
                self.element(op)
        ops_kept = self.cluster.ops
        if self.turn is not None and self.cluster is self.turn.last:
            ops_kept = [op for op in ops_kept if op.result not in self.turn.again]
        found = self.results(ops_kept)
        if self.turn is not None and self.cluster is self.turn.last:
            self.names.update({old: self.value(new) for old, new in self.turn.news.items()})
            for op in self.turn.first.ops:
                self.element(op)
            found += self.results(self.turn.first.ops)
        for value, pointer, dtype in found:  # after all have been read
            self.f.store(value, self.parameter(pointer, "ptr"), dtype, self.linear)

    def results(self, ops: Sequence[Op]) -> list[tuple[str, str, str]]:
        """(value, where it is stored, its dtype there) of ops whose results are."""
        found = []
        for op in ops:
            for pointer in self.block.stores.get(op.result, ()):
                kept = self.block.small.get(op.result, op.result)
                found.append((self.value(kept), pointer, tensor(kept).dtype))
        return found

    def start(self, op: Op) -> str:
        slot = self.f.variable(tensor(op.result).dtype)
        self.f.store(identity(op), slot, tensor(op.result).dtype)
        return slot

    def value(self, operand: Value) -> str:
        operand = self.block.kernel.aliases.of(operand)
        if operand in self.names:
            return self.names[operand]
        place = self.block.place(operand)
        if isinstance(place, Scalar):
            return place.name
        key = (place.pointer, tensor(operand).dtype)
        if key not in self.loaded:
            self.loaded[key] = self.block.load(operand, self.linear)
        return self.loaded[key]

    def element(self, op: Op) -> None:
        if op.name in RULES:
            constant = [type(self.block.kernel.aliases.of(o)) is Constant for o in op.operands]
            name = RULES[op.name](Element(self.f, op, [self.argument(op, o) for o in op.operands], constant))
        elif is_same(op):
            name = self.value(op.operands[0])
        elif op.name == COUNT and counts_all(op):
            name = convert(self.f, self.linear, "i64", "u32")
        else:
            name = read_at(self.block, op, self.full_index(op.result))
        self.names[op.result] = name

    def argument(self, op: Op, operand: Value) -> str:
        """An operand of an elementwise op, whose axes of length one stand for any length."""
        given = self.block.kernel.aliases.of(operand)
        same = given in self.names or space_of(given) == self.cluster.space
        if same or not isinstance(self.block.place(given), Memory):
            return self.value(given)
        index = self.full_index(op.result)
        shape = tensor(given).shape
        found = ["0" if size == 1 else i for i, size in zip(index, shape, strict=True)]
        return self.block.load(given, self.block.offset(found, shape))

    def full_index(self, value: Value) -> list[str]:
        counters = iter(self.counters)
        return ["0" if size == 1 else next(counters) for size in tensor(value).shape]


def shared_by(block: Block, cluster: Cluster, turn: Turn | None) -> Shared | None:
    """How threads share a loop: by ranges of elements, if it does a lot, many times, and they do not depend on each other.
    Loops that are one at the turn of a loop are shared alike.
    """
    if not block.kernel.repeated:
        return None
    ends = () if turn is None else (turn.first, turn.last)
    ops = [op for loop in (ends if cluster in ends else (cluster,)) for op in loop.ops]
    size = int(np.prod(cluster.space))
    if size * len(ops) < pieces.ENOUGH or not all(block.is_flat(op, cluster.space) for op in ops):
        return None
    return Shared(size, block_of(size) if size >= VECTOR else pieces.ALIGNED)


def counts_all(op: Op) -> bool:
    """Whether a count is that of all elements."""
    return bool(op.attributes["axes"] == len(tensor(op.result).shape))


def identity(op: Op) -> str:
    """What a reduction begins with."""
    dtype, how = tensor(op.result).dtype, REDUCTIONS[op.name]
    if how in ("add", "mul"):
        return literal(how == "mul", dtype)
    if dtype == "bool":
        return literal(how in ("and", "min"), dtype)
    if how in ("and", "or"):
        return "-1" if how == "and" else "0"
    if is_float(dtype):
        return literal(np.inf if how == "min" else -np.inf, dtype)
    limits = np.iinfo(numpy_dtype(dtype))
    return literal(limits.max if how == "min" else limits.min, dtype)


def accumulate(f: Function, op: Op, slot: str, value: str) -> None:
    """Add one more element to a reduction. Sums of floats may be made in any order."""
    dtype, how = tensor(op.result).dtype, REDUCTIONS[op.name]
    total, type_ = f.load(slot, dtype), llvm_type(dtype)
    if how in ("add", "mul") and is_float(dtype):
        total = f.let(f"f{how} reassoc {type_} {total}, {value}")
    elif how in ("and", "or", "add", "mul"):
        total = f.let(f"{how} {type_} {total}, {value}")
    else:
        total = RULES[f"jax.{how}"](Element(f, op, [total, value], [False, False]))
    f.store(total, slot, dtype)

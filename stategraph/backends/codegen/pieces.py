"""Functions of their own for parts of a kernel's code, and parts that threads do in pieces.

What such a function needs of the kernel is passed to it. A piece is a range of the numbers from 0 to ``size``: those of
the elements of a loop, or of the neurons that an event product sends to. One thread does what it would do in the whole
loop, and nothing is added up in another order: so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from stategraph.backends.codegen.llvm import Function, llvm_type
from stategraph.backends.codegen.places import Memory, Place, Scalar
from stategraph.backends.codegen.schedule import tensor
from stategraph.ir.core import Value

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block

ENOUGH = 1_550_000
"""Ops on elements (neurons times ops) from which on threads share a loop: COBA with 33,000 neurons, CUBA with 57,000. Two threads
took 0.75 of the time with 1.9 million, and 0.93 with 1.1 million.
"""
STEPS = 32
"""Steps of a loop from which on threads share what is done in each: calling them takes as long as a step or two."""
ALIGNED = 64
"""Pieces begin at multiples of this: a cache line of bools, whole vectors."""


@attrs.frozen
class Shared:
    """How a loop is done in pieces."""

    size: int
    grain: int = ALIGNED
    """Pieces begin at multiples of it."""


class Outlined:
    """A function that is called where it is written."""

    def __init__(self, block: Block, shared: Shared | None = None) -> None:
        self.block, self.outer = block, block.f
        self.f = Function(block.f.contract)
        self.shared = shared
        self.given: dict[str, tuple[str, str]] = {}
        """Parameters: by what the kernel passes, their type and name."""

    def parameter(self, name: str, type_: str) -> str:
        """What a register of the kernel is called in the function."""
        if name[0] != "%":
            return name
        return self.given.setdefault(name, (type_, self.f.fresh("a")))[1]

    def lend(self, place: Place, value: Value) -> Place:
        if isinstance(place, Memory):
            return Memory(self.parameter(place.pointer, "ptr"), place.dtype)
        return Scalar(self.parameter(place.name, llvm_type(tensor(value).dtype)))

    @contextmanager
    def written(self) -> Iterator[None]:
        """Write the function, and then its call."""
        block, lend = self.block, self.block.lend
        block.f, block.lend = self.f, self.lend
        yield
        block.f, block.lend = self.outer, lend
        self.f.emit("ret void")
        name = f"loop{len(block.kernel.functions)}"
        own = [f"{kind} {'noalias nocapture ' * (kind == 'ptr')}{name}" for kind, name in self.given.values()]
        own += ["i64 %piece", "i64 %from", "i64 %to"] * (self.shared is not None)
        block.kernel.functions.append(self.f.text(f"define internal void @{name}({', '.join(own)}) #0"))
        self.outer.declarations.update(self.f.declarations)
        if self.shared is None:
            passed = ", ".join(f"{kind} {outer}" for outer, (kind, _) in self.given.items())
            self.outer.emit(f"call void @{name}({passed})")
        else:
            self.share(name, self.shared)

    def share(self, name: str, shared: Shared) -> None:
        """Write a function that calls this one for a piece, and have it run by all threads."""
        f, outer = Function(), self.outer
        pack = outer.fresh("pack")
        outer.slots.append(f"  {pack} = alloca [{max(len(self.given), 1)} x i64], align 8")
        passed = []
        for number, (given, (kind, _)) in enumerate(self.given.items()):
            to = outer.let(f"getelementptr i64, ptr {pack}, i64 {number}")
            outer.emit(f"store {kind} {given}, ptr {to}, align 8")
            at = f.let(f"getelementptr i64, ptr %data, i64 {number}")
            passed.append(f"{kind} {f.let(f'load {kind}, ptr {at}, align 8')}")
        parts = -(-shared.size // shared.grain)
        ends = []
        for piece in ("%piece", f.let("add nuw nsw i64 %piece, 1")):
            part = f.let(f"udiv i64 {f.let(f'mul nuw nsw i64 {piece}, {parts}')}, %pieces")
            end = f.let(f"mul nuw nsw i64 {part}, {shared.grain}")
            beyond = f.let(f"icmp ugt i64 {end}, {shared.size}")
            ends.append(f.let(f"select i1 {beyond}, i64 {shared.size}, i64 {end}"))
        some = f.let(f"icmp ult i64 {ends[0]}, {ends[1]}")
        with f.when(some):
            f.emit(f"call void @{name}({', '.join([*passed, *(f'i64 {n}' for n in ('%piece', *ends))])})")
        f.emit("ret void")
        head = f"define internal void @{name}_piece(ptr %data, i64 %piece, i64 %pieces) #0"
        self.block.kernel.functions.append(f.text(head))
        self.block.kernel.shared = True
        outer.emit(f"call void @RUN(ptr %team, ptr @{name}_piece, ptr {pack})")

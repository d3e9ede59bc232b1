"""Vectors of 16 numbers, which LLVM makes of the registers that the processor has."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stategraph.backends.codegen.llvm import Function, literal, llvm_type

LANES = 16
MASK = f"<{LANES} x i1>"


def vector(dtype: str) -> str:
    """The type of a vector."""
    return f"<{LANES} x {llvm_type(dtype)}>"


def constants(numbers: Sequence[object], dtype: str) -> str:
    return f"<{', '.join(f'{llvm_type(dtype)} {literal(number, dtype)}' for number in numbers)}>"


def constant(number: object, dtype: str) -> str:
    return constants([number] * LANES, dtype)


class Vectors:
    """Writes instructions about vectors of one function. Masks are vectors of i1."""

    def __init__(self, f: Function) -> None:
        self.f = f

    def spread(self, value: str, dtype: str) -> str:
        """The same value in all lanes."""
        type_ = vector(dtype)
        one = self.f.let(f"insertelement {type_} poison, {llvm_type(dtype)} {value}, i64 0")
        return self.f.let(f"shufflevector {type_} {one}, {type_} poison, <{LANES} x i32> zeroinitializer")

    def op(self, name: str, a: str, b: str | int, dtype: str = "u32") -> str:
        other = b if isinstance(b, str) else constant(b, dtype)
        return self.f.let(f"{name} {vector(dtype)} {a}, {other}")

    def select(self, mask: str, yes: str, no: str, dtype: str = "u32") -> str:
        type_ = vector(dtype)
        return self.f.let(f"select {MASK} {mask}, {type_} {yes}, {type_} {no}")

    def bits(self, mask: str) -> str:
        """A mask as an i16."""
        return self.f.let(f"bitcast {MASK} {mask} to i{LANES}")

    def least(self, a: str, b: str) -> str:
        name = f"llvm.umin.v{LANES}i32"
        self.f.declarations[f"declare {vector('u32')} @{name}({vector('u32')}, {vector('u32')})"] = None
        return self.f.let(f"call {vector('u32')} @{name}({vector('u32')} {a}, {vector('u32')} {b})")

    def leading_zeros(self, x: str) -> str:
        name = f"llvm.ctlz.v{LANES}i32"
        self.f.declarations[f"declare {vector('u32')} @{name}({vector('u32')}, i1)"] = None
        return self.f.let(f"call {vector('u32')} @{name}({vector('u32')} {x}, i1 false)")

    def halves(self, x: str) -> tuple[str, str]:
        """The low and the high words of 64-bit numbers."""
        pairs = f"<{2 * LANES} x i32>"
        words = self.f.let(f"bitcast {vector('u64')} {x} to {pairs}")
        low, high = (
            self.f.let(
                f"shufflevector {pairs} {words}, {pairs} poison, {vector('u32')} {constants(range(start, 2 * LANES, 2), 'u32')}"
            )
            for start in ((0, 1) if sys.byteorder == "little" else (1, 0))
        )
        return low, high

    # -------------------------------------------------------------------------------------------------- memory

    def variable(self, dtype: str) -> str:
        """A slot for a vector."""
        name = self.f.fresh("lanes")
        self.f.slots.append(f"  {name} = alloca {vector(dtype)}, align 64")
        return name

    def load(self, pointer: str, dtype: str, align: int = 64) -> str:
        return self.f.let(f"load {vector(dtype)}, ptr {pointer}, align {align}")

    def store(self, value: str, pointer: str, dtype: str, align: int = 64) -> None:
        self.f.emit(f"store {vector(dtype)} {value}, ptr {pointer}, align {align}")

    def first(self, pointer: str, mask: str) -> str:
        """Whole numbers (u32) that lie one after another, 0 where the mask does not hold: there, nothing is read."""
        name, type_ = f"llvm.masked.load.v{LANES}i32.p0", vector("u32")
        self.f.declarations[f"declare {type_} @{name}(ptr, i32, {MASK}, {type_})"] = None
        return self.f.let(
            f"call {type_} @{name}(ptr {pointer}, i32 4, {MASK} {mask}, {type_} zeroinitializer)"
        )

    def gather(self, pointer: str, index: str, dtype: str, mask: str | None = None) -> str:
        """The elements of an array at places (u32), 0 where the mask does not hold: there, nothing is read."""
        element, type_, size = llvm_type(dtype), vector(dtype), 8 if dtype[1:] == "64" else 4
        wide = self.f.let(f"zext {vector('u32')} {index} to {vector('u64')}")
        places = self.f.let(f"getelementptr inbounds {element}, ptr {pointer}, {vector('u64')} {wide}")
        name = f"llvm.masked.gather.v{LANES}{dtype if dtype[0] == 'f' else element}.v{LANES}p0"
        self.f.declarations[f"declare {type_} @{name}(<{LANES} x ptr>, i32, {MASK}, {type_})"] = None
        given = constant(True, "bool") if mask is None else mask
        return self.f.let(
            f"call {type_} @{name}(<{LANES} x ptr> {places}, i32 {size}, {MASK} {given}, {type_} zeroinitializer)"
        )

"""``event.jit``: synapses that are made of a seed, see ``backends.events.hashing``.

The numbers of a row do not depend on each other, but for the place of a synapse, which is a sum of gaps: so they are made a
piece at a time by a function that LLVM vectorises, and then taken one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from stategraph.backends.codegen.arithmetic import convert
from stategraph.backends.codegen.events import array, each_active, lanes
from stategraph.backends.codegen.llvm import Function, item_size, literal, llvm_type
from stategraph.backends.codegen.schedule import tensor
from stategraph.backends.events import hashing
from stategraph.ir.core import Op

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block


def jit(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.jit``."""
    rows = _Rows(block, op)
    events = op.operands[0]
    pre, post = op.attributes["shape"]
    f, dtype = block.f, tensor(op.result).dtype
    real = llvm_type(dtype)
    with lanes(block, op, events, targets[0]) as (given, kept, target):
        if op.attributes["transposed"]:
            total = f.variable(dtype)
            with f.loop(pre) as row:
                f.store(literal(0, dtype), total, dtype)
                with rows.synapses(row) as (place, k):
                    value = f.load(given, kept, place)
                    with f.when(convert(f, value, kept, "bool")):
                        arriving = rows.weighed(k, None if kept == "bool" else value)
                        f.store(f.let(f"fadd {real} {f.load(total, dtype)}, {arriving}"), total, dtype)
                f.store(f.load(total, dtype), target, dtype, row)
            return
        f.clear(target, post * item_size(dtype))
        with each_active(block, events, given, kept) as (row, size):
            factor = rows.weighed("0", size) if rows.law == "one" else ""
            with rows.synapses(row) as (place, k):
                where = f.address(target, place, dtype)
                sent = factor or rows.weighed(k, size)
                f.store(f.let(f"fadd {real} {f.load(where, dtype)}, {sent}"), where, dtype)


class _Rows:
    """How the rows of one op are made."""

    def __init__(self, block: Block, op: Op) -> None:
        self.block = block
        _, self.weight, seed = op.operands
        f = block.f
        self.law, self.post = op.attributes["law"], op.attributes["shape"][1]
        self.dtype = tensor(op.result).dtype
        self.size = _piece(self.post * op.attributes["prob"])
        words = array(block, seed)
        self.seed = [f.load(words, "u32", str(i)) for i in range(2)]
        given = array(block, self.weight)
        self.numbers = [f.load(given, self.dtype, str(i)) for i in range(tensor(self.weight).size)]
        self.include_self = op.attributes["include_self"]
        self.gaps = block.kernel.allocate(4 * self.size + 4)
        """Memory for the gaps of a piece of a row, and one that leads beyond its end."""
        f.store(str(self.post + 1), self.gaps, "u32", str(self.size))
        self.parts = block.kernel.allocate(4 * self.size) if self.law != "one" else "null"
        self.make = f"@made{len(block.kernel.functions)}"
        block.kernel.functions.append(self.function(hashing.Gaps.of(op.attributes["prob"])))

    def weighed(self, k: str, value: str | None) -> str:
        """What synapse ``k`` of the piece sends for an event of a value."""
        f, real = self.block.f, llvm_type(self.dtype)
        sent = self.numbers[0]
        if self.law != "one":
            part = convert(f, f.load(self.parts, "f32", k), "f32", self.dtype)
            scaled = f.let(f"fmul {f.contract}{real} {self.numbers[1]}, {part}")
            sent = f.let(f"fadd {f.contract}{real} {sent}, {scaled}")
        return sent if value is None else f.let(f"fmul {real} {sent}, {value}")

    @contextmanager
    def synapses(self, row: str) -> Iterator[tuple[str, str]]:
        """A loop over the synapses of a row (an i64): (post neuron, number in the piece), both i64."""
        f = self.block.f
        short = f.let(f"trunc i64 {row} to i32")
        first = _mix(f, f.let(f"xor i32 {short}, {self.seed[0]}"))
        one = _mix(f, f.let(f"add i32 {first}, {self.seed[1]}"))
        turned = f.let(f"xor i32 {first}, {_number(hashing.GOLDEN)}")
        two = _mix(f, f.let(f"add i32 {turned}, {self.seed[1]}"))
        number, last, k, place = f.variable("i32"), f.variable("i64"), f.variable("i64"), f.variable("i64")
        f.store("0", number, "i32")
        f.store("-1", last, "i64")
        f.store(str(self.size), k, "i64")

        def is_inside() -> str:
            gap = f.let(f"zext i32 {f.load(self.gaps, 'u32', f.load(k, 'i64'))} to i64")
            f.store(f.let(f"add nsw i64 {f.load(last, 'i64')}, {gap}"), place, "i64")
            return f.let(f"icmp slt i64 {f.load(place, 'i64')}, {self.post}")

        # what follows a piece leads beyond the last neuron; where a piece ends before the row does, the next one is made
        with f.repeat(lambda: f.let(f"icmp eq i64 {f.load(k, 'i64')}, {self.size}")):
            start = f.load(number, "i32")
            f.emit(
                f"call void {self.make}(ptr {self.gaps}, ptr {self.parts}, i32 {one}, i32 {two}, i32 {start})"
            )
            f.store(f.let(f"add i32 {start}, {self.size}"), number, "i32")
            f.store("0", k, "i64")
            with f.repeat(is_inside):
                here = f.load(place, "i64")
                f.store(here, last, "i64")
                with f.when("true" if self.include_self else f.let(f"icmp ne i64 {here}, {row}")):
                    yield here, f.load(k, "i64")
                f.store(f.let(f"add nuw nsw i64 {f.load(k, 'i64')}, 1"), k, "i64")

    def function(self, law: hashing.Gaps) -> str:
        """A function that makes the gaps and the random parts of a piece."""
        f = Function(self.block.f.contract)
        logarithms = _table(self.block, "logarithms", hashing.logarithms(), "u32")
        with f.loop(self.size) as k:
            short = f.let(f"add i32 {f.let(f'trunc i64 {k} to i32')}, %start")
            hashed = _mix(f, f.let(f"xor i32 {short}, %first"))
            bits = _mix(f, f.let(f"add i32 {hashed}, %second"))
            f.store(self.gap(f, bits, law, logarithms), "%gaps", "u32", k)
            if self.law != "one":
                f.store(self.random(f, bits), "%parts", "f32", k)
        f.emit("ret void")
        self.block.f.declarations.update(f.declarations)
        parameters = (
            "ptr noalias nocapture %gaps, ptr noalias nocapture %parts, i32 %first, i32 %second, i32 %start"
        )
        return f.text(f"define internal void {self.make}({parameters}) #0")

    def gap(self, f: Function, bits: str, law: hashing.Gaps, logarithms: str) -> str:
        """The distance to the next synapse (``hashing.Gaps``)."""
        f.declarations["declare i32 @llvm.ctlz.i32(i32, i1)"] = None
        f.declarations["declare i32 @llvm.umin.i32(i32, i32)"] = None
        zeros = f.let(f"call i32 @llvm.ctlz.i32(i32 {bits}, i1 false)")
        shifted = f.let(f"shl i32 {bits}, 1")
        rest = f.let(f"shl i32 {shifted}, {f.let(f'and i32 {zeros}, 31')}")
        index = f.let(f"lshr i32 {rest}, {32 - hashing.INDEX_BITS}")
        step = f.let(f"lshr i32 {rest}, {32 - hashing.INDEX_BITS - hashing.STEP_BITS}")
        step = f.let(f"and i32 {step}, {(1 << hashing.STEP_BITS) - 1}")
        wide = f.let(f"zext i32 {index} to i64")
        here = f.load(logarithms, "u32", wide)
        below = f.load(logarithms, "u32", f.let(f"add nuw nsw i64 {wide}, 1"))
        slope = f.let(f"mul i32 {f.let(f'sub i32 {here}, {below}')}, {step}")
        fraction = f.let(f"sub i32 {here}, {f.let(f'lshr i32 {slope}, {hashing.STEP_BITS}')}")
        logarithm = f.let(f"add i32 {f.let(f'shl i32 {zeros}, {hashing.POINT}')}, {fraction}")
        product = f.let(f"mul i64 {f.let(f'zext i32 {logarithm} to i64')}, {law.factor}")
        gap = f.let(f"trunc i64 {f.let(f'lshr i64 {product}, {32 + law.shift}')} to i32")
        gap = f.let(f"call i32 @llvm.umin.i32(i32 {gap}, i32 {self.post})")
        return f.let(f"add i32 {gap}, 1")

    def random(self, f: Function, bits: str) -> str:
        """The random part of a weight."""
        other = _mix(f, f.let(f"xor i32 {bits}, {_number(hashing.GOLDEN)}"))
        if self.law == "uniform":
            short = f.let(f"uitofp i32 {f.let(f'lshr i32 {other}, 8')} to float")
            return f.let(f"fmul float {short}, {literal(2.0**-24, 'f32')}")
        quantiles = _table(self.block, "normals", hashing.normals(), "f32")
        found = []
        for shift in (0, hashing.NORMAL_BITS):
            index = f.let(f"and i32 {f.let(f'lshr i32 {other}, {shift}')}, {(1 << hashing.NORMAL_BITS) - 1}")
            found.append(f.load(quantiles, "f32", f.let(f"zext i32 {index} to i64")))
        return f.let(f"fmul float {f.let(f'fadd float {found[0]}, {found[1]}')}, {literal(0.5**0.5, 'f32')}")


def _piece(expected: float) -> int:
    """How many numbers are made at a time, so that most rows with so many synapses need one piece."""
    return min(int(expected + 1.5 * expected**0.5) // 16 * 16 + 16, 512)


def _number(word: int) -> int:
    """A 32-bit word as LLVM writes it."""
    return word - (word >> 31 << 32)


def _mix(f: Function, x: str) -> str:
    """``hashing.mix``."""
    for shift, factor in ((16, hashing.FIRST), (15, hashing.SECOND)):
        x = f.let(f"xor i32 {x}, {f.let(f'lshr i32 {x}, {shift}')}")
        x = f.let(f"mul i32 {x}, {_number(factor)}")
    return f.let(f"xor i32 {x}, {f.let(f'lshr i32 {x}, 15')}")


def _table(block: Block, name: str, numbers: np.ndarray, dtype: str) -> str:
    """Constants of the kernel; gives their address."""
    type_ = llvm_type(dtype)
    elements = ", ".join(f"{type_} {literal(number, dtype)}" for number in numbers)
    line = f"@{name} = private unnamed_addr constant [{numbers.size} x {type_}] [{elements}], align 64"
    block.f.declarations[line] = None
    return f"@{name}"

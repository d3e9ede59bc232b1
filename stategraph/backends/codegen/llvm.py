"""A function as LLVM text: names, constants, memory, loops and branches.

Loops and branches are context managers; scalars that change in them live in ``variable`` slots, which LLVM turns
into registers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from stategraph.ir.types import numpy_dtype

_FLOATS = {"f32": "float", "f64": "double"}
_INTEGERS = {"i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"}
DTYPES = frozenset({*_FLOATS, *_INTEGERS, "bool"})
"""What kernels compute with."""


def llvm_type(dtype: str) -> str:
    """The type of a value of a dtype in a register."""
    if dtype == "bool":
        return "i1"
    return _FLOATS.get(dtype) or f"i{dtype[1:]}"


def stored_type(dtype: str) -> str:
    """The type of a value of a dtype in memory."""
    return "i8" if dtype == "bool" else llvm_type(dtype)


def item_size(dtype: str) -> int:
    return int(numpy_dtype(dtype).itemsize)


def is_float(dtype: str) -> bool:
    return dtype in _FLOATS


def is_signed(dtype: str) -> bool:
    return dtype[0] == "i"


def literal(value: object, dtype: str) -> str:
    """A number as LLVM writes it."""
    number = np.asarray(value).astype(numpy_dtype(dtype))
    if dtype == "bool":
        return "true" if number else "false"
    if is_float(dtype):
        with np.errstate(all="ignore"):
            wide = float(number)
        return f"0x{struct.unpack('<Q', struct.pack('<d', wide))[0]:016X}"
    return str(int(number))


class Function:
    """One function being written."""

    def __init__(self, contract: str = "contract ") -> None:
        self.contract = contract
        """Flags of additions and multiplications: whether they may be fused, as XLA fuses them."""
        self.slots: list[str] = []
        self.lines: list[str] = []
        self.block = "%entry"
        self.declarations: dict[str, None] = {}
        self._count = 0

    # -------------------------------------------------------------------------------------------- instructions

    def fresh(self, hint: str = "v") -> str:
        self._count += 1
        return f"%{hint}{self._count}"

    def emit(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def let(self, expression: str, hint: str = "v") -> str:
        """The name of a new register that holds ``expression``."""
        name = self.fresh(hint)
        self.lines.append(f"  {name} = {expression}")
        return name

    def call(self, name: str, dtype: str, *arguments: str, pure: bool = True) -> str:
        """Call a function of values of one dtype."""
        type_ = llvm_type(dtype)
        marks = " nounwind willreturn memory(none)" if pure and not name.startswith("llvm.") else ""
        self.declarations[f"declare {type_} @{name}({', '.join([type_] * len(arguments))}){marks}"] = None
        return self.let(f"call {type_} @{name}({', '.join(f'{type_} {a}' for a in arguments)})")

    # -------------------------------------------------------------------------------------------------- memory

    def variable(self, dtype: str, hint: str = "s") -> str:
        """A slot for one value."""
        name = self.fresh(hint)
        self.slots.append(f"  {name} = alloca {stored_type(dtype)}")
        return name

    def array(self, dtype: str, length: int) -> str:
        """Memory of the function for a few values."""
        name = self.fresh("kept")
        self.slots.append(f"  {name} = alloca [{length} x {stored_type(dtype)}], align 64")
        return name

    def address(self, pointer: str, index: str, dtype: str) -> str:
        if index == "0":
            return pointer
        return self.let(f"getelementptr inbounds {stored_type(dtype)}, ptr {pointer}, i64 {index}", "p")

    def load(self, pointer: str, dtype: str, index: str = "0") -> str:
        where = self.address(pointer, index, dtype)
        found = self.let(f"load {stored_type(dtype)}, ptr {where}, align {item_size(dtype)}")
        return self.let(f"icmp ne i8 {found}, 0") if dtype == "bool" else found

    def store(self, value: str, pointer: str, dtype: str, index: str = "0") -> None:
        where = self.address(pointer, index, dtype)
        if dtype == "bool":
            value = self.let(f"zext i1 {value} to i8")
        self.emit(f"store {stored_type(dtype)} {value}, ptr {where}, align {item_size(dtype)}")

    def copy(self, target: str, source: str, nbytes: int | str) -> None:
        """Copy bytes between places that are equal or do not overlap."""
        self.declarations["declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)"] = None
        self.emit(f"call void @llvm.memmove.p0.p0.i64(ptr {target}, ptr {source}, i64 {nbytes}, i1 false)")

    def clear(self, target: str, nbytes: int | str) -> None:
        self.declarations["declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"] = None
        self.emit(f"call void @llvm.memset.p0.i64(ptr {target}, i8 0, i64 {nbytes}, i1 false)")

    # ----------------------------------------------------------------------------------------- loops, branches

    def label(self, name: str) -> None:
        self.lines.append(f"{name[1:]}:")
        self.block = name

    def jump(self, target: str) -> None:
        self.emit(f"br label {target}")

    @contextmanager
    def loop(self, stop: int | str, start: int | str = 0) -> Iterator[str]:
        """A loop from ``start`` to before ``stop``; gives the name of the counter, an i64."""
        head, body, latch, done = (self.fresh(part) for part in ("head", "body", "latch", "done"))
        counter, following = self.fresh("i"), self.fresh("n")
        before = self.block
        self.jump(head)
        self.label(head)
        self.emit(f"{counter} = phi i64 [{start}, {before}], [{following}, {latch}]")
        inside = self.let(f"icmp slt i64 {counter}, {stop}")
        self.emit(f"br i1 {inside}, label {body}, label {done}")
        self.label(body)
        yield counter
        self.jump(latch)
        self.label(latch)
        self.emit(f"{following} = add nuw nsw i64 {counter}, 1")
        self.jump(head)
        self.label(done)

    @contextmanager
    def nest(self, shape: Sequence[int]) -> Iterator[list[str]]:
        """Loops inside loops; gives the counters, outermost first."""
        if not shape:
            yield []
            return
        with self.loop(shape[0]) as counter, self.nest(shape[1:]) as inner:
            yield [counter, *inner]

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What runs only where an i1 holds."""
        yes, after = self.fresh("then"), self.fresh("end")
        self.emit(f"br i1 {condition}, label {yes}, label {after}")
        self.label(yes)
        yield
        self.jump(after)
        self.label(after)

    @contextmanager
    def repeat(self, condition: Callable[[], str]) -> Iterator[None]:
        """A loop that runs while the i1 that ``condition`` writes holds."""
        head, body, done = (self.fresh(part) for part in ("again", "body", "done"))
        self.jump(head)
        self.label(head)
        self.emit(f"br i1 {condition()}, label {body}, label {done}")
        self.label(body)
        yield
        self.jump(head)
        self.label(done)

    def text(self, head: str) -> str:
        """The whole function, ``head`` being its first line without the brace."""
        return "\n".join([f"{head} {{", "entry:", *self.slots, *self.lines, "}"])

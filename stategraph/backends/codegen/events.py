"""Event products: the rows of active neurons are added up.

The active ones are listed first: 64 bytes of events become a mask, and the bits of those that are not 0 are taken one after
another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stategraph.backends.codegen.arithmetic import convert
from stategraph.backends.codegen.llvm import is_float, item_size, literal, llvm_type, stored_type
from stategraph.backends.codegen.places import Memory
from stategraph.backends.codegen.schedule import tensor
from stategraph.ir.core import Op, Value

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block

CHUNK = 64
"""Bytes of events that are looked at together."""
AHEAD = 3
"""How many rows ahead memory is asked for."""


def moved(block: Block, pointer: str, lane: str, width: int, dtype: str) -> str:
    position = block.f.let(f"mul nsw i64 {lane}, {width}")
    return block.f.address(pointer, position, dtype)


def _nonzero(block: Block, value: str, dtype: str, lanes: int = 0) -> str:
    """Whether a value as it is stored, or each of a vector of them, is an event."""
    type_ = stored_type(dtype)
    zero = literal(0, dtype) if is_float(dtype) else "0"
    if lanes:
        type_, zero = f"<{lanes} x {type_}>", "zeroinitializer"
    return block.f.let(f"{'fcmp une' if is_float(dtype) else 'icmp ne'} {type_} {value}, {zero}")


def active(block: Block, vector: Value, events: str, dtype: str) -> tuple[str, str]:
    """Lists the active neurons of a vector, or of one of a batch: (memory of i32, a slot with their number, an i64). All ops
    of a region that send the events of one vector share its list.
    """
    shape = tensor(vector).shape
    root = block.kernel.aliases.of(vector)
    root = block.small.get(root, root)
    if len(shape) == 1 and root in block.active:
        return block.active[root]
    listed = block.kernel.allocate(4 * shape[-1])
    count = block.f.variable("i64", "count")
    block.f.store("0", count, "i64")
    append(block, events, dtype, shape[-1], listed, count)
    if len(shape) == 1:
        block.active[root] = listed, count
    return listed, count


def append(
    block: Block, events: str, dtype: str, size: int, listed: str, count: str, base: str = "0"
) -> None:
    """Write the places of active neurons, counted from ``base``, behind the first ``count`` of a list, and count them."""
    f = block.f
    lanes = CHUNK // item_size(dtype)
    type_, bits, words = stored_type(dtype), f"i{lanes}", f"u{lanes}"

    def note(index: str) -> None:
        number = f.load(count, "i64")
        if base != "0":
            index = f.let(f"add nuw nsw i64 {index}, {base}")
        f.store(f.let(f"trunc i64 {index} to i32"), listed, "i32", number)
        f.store(f.let(f"add nuw nsw i64 {number}, 1"), count, "i64")

    chunks = size // lanes
    masks, places = block.kernel.allocate(item_size(words) * chunks), block.kernel.allocate(4 * chunks)
    some = f.variable("i64", "some")
    f.store("0", some, "i64")
    with f.loop(chunks) as chunk:  # without a branch that nobody can foresee
        first = f.let(f"mul nuw nsw i64 {chunk}, {lanes}")
        found = f.let(
            f"load <{lanes} x {type_}>, ptr {f.address(events, first, dtype)}, align {item_size(dtype)}"
        )
        mask = f.let(f"bitcast <{lanes} x i1> {_nonzero(block, found, dtype, lanes)} to {bits}")
        number = f.load(some, "i64")
        f.store(mask, masks, words, number)
        f.store(f.let(f"trunc i64 {first} to i32"), places, "i32", number)
        counts = f.let(f"zext i1 {f.let(f'icmp ne {bits} {mask}, 0')} to i64")
        f.store(f.let(f"add nuw nsw i64 {number}, {counts}"), some, "i64")
    with f.loop(f.load(some, "i64")) as chunk:
        first = f.let(f"zext i32 {f.load(places, 'i32', chunk)} to i64")
        left = f.variable(words, "left")
        f.store(f.load(masks, words, chunk), left, words)
        with f.repeat(lambda: f.let(f"icmp ne {bits} {f.load(left, words)}, 0")):
            now = f.load(left, words)
            f.declarations[f"declare {bits} @llvm.cttz.{bits}({bits}, i1)"] = None
            lowest = f.let(f"call {bits} @llvm.cttz.{bits}({bits} {now}, i1 true)")
            wide = lowest if lanes == 64 else f.let(f"zext {bits} {lowest} to i64")
            note(f.let(f"add nuw nsw i64 {first}, {wide}"))
            less = f.let(f"sub {bits} {now}, 1")
            f.store(f.let(f"and {bits} {now}, {less}"), left, words)
    with f.loop(size, size // lanes * lanes) as rest:
        value = f.let(f"load {type_}, ptr {f.address(events, rest, dtype)}, align {item_size(dtype)}")
        with f.when(_nonzero(block, value, dtype)):
            note(rest)


class Listing:
    """The result of ``event.compact`` as it grows; ``target`` is its memory."""

    def __init__(self, block: Block, target: str) -> None:
        self.block, self.target = block, target
        self.count = block.f.variable("i64", "count")
        block.f.store("0", self.count, "i64")
        self.listed = block.f.address(target, "1", "i32")

    def add(self, events: str, size: int, base: str = "0") -> None:
        """List what is active among ``size`` bools, whose places are counted from ``base``."""
        append(self.block, events, "bool", size, self.listed, self.count, base)

    def finish(self) -> None:
        """Write how many there are."""
        f = self.block.f
        f.store(f.let(f"trunc i64 {f.load(self.count, 'i64')} to i32"), self.target, "i32")


def compact(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.compact``."""
    listing = Listing(block, targets[0])
    listing.add(array(block, op.operands[0]), tensor(op.operands[0]).size)
    listing.finish()


@contextmanager
def each_active(
    block: Block,
    vector: Value,
    events: str,
    dtype: str,
    announce: Callable[[str], None] | None = None,
    found: tuple[str, str] | None = None,
) -> Iterator[tuple[str, str | None]]:
    """(row as i64, its value or None where that is 1) of each active neuron; ``announce`` is given a row that comes
    soon; ``found`` is the list if there is one already.
    """
    f = block.f
    listed, count = found or active(block, vector, events, dtype)
    number = f.load(count, "i64")
    last = f.let(f"sub nsw i64 {number}, 1")
    if announce is not None:
        few = f.let(f"icmp slt i64 {number}, {AHEAD}")
        with f.loop(f.let(f"select i1 {few}, i64 {number}, i64 {AHEAD}")) as i:
            announce(f.let(f"sext i32 {f.load(listed, 'i32', i)} to i64"))
    with f.loop(number) as i:
        if announce is not None:
            soon = f.let(f"add nuw nsw i64 {i}, {AHEAD}")
            inside = f.let(f"icmp slt i64 {soon}, {last}")
            soon = f.let(f"select i1 {inside}, i64 {soon}, i64 {last}")
            announce(f.let(f"sext i32 {f.load(listed, 'i32', soon)} to i64"))
        row = f.let(f"sext i32 {f.load(listed, 'i32', i)} to i64")
        yield row, None if dtype == "bool" else f.load(events, dtype, row)


def bounds(block: Block, starts: str, row: str) -> tuple[str, str]:
    """Where the synapses of a row begin and end."""
    f = block.f
    after = f.let(f"add nuw nsw i64 {row}, 1")
    ends = [f.load(starts, "i32", i) for i in (row, after)]
    return f.let(f"sext i32 {ends[0]} to i64"), f.let(f"sext i32 {ends[1]} to i64")


def array(block: Block, value: Value) -> str:
    """The address of an array, of one element too."""
    if tensor(value).size > 1:
        return block.memory(value)
    slot = block.f.variable(tensor(value).dtype)
    block.f.store(block.scalar_of(value), slot, tensor(value).dtype)
    return slot


def kept_events(block: Block, vector: Value) -> tuple[str, str]:
    """(the address of events, the dtype that they are kept as)."""
    place = block.place(vector)
    if isinstance(place, Memory):
        return place.pointer, place.dtype
    return array(block, vector), tensor(vector).dtype  # all are equal


@contextmanager
def lanes(block: Block, op: Op, vector: Value, target: str) -> Iterator[tuple[str, str, str]]:
    """(events, the dtype that they are kept as, result) of each lane of a batch of event vectors."""
    events, result = tensor(vector), tensor(op.result)
    given, kept = kept_events(block, vector)
    if len(events.shape) == 1:
        yield given, kept, target
        return
    with block.f.loop(events.shape[0]) as lane:
        yield (
            moved(block, given, lane, events.shape[1], kept),
            kept,
            moved(block, target, lane, result.shape[1], result.dtype),
        )

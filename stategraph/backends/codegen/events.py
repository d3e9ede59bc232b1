"""Event products: the rows of active neurons are added up.

The active ones are listed first: 64 bytes of events become a mask, and the bits of those that are not 0 are taken one after
another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from stategraph.backends.codegen.llvm import is_float, item_size, literal, stored_type
from stategraph.backends.codegen.pieces import Outlined
from stategraph.backends.codegen.places import Memory
from stategraph.backends.codegen.schedule import tensor
from stategraph.backends.codegen.vectors import LANES, Vectors
from stategraph.backends.native.threads import MOST
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
    of a region that send the events of one vector share its list; those of a part of what is recorded come from that list.
    """
    shape = tensor(vector).shape
    root = block.kept_as(block.kernel.aliases.of(vector))
    if len(shape) == 1 and root in block.active:
        return block.active[root]
    origin = block.schedule.root(vector)
    held = block.place(origin)
    if len(shape) == 1 and block.kept_as(origin) in block.wanted and isinstance(held, Memory):
        found = part_of_whole(block, origin, held.pointer, events, shape[0])
    else:
        found = _new_list(block, shape[-1])
        parts = block.parts.get(origin)
        if parts is None:
            append(block, events, dtype, shape[-1], *found)
        else:
            parts.collect(block, *found, events, shape[-1])
    if len(shape) == 1:
        block.active[root] = found
    return found


def _new_list(block: Block, size: int) -> tuple[str, str]:
    count = block.f.variable("i64", "count")
    block.f.store("0", count, "i64")
    return block.kernel.allocate(4 * (size + LANES)), count


def whole(block: Block, origin: Value, pointer: str) -> tuple[str, str]:
    """The list of all bools of an array, made once: of one that is recorded."""
    key, size = block.kept_as(origin), tensor(origin).size
    if key not in block.whole:
        block.whole[key] = found = _new_list(block, size)
        parts = block.parts.get(origin)
        if parts is None:
            append(block, pointer, "bool", size, *found)
        else:
            parts.collect(block, *found, pointer, size)
    return block.whole[key]


def part_of_whole(block: Block, origin: Value, pointer: str, events: str, size: int) -> tuple[str, str]:
    """The list of ``size`` bools that begin at ``events``, a part of an array of which there is a list."""
    f, (listed, count) = block.f, whole(block, origin, pointer)
    if size == tensor(origin).size:
        return listed, count
    ends = [f.let(f"ptrtoint ptr {begin} to i64") for begin in (events, pointer)]
    first = f.let(f"sub i64 {ends[0]}, {ends[1]}")
    part, inside = _new_list(block, size)
    with f.loop(f.load(count, "i64")) as i:  # without a branch: the next one overwrites what is not inside
        place_in_all = f.let(f"zext i32 {f.load(listed, 'i32', i)} to i64")
        at = f.let(f"sub i64 {place_in_all}, {first}")
        number = f.load(inside, "i64")
        f.store(f.let(f"trunc i64 {at} to i32"), part, "i32", number)
        counts = f.let(f"zext i1 {f.let(f'icmp ult i64 {at}, {size}')} to i64")
        f.store(f.let(f"add nuw nsw i64 {number}, {counts}"), inside, "i64")
    return part, inside


def append(
    block: Block,
    events: str,
    dtype: str,
    size: int | str,
    listed: str,
    count: str,
    base: str = "0",
    scratch: tuple[str, str] | None = None,
) -> None:
    """Write the places of active neurons, counted from ``base``, behind the first ``count`` of a list, and count them.

    ``scratch`` is memory for one bit and for half a byte for each neuron, if there is any; ``size`` may be a register.
    """
    f = block.f
    lanes = CHUNK // item_size(dtype)
    type_, bits, words = stored_type(dtype), f"i{lanes}", f"u{lanes}"

    def note(index: str) -> None:
        number = f.load(count, "i64")
        if base != "0":
            index = f.let(f"add nuw nsw i64 {index}, {base}")
        f.store(f.let(f"trunc i64 {index} to i32"), listed, "i32", number)
        f.store(f.let(f"add nuw nsw i64 {number}, 1"), count, "i64")

    if isinstance(size, int):
        chunks: int | str = size // lanes
        rest_from: int | str = size // lanes * lanes
    else:
        chunks = f.let(f"udiv i64 {size}, {lanes}")
        rest_from = f.let(f"mul nuw nsw i64 {chunks}, {lanes}")
    if scratch is None:
        most = -(-int(size) // lanes)
        scratch = block.kernel.allocate(item_size(words) * most), block.kernel.allocate(4 * most)
    masks, places = scratch
    some = f.variable("i64", "some")
    f.store("0", some, "i64")

    def look(first: str, known: int = 0) -> None:
        """Keep the mask of those from ``first`` on, without the ``known`` first of them, if any is active."""
        where = f.address(events, first, dtype)
        found = f.let(f"load <{lanes} x {type_}>, ptr {where}, align {item_size(dtype)}")
        mask = f.let(f"bitcast <{lanes} x i1> {_nonzero(block, found, dtype, lanes)} to {bits}")
        if known:
            mask, first = f.let(f"lshr {bits} {mask}, {known}"), str(int(first) + known)
        number = f.load(some, "i64")
        f.store(mask, masks, words, number)
        f.store(f.let(f"trunc i64 {first} to i32"), places, "i32", number)
        counts = f.let(f"zext i1 {f.let(f'icmp ne {bits} {mask}, 0')} to i64")
        f.store(f.let(f"add nuw nsw i64 {number}, {counts}"), some, "i64")

    with f.loop(chunks) as chunk:  # without a branch that nobody can foresee
        look(f.let(f"mul nuw nsw i64 {chunk}, {lanes}"))
    if isinstance(size, int) and size > lanes and size % lanes:
        look(str(size - lanes), lanes - size % lanes)
        rest_from = size
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
    with f.loop(size, rest_from) as rest:
        value = f.let(f"load {type_}, ptr {f.address(events, rest, dtype)}, align {item_size(dtype)}")
        with f.when(_nonzero(block, value, dtype)):
            note(rest)


@attrs.frozen
class Parts:
    """The active ones among the bools of an array, listed by each thread for its piece."""

    events: str
    """The bools."""
    size: int
    listed: str
    """The places of those of a piece, from where the piece begins."""
    counts: str
    """How many there are in each piece, and where it begins."""

    @staticmethod
    def of(block: Block, events: str, size: int) -> Parts:
        return Parts(events, size, block.kernel.allocate(4 * size), block.kernel.allocate(16 * MOST))

    def clear(self, block: Block) -> None:
        block.f.clear(self.counts, 16 * MOST)

    def add(self, part: Outlined) -> None:
        """List those of the piece that is being written."""
        block, f = part.block, part.f
        events, listed, counts = (part.parameter(p, "ptr") for p in (self.events, self.listed, self.counts))
        count = f.variable("i64", "count")
        f.store("0", count, "i64")
        scratch = [part.parameter(block.kernel.allocate(self.size), "ptr") for _ in range(2)]
        masks, places = (f.address(pointer, "%from", "i8") for pointer in scratch)
        length = f.let("sub nuw nsw i64 %to, %from")
        append(
            block,
            f.address(events, "%from", "bool"),
            "bool",
            length,
            f.address(listed, "%from", "i32"),
            count,
            "%from",
            (masks, places),
        )
        at = f.let("mul nuw nsw i64 %piece, 2")
        f.store(f.load(count, "i64"), counts, "i64", at)
        f.store("%from", counts, "i64", f.let(f"add nuw nsw i64 {at}, 1"))

    def collect(self, block: Block, listed: str, count: str, events: str, size: int, base: str = "0") -> None:
        """Write those of ``size`` bools that begin at ``events``, counted from ``base``, behind the first ``count`` of a list."""
        f = block.f
        ends = [f.let(f"ptrtoint ptr {pointer} to i64") for pointer in (events, self.events)]
        first = f.let(f"sub i64 {ends[0]}, {ends[1]}")
        with f.loop(MOST) as piece:
            at = f.let(f"mul nuw nsw i64 {piece}, 2")
            number, begin = (f.load(self.counts, "i64", i) for i in (at, f.let(f"add nuw nsw i64 {at}, 1")))
            with f.loop(f.let(f"add nuw nsw i64 {begin}, {number}"), begin) as i:
                place = f.let(f"zext i32 {f.load(self.listed, 'i32', i)} to i64")
                place = f.let(f"sub i64 {place}, {first}")
                so_far = f.load(count, "i64")
                counted = f.let(f"add i64 {place}, {base}")
                inside = f.let(f"icmp ult i64 {place}, {size}")
                with f.when(inside):
                    f.store(f.let(f"trunc i64 {counted} to i32"), listed, "i32", so_far)
                    f.store(f.let(f"add nuw nsw i64 {so_far}, 1"), count, "i64")


class Listing:
    """The result of ``event.compact`` as it grows; ``target`` is its memory."""

    def __init__(self, block: Block, target: str, room: int) -> None:
        self.block, self.target, self.room = block, target, room
        self.count = block.f.variable("i64", "count")
        block.f.store("0", self.count, "i64")
        self.listed = block.f.address(target, "1", "i32")

    def add(self, events: str, size: int, base: str = "0") -> None:
        """List what is active among ``size`` bools, whose places are counted from ``base``."""
        append(self.block, events, "bool", size, self.listed, self.count, base)

    def extend(self, listed: str, count: str, base: str) -> None:
        """List what is listed already."""
        f, vectors = self.block.f, Vectors(self.block.f)
        number, so_far = f.load(count, "i64"), f.load(self.count, "i64")
        start = f.let(f"trunc i64 {base} to i32")
        starts = vectors.spread(start, "u32")
        behind = f.address(self.listed, so_far, "i32")
        after = f.let(f"add nuw nsw i64 {so_far}, {number}")

        def copy(first: str) -> None:
            found = vectors.load(f.address(listed, first, "i32"), "u32", 4)
            vectors.store(vectors.op("add", found, starts), f.address(behind, first, "i32"), "u32", 4)

        fits = f.let(f"icmp sle i64 {after}, {self.room - LANES}")
        with f.when(
            fits
        ):  # whole vectors, of which the first is mostly enough: what is too much is overwritten
            copy("0")
            whole = f.let(
                f"lshr i64 {f.let(f'add nuw nsw i64 {number}, {LANES - 1}')}, {LANES.bit_length() - 1}"
            )
            with f.loop(whole, 1) as i:
                copy(f.let(f"mul nuw nsw i64 {i}, {LANES}"))
        with f.when(f.let(f"xor i1 {fits}, true")), f.loop(number) as i:
            f.store(f.let(f"add i32 {f.load(listed, 'i32', i)}, {start}"), behind, "i32", i)
        f.store(after, self.count, "i64")

    def finish(self) -> None:
        """Write how many there are."""
        f = self.block.f
        f.store(f.let(f"trunc i64 {f.load(self.count, 'i64')} to i32"), self.target, "i32")


@attrs.define(eq=False)
class Recorded:
    """Bools of every step of a loop that are to be listed."""

    listing: Listing
    row: str
    """Memory for those of one step."""
    size: int
    step: str = ""
    """The number of the step that is being written."""
    late: bool = False
    """Whether a step lists those of the step before: its first loop computes and lists them once more."""

    @staticmethod
    def of(block: Block, target: str, size: int, length: int) -> Recorded:
        return Recorded(Listing(block, target, size * length), block.kernel.allocate(size), size)

    def before(self, listed: tuple[str, str]) -> None:
        """List those of the step before, which are listed as the first loop's."""
        self.late = True
        self.listing.extend(*listed, self._base(self.listing.block.f.let(f"sub nsw i64 {self.step}, 1")))

    def now(self, inner: Block, value: Value) -> None:
        """List those of a step whose code is written: what is listed already, or what threads have listed, or the row."""
        if self.late:
            return
        key, parts = inner.kept_as(value), inner.parts.get(value)
        if key in inner.whole:
            self.listing.extend(*inner.whole[key], self._base(self.step))
        elif parts is not None:
            block, listing = self.listing.block, self.listing
            parts.collect(
                block, listing.listed, listing.count, parts.events, self.size, self._base(self.step)
            )
        else:
            self.listing.add(self.row, self.size, self._base(self.step))

    def finish(self, length: int) -> None:
        """End the list, after the last step."""
        if self.late:
            self.listing.add(self.row, self.size, str((length - 1) * self.size))
        self.listing.finish()

    def _base(self, step: str) -> str:
        return self.listing.block.f.let(f"mul nsw i64 {step}, {self.size}")


def compact(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.compact``."""
    size = tensor(op.operands[0]).size
    listing = Listing(block, targets[0], size)
    listing.add(array(block, op.operands[0]), size)
    listing.finish()


def appended(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.append``."""
    f, target = block.f, targets[0]
    listed, events, base = op.operands
    block.fill(target, listed, block.place(listed))
    count = f.variable("i64", "count")
    f.store(f.let(f"sext i32 {f.load(target, 'i32')} to i64"), count, "i64")
    first = f.let(f"sext i32 {block.scalar_of(base)} to i64")
    append(
        block, array(block, events), "bool", tensor(events).size, f.address(target, "1", "i32"), count, first
    )
    f.store(f.let(f"trunc i64 {f.load(count, 'i64')} to i32"), target, "i32")


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

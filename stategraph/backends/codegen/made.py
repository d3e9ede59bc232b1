"""``event.jit``: synapses that are made of a seed, see ``backends.events.hashing``.

The place of a synapse is a sum of gaps, so a row is made one synapse after another; but rows are made of streams that do not
depend on each other: 16 rows are made at once, each in a lane of vectors. As long as no row is finished, the places
that were found a few turns ago are added up while the processor makes new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from stategraph.backends.codegen.events import active, array, lanes
from stategraph.backends.codegen.llvm import Function, item_size, literal, llvm_type
from stategraph.backends.codegen.schedule import tensor
from stategraph.backends.codegen.vectors import LANES, MASK, Vectors, constant, constants, vector
from stategraph.backends.events import hashing
from stategraph.ir.core import Op

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block

TURNS = 128
"""How many turns are kept."""

LATER = 4
"""After how many turns places are added up."""


def jit(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.jit``."""
    rows = _Rows(block, op)
    events, dtype = op.operands[0], tensor(op.result).dtype
    pre, post = op.attributes["shape"]
    f, v = block.f, rows.v
    if op.attributes["transposed"]:
        kept_values = block.kernel.allocate(item_size(dtype) * post)
        with lanes(block, op, events, targets[0]) as (given, kept, target):
            values = given if kept == dtype else _as_numbers(f, given, kept_values, post, kept, dtype)
            _receive(rows, values, target, pre)
        return
    sending = _Sending(rows)
    with lanes(block, op, events, targets[0]) as (given, kept, target):
        f.clear(target, post * item_size(dtype))
        listed, count = active(block, events, given, kept)
        number = f.load(count, "i64")
        groups = f.let(f"lshr i64 {f.let(f'add nuw nsw i64 {number}, {LANES - 1}')}, 4")
        with f.loop(groups) as group:
            begin = f.let(f"shl nuw nsw i64 {group}, 4")
            there, few = _before(v, f.let(f"sub nsw i64 {number}, {begin}"))
            numbers = v.first(f.address(listed, begin, "i32"), there)
            sizes = None if kept == "bool" else v.gather(given, numbers, kept, there)
            sending.send(rows.start(numbers, there, few), sizes, target)


def _before(v: Vectors, number: str) -> tuple[str, str]:
    """A mask of the first so many lanes (an i64), and how many these are."""
    f = v.f
    f.declarations["declare i64 @llvm.umin.i64(i64, i64)"] = None
    few = f.let(f"call i64 @llvm.umin.i64(i64 {number}, i64 {LANES})")
    short = v.spread(f.let(f"trunc i64 {few} to i32"), "u32")
    return v.op("icmp ult", constants(range(LANES), "u32"), short), few


def _as_numbers(f: Function, given: str, place: str, size: int, kept: str, dtype: str) -> str:
    """Events as numbers."""
    real = llvm_type(dtype)
    with f.loop(size) as i:
        f.store(f.let(f"uitofp i1 {f.load(given, kept, i)} to {real}"), place, dtype, i)
    return place


def _receive(rows: _Rows, values: str, target: str, pre: int) -> None:
    """Every row adds up what its synapses bring."""
    f, v, dtype = rows.block.f, rows.v, rows.dtype
    zero = constant(0, dtype)
    total = v.variable(dtype)
    with f.loop(-(-pre // LANES)) as group:
        begin = f.let(f"shl nuw nsw i64 {group}, 4")
        numbers = v.op(
            "add", v.spread(f.let(f"trunc i64 {begin} to i32"), "u32"), constants(range(LANES), "u32")
        )
        state = rows.start(numbers, *_before(v, f.let(f"sub nsw i64 {pre}, {begin}")))
        v.store(zero, total, dtype)
        with f.repeat(lambda: f.let(f"icmp ne i16 {f.load(state.inside, 'i16')}, 0")):
            place, bits, inside = rows.turn(state)
            value = v.gather(values, place, dtype, inside)
            arriving = v.op("fmul", rows.weights(bits), value, dtype)
            arriving = v.select(v.op("fcmp une", value, zero, dtype), arriving, zero, dtype)
            v.store(v.op("fadd", v.load(total, dtype), arriving, dtype), total, dtype)
        found = rows.v.variable(dtype)
        v.store(v.load(total, dtype), found, dtype)
        with f.loop(state.few) as lane:
            row = f.let(f"add nuw nsw i64 {begin}, {lane}")
            f.store(f.load(found, dtype, lane), target, dtype, row)


@attrs.frozen
class _State:
    """Where 16 rows are: slots of vectors, and what stays the same."""

    last: str
    """The places of the last synapses."""
    counter: str
    inside: str
    """A slot of an i16: the rows whose last synapse is there."""
    step: str
    end: str
    """How many places there are."""
    own: str
    """The neurons that the rows belong to."""
    there: str
    """The lanes that have a row, an i16."""
    few: str
    """How many these are, an i64."""


class _Rows:
    """How the rows of one op are made."""

    def __init__(self, block: Block, op: Op) -> None:
        self.block, f = block, block.f
        self.v = Vectors(f)
        _, weight, seed = op.operands
        self.law, self.post = op.attributes["law"], op.attributes["shape"][1]
        self.dtype = tensor(op.result).dtype
        words = array(block, seed)
        self.seed = [self.v.spread(f.load(words, "u32", str(i)), "u32") for i in range(2)]
        given = array(block, weight)
        numbers = [f.load(given, self.dtype, str(i)) for i in range(tensor(weight).size)]
        self.numbers = [self.v.spread(number, self.dtype) for number in numbers]
        self.number = numbers[0]
        self.include_self = op.attributes["include_self"]
        self.gaps = hashing.Gaps.of(op.attributes["prob"])
        here, slope = self.gaps.table().astype(np.uint64)
        self.table = _table(block, f"gaps{self.gaps.unit}_{self.gaps.point}", here | slope << 32, "u64")

    def start(self, own: str, there: str, few: str) -> _State:
        """The rows of neurons, before their first synapses; those of lanes where the mask does not hold have none."""
        f, v = self.block.f, self.v
        first = _mix(v, v.op("xor", own, self.seed[0]))
        counter = _mix(v, v.op("add", first, self.seed[1]))
        turned = v.op("xor", first, hashing.GOLDEN)
        step = v.op("or", _mix(v, v.op("add", turned, self.seed[1])), 1)
        end = constant(self.post, "u32")
        if not self.include_self:
            has = f.let(f"zext {MASK} {v.op('icmp ult', own, self.post)} to {vector('u32')}")
            end = v.op("sub", end, has)
        end = v.select(there, end, "zeroinitializer")
        state = _State(
            v.variable("u32"), v.variable("u32"), f.variable("i16"), step, end, own, v.bits(there), few
        )
        v.store(constant(2**32 - 1, "u32"), state.last, "u32")
        v.store(counter, state.counter, "u32")
        f.store(state.there, state.inside, "i16")
        return state

    def turn(self, state: _State) -> tuple[str, str, str]:
        """The next synapse of each row: (places, the random bits that they are made of, a mask of those that are there)."""
        f, v = self.block.f, self.v
        counter = v.load(state.counter, "u32")
        bits = _mix(v, counter)
        v.store(v.op("add", counter, state.step), state.counter, "u32")
        place = v.op("add", v.op("add", v.load(state.last, "u32"), self.gap(bits)), 1)
        place = v.least(place, constant(self.post, "u32"))
        v.store(place, state.last, "u32")
        inside = v.op("icmp ult", place, state.end)
        f.store(v.bits(inside), state.inside, "i16")
        if not self.include_self:
            after = f.let(f"zext {MASK} {v.op('icmp uge', place, state.own)} to {vector('u32')}")
            place = v.op("add", place, after)
        return place, bits, inside

    def gap(self, bits: str) -> str:
        """The places that are passed over (``hashing.Gaps``)."""
        v = self.v
        zeros = v.leading_zeros(bits)
        rest = v.op("shl", v.op("shl", bits, 1), v.op("and", zeros, 31))
        step = v.op("lshr", rest, 32 - hashing.INDEX_BITS - hashing.STEP_BITS)
        step = v.op("and", step, (1 << hashing.STEP_BITS) - 1)
        found = v.gather(self.table, v.op("lshr", rest, 32 - hashing.INDEX_BITS), "u64")
        here, slope = v.halves(found)
        fraction = v.op("sub", here, v.op("lshr", v.op("mul", slope, step), hashing.STEP_BITS))
        return v.op("lshr", v.op("add", v.op("mul", zeros, self.gaps.unit), fraction), self.gaps.point)

    def weights(self, bits: str) -> str:
        """The weights of synapses that are made of random bits."""
        f, v, dtype = self.block.f, self.v, self.dtype
        if self.law == "one":
            return self.numbers[0]
        part = self.random(bits)
        if dtype == "f64":
            part = f.let(f"fpext {vector('f32')} {part} to {vector('f64')}")
        scaled = v.op(f"fmul {f.contract}".strip(), self.numbers[1], part, dtype)
        return v.op(f"fadd {f.contract}".strip(), self.numbers[0], scaled, dtype)

    def random(self, bits: str) -> str:
        """The random parts of weights (f32)."""
        f, v = self.block.f, self.v
        other = _mix(v, v.op("xor", bits, hashing.GOLDEN))
        if self.law == "uniform":
            short = f.let(f"uitofp {vector('u32')} {v.op('lshr', other, 8)} to {vector('f32')}")
            return v.op("fmul", short, constant(2.0**-24, "f32"), "f32")
        quantiles = _table(self.block, "normals", hashing.normals(), "f32")
        found = []
        for shift in (0, hashing.NORMAL_BITS):
            index = v.op(
                "and", v.op("lshr", other, shift) if shift else other, (1 << hashing.NORMAL_BITS) - 1
            )
            found.append(v.gather(quantiles, index, "f32"))
        return v.op("fmul", v.op("fadd", found[0], found[1], "f32"), constant(0.5**0.5, "f32"), "f32")


class _Sending:
    """Adds what the synapses of 16 rows bring, and keeps places and weights of the last turns for that."""

    def __init__(self, rows: _Rows) -> None:
        self.rows = rows
        kernel, f = rows.block.kernel, rows.block.f
        self.places = kernel.allocate(4 * LANES * (TURNS + 1))
        size = item_size(rows.dtype)
        self.sent = (
            kernel.allocate(size * LANES * TURNS) if rows.law != "one" else rows.v.variable(rows.dtype)
        )
        self.made, self.done = f.variable("i64", "made"), f.variable("i64", "done")

    def send(self, state: _State, values: str | None, target: str) -> None:
        """Rows from their beginning to their end; ``values``: those of the events, if they are not 1."""
        rows, f, v = self.rows, self.rows.block.f, self.rows.v
        if rows.law == "one" and values is not None:
            v.store(v.op("fmul", rows.numbers[0], values, rows.dtype), self.sent, rows.dtype)

        def inside(what: str, number: str) -> str:
            room = f.let(f"icmp slt i64 {f.load(self.made, 'i64')}, {TURNS}")
            fits = f.let(f"icmp {what} i16 {f.load(state.inside, 'i16')}, {number}")
            return f.let(f"and i1 {room}, {fits}")

        with f.repeat(lambda: f.let(f"icmp ne i16 {f.load(state.inside, 'i16')}, 0")):
            f.store("0", self.made, "i64")
            f.store("0", self.done, "i64")
            # the last turn may have found ends
            with f.repeat(lambda: inside("eq", state.there)):
                self.turn(state, values)
                done = f.load(self.done, "i64")
                ready = f.let(f"icmp slt i64 {f.let(f'add i64 {done}, {LATER}')}, {f.load(self.made, 'i64')}")
                with f.when(ready):
                    with f.loop(state.few) as lane:
                        self.add(done, lane, self.place(done, lane), values, target)
                    f.store(f.let(f"add nuw nsw i64 {done}, 1"), self.done, "i64")
            with f.repeat(lambda: inside("ne", "0")):
                self.turn(state, values)
            self.rest(state, values, target)

    def turn(self, state: _State, values: str | None) -> None:
        rows, f, v = self.rows, self.rows.block.f, self.rows.v
        made = f.load(self.made, "i64")
        place, bits, inside = rows.turn(state)
        kept = f.let(f"shl nuw nsw i64 {made}, 4")
        v.store(
            v.select(inside, place, constant(2**32 - 1, "u32")), f.address(self.places, kept, "u32"), "u32"
        )
        if rows.law != "one":
            sent = rows.weights(bits)
            if values is not None:
                sent = v.op("fmul", sent, values, rows.dtype)
            v.store(sent, f.address(self.sent, kept, rows.dtype), rows.dtype)
        f.store(f.let(f"add nuw nsw i64 {made}, 1"), self.made, "i64")

    def index(self, turn: str, lane: str) -> str:
        return self.rows.block.f.let(f"add nuw nsw i64 {self.rows.block.f.let(f'shl i64 {turn}, 4')}, {lane}")

    def place(self, turn: str, lane: str) -> str:
        return self.rows.block.f.load(self.places, "u32", self.index(turn, lane))

    def add(self, turn: str, lane: str, place: str, values: str | None, target: str) -> None:
        """What a synapse brings."""
        f, dtype = self.rows.block.f, self.rows.dtype
        sent = self.rows.number
        if self.rows.law != "one":
            sent = f.load(self.sent, dtype, self.index(turn, lane))
        elif values is not None:
            sent = f.load(self.sent, dtype, lane)
        where = f.address(target, f.let(f"zext i32 {place} to i64"), dtype)
        f.store(f.let(f"fadd {llvm_type(dtype)} {f.load(where, dtype)}, {sent}"), where, dtype)

    def rest(self, state: _State, values: str | None, target: str) -> None:
        """What was made and not added yet, row by row."""
        f, v = self.rows.block.f, self.rows.v
        end = f.let(f"shl nuw nsw i64 {f.load(self.made, 'i64')}, 4")
        v.store(constant(2**32 - 1, "u32"), f.address(self.places, end, "u32"), "u32")
        turn = f.variable("i64", "turn")
        with f.loop(state.few) as lane:
            f.store(f.load(self.done, "i64"), turn, "i64")

            def there() -> str:
                return f.let(f"icmp ne i32 {self.place(f.load(turn, 'i64'), lane)}, -1")

            with f.repeat(there):
                now = f.load(turn, "i64")
                self.add(now, lane, self.place(now, lane), values, target)
                f.store(f.let(f"add nuw nsw i64 {now}, 1"), turn, "i64")


def _mix(v: Vectors, x: str) -> str:
    """``hashing.mix``."""
    for shift, factor in ((16, hashing.FIRST), (15, hashing.SECOND)):
        x = v.op("mul", v.op("xor", x, v.op("lshr", x, shift)), factor)
    return v.op("xor", x, v.op("lshr", x, 15))


def _table(block: Block, name: str, numbers: np.ndarray, dtype: str) -> str:
    """Constants of the kernel; gives their address."""
    type_ = llvm_type(dtype)
    elements = ", ".join(f"{type_} {literal(number, dtype)}" for number in numbers)
    line = f"@{name} = private unnamed_addr constant [{numbers.size} x {type_}] [{elements}], align 64"
    block.f.declarations[line] = None
    return f"@{name}"

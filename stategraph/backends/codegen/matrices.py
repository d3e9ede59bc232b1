"""Events times a matrix: the rows that they choose are added up, or of every row the columns.

Several rows at a time, so that what they are added to is read and written once for them. Where the columns of many neurons
are asked for, every row is read from end to end, which is faster than looking for what is active.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stategraph.backends.codegen.arithmetic import convert
from stategraph.backends.codegen.events import active, array, lanes, moved
from stategraph.backends.codegen.llvm import item_size, literal, llvm_type
from stategraph.backends.codegen.schedule import tensor
from stategraph.ir.core import Op, Value
from stategraph.passes.event_costs import TABLE, Size, threshold

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block

TOGETHER, FOUR = 8, 4
"""Rows of a matrix that are added at a time, and whose sums are made at a time."""


def dense(block: Block, op: Op, targets: Sequence[str]) -> None:
    """``event.dense``: the rows of active neurons, or of each row the columns of active ones, several at a time."""
    f = block.f
    events, matrix = op.operands
    dtype, width = tensor(matrix).dtype, tensor(op.result).shape[-1]
    numbers = array(block, matrix)
    form = _columns if op.attributes["transposed"] else _rows
    with lanes(block, op, events, targets[0]) as (given, kept, target):
        f.clear(target, width * item_size(dtype))
        form(block, events, (given, kept), (numbers, dtype), target, width)


def _rows(
    block: Block, events: Value, given: tuple[str, str], matrix: tuple[str, str], target: str, width: int
) -> None:
    """Add the rows of a matrix that events choose, eight at a time, then one at a time."""
    f, (held, kept), (numbers, dtype) = block.f, given, matrix
    listed, count = active(block, events, held, kept)
    number = f.load(count, "i64")
    whole = f.let(f"and i64 {number}, {-TOGETHER}")

    def some(first: str, many: int) -> None:
        """Add this many rows, from a place of the list on."""
        rows, values = [], []
        for k in range(many):
            place = first if k == 0 else f.let(f"add nuw nsw i64 {first}, {k}")
            row = f.let(f"sext i32 {f.load(listed, 'i32', place)} to i64")
            rows.append(moved(block, numbers, row, width, dtype))
            values.append(None if kept == "bool" else f.load(held, dtype, row))
        with f.loop(width) as column:
            terms = [f.load(target, dtype, column)]
            for row, value in zip(rows, values, strict=True):
                terms.append(_times(block, f.load(row, dtype, column), value, dtype))
            f.store(_sum(block, terms, dtype), target, dtype, column)

    with f.loop(f.let(f"lshr i64 {whole}, {TOGETHER.bit_length() - 1}")) as group:
        some(f.let(f"mul nuw nsw i64 {group}, {TOGETHER}"), TOGETHER)
    with f.loop(number, whole) as rest:
        some(rest, 1)


def _columns(
    block: Block, events: Value, given: tuple[str, str], matrix: tuple[str, str], target: str, width: int
) -> None:
    """Of each row of a matrix the sum of the columns that events choose, four rows at a time; of all columns where many
    are active.
    """
    f, (held, kept), (numbers, dtype) = block.f, given, matrix
    size = tensor(events).shape[-1]
    listed, count = active(block, events, held, kept)
    number = f.load(count, "i64")
    costs = TABLE["cpu-native"]
    most = max(1, int(threshold(costs, Size(1, size, width, item_size(dtype)), transposed=True) * size))

    def some(first: str, many: int, stop: str, column_of: Callable[[str], str]) -> None:
        """The sums of this many rows, over columns."""
        totals = [f.variable(dtype, "total") for _ in range(many)]
        rows = [first, *(f.let(f"add nuw nsw i64 {first}, {k}") for k in range(1, many))]
        starts = [moved(block, numbers, row, size, dtype) for row in rows]
        for total in totals:
            f.store(literal(0, dtype), total, dtype)
        with f.loop(stop) as k:
            column = column_of(k)
            value = convert(f, f.load(held, kept, column), kept, dtype)
            for total, start in zip(totals, starts, strict=True):
                sent = _times(block, f.load(start, dtype, column), value, dtype)
                kind = f"fadd reassoc {f.contract}{llvm_type(dtype)}"
                f.store(f.let(f"{kind} {f.load(total, dtype)}, {sent}"), total, dtype)
        for total, row in zip(totals, rows, strict=True):
            f.store(f.load(total, dtype), target, dtype, row)

    def all_rows(stop: str, column_of: Callable[[str], str]) -> None:
        whole = width // FOUR * FOUR
        with f.loop(whole // FOUR) as group:
            some(f.let(f"mul nuw nsw i64 {group}, {FOUR}"), FOUR, stop, column_of)
        with f.loop(width, whole) as rest:
            some(rest, 1, stop, column_of)

    many = f.let(f"icmp sgt i64 {number}, {most}")
    with f.when(many):
        all_rows(str(size), lambda k: k)
    with f.when(f.let(f"xor i1 {many}, true")):
        all_rows(number, lambda k: f.let(f"sext i32 {f.load(listed, 'i32', k)} to i64"))


def _times(block: Block, weight: str, value: str | None, dtype: str) -> str:
    if value is None:
        return weight
    return block.f.let(f"fmul {block.f.contract}{llvm_type(dtype)} {weight}, {value}")


def _sum(block: Block, terms: list[str], dtype: str) -> str:
    """The sum, in pairs: additions that do not wait for each other."""
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=False)
        kind = f"fadd {block.f.contract}{llvm_type(dtype)}"
        terms = [block.f.let(f"{kind} {a}, {b}") for a, b in pairs] + terms[len(terms) // 2 * 2 :]
    return terms[0]

"""The loop over neurons with which a step of a loop ends, and that with which the next begins, as one.

A step of a network begins with what the States alone decide (who spikes, how conductances decay), goes on with what
spikes do, and ends with what every neuron makes of that. Its first and its last loop over the neurons look at the same
arrays, and nothing is between the last of one step and the first of the next but the turn of the loop. So there are three
functions: the first loop, called before the first step; the last one, called in the last step; and in all other steps
both together, an element's new State being in a register.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from stategraph.backends.codegen.fusing import QUOTIENT
from stategraph.backends.codegen.places import Memory, Scalar
from stategraph.backends.codegen.schedule import Cluster, Scalars, Stage, Step, is_cheap, tensor
from stategraph.ir.core import Constant, Op, Value
from stategraph.ir.regions import captures
from stategraph.passes.native_ops import REDUCTIONS

if TYPE_CHECKING:
    from stategraph.backends.codegen.blocks import Block

MOST_OPS = 96
"""Ops of both loops together: where more is computed, reading State again costs little, and a loop that waits for the
results of long sequences of instructions (``exp``) is slower with more of them.
"""


@attrs.frozen
class Turn:
    """Two loops of a body that can be one."""

    first: Cluster
    last: Cluster
    news: Mapping[Value, Value]
    """Arguments of the body, and the values of ``last`` that they are in the next step."""
    again: Mapping[Value, Value] = attrs.Factory(dict)
    """Bools of ``last`` that are listed for every step, and those of ``first`` that are the same in the next step."""


def turn_of(block: Block) -> Turn | None:
    """The loops of a body that can be one, across the turn of the loop, and are faster so."""
    steps = block.schedule.steps
    inner = [number for number, step in enumerate(steps) if not isinstance(step, Scalars)]
    if len(inner) < 2:
        return None
    first = steps[inner[0]]
    end = _end(first, inner, block) if isinstance(first, Cluster) else None
    if end is None:
        return None
    last = steps[end]
    if not isinstance(first, Cluster) or not isinstance(last, Cluster):
        return None
    ops = [*first.ops, *last.ops]
    outside = [op for step in (*steps[: inner[0]], *steps[end + 1 :]) for op in _scalars(step)]
    if (
        len(ops) > MOST_OPS
        or not all(op.name in REDUCTIONS or block.is_flat(op, first.space) for op in ops)
        or not all(map(is_cheap, first.ops))
        or not all(
            is_cheap(op) or op.name in ("jax.div", "jax.expm1", QUOTIENT, *REDUCTIONS) for op in last.ops
        )
        or any(tensor(block.yielded[index]).size > 1 for index in block.copied)
        or any(_looks_at_arrays(op, block) for op in outside)
        or not all(_comes_early(value, first, block) for op in first.ops for value in op.operands)
    ):
        return None
    recorded = {target.pointer for target in block.targets if target.old is None}
    if any(pointer in recorded for op in first.ops for pointer in block.stores.get(op.result, ())):
        return None
    news = {
        target.old: value
        for target, value in zip(block.targets, block.yielded, strict=True)
        if target.old is not None and value.owner in last.ops
    }
    turn = Turn(first, last, news)
    return attrs.evolve(turn, again=_computed_again(turn, block))


def _computed_again(turn: Turn, block: Block) -> dict[Value, Value]:
    """Bools of the last loop that are listed, and nothing else, and arrays of bools that the first loop keeps and that are
    the same in the next step: so one list is enough.
    """
    rows = {recorded.row for recorded in block.recorded}
    kept = [op.result for op in turn.first.ops if op.result in block.stores]
    found = {}
    for value, target in zip(block.yielded, block.targets, strict=True):
        if target.pointer not in rows or value.owner not in turn.last.ops:
            continue
        users_here = all(user in turn.last.ops for user in block.uses(value))
        if not users_here or not rows.issuperset(block.stores.get(value, ("",))):
            continue
        same = _Same(turn, block)
        for other in kept:
            bools = block.kept_as(other)
            if _alike(bools, value) and same.of(bools, value):
                found[value] = other
                break
    return found


class _Same:
    """Compares values of the first loop with those of the last: whether they are the same in the step after."""

    def __init__(self, turn: Turn, block: Block) -> None:
        self.turn, self.block = turn, block
        self.known: dict[tuple[Value, Value], bool] = {}

    def of(self, early: Value, late: Value) -> bool:
        early, late = map(self.block.kernel.aliases.of, (early, late))
        if isinstance(early, Constant) or isinstance(late, Constant):
            both = isinstance(early, Constant) and isinstance(late, Constant)
            return both and _alike(early, late) and _bits(early) == _bits(late)
        if (early, late) not in self.known:
            self.known[early, late] = self._compared(early, late)
        return self.known[early, late]

    def _compared(self, early: Value, late: Value) -> bool:
        owner, other = early.owner, late.owner
        if early in self.turn.news:
            return self.turn.news[early] is late
        if owner is self.block.region:  # carried
            return early is late and any(
                target.old is early and value is early
                for value, target in zip(self.block.yielded, self.block.targets, strict=True)
            )
        if early is late:
            return _is_the_same(early, self.block)
        if not isinstance(owner, Op) or not isinstance(other, Op) or owner not in self.turn.first.ops:
            return False
        try:
            equal = owner.name == other.name and owner.attributes == other.attributes
        except (TypeError, ValueError):  # attributes that cannot be compared
            return False
        return (
            equal
            and not owner.regions
            and _alike(early, late)
            and len(owner.operands) == len(other.operands)
            and all(self.of(a, b) for a, b in zip(owner.operands, other.operands, strict=True))
        )


def _bits(value: Value) -> bytes | None:
    return value.data.tobytes() if isinstance(value, Constant) else None


def _alike(a: Value, b: Value) -> bool:
    """Whether values have the same dtype and shape."""
    return (tensor(a).dtype, tensor(a).shape) == (tensor(b).dtype, tensor(b).shape)


def _end(first: Cluster, inner: Sequence[int], block: Block) -> int | None:
    """The number of the last loop of a body over what its first loop is over, if all that follows may as well be done after
    the first loop of the next step: that is so for what records State which the last loop has computed.
    """
    written, read = _memory_of(first, block)
    for number in reversed(inner[1:]):
        step = block.schedule.steps[number]
        if isinstance(step, Cluster) and step.space == first.space:
            return number
        writes, reads = _memory_of(step, block)
        if written & (writes | reads) or read & writes:
            return None
    return None


def _memory_of(step: Step, block: Block) -> tuple[set[str], set[str]]:
    """The memory that a step writes, but for what nobody has seen before, and the memory that it reads."""
    ops = [step.op] if isinstance(step, Stage) else step.ops
    written = {pointer for op in ops for result in op.results for pointer in block.stores.get(result, ())}
    written |= {block.given[result] for op in ops for result in op.results if result in block.given}
    read = set()
    for value in [value for op in ops for value in (*op.operands, *captures(*op.regions))]:
        root = block.schedule.root(value)
        place = block.places.get(root)
        read |= {*block.stores.get(root, ()), *([block.given[root]] if root in block.given else [])}
        read |= {place.pointer} if isinstance(place, Memory) else set()
    return written, read


def _scalars(step: object) -> Iterable[Op]:
    return step.ops if isinstance(step, Scalars) else ()


def _looks_at_arrays(op: Op, block: Block) -> bool:
    """Whether an op on uniform values reads memory, which the first loop of the next step may have written."""
    if op.result in block.schedule.views:
        return False
    taken = map(block.kernel.aliases.of, op.operands)
    return any(tensor(value).size > 1 and not _is_uniform(value, block) for value in taken)


def _is_uniform(value: Value, block: Block) -> bool:
    return value in block.schedule.uniform or isinstance(block.places.get(value), Scalar)


def _comes_early(value: Value, first: Cluster, block: Block) -> bool:
    """Whether the first loop can have an operand at the end of the step before."""
    value = block.kernel.aliases.of(value)
    if value.owner is block.region:  # what is carried, if it is an array
        carried = any(target.old is value for target in block.targets)
        return carried and not isinstance(block.places[value], Scalar)
    return value.owner in first.ops or _is_the_same(value, block)


def _is_the_same(value: Value, block: Block) -> bool:
    """Whether a value is the same in all steps."""
    value = block.kernel.aliases.of(value)
    if type(value) is Constant:
        return True
    owner = value.owner
    if owner is block.region:
        return False
    if not isinstance(owner, Op) or owner not in block.schedule.step_of:
        return True
    return value in block.schedule.uniform and all(_is_the_same(taken, block) for taken in owner.operands)

"""What loops that XLA runs record becomes one kernel, called at the end of each step.

    %n, %r, %s = flow.scan carry(…, %p = %rooms) {         %n, %r, %l = flow.scan carry(…, %p = %rooms, %q = %none) {
      %w = jax.scatter %p, %row, %v                          native.kernel {
      flow.yield %v, %w, %spikes                ->             jax.scatter %p, %row, %v
    }                                                          event.append %q, %spikes, %base }
    %l = event.compact %s                                  }

``nn.run`` stacks the spikes of a population for ``event.compact``, and writes rows of State to room that a loop carries. A loop that
is a kernel makes no stack of spikes. XLA would write every truth value to memory that is not in the cache, and read it again,
and write the rows of every step where one of ten is wanted. The kernel lists the spikes of a step behind the others, and
writes the rows that are looked at.

Where truth values follow from what the loop carries without a number that compilers may round in two ways (a threshold
is subtracted, and the sign is looked at), that kernel computes them itself: then they are never written at all. What the loop
computes for itself stays as it is, so that recording changes no bit of a simulation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from stategraph.ir.clone import ValueMap, clone_op
from stategraph.ir.core import Constant, Op, Program, Value
from stategraph.ir.types import TensorType
from stategraph.passes import hooks
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, add_carry, carries, home, keep_args, keep_operands, keep_results
from stategraph.passes.event_rules import is_filled
from stategraph.passes.native_ops import APPEND, FLOATS, INLINED, why_not
from stategraph.passes.outline_native import lists_of, outline
from stategraph.passes.registry import register

SCATTER = "jax.scatter"
WRITES = (SCATTER, "jax.dynamic_update_slice")
"""What puts a row where it belongs."""
COMPARISONS = frozenset(f"jax.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge"))
SAME = COMPARISONS | frozenset(
    f"jax.{name}"
    for name in (
        *(
            "add",
            "sub",
            "neg",
            "abs",
            "max",
            "min",
            "select_n",
            "convert_element_type",
            "stop_gradient",
            "copy",
        ),
        *("and", "or", "xor", "not"),
        *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "slice", "dynamic_slice", "gather"),
    )
)
"""Ops whose results are the same bits whoever compiles them: there is no product among them for a sum to be fused with. Of float
sums one may not lead to another, as XLA makes ``x + (c + d)`` of ``(x + c) + d`` with constants."""
WHOLE = frozenset(f"jax.{name}" for name in ("mul", "div", "rem", "sign"))
"""So are these, of whole numbers."""
LEAST = 512
"""Elements of a step from which on a kernel is worth its call: XLA makes one function of a whole loop that touches hardly more."""
SEVERAL = 2
"""Arrays of State from which on XLA runs a step, with the ops that write a row now and then, as tasks that wait for each other."""
MOST_OPS = 64
"""So many ops are computed once more, where others need them too."""


@register
@attrs.frozen
class OutlineRecording(Pass):
    """Make a kernel of what loops that XLA runs record."""

    name = "outline-recording"
    platform: str | None = None
    """For another machine than this: kernels are for ``cpu-native``."""

    def run(self, program: Program, context: Context) -> None:
        loops = [op for op in program.body.ops if op.name == "flow.scan" and op.attributes["length"] > 1]
        found = [one for one in map(_Recording, loops) if one.is_worth_it()]
        if not found or (self.platform or context.platform or hooks.platform()) != "cpu-native":
            return
        numbers = itertools.count()
        for one in found:
            one.outline(context, numbers)


class _Recording:
    """What one loop records."""

    def __init__(self, loop: Op) -> None:
        self.loop, self.body = loop, loop.regions[0]
        self.before = {*self.body.args, *self.body.yielded[: carries(loop)]}
        """What is in memory anyway."""
        self.summed: set[Value] = set()
        """What is made with a sum of floats, and not in memory."""
        self.found: dict[Op, None] = {}
        """The ops that the kernel computes, in order; others may need them too."""
        self.ops: list[Op] = []
        """The kernel's."""
        self.values: ValueMap = {}
        self.count = Value(TensorType("i32", ()), self.body)
        """How many steps came before, until the loop carries it."""
        self.lists = [compact for compact in lists_of(loop) if self.can_list(compact)]
        self.writes = [op for op in self.body.ops if op.name in WRITES and self.is_row(op)]

    def is_worth_it(self) -> bool:
        """Whether a kernel is faster than XLA."""
        if self.lists:
            room: int = LEAST * self.loop.attributes["length"]
            return max(_size(compact.result) for compact in self.lists) > room
        written = [op.operands[0] for op in self.writes]
        arrays = [arg for arg in self.body.args[: carries(self.loop)] if arg not in written]
        now_and_then = any(op.name == SCATTER for op in self.writes)
        return now_and_then and sum(_size(array) >= LEAST for array in arrays) >= SEVERAL

    def outline(self, context: Context, numbers: Iterator[int]) -> None:
        """Change the program."""
        self.values |= dict.fromkeys(filter(self.counts, self.body.args), self.count)
        self.found |= dict.fromkeys(self.writes)
        self.compute()
        for op in self.writes:
            REWRITER.replace_uses(op.result, self.values[op.result])
        for compact in self.lists:
            self.list_within(compact, next(numbers))
        for op in reversed(self.found):
            if not op.result.users:
                REWRITER.erase(op)
        self.carry_count()
        outline(self.ops, context)
        context.explain(
            self.loop,
            "what it records is one kernel",
            reason="nobody needs what would be stacked" if self.lists else "few rows are wanted",
            numbers={"lists": len(self.lists), "rooms": len(self.writes), "ops": len(self.ops)},
        )

    def place(self, op: Op) -> Op:
        """Put an op at the end of the step."""
        REWRITER.insert_before(self.body.terminator, op)
        self.ops.append(op)
        return op

    def carry(self, slot: Value, init: Value, after: Value) -> Value:
        """Let the loop carry what stands for a value so far; returns the last one."""
        last = add_carry(self.loop, init, after)
        REWRITER.replace_uses(slot, self.body.args[last.index])
        return last

    def compute(self) -> None:
        """Compute what has been found."""
        for op in self.found:
            if op.result not in self.values:
                self.place(clone_op(op, self.values))

    # ---------------------------------------------------------------------------------------------------- rows

    def is_row(self, op: Op) -> bool:
        """Whether an op writes a row that is there already to room that the program was given, and gives back."""
        room, *rest = op.operands
        if room.owner is not self.body or room.index >= carries(self.loop) or why_not(op) is not None:
            return False
        given = self.loop.operands[room.index].owner is self.loop.parent
        carried = self.body.yielded[room.index] is op.result
        alone = room.users == [op] and op.result.users == [self.body.terminator]
        back = [user.name for user in self.loop.results[room.index].users] == ["flow.yield"]
        return given and carried and alone and back and self.reach(rest)

    # --------------------------------------------------------------------------------------------------- lists

    def can_list(self, compact: Op) -> bool:
        bools = self.body.yielded[compact.operands[0].index]
        return not isinstance(bools, Constant) and _size(bools) > 0

    def list_within(self, compact: Op, number: int) -> None:
        """List what is stacked."""
        loop, body, stack = self.loop, self.body, compact.operands[0]
        bools = body.yielded[stack.index]
        self.reach([bools])
        self.compute()
        listed, number_type = compact.result.type, self.count.type
        none = Op("event.list", (), [listed], {"room": _size(compact.result) - 1, "number": number})
        REWRITER.insert_before(loop, none)
        so_far = Value(listed, body)
        first = self.place(
            Op("jax.mul", [self.count, _number(_size(bools))], [number_type], {"out_dtype": None})
        )
        append = self.place(Op(APPEND, [so_far, self.values.get(bools, bools), first.result], [listed]))
        REWRITER.replace_uses(compact.result, self.carry(so_far, none.result, append.result))
        REWRITER.erase(compact)
        kept = [result is not stack for result in loop.results]
        keep_operands(body.terminator, kept)
        keep_results(loop, kept)

    # ------------------------------------------------------------------------------------------------- the steps

    def counts(self, arg: Value) -> bool:
        """Whether an argument of the body is the number of the step: the kernel counts itself, XLA would look it up."""
        place = arg.index
        owner = self.loop.operands[place].owner if place >= carries(self.loop) else None
        is_iota = isinstance(owner, Op) and owner.name == "jax.iota"
        return is_iota and arg.type == self.count.type and not self.loop.attributes["reverse"]

    def carry_count(self) -> None:
        if not self.count.users:
            return
        after = self.place(Op("jax.add", [self.count, _number(1)], [self.count.type]))
        self.carry(self.count, _number(0), after.result)
        kept = [bool(arg.users) or not self.counts(arg) for arg in self.body.args]
        numbers = {value.owner for value, one in zip(self.loop.operands, kept, strict=True) if not one}
        keep_operands(self.loop, kept)
        keep_args(self.body, kept)
        REWRITER.erase_all([op for op in numbers if isinstance(op, Op) and not op.result.users])

    # ----------------------------------------------------------------------------------------- what it is made of

    def reach(self, values: Sequence[Value]) -> bool:
        """Whether the kernel can have values: they are in memory, or single numbers, or made of such. Notes the ops that make them."""
        known = dict(self.found)
        if all(map(self.follow, values)):
            return True
        self.found = known
        return False

    def follow(self, value: Value) -> bool:
        owner = value.owner
        if isinstance(value, Constant) or value in self.before or home(value) is not self.body:
            return True
        if not isinstance(owner, Op) or owner in self.found:
            return isinstance(owner, Op)
        if len(self.found) < MOST_OPS and _is_same(owner) and self.reach(owner.operands):
            sums = _sums(owner) + any(operand in self.summed for operand in owner.operands)
            if sums < 2 or not _sums(owner):
                self.found[owner] = None
                self.summed |= set(owner.results) if sums else set()
                return True
        return _size(value) == 1


def _number(number: int) -> Constant:
    return Constant(np.int32(number))


def _size(value: Value) -> int:
    type_ = value.type
    return type_.size if isinstance(type_, TensorType) else 0


def _is_same(op: Op) -> bool:
    """Whether what a kernel makes of an op's results is the same whoever compiles it."""
    if why_not(op) is not None or len(op.results) != 1:
        return False
    if op.name in INLINED:
        return all(map(_is_same, op.regions[0].ops[:-1]))
    if op.name == "jax.convert_element_type" and _is_narrowed(op):
        return False
    whole = isinstance(op.result.type, TensorType) and not _is_float(op.result)
    return op.name in SAME or (op.name in WHOLE and whole) or (op.name == "jax.div" and _only_sign(op.result))


def _sums(op: Op) -> int:
    """How many sums of floats an op makes."""
    if op.name in INLINED:
        return sum(map(_sums, op.regions[0].ops[:-1]))
    return int(op.name in ("jax.add", "jax.sub") and _is_float(op.result))


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype in FLOATS


def _is_narrowed(op: Op) -> bool:
    """Whether an op rounds a float to a shorter one, which XLA leaves out where it is widened again."""
    (x,) = op.operands
    return _is_float(x) and _is_float(op.result) and x.type != op.result.type


def _only_sign(value: Value) -> bool:
    """Whether nothing but the sign of a number is looked at: a quotient may be rounded, or be a product."""
    for user, position in value.uses:
        if user.name in INLINED:
            if not _only_sign(user.regions[0].args[position]):
                return False
        elif user.name not in COMPARISONS or not is_filled(user.operands[1 - position], 0):
            return False
    return True

"""Loops and regions with event products become kernels: one call of machine code each, generated from their ops.

An event product costs what its events cost, so in a network of spiking neurons most of the time goes to all that is done
for every neuron: XLA runs dozens of small loops for it, one after another. A ``native.kernel`` op holds the ops of such a
region; where the backend can, it becomes one function in which they share loops, and a whole loop over time is inside.
So it is with loops that draw random numbers, which cost XLA more than the rest of a step.

Which ops a kernel can hold says ``native_ops``. A loop whose body has others keeps going through XLA, and the ops of its
body that round numbers and that a kernel can hold become kernels, those that hang together one each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from stategraph.ir.clone import clone_op
from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.registry import effects_of
from stategraph.passes.base import Pass, PassError
from stategraph.passes.context import Context
from stategraph.passes.edit import LOOPS, REWRITER, carries
from stategraph.passes.native_ops import COMPACT, CONTROL, EMPTY, EVENTS, why_not
from stategraph.passes.native_roundings import complete, rounds
from stategraph.passes.registry import register

KERNEL = "native.kernel"
SCOPES = ("events", "all")
DRAW = "jax.random_bits"
MOST_DRAWN = 2**17
"""The random numbers of one draw, for a loop without event products: XLA shares longer arrays among the processors."""
DENSE = "event.dense"
LARGE_MATRIX = 2**18
"""Elements of a matrix beyond which it is computed outside of kernels: XLA shares them among the processors."""


@register
@attrs.frozen
class OutlineNative(Pass):
    """Make kernels of loops with event products or random numbers in them, and of what surrounds event products elsewhere."""

    name = "outline-native"
    loops: bool = True
    """Whole loops become kernels; without it only what a step of them does."""
    min_ops: int = 4
    """What hangs together outside of loops becomes a kernel if it has so many ops, or more."""
    scope: str = "events"
    """events: kernels where there are event products, and of loops that draw random numbers; all: wherever a kernel can
    hold the ops.
    """

    def run(self, program: Program, context: Context) -> None:
        if self.scope not in SCOPES:
            raise PassError(
                f"option 'scope' of 'outline-native' is one of {', '.join(SCOPES)}, not {self.scope!r}"
            )
        if self.scope == "all" or next(program.walk(*EVENTS, DRAW), None) is not None:
            self._region(program.body, context, False, False)

    def _wanted(self, ops: Sequence[Op], in_loop: bool) -> bool:
        if self.scope == "all":
            return True
        inside = [inner for op in ops for inner in (op, *op.walk())]
        if any(op.name in EVENTS for op in inside):
            return True
        if not in_loop and not any(op.name == "flow.scan" for op in ops):
            return False
        sizes = [math.prod(getattr(op.result.type, "shape", ())) for op in inside if op.name == DRAW]
        return 0 < max(sizes, default=0) <= MOST_DRAWN

    def _region(self, region: Region, context: Context, in_loop: bool, sends: bool) -> None:
        """Make the kernels of a region; ``sends`` says whether it is in a loop with event products that a kernel can hold."""
        for op in list(region.ops):
            if op.name not in CONTROL or not self._wanted([op], in_loop):
                continue
            reason = why_not(op) or _why_shared(op)
            if reason is None and (self.loops or op.name not in LOOPS):
                outline([*_empty_in(op), op, *lists_of(op)], context)
                continue
            if reason is not None:
                context.explain(op, "stays a loop of XLA", reason=reason)
            looped = op.name in LOOPS
            more = sends or (looped and any(why_not(product) is None for product in op.walk(*EVENTS)))
            for inner in op.regions:
                self._region(inner, context, in_loop or looped, more)
        found = [group for group in groups(region) if self._is_kernel(group, in_loop, sends)]
        for group in [complete(group, region) for group in found]:
            outline(group, context)

    def _is_kernel(self, group: Sequence[Op], in_loop: bool, sends: bool) -> bool:
        """Whether ops that hang together become a kernel: where a loop has event products, whatever rounds is in one, so that
        what it computes does not depend on what hangs together with it.
        """
        if sends and any(map(rounds, group)):
            return True
        return len(group) >= self.min_ops and self._wanted(group, in_loop)


def _empty_in(loop: Op) -> list[Op]:
    """The ops that give a loop arrays of anything to write to, where nobody else takes these."""
    owners = {value.owner for value in loop.operands}
    found = [one for one in owners if isinstance(one, Op) and one.name == EMPTY and one.parent is loop.parent]
    found = [one for one in found if all(user is loop for user in one.result.users)]
    return sorted(found, key=loop.parent.ops.index) if found and loop.parent is not None else []


def lists_of(loop: Op) -> list[Op]:
    """The ops that list the events that a loop stacks, where nobody else needs the stack."""
    if loop.name != "flow.scan" or loop.attributes["reverse"]:
        return []
    stacks = loop.results[loop.attributes["carry"] :]
    users = [stack.users[0] for stack in stacks if len(stack.users) == 1]
    found = [user for user in users if user.name == COMPACT and user.parent is loop.parent]
    return sorted(found, key=loop.parent.ops.index) if found and loop.parent is not None else []


def groups(region: Region) -> list[list[Op]]:
    """Sets of ops that may run together as one: a kernel can hold them, they hang together, and no path leads from one
    to another through an op outside.
    """
    # how often a path to an op has left what a kernel can hold; -1 before it came there
    level: dict[Op, int] = {}
    holds: set[Op] = set()
    barrier = -1
    shared = _makes_matrices(region)
    for op in region.ops[:-1]:
        held = op not in shared and op.name not in CONTROL and op.name != KERNEL and why_not(op) is None
        found = 0 if held else -1
        for value in _taken(op):
            owner = value.owner
            if isinstance(owner, Op) and owner in level:
                found = max(found, level[owner] + (held and owner not in holds))
        if held:
            holds.add(op)
        elif effects_of(op):
            found = barrier = max(found, barrier)
        level[op] = found
    for op in reversed(region.ops[:-1]):  # as late as those who need it, so that few kernels suffice
        if op in holds:
            later = [level[user] for user in _users(op, region) if user in level]
            level[op] = max(level[op], min(later, default=0))
    parent: dict[Op, Op] = {op: op for op in holds}

    def root(op: Op) -> Op:
        while parent[op] is not op:
            parent[op] = op = parent[parent[op]]
        return op

    for op in holds:
        for value in op.operands:
            owner = value.owner
            if isinstance(owner, Op) and owner in holds and level[owner] == level[op]:
                parent[root(op)] = root(owner)
    found_groups: dict[Op, list[Op]] = {}
    for op in region.ops[:-1]:
        if op in holds:
            found_groups.setdefault(root(op), []).append(op)
    return list(found_groups.values())


def _makes_matrices(region: Region) -> set[Op]:
    """The ops whose results end up in large matrices that events are multiplied with: masks, masked weights, weights that a
    loop carries and changes.
    """
    inside = [inner for op in region.ops for inner in (op, *op.walk())]
    wanted = {op.operands[1] for op in inside if op.name == DENSE and _is_large(op.operands[1])}
    loop, found, before = region.parent_op, set[Op](), 0
    while len(wanted) > before:
        before = len(wanted)
        if loop is not None and loop.name in LOOPS and len(region.yielded) >= carries(loop):
            own = zip(region.args, region.yielded[: carries(loop)], strict=False)
            wanted.update(after for value, after in own if value in wanted)
        for op in reversed(region.ops[:-1]):
            if op.name not in EVENTS and any(result in wanted for result in op.results):
                found.add(op)
                wanted.update(filter(_is_large, op.operands))
    return found


def _is_large(value: Value) -> bool:
    return math.prod(getattr(value.type, "shape", ())) > LARGE_MATRIX


def _why_shared(op: Op) -> str | None:
    """Why a loop or branch is better left to XLA."""
    if not any(_makes_matrices(region) for region in _regions(op)):
        return None
    return (
        f"it computes a matrix of more than {LARGE_MATRIX:,} elements, which XLA shares among the processors"
    )


def _users(op: Op, region: Region) -> list[Op]:
    """The ops of the region that take results of ``op``, in their regions too."""
    found = []
    for result in op.results:
        for user in result.users:
            around: Op | None = user
            while around is not None and around.parent is not region:
                around = around.parent.parent_op if around.parent is not None else None
            if around is not None:
                found.append(around)
    return found


def _taken(op: Op) -> list[Value]:
    """All that an op takes, in its regions too."""
    return [*op.operands, *(value for inner in op.walk() for value in inner.operands)]


def outline(ops: Sequence[Op], context: Context) -> Op:
    """Put ops of one region into a kernel, which stands where the last of them stood."""
    inside = set(ops)
    results = {result for op in ops for result in op.results}
    nested = {v for op in ops for inner in op.walk() for v in inner.results}
    nested |= {arg for op in ops for region in _regions(op) for arg in region.args}
    operands: dict[Value, None] = {}
    for op in ops:
        for value in _taken(op):
            if type(value) is not Constant and value not in results and value not in nested:
                operands[value] = None
    outputs = [v for v in results if any(_outside(user, inside) for user in v.users)]
    outputs.sort(key=lambda v: (ops.index(v.owner), v.index))
    body = Region((value.type for value in operands), (value.name for value in operands))
    mapping: dict[Value, Value] = dict(zip(operands, body.args, strict=True))
    for op in ops:
        body.append(clone_op(op, mapping))
    body.yield_([mapping[value] for value in outputs])
    kernel = Op(
        KERNEL,
        operands,
        [value.type for value in outputs],
        {"aliases": _aliases(ops, list(operands), outputs)},
        [body],
        ops[-1].location,
    )
    _place(kernel, ops)
    for old, new in zip(outputs, kernel.results, strict=True):
        REWRITER.replace_uses(old, new)
    REWRITER.erase_all(ops)
    events = sum(1 for _ in kernel.walk(*EVENTS))
    looped = [op.name for op in body.ops if op.name in LOOPS]
    what = "the loop is one kernel" if looped else "its surroundings are one kernel"
    count = sum(1 for _ in kernel.walk()) - 1
    context.report(kernel, what, ops=count, events=events, in_place=len(kernel.attributes["aliases"]))
    return kernel


def _regions(op: Op) -> list[Region]:
    found = list(op.regions)
    for inner in op.walk():
        found += inner.regions
    return found


def _outside(user: Op, inside: set[Op]) -> bool:
    """Whether an op that takes a value stands outside of a set of ops and all of their regions."""
    op: Op | None = user
    while op is not None:
        if op in inside:
            return False
        op = op.parent.parent_op if op.parent is not None else None
    return True


def _place(kernel: Op, ops: Sequence[Op]) -> None:
    """Insert the kernel where the last op stands, and move what takes its results, and stands before it, behind it;
    then also the effects that follow on one that is moved.
    """
    region = ops[-1].parent
    if region is None:
        raise ValueError("ops that stand in no region")
    inside = set(ops)
    first = min(region.ops.index(op) for op in ops)
    last = max(region.ops.index(op) for op in ops)
    moved: dict[Op, None] = {}
    late = {result for op in ops for result in op.results}
    keeps_order = False
    for op in region.ops[first:last]:
        if op in inside:
            continue
        has_effects = bool(effects_of(op))
        if (has_effects and keeps_order) or any(value in late for value in _taken(op)):
            moved[op] = None
            late.update(op.results)
            keeps_order = keeps_order or has_effects
    rest = [op for op in region.ops[first : last + 1] if op not in moved]
    kernel.parent = region
    region.ops[first : last + 1] = [*rest, kernel, *moved]


def _aliases(ops: Sequence[Op], operands: list[Value], outputs: list[Value]) -> tuple[tuple[int, int], ...]:
    """(operand, result) pairs that may share memory: nobody else needs the operand, and the result takes its place."""
    inside = set(ops)
    found: list[tuple[int, int]] = []
    for index, result in enumerate(outputs):
        for operand in _predecessors(result):
            if operand not in operands or operand.type != result.type:
                continue
            position = operands.index(operand)
            if any(_outside(user, inside) for user in operand.users) or position in (i for i, _ in found):
                continue
            found.append((position, index))
            break
    return tuple(found)


def _predecessors(result: Value) -> list[Value]:
    """The values that ``result`` is the next value of: what a loop begins with, the carried value of a loop around, the
    State that it is written to.
    """
    found: list[Value] = []
    owner = result.owner
    if isinstance(owner, Op) and owner.name in LOOPS and result.index < len(owner.operands):
        if owner.name == "flow.while" or result.index < owner.attributes["carry"]:
            found.append(owner.operands[result.index])
    for user, position in result.uses:
        region = user.parent
        if user.name == "flow.yield" and region is not None and region.parent_op is not None:
            if region.parent_op.name in LOOPS and position < len(region.args):
                found.append(region.args[position])
        elif user.name == "state.write" and region is not None:
            reads = (op for op in region.ops if op.name == "state.read" and op.symbol == user.symbol)
            found += [op.results[position] for op in reads if position < len(op.results)]
    return found

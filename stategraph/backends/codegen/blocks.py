"""The code of a region: its steps one after another, and where its results go.

A result has a *target*, memory that the caller provides. A loop's target for what it carries is the memory that holds the
old value too: a cluster may write the new value there if everyone else who reads the old one has done so by then, and
the cluster reads it at the same place; else the result is copied at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stategraph.backends.codegen.arithmetic import RULES, Element, convert
from stategraph.backends.codegen.clusters import ClusterWriter, counts_all, shared_by
from stategraph.backends.codegen.events import Parts, Recorded, whole
from stategraph.backends.codegen.indexing import read_at
from stategraph.backends.codegen.keys import COUNT
from stategraph.backends.codegen.llvm import item_size, literal, llvm_type
from stategraph.backends.codegen.pieces import Shared
from stategraph.backends.codegen.places import Kernel, Memory, Place, Scalar, Target
from stategraph.backends.codegen.schedule import (
    Cluster,
    Scalars,
    Schedule,
    Scheduler,
    Space,
    Stage,
    is_same,
    space_of,
    tensor,
)
from stategraph.backends.codegen.stages import STAGES
from stategraph.backends.codegen.turning import Turn, turn_of
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.regions import captures
from stategraph.passes.native_ops import COMPACT, EMPTY, IN_PLACE, REDUCTIONS


class Block:
    """Writes one region."""

    def __init__(
        self,
        kernel: Kernel,
        places: dict[Value, Place],
        region: Region,
        targets: Sequence[Target],
        ends: tuple[str, str] | None = None,
        recorded: Sequence[Recorded] = (),
    ) -> None:
        self.kernel, self.f = kernel, kernel.f
        self.places = places
        self.lend: Callable[[Place, Value], Place] = lambda place, value: place
        """What stands for a place in the function that is being written."""
        self.region, self.targets = region, targets
        self.ends = ends
        """For the body of a loop: whether a step is the first, and whether it is the last."""
        self.recorded = recorded
        """Bools that are listed in every step of a loop."""
        scheduler = Scheduler(
            region,
            kernel.aliases,
            lambda value: isinstance(places.get(value), Scalar),
            bool(kernel.f.contract),
        )
        self.schedule: Schedule = scheduler.run()
        self.yielded = scheduler.yielded
        self.stores: dict[Value, list[str]] = {}
        """Memory that the value of a cluster is stored to, the first of which is where others find it."""
        self.small: dict[Value, Value] = {}
        """Values of clusters that are kept as the bools that they were made of."""
        self.given: dict[Value, str] = {}
        """Memory for the result of a stage."""
        self.active: dict[Value, tuple[str, str]] = {}
        """Where the active neurons of a vector of events are listed already, and how many."""
        self.wanted: set[Value] = set()
        """Bools of which there is a list that all share who send a part of them, as they are kept."""
        self.whole: dict[Value, tuple[str, str]] = {}
        """These lists: where each is, and how many it holds."""
        self.shared: dict[Cluster, Shared | None] = {}
        """The loops of elementwise ops, and how threads share each."""
        self.parts: dict[Value, Parts] = {}
        """Bools that threads list by pieces."""
        self.listed: dict[Value, Op] = {}
        """What a loop stacks for nobody but an op that lists it: the loop lists it itself, row by row."""
        self.goals: dict[Value, Target] = {}
        """The targets that such memory is."""
        self.copied: list[int] = []
        """Results that are copied to their targets at the end."""

    def write(self) -> None:
        self.assign()
        turn = turn_of(self) if self.ends is not None else None
        rows = {recorded.row for recorded in self.recorded}
        self.wanted = {
            value
            for value, target in zip(self.yielded, self.targets, strict=True)
            if target.pointer in rows and value not in (() if turn is None else turn.again)
        }
        if turn is not None:
            self.wanted |= {self.kept_as(value) for value in turn.again.values()}
        for cluster in self.schedule.steps:
            if isinstance(cluster, Cluster):
                self.shared[cluster] = shared_by(self, cluster, turn)
        for step in self.schedule.steps:
            if turn is not None and isinstance(step, Cluster) and step in (turn.first, turn.last):
                self.turning(turn, step)
            elif isinstance(step, Cluster):
                ClusterWriter(self, step).write()
            elif isinstance(step, Stage):
                self.stage(step.op)
            else:
                for op in step.ops:
                    self.scalar(op)
        self.finish()

    def turning(self, turn: Turn, step: Cluster) -> None:
        """Loops that are one but at the ends of the loop around them."""
        if self.ends is None:
            raise AssertionError("no loop")
        is_first, is_last = self.ends
        writer = ClusterWriter(self, step, turn if step is turn.first else None)
        with self.f.when(is_first if step is turn.first else is_last):
            writer.call()
        if step is turn.last:
            with self.f.when(self.f.let(f"xor i1 {is_last}, true")):
                ClusterWriter(self, turn.last, turn, writer.slots).call()
        writer.place()
        if step is turn.first:
            self.list_again(turn, is_first)

    def list_again(self, turn: Turn, is_first: str) -> None:
        """List what the step before recorded, where the first loop computes it again."""
        for value, target in zip(self.yielded, self.targets, strict=True):
            for recorded in self.recorded:
                if value in turn.again and target.pointer == recorded.row:
                    again = turn.again[value]
                    found = whole(self, again, self.stores[again][0])
                    with self.f.when(self.f.let(f"xor i1 {is_first}, true")):
                        recorded.before(found)

    def parts_of(self, value: Value) -> Parts | None:
        """The lists that threads make of bools which a loop that they share stores, if there are to be lists of them."""
        stores = self.stores.get(value)
        if stores is None or tensor(self.kept_as(value)).dtype != "bool":
            return None
        sent = any(
            user.name.startswith("event.") and self.schedule.root(taken) is value
            for step in self.schedule.steps
            if isinstance(step, Stage)
            for user in [step.op]
            for taken in user.operands
        )
        if value not in self.parts and (sent or self.kept_as(value) in self.wanted):
            self.parts[value] = Parts.of(self, stores[0], tensor(value).size)
        return self.parts.get(value)

    def is_flat(self, op: Op, space: Space) -> bool:
        """Whether an op of a cluster reads the elements at its own position only, or is that position."""
        if op.name == COUNT:
            return counts_all(op)
        taken = map(self.kernel.aliases.of, op.operands)
        spaces = {space_of(value) for value in taken if type(value) is not Constant}
        return (op.name in RULES or is_same(op)) and spaces <= {(), space}

    # ------------------------------------------------------------------------------------------------- storage

    def assign(self) -> None:
        """Decide where arrays go."""
        taken: set[Value] = set()
        for index, (value, target) in enumerate(zip(self.yielded, self.targets, strict=True)):
            if value is target.old:
                continue
            if tensor(value).size == 1 or not self.can_go(value, target):
                self.copied.append(index)
            elif self.schedule.in_registers(value):
                self.stores.setdefault(value, []).append(target.pointer)
            elif value in taken or not self.begins_in(value, target):
                self.copied.append(index)
            else:
                taken.add(value)
                self.given[value] = target.pointer
                self.goals[value] = target
        for step in reversed(self.schedule.steps):
            if isinstance(step, Stage) and step.op.name in IN_PLACE:
                self.share(step.op)
            if isinstance(step, Stage) and step.op.name == COMPACT:
                self.list_within(step.op)
        for number, step in enumerate(self.schedule.steps):
            if not isinstance(step, Cluster):
                continue
            for op in step.ops:
                if op.name in REDUCTIONS and space_of(op.result) == ():
                    continue
                elsewhere = any(self.schedule.step_of[user] != number for user in self.uses(op.result))
                copied = any(self.yielded[i] is op.result for i in self.copied)
                if op.result not in self.stores and (elsewhere or copied):
                    self.stores[op.result] = [self.small_memory_for(op)]

    def begins_in(self, value: Value, target: Target) -> bool:
        """Whether what an event product is added to can be written to the target of the sum."""
        owner = value.owner
        if not isinstance(owner, Op) or owner.name not in IN_PLACE or target.old is None:
            return True
        start = self.kernel.aliases.of(owner.operands[0])
        return not self.schedule.in_registers(start) or self.can_go(start, target)

    def share(self, op: Op) -> None:
        """Let what an event op adds to or changes be computed where its result is going to be."""
        start, goal = self.kernel.aliases.of(op.operands[0]), self.goals.get(op.result)
        owner = start.owner
        at = self.schedule.step_of.get(owner) if isinstance(owner, Op) else None
        if at is None or self.uses(start) != [op] or any(start is value for value in self.yielded):
            return
        if goal is not None and not self.can_go(start, goal):
            return
        step = self.schedule.steps[at]
        if isinstance(step, Scalars) or start in (self.stores if isinstance(step, Cluster) else self.given):
            return
        pointer = self.given.get(op.result) or self.memory_for(op.result)
        self.given[op.result] = pointer
        if isinstance(step, Cluster):
            self.stores[start] = [pointer]
            return
        self.given[start] = pointer
        if goal is not None:
            self.goals[start] = goal

    def list_within(self, op: Op) -> None:
        """Let the loop that stacks events list them, where nobody needs the stack."""
        stack = self.kernel.aliases.of(op.operands[0])
        loop = stack.owner
        if not isinstance(loop, Op) or loop.name != "flow.scan" or loop not in self.schedule.step_of:
            return
        is_stack = stack.index >= loop.attributes["carry"] and not loop.attributes["reverse"]
        if is_stack and self.uses(stack) == [op] and not any(stack is value for value in self.yielded):
            self.listed[stack] = op

    def small_memory_for(self, op: Op) -> str:
        """Working memory for a value of a cluster: a bool that was made a number is kept as what it was."""
        source = self.kernel.aliases.of(op.operands[0]) if op.operands else None
        if op.name == "jax.convert_element_type" and source is not None and tensor(source).dtype == "bool":
            self.small[op.result] = source
            return self.kernel.allocate(tensor(source).size)
        return self.memory_for(op.result)

    def kept_as(self, value: Value) -> Value:
        """What an array is kept as: a number that was made of a bool, as that."""
        return self.small.get(value, value)

    def uses(self, value: Value) -> list[Op]:
        return self.schedule.uses.get(value, [])

    def can_go(self, value: Value, target: Target) -> bool:
        """Whether ``value`` can be written to its target as soon as it is computed."""
        owner = value.owner
        if not isinstance(owner, Op) or owner not in self.schedule.step_of or value in self.schedule.views:
            return False
        if value in self.schedule.uniform:
            return False
        if target.old is None:
            return True
        at = self.schedule.step_of[owner]
        for index, other in enumerate(self.yielded):
            if self.targets[index] is not target and self.schedule.root(other) is target.old:
                return False
        for other, users in self.schedule.uses.items():
            if self.schedule.root(other) is not target.old:
                continue
            for user in users:
                step = self.schedule.step_of[user]
                if step < at or (len(user.results) == 1 and user.result in self.schedule.views):
                    continue  # those who read a view are looked at themselves
                if step > at or not self.reads_in_place(user, other, target.old, owner):
                    return False
        return True

    def reads_in_place(self, user: Op, value: Value, old: Value, owner: Op) -> bool:
        """Whether ``user``, in the step that overwrites ``old``, reads only the element that is overwritten next."""
        if value is not old:
            return False
        if user is not owner or self.schedule.in_registers(owner.results[0]):
            space = space_of(old if user.name in REDUCTIONS else user.result)
            return (user.name in RULES or is_same(user) or user.name in REDUCTIONS) and space == space_of(old)
        taken = [self.kernel.aliases.of(operand) for operand in user.operands]
        if user.name in IN_PLACE or user.name in (
            "jax.dynamic_update_slice",
            "jax.scatter",
            "jax.scatter-add",
        ):
            return taken[0] is old and taken.count(old) == 1
        if user.name not in ("flow.scan", "flow.while"):
            return False
        index = next(
            (i for i, y in enumerate(self.yielded) if y.owner is user and self.targets[i].old is old), None
        )
        if index is None:
            return False
        begins = self.yielded[index].index  # a loop that begins with the old value where its new one goes
        inside = [self.kernel.aliases.of(outer) for outer in captures(*user.regions)]
        return begins < len(taken) and taken[begins] is old and taken.count(old) == 1 and old not in inside

    def memory_for(self, value: Value) -> str:
        type_ = tensor(value)
        return self.kernel.allocate(type_.size * item_size(type_.dtype))

    def finish(self) -> None:
        """Copy results to where they go: first all that lies in memory that another copy overwrites."""
        overwritten = {self.targets[i].pointer for i in self.copied}
        sources: dict[int, Place] = {}
        for index in self.copied:
            place = self.place(self.yielded[index])
            root = self.places.get(self.schedule.root(self.yielded[index]))
            if isinstance(place, Memory) and isinstance(root, Memory) and root.pointer in overwritten:
                kept = self.memory_for(self.yielded[index])
                self.fill(kept, self.yielded[index], place)
                place = Memory(kept, tensor(self.yielded[index]).dtype)
            sources[index] = place
        for index, place in sources.items():
            self.fill(self.targets[index].pointer, self.yielded[index], place)

    def nbytes(self, value: Value) -> int:
        type_ = tensor(value)
        return type_.size * item_size(type_.dtype)

    def fill(self, pointer: str, value: Value, place: Place) -> None:
        """Write a whole value to memory."""
        type_, owner = tensor(value), self.kernel.aliases.of(value).owner
        if isinstance(owner, Op) and owner.name == EMPTY and type_.size > 1:
            return  # anything will do
        if isinstance(place, Memory) and place.dtype == type_.dtype:
            if place.pointer != pointer:
                self.f.copy(pointer, place.pointer, self.nbytes(value))
            return
        if isinstance(place, Memory):
            with self.f.loop(type_.size) as i:
                self.f.store(self.load(value, i), pointer, type_.dtype, i)
            return
        if type_.size == 1:
            self.f.store(place.name, pointer, type_.dtype)
            return
        with self.f.loop(type_.size) as i:
            self.f.store(place.name, pointer, type_.dtype, i)

    # -------------------------------------------------------------------------------------------------- values

    def place(self, value: Value) -> Place:
        value = self.kernel.aliases.of(value)
        if type(value) is Constant:
            return Scalar(literal(np.asarray(value.data).reshape(-1)[0], tensor(value).dtype))
        return self.lend(self.places[value], value)

    def memory(self, value: Value) -> str:
        """The address of an array; a uniform one is written out."""
        place = self.place(value)
        if isinstance(place, Memory) and place.dtype == tensor(value).dtype:
            return place.pointer
        pointer = self.memory_for(value)
        self.fill(pointer, value, place)
        return pointer

    def scalar_of(self, value: Value) -> str:
        """The register that holds a uniform value."""
        return self.load(value, "0")

    def load(self, value: Value, position: str) -> str:
        """One element of a value."""
        place = self.place(value)
        if isinstance(place, Scalar):
            return place.name
        found = self.f.load(place.pointer, place.dtype, position)
        return convert(self.f, found, place.dtype, tensor(value).dtype)

    def start_index(self, op: Op, first: int) -> list[str]:
        """Where a dynamic slice begins, from operand ``first`` on: clamped, and negative indices count from 0."""
        shape = tensor(op.operands[0]).shape
        taken = tensor(op.result if op.name == "jax.dynamic_slice" else op.operands[1]).shape
        starts = []
        for operand, size, part in zip(op.operands[first:], shape, taken, strict=True):
            starts.append(self.clamped(self.scalar_of(operand), tensor(operand).dtype, size - part))
        return starts

    def clamped(self, index: str, dtype: str, last: int) -> str:
        """An index as i64 between 0 and ``last``."""
        if last == 0:
            return "0"
        wide = index
        if item_size(dtype) < 8:
            wide = self.f.let(f"{'sext' if dtype[0] == 'i' else 'zext'} {llvm_type(dtype)} {index} to i64")
        if dtype[0] == "i":
            below = self.f.let(f"icmp slt i64 {wide}, 0")
            wide = self.f.let(f"select i1 {below}, i64 0, i64 {wide}")
        above = self.f.let(f"icmp ugt i64 {wide}, {last}")
        return self.f.let(f"select i1 {above}, i64 {last}, i64 {wide}")

    def offset(self, index: Sequence[str], shape: Sequence[int]) -> str:
        """The position of an element, from its index on each axis."""
        total = "0"
        for position, size in zip(index, shape, strict=True):
            if size == 1:
                continue
            scaled = total if total == "0" else self.f.let(f"mul nsw i64 {total}, {size}")
            if position == "0":
                total = scaled
            else:
                total = position if scaled == "0" else self.f.let(f"add nsw i64 {scaled}, {position}")
        return total

    # ------------------------------------------------------------------------------------------ scalars, stages

    def scalar(self, op: Op) -> None:
        """An op on uniform values, the choice of one element, or a view."""
        value = op.result
        if op.name in ("jax.iota", EMPTY):
            self.places[value] = Scalar(literal(0, tensor(value).dtype))
        elif value in self.schedule.views:
            self.places[value] = self.part(op)
        elif op.name in RULES:
            constant = [type(self.kernel.aliases.of(o)) is Constant for o in op.operands]
            args = [self.scalar_of(operand) for operand in op.operands]
            self.places[value] = Scalar(RULES[op.name](Element(self.f, op, args, constant)))
        elif op.name == "jax.gather" or not isinstance(self.place(op.operands[0]), Scalar):
            index = ["0"] * len(tensor(value).shape)
            self.places[value] = Scalar(read_at(self, op, index))
        else:
            self.places[value] = self.place(op.operands[0])

    def part(self, op: Op) -> Place:
        source, shape = self.place(op.operands[0]), tensor(op.operands[0]).shape
        if isinstance(source, Scalar):
            return source
        if op.name == "jax.slice":
            start = [str(i) for i in op.attributes["start_indices"]]
        elif op.name == "jax.dynamic_slice":
            start = self.start_index(op, 1)
        else:
            return source
        return Memory(self.f.address(source.pointer, self.offset(start, shape), source.dtype), source.dtype)

    def stage(self, op: Op) -> None:
        if op in self.listed.values():
            return
        results = [self.listed[result].result if result in self.listed else result for result in op.results]
        targets = []
        for result in results:
            type_ = tensor(result)
            if type_.size == 1:
                targets.append(self.f.variable(type_.dtype))
            else:
                targets.append(self.given.get(result) or self.memory_for(result))
        STAGES[op.name](self, op, targets)
        for result, pointer in zip(results, targets, strict=True):
            if tensor(result).size == 1:
                self.places[result] = Scalar(self.f.load(pointer, tensor(result).dtype))
            else:
                self.places[result] = Memory(pointer, tensor(result).dtype)

    def inner(
        self,
        region: Region,
        targets: Sequence[Target],
        ends: tuple[str, str] | None = None,
        recorded: Sequence[Recorded] = (),
    ) -> Block:
        """Write a region inside this one."""
        block = Block(self.kernel, self.places, region, targets, ends, recorded)
        block.write()
        return block

"""Which ops of a region share a loop, and in which order the loops run.

Every value is *uniform* (all its elements are equal: one register holds it) or an array. What happens in a region is a
list of *steps*:

- ``Scalars``: ops on uniform values, and views, which are only addresses;
- ``Cluster``: elementwise ops over arrays of one shape, in one loop: an op finds the value of another in a register;
- ``Stage``: an op that is code of its own (an event product, a loop).

A value that another step needs is kept in memory. Ops are put as early as their operands allow, and those that nobody
needs before a later loop are moved down into it, so that their values need no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from stategraph.backends.codegen.arithmetic import RULES
from stategraph.backends.codegen.fusing import FUSED, Fuser, without_unused
from stategraph.backends.codegen.keys import COUNT
from stategraph.backends.codegen.llvm import is_float
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.regions import captures
from stategraph.ir.types import TensorType
from stategraph.passes.native_ops import ELEMENTWISE, EMPTY, INDEXED, INLINED, REDUCTIONS, RESHAPES

EXACT = {"f32": 2**24, "f64": 2**53}
"""Up to which number whole numbers are floats."""
Space = tuple[int, ...]
"""The axes of an array that are longer than one."""


def tensor(value: Value) -> TensorType:
    type_ = value.type
    if not isinstance(type_, TensorType):
        raise TypeError(f"no kernel computes with {type_}")
    return type_


def space_of(value: Value) -> Space:
    return tuple(size for size in tensor(value).shape if size != 1)


@attrs.define(eq=False)
class Scalars:
    ops: list[Op]


@attrs.define(eq=False)
class Cluster:
    space: Space
    ops: list[Op]


@attrs.define(eq=False)
class Stage:
    op: Op


Step = Scalars | Cluster | Stage


class Aliases(dict[Value, Value]):
    """Values that are others: arguments and results of bodies that are dissolved."""

    def of(self, value: Value) -> Value:
        while value in self:
            value = self[value]
        return value


def flatten(region: Region, aliases: Aliases) -> list[Op]:
    """The ops of a region without its terminator, bodies that run once dissolved."""
    found: list[Op] = []
    for op in region.ops[:-1]:
        if op.name not in INLINED:
            found.append(op)
            continue
        body = op.regions[0]
        aliases.update(zip(body.args, op.operands, strict=True))
        found += flatten(body, aliases)
        aliases.update(zip(op.results, body.yielded, strict=True))
    return found


def merged(ops: list[Op], aliases: Aliases) -> list[Op]:
    """The ops without those that compute what an earlier one does: dissolved bodies (two spike functions of one
    potential) often have equal ops.
    """
    seen: dict[Any, Op] = {}
    kept: list[Op] = []
    for op in ops:
        bools = truth(op, aliases)
        if bools is not None:
            aliases[op.result] = bools
            continue
        taken = map(aliases.of, op.operands)
        operands = tuple(value.key() if type(value) is Constant else value for value in taken)
        types = tuple((tensor(result).dtype, tensor(result).shape) for result in op.results)
        key = (op.name, operands, tuple(op.attributes.items()), types)
        try:
            first = op if op.regions else seen.setdefault(key, op)
        except TypeError:  # attributes that cannot be compared
            first = op
        if first is op:
            kept.append(op)
        else:
            aliases.update(zip(op.results, first.results, strict=True))
    return kept


def truth(op: Op, aliases: Aliases) -> Value | None:
    """The bools that an op gives back: those that were made numbers, and are compared with 0."""
    if op.name != "jax.ne":
        return None
    value, zero = map(aliases.of, op.operands)
    owner = value.owner
    if type(zero) is not Constant or np.any(zero.data) or not isinstance(owner, Op):
        return None
    if owner.name != "jax.convert_element_type":
        return None
    bools = aliases.of(owner.operands[0])
    fits = tensor(bools).dtype == "bool" and tensor(bools).shape == tensor(op.result).shape
    return bools if fits else None


@attrs.define(eq=False)
class Schedule:
    """The steps of a region."""

    steps: list[Step]
    step_of: dict[Op, int]
    uniform: set[Value]
    """Uniform values that are defined in the region."""
    views: dict[Value, Value]
    """Arrays that are other names of (a part of) another array."""
    uses: dict[Value, list[Op]]
    aliases: Aliases

    def root(self, value: Value) -> Value:
        """The array that ``value`` is (a part of)."""
        value = self.aliases.of(value)
        while value in self.views:
            value = self.aliases.of(self.views[value])
        return value

    def in_registers(self, value: Value) -> bool:
        """Whether a cluster of this region computes the value."""
        owner = value.owner
        at = self.step_of.get(owner) if isinstance(owner, Op) else None
        return at is not None and isinstance(self.steps[at], Cluster)


def is_same(op: Op) -> bool:
    """Whether an op of the kinds that rename elements keeps the order of all of them."""
    if not op.operands or op.name in (
        "jax.transpose",
        "jax.rev",
        "jax.gather",
        "jax.dynamic_slice",
        "jax.slice",
    ):
        return False
    if op.name in RESHAPES or op.name == "jax.broadcast_in_dim":
        return space_of(op.operands[0]) == space_of(op.result)
    return False


def is_cheap(op: Op) -> bool:
    """Whether an elementwise op takes a few instructions, so that it may be computed twice."""
    if op.name == "jax.div":
        return type(op.operands[1]) is Constant
    return (
        (op.name in ELEMENTWISE and op.name not in ("jax.pow", "jax.rem")) or op.name == FUSED or is_same(op)
    )


def is_part(op: Op) -> bool:
    """Whether the result lies in one piece in the first operand's memory."""
    if op.name in RESHAPES:
        return True
    if op.name not in ("jax.slice", "jax.dynamic_slice"):
        return False
    strides = op.attributes.get("strides")
    if strides is not None and any(stride != 1 for stride in strides):
        return False
    given, taken = tensor(op.operands[0]).shape, tensor(op.result).shape
    first = next((axis for axis, size in enumerate(taken) if size != 1), len(taken))
    return all(a == b for a, b in zip(given[first + 1 :], taken[first + 1 :], strict=True))


class Scheduler:
    """Finds the schedule of one region."""

    def __init__(
        self, region: Region, outer: Aliases, known: Callable[[Value], bool], contract: bool
    ) -> None:
        self.aliases = outer
        self.ops = merged(flatten(region, self.aliases), self.aliases)
        self.ops = Fuser(self.aliases, self.aliases.of, contract).run(self.ops)
        self.yielded = [self.aliases.of(value) for value in region.yielded]
        self.ops = without_unused(self.ops, self.operands, self.yielded)
        self.uniform: set[Value] = set()
        self.known = known
        """Which values from outside are uniform."""
        self.views: dict[Value, Value] = {}
        self.kind: dict[Op, str] = {}
        self.level: dict[Op, int] = {}
        self.ready: dict[Value, int] = {}
        self.uses: dict[Value, list[Op]] = {}

    def operands(self, op: Op) -> list[Value]:
        """All that an op takes, its regions included."""
        taken = [self.aliases.of(operand) for operand in op.operands]
        if op.regions:
            taken += [self.aliases.of(value) for value in captures(*op.regions)]
        return taken

    def is_uniform(self, value: Value) -> bool:
        return (
            type(value) is Constant or tensor(value).size == 1 or value in self.uniform or self.known(value)
        )

    def run(self) -> Schedule:
        for op in self.ops:
            self.place(op)
        self.sink()
        return self.ordered()

    def place(self, op: Op) -> None:
        taken = self.operands(op)
        for value in taken:
            self.uses.setdefault(value, []).append(op)
        kind = self.kind[op] = self.kind_of(op, taken)
        level = max((self.available(value, op, kind) for value in taken), default=0)
        if op.name in ("event.csr_change", "event.csr_ring"):  # what they change is large
            level = max(level, self.after_readers(taken[0]))
        self.level[op] = level
        for result in op.results:
            self.ready[result] = level if kind in ("uniform", "view") else level + 1
        if kind == "uniform":
            self.uniform.update(op.results)
        if kind == "view":
            self.views[op.result] = taken[0]

    def kind_of(self, op: Op, taken: list[Value]) -> str:
        if op.name == EMPTY:
            return "uniform"
        if op.name in RULES or is_same(op):
            return "uniform" if all(map(self.is_uniform, taken)) else "element"
        if op.name in INDEXED or op.name in RESHAPES or op.name == COUNT:
            if op.name != "jax.gather" and op.operands and self.is_uniform(taken[0]):
                return "uniform"
            if tensor(op.result).size == 1:
                return "uniform"  # one element is picked
            return "view" if is_part(op) else "indexed"
        if op.name in REDUCTIONS and space_of(op.result) == ():
            return "stage" if self.is_uniform(taken[0]) or self.depends_on_order(op) else "reduction"
        return "stage"

    def depends_on_order(self, op: Op) -> bool:
        """Whether a reduction rounds: then it has a loop of its own, so that its order does not depend on what else a loop
        does.
        """
        given = self.aliases.of(op.operands[0])
        if REDUCTIONS[op.name] not in ("add", "mul") or not is_float(tensor(given).dtype):
            return False
        owner = given.owner
        if (
            REDUCTIONS[op.name] == "add"
            and isinstance(owner, Op)
            and owner.name == "jax.convert_element_type"
        ):
            source = tensor(self.aliases.of(owner.operands[0]))
            return source.dtype != "bool" or source.size > EXACT[tensor(given).dtype]
        return True

    def available(self, value: Value, op: Op, kind: str) -> int:
        """The first level at which ``op`` can have ``value``."""
        owner = value.owner
        if not isinstance(owner, Op) or owner not in self.kind:
            return 0
        if self.kind[owner] in ("element", "indexed") and kind in ("element", "reduction"):
            if space_of(value) == space_of(op.result if kind == "element" else op.operands[0]):
                return self.level[owner]
        return self.ready[value]

    def after_readers(self, value: Value) -> int:
        """The first level after those who have read ``value`` so far: its memory can be used again."""
        level = 0
        for reader in self.uses.get(value, ()):
            if reader not in self.level:
                continue
            if self.kind[reader] == "view":
                level = max(level, self.after_readers(reader.result))
            level = max(
                level, self.level[reader] + (self.kind[reader] in ("element", "indexed", "reduction"))
            )
        return level

    def sink(self) -> None:
        """Move ops of clusters down to the first cluster that needs them."""
        needed = set(self.yielded)
        for op in reversed(self.ops):
            if self.kind[op] not in ("element", "indexed"):
                continue
            value = op.result
            wanted: list[int] = []
            for user in self.uses.get(value, ()):
                kind = self.kind[user]
                shares = kind == "reduction" or (
                    kind == "element" and space_of(user.result) == space_of(value)
                )
                wanted.append(self.level[user] if shares else self.level[user] - 1)
            if not wanted or value in needed or min(wanted) <= self.level[op]:
                continue
            self.level[op] = min(wanted)

    def ordered(self) -> Schedule:
        levels = max(self.level.values(), default=-1) + 1
        scalars: list[list[Op]] = [[] for _ in range(levels + 1)]
        stages: list[list[Op]] = [[] for _ in range(levels + 1)]
        clusters: list[dict[Space, list[Op]]] = [{} for _ in range(levels + 1)]
        for op in self.ops:
            level, kind = self.level[op], self.kind[op]
            if kind in ("uniform", "view"):
                scalars[level].append(op)
            elif kind == "stage":
                stages[level].append(op)
            else:
                space = space_of(op.operands[0] if kind == "reduction" else op.result)
                clusters[level].setdefault(space, []).append(op)
        steps: list[Step] = []
        step_of: dict[Op, int] = {}
        for level in range(levels):
            found: list[Step] = [Scalars(scalars[level])] if scalars[level] else []
            found += [Stage(op) for op in stages[level]]
            found += [Cluster(space, ops) for space, ops in clusters[level].items()]
            for step in found:
                for op in [step.op] if isinstance(step, Stage) else step.ops:
                    step_of[op] = len(steps)
                steps.append(step)
        return Schedule(steps, step_of, self.uniform, self.views, self.uses, self.aliases)

"""Lift State accesses out of loops, branches, calls and transformations.

Innermost first. In each region forwarding leaves at most one read (at the top) and one write (at the end) per
State; then the op that holds the region is rewritten so that the State is read before it and written after
it, leaf by leaf:

- a leaf that is only read is closed over;
- a leaf that a loop reads and writes is carried;
- a leaf that a loop writes before it reads is no carry: only its last value counts. The last trip is peeled
  off where that is cheap,
  else the leaf is carried;
- a branch that does not write passes the leaf through; a write on one branch only is therefore also a read;
- straight-line bodies (calls, checkpoints, gradients) return what they write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from stategraph.ir.core import Op, Program, Region, StateSymbol, Value
from stategraph.ir.location import Location
from stategraph.ir.registry import definition_of
from stategraph.ir.types import Type
from stategraph.passes.base import Pass, PassError
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, insert_arg, insert_results, insert_yields
from stategraph.passes.eliminate_local_state import eliminate
from stategraph.passes.entry_types import Types, entry_types
from stategraph.passes.forward_state import Accesses, forward
from stategraph.passes.hoist_shard_map import lift_shard_map
from stategraph.passes.hoist_vmap import lift_vmap
from stategraph.passes.peel import peel_last, rotate_condition
from stategraph.passes.registry import register

STATE_OPS = ("state.read", "state.write", "state.alloc")


@register
@attrs.frozen
class HoistState(Pass):
    """Read State once before, and write it once after, every loop, branch, call and transformation."""

    name = "hoist-state"

    peel: bool = True
    """Peel the last trip of a loop off for State that it writes before reading, instead of carrying it."""
    peel_ops: int = 64
    """The largest loop body, in ops, that is copied for peeling."""
    peel_bytes: int = 65536
    """The largest scanned inputs, in bytes, that are cut for peeling."""

    def run(self, program: Program, context: Context) -> None:
        _Hoister(self, program, context).normalize(program.body)


@attrs.frozen
class Lifted:
    """What stands around a rewritten op: reads before it, other ops and writes after it."""

    before: list[Op]
    after: list[Op]


@attrs.frozen
class Written:
    """What a body wrote to one State: its leaves, and where."""

    values: list[Value]
    location: Location

    def replaced(self, old: Value, new: Value) -> Written:
        return Written([new if value is old else value for value in self.values], self.location)


class _Hoister:
    def __init__(self, options: HoistState, program: Program, context: Context) -> None:
        self.options = options
        self.program = program
        self.context = context
        self.types: dict[str, Types] = {}
        """The types of States at the op being looked at, where they are not those of their symbols."""

    def normalize(self, region: Region) -> Accesses:
        """Lift all State out of the ops of ``region``, then forward within it."""
        if any(op.regions for op in region.ops):
            ops: list[Op] = []
            for op in region.ops:
                lifted = Lifted([], [])
                if op.regions and next(op.walk(*STATE_OPS), None) is not None:
                    outer = self.types
                    self.types = {**outer, **entry_types(op, self.type_of)}
                    lifted = self.lift(op)
                    self.types = outer
                for new in (*lifted.before, op, *lifted.after):
                    new.parent = region
                    ops.append(new)
                    if new.name in ("state.write", "state.alloc"):
                        self.types[new.symbol] = tuple(value.type for value in new.operands)
            region.ops = ops
        found = forward(region)
        if found.allocs and region.parent_op is not None:
            eliminate(region, self.program)
            for path in found.allocs:
                if self.program.states.get(path) is None or not self.program.states[path].born:
                    found.reads.pop(path, None)
                    found.writes.pop(path, None)
        return found

    def lift(self, op: Op) -> Lifted:
        handler = _HANDLERS.get(op.name)
        if handler is None:
            known = "" if definition_of(op.name) is not None else " (an unknown op)"
            raise PassError(
                f"State is used inside {op.name}{known}, and hoist-state does not know how to lift it\n  at: {op.location}"
            )
        accesses = [self.normalize(region) for region in op.regions]
        if not any(accesses):
            return Lifted([], [])
        return handler(self, op, accesses)

    # ---------------------------------------------------------------------------------------- building blocks

    def read_before(self, path: str, accesses: Sequence[Accesses], op: Op) -> Op:
        """A read of the State to stand before ``op``."""
        example = next((a.reads[path] for a in accesses if path in a.reads), None)
        location = op.location
        if example is not None:
            types: list[Type] = [result.type for result in example.results]
            location = example.location
        else:
            types = [value.type for a in accesses if path in a.writes for value in a.writes[path].operands][
                : self.leaves(path, accesses)
            ]
        read = Op("state.read", (), types, {"symbol": path}, (), location)
        for result in read.results:
            result.name = path.rsplit(".", 1)[-1]
        return read

    def leaves(self, path: str, accesses: Sequence[Accesses]) -> int:
        return next(len(a.writes[path].operands) for a in accesses if path in a.writes)

    def drop(self, op: Op) -> None:
        region = op.parent
        assert region is not None
        REWRITER.erase(op)

    def symbol_of(self, path: str) -> StateSymbol | str:
        return self.program.states.get(path, f"@{path}")

    def say(self, path: str, op: Op, decision: str, reason: str = "", advice: str = "") -> None:
        self.context.explain(
            self.symbol_of(path), f"{decision} {op.name} at {op.location}", reason=reason, advice=advice
        )

    # ------------------------------------------------------------------------------------------ straight line

    def straight(self, op: Op, accesses: list[Accesses]) -> Lifted:
        """Calls and checkpoints: read before, return what is written."""
        (found,) = accesses
        (region,) = op.regions
        before = self.close_over(found, region, op)
        after = self.return_writes(op, region, found, len(op.results), len(region.yielded))
        return Lifted(list(before.values()), after)

    def close_over(self, found: Accesses, region: Region, op: Op) -> dict[str, Op]:
        """Replace the region's reads by reads that stand before the op."""
        before: dict[str, Op] = {}
        for path, read in list(found.reads.items()):
            outer = self.read_before(path, [found], op)
            before[path] = outer
            for inner, value in zip(read.results, outer.results, strict=True):
                REWRITER.replace_uses(inner, value)
            self.drop(read)
        return before

    def return_writes(
        self, op: Op, region: Region, found: Accesses, at_result: int, at_yield: int
    ) -> list[Op]:
        """Turn the region's writes into results of the op (inserted at these positions) and writes after it."""
        after = []
        for path, write in list(found.writes.items()):
            values = list(write.operands)
            results = insert_results(
                op, at_result, [value.type for value in values], [path.rsplit(".", 1)[-1]] * len(values)
            )
            insert_yields(region, at_yield, values)
            at_result += len(values)
            at_yield += len(values)
            after.append(Op("state.write", results, (), {"symbol": path}, (), write.location))
            self.drop(write)
        return after

    def gradient(self, op: Op, accesses: list[Accesses]) -> Lifted:
        """Derivatives: the States that they are taken with respect to become operands; what is written
        becomes auxiliary results.
        """
        (found,) = accesses
        (region,) = op.regions
        wanted = [symbol.path for symbol in op.attributes["states"]]
        count = len(region.yielded)
        before = self.close_over(found, region, op)
        after = self.return_writes(op, region, found, count, count)
        operands = list(op.operands)
        for path in wanted:
            read = before.get(path)
            if read is None:
                read = before[path] = self.entry_read(path, op)
            for value in read.results:
                arg = REWRITER.add_region_arg(region, value.type, value.name)
                for user, index in value.uses:
                    if _inside(user, region):
                        operand_list = list(user.operands)
                        operand_list[index] = arg
                        REWRITER.set_operands(user, operand_list)
                operands.append(value)
        REWRITER.set_operands(op, operands)
        op.attributes = {**op.attributes, "states": ()}
        return Lifted(list(before.values()), after)

    def lanes(self, op: Op, accesses: list[Accesses]) -> Lifted:
        """``xform.vmap``: see ``hoist_vmap``."""
        return Lifted(*lift_vmap(op, accesses[0]))

    def shards(self, op: Op, accesses: list[Accesses]) -> Lifted:
        """``xform.shard_map``: see ``hoist_shard_map``."""
        return Lifted(*lift_shard_map(op, accesses[0]))

    def type_of(self, path: str) -> Types:
        """The types of a State's leaves at the op being looked at."""
        symbol = self.program.states.get(path)
        if path not in self.types and symbol is None:
            raise PassError(f"@{path} is used, which the program does not have")
        return self.types[path] if symbol is None else self.types.get(path, symbol.types)

    def entry_read(self, path: str, op: Op) -> Op:
        read = Op("state.read", (), self.type_of(path), {"symbol": path}, (), op.location)
        for result in read.results:
            result.name = path.rsplit(".", 1)[-1]
        return read

    def custom_rule(self, op: Op, accesses: list[Accesses]) -> Lifted:
        """Functions with derivative rules: the function returns what it writes; under its rule nothing is
        written.
        """
        before: dict[str, Op] = {}
        found = accesses[0]
        paths = dict.fromkeys([p for a in accesses for p in (*a.reads, *a.writes)])
        for path in paths:
            before[path] = self.read_before(path, accesses, op)
            for a in accesses:
                read = a.reads.get(path)
                if read is not None:
                    for inner, value in zip(read.results, before[path].results, strict=True):
                        REWRITER.replace_uses(inner, value)
                    self.drop(read)
        if found.writes:
            return self.custom_writes(op, found, before)
        return Lifted(list(before.values()), [])

    def custom_writes(self, op: Op, found: Accesses, before: dict[str, Op]) -> Lifted:
        """Under its derivative rule the function does not run, so the State keeps what it held, derivative
        included.

        The old leaves become operands: the function returns the new ones, every rule passes the old ones
        through.
        """
        count = len(op.results)
        old = [value for path in found.writes for value in before[path].results]
        position = len(op.operands)
        REWRITER.set_operands(op, [*op.operands, *old])
        rules = op.regions[1:]
        for offset, value in enumerate(old):
            insert_arg(op.regions[0], position + offset, value.type, value.name)
            if not rules:
                continue
            kept = insert_arg(rules[0], position + offset, value.type, value.name)
            insert_yields(rules[0], count + offset, [kept])
            if _differentiable(value.type):
                last = rules[-1]
                tangent = REWRITER.add_region_arg(last, value.type, value.name)
                insert_yields(last, len(last.yielded), [tangent])
        after = self.return_writes(op, op.regions[0], found, count, count)
        return Lifted(list(before.values()), after)

    # ----------------------------------------------------------------------------------------------- branches

    def branches(self, op: Op, accesses: list[Accesses]) -> Lifted:
        reads = dict.fromkeys(path for a in accesses for path in a.reads)
        writes = dict.fromkeys(path for a in accesses for path in a.writes)
        before: dict[str, Op] = {}
        for path in {**reads, **writes}:
            if path in reads or not all(path in a.writes for a in accesses):
                before[path] = self.read_before(path, accesses, op)
        for path in reads:
            for a in accesses:
                if path in a.reads:
                    for inner, value in zip(a.reads[path].results, before[path].results, strict=True):
                        REWRITER.replace_uses(inner, value)
        after = []
        for path in writes:
            old = before[path].results if path in before else None
            columns = [
                list(a.writes[path].operands) if path in a.writes else list(old or ()) for a in accesses
            ]
            values: list[Value] = []
            location = next(a.writes[path].location for a in accesses if path in a.writes)
            for i in range(len(columns[0])):
                column = [row[i] for row in columns]
                if old is not None and all(value is old[i] for value in column):
                    values.append(old[i])
                    continue
                values += insert_results(op, len(op.results), [column[0].type], [path.rsplit(".", 1)[-1]])
                for region, value in zip(op.regions, column, strict=True):
                    insert_yields(region, len(region.yielded), [value])
            after.append(Op("state.write", values, (), {"symbol": path}, (), location))
            self.say(path, op, "is a result of", "a branch writes it")
        for a in accesses:
            for dead in (*a.reads.values(), *a.writes.values()):
                self.drop(dead)
        return Lifted(list(before.values()), after)

    # -------------------------------------------------------------------------------------------------- loops

    def scan(self, op: Op, accesses: list[Accesses]) -> Lifted:
        (found,) = accesses
        (body,) = op.regions
        if op.attributes["length"] == 0:
            return self.never(op, body, found)
        carried: list[tuple[str, int]] = []
        last: list[tuple[str, int]] = []
        for path, write in found.writes.items():
            read = found.reads.get(path)
            for i, value in enumerate(write.operands):
                if read is not None and value is read.results[i]:
                    continue
                looked_at = read is not None and read.results[i].has_uses
                (carried if looked_at else last).append((path, i))
        peels = bool(last) and self.options.peel and self.can_peel(op)
        if not peels:
            carried += last
        kept = [
            path
            for path, write in found.writes.items()
            for i in range(len(write.operands))
            if (path, i) not in last
        ]
        before: dict[str, Op] = {}
        for path in dict.fromkeys([*found.reads, *(path for path, _ in carried), *kept]):
            before[path] = self.read_before(path, accesses, op)
        final, written = self.carry(op, body, found, before, carried)
        around: tuple[list[Op], list[Op]] = ([], [])
        if peels:
            values = [written[path].values[i] for path, i in last]
            *around, mapping = peel_last(op, values)  # type: ignore[assignment]
            final = {key: mapping.get(value, value) for key, value in final.items()}
            final.update({key: mapping[value] for key, value in zip(last, values, strict=True)})
        for path in dict.fromkeys(path for path, _ in last):
            if peels:
                self.say(
                    path,
                    op,
                    "is computed once after",
                    "it is written before it is read, so only the last trip counts",
                )
            else:
                why = "it is written before it is read, but the last trip is too large to be copied"
                self.say(
                    path,
                    op,
                    "is carried by",
                    why,
                    "compute it after the loop, or raise hoist-state{peel_ops=…}",
                )
        after = self.write_after(written, before, final)
        return Lifted([*before.values(), *around[0]], [*around[1], *after])

    def never(self, op: Op, body: Region, found: Accesses) -> Lifted:
        """A loop of no trips reads what it mentions and writes nothing."""
        before = self.close_over(found, body, op)
        for write in found.writes.values():
            self.drop(write)
        return Lifted(list(before.values()), [])

    def can_peel(self, op: Op) -> bool:
        body = op.regions[0]
        carry = op.attributes["carry"]
        if len(op.results) > carry or len(list(body.walk())) > self.options.peel_ops:
            return False
        return sum(value.type.nbytes for value in op.operands[carry:]) <= self.options.peel_bytes

    def while_(self, op: Op, accesses: list[Accesses]) -> Lifted:
        if accesses[0].writes:
            start = rotate_condition(op)
            lifted = self.lift(op)
            return Lifted([*start, *lifted.before], lifted.after)
        in_cond, in_body = accesses
        carried = []
        for path, write in in_body.writes.items():
            read = in_body.reads.get(path)
            for i, value in enumerate(write.operands):
                if read is None or value is not read.results[i]:
                    carried.append((path, i))
        before: dict[str, Op] = {}
        for path in dict.fromkeys([*in_cond.reads, *in_body.reads, *in_body.writes]):
            before[path] = self.read_before(path, accesses, op)
        final, written = self.carry(op, op.regions[1], in_body, before, carried, (op.regions[0], in_cond))
        return Lifted(list(before.values()), self.write_after(written, before, final))

    def carry(
        self,
        op: Op,
        body: Region,
        found: Accesses,
        before: dict[str, Op],
        carried: Sequence[tuple[str, int]],
        cond: tuple[Region, Accesses] | None = None,
    ) -> tuple[dict[tuple[str, int], Value], dict[str, Written]]:
        """Make these leaves carries of a loop and close over all others: the values after the loop, and what
        the body wrote.
        """
        count = op.attributes["carry"] if op.name == "flow.scan" else len(op.operands)
        final: dict[tuple[str, int], Value] = {}
        operands = list(op.operands)
        inner: dict[tuple[str, int], list[Value]] = {}
        for position, (path, i) in enumerate(carried, start=count):
            init = before[path].results[i]
            operands.insert(position, init)
            inner[(path, i)] = [insert_arg(region, position, init.type, init.name) for region in op.regions]
            insert_yields(body, position, [found.writes[path].operands[i]])
            (final[(path, i)],) = insert_results(op, position, [init.type], [init.name])
        REWRITER.set_operands(op, operands)
        if op.name == "flow.scan":
            op.attributes = {**op.attributes, "carry": count + len(carried)}
        written = {
            path: Written(list(write.operands), write.location) for path, write in found.writes.items()
        }
        sources = [(found, -1)] if cond is None else [(found, 1), (cond[1], 0)]
        for accesses, which in sources:
            for path, read in accesses.reads.items():
                for i, result in enumerate(read.results):
                    args = inner.get((path, i))
                    value = args[which] if args else before[path].results[i]
                    REWRITER.replace_uses(result, value)
                    written = {p: w.replaced(result, value) for p, w in written.items()}
                self.drop(read)
        for write in found.writes.values():
            self.drop(write)
        for path in dict.fromkeys(path for path, _ in carried):
            self.say(path, op, "is carried by", "the loop reads and writes it")
        return final, written

    def write_after(
        self, written: dict[str, Written], before: dict[str, Op], final: dict[tuple[str, int], Value]
    ) -> list[Op]:
        """The writes to stand after a loop; leaves that the loop does not change are written back as they
        were.
        """
        after = []
        for path, write in written.items():
            values = [
                final[(path, i)] if (path, i) in final else before[path].results[i]
                for i in range(len(write.values))
            ]
            after.append(Op("state.write", values, (), {"symbol": path}, (), write.location))
        return after


def _inside(op: Op, region: Region) -> bool:
    current = op.parent
    while current is not None:
        if current is region:
            return True
        current = current.parent_op.parent if current.parent_op is not None else None
    return False


def _differentiable(type: Type) -> bool:
    return getattr(type, "dtype", "").startswith(("f", "bf", "c"))


_HANDLERS: dict[str, Callable[[_Hoister, Op, list[Accesses]], Lifted]] = {
    "flow.call": _Hoister.straight,
    "xform.remat": _Hoister.straight,
    "xform.grad": _Hoister.gradient,
    "xform.vmap": _Hoister.lanes,
    "xform.shard_map": _Hoister.shards,
    "xform.jvp": _Hoister.gradient,
    "xform.vjp": _Hoister.gradient,
    "flow.custom_jvp": _Hoister.custom_rule,
    "flow.custom_vjp": _Hoister.custom_rule,
    "flow.cond": _Hoister.branches,
    "flow.scan": _Hoister.scan,
    "flow.while": _Hoister.while_,
}

"""States along the program: symbols exist where they are used, and every access has the type that the State
has at that point.

The walk is in program order. Straight-line code may give a State another type; code that may run any number
of times (a loop's body) may not, unless the State is its own; branches have to agree on what they leave
behind; a derivative rule writes no State but its own.
"""

from __future__ import annotations

import difflib

import attrs

from stategraph.ir.core import Op, Program, Region
from stategraph.ir.errors import Defect
from stategraph.ir.lanes import all_lanes, lane_writes, one_lane, private_states, state_axes
from stategraph.ir.shards import global_type, local_type, mesh_sizes, state_specs
from stategraph.ir.types import Type
from stategraph.ir.verify_types import same_type

STRAIGHT = {
    "flow.call": 1,
    "xform.remat": 1,
    "native.kernel": 1,
    "xform.grad": 1,
    "xform.jvp": 1,
    "xform.vjp": 1,
    "flow.custom_jvp": 1,
    "flow.custom_vjp": 1,
}
"""How many of an op's first regions run exactly once, in place."""
RULES = ("flow.custom_jvp", "flow.custom_vjp")
"""Ops whose other regions are derivative rules."""


@attrs.frozen
class Current:
    """A State at one point of the program: the types of its leaves, and the body that it belongs to."""

    types: tuple[Type, ...]
    body: int


Scope = dict[str, Current]


def check_states(program: Program) -> None:
    """Check every State access in program order, and what the State table says about the end."""
    walk = _Walk(program)
    scope = {path: Current(symbol.types, 0) for path, symbol in program.states.items() if not symbol.born}
    walk.region(program.body, scope, 0, 0)
    for path, symbol in program.states.items():
        wanted = symbol.result_types
        if path not in scope:
            raise Defect(f"State @{path} is born in this program, and nothing gives it a value", None, "")
        if not _agree(scope[path].types, wanted):
            raise Defect(
                f"State @{path} ends as {_shown(scope[path].types)}, and the table says {_shown(wanted)}",
                None,
                "set final_types of the symbol",
            )


class _Walk:
    def __init__(self, program: Program) -> None:
        self.symbols = program.states
        self.allocated: set[str] = set()
        self.bodies = 0

    def region(self, region: Region, scope: Scope, body: int, rule: int) -> None:
        """Walk one region. ``body`` is the innermost loop body (0: none), ``rule`` the first body of the
        derivative rule that this is part of (0: none): States of earlier bodies may not be written."""
        outside = set(scope)
        for op in region.ops:
            name = op.name
            if name.startswith("state."):
                self.access(op, scope, body, rule)
            elif op.regions:
                self.nested(op, scope, body, rule)
        for path in set(scope) - outside:
            if path not in self.symbols:
                del scope[path]

    def access(self, op: Op, scope: Scope, body: int, rule: int) -> None:
        path = op.attributes.get("symbol")
        if not isinstance(path, str):
            raise Defect(f"{op.name} names no State", op, "its attribute 'symbol' is the State's path, a str")
        types = tuple(value.type for value in (op.results if op.name == "state.read" else op.operands))
        if op.name == "state.alloc":
            self.alloc(op, path, types, scope, body)
            return
        symbol = self.symbols.get(path)
        if op.name == "state.write" and symbol is not None and symbol.born and path not in scope:
            self.born(op, path, body)
            scope[path] = Current(types, 0)
            return
        current = _look_up(op, path, scope)
        if op.name == "state.write" and current.body < rule:
            raise Defect(
                f"a derivative rule writes State @{path}", op, "derivative rules may read State, not write it"
            )
        if _agree(types, current.types):
            return
        if op.name == "state.read":
            raise Defect(
                f"this reads State @{path} as {_shown(types)}, and here it is {_shown(current.types)}",
                op,
                "give the read the State's types",
            )
        if current.body != body:
            raise Defect(
                f"this changes State @{path} from {_shown(current.types)} to {_shown(types)} "
                "in a body that may run many times",
                op,
                "convert the value to the State's type, or change the type before the loop",
            )
        scope[path] = Current(types, current.body)

    def alloc(self, op: Op, path: str, types: tuple[Type, ...], scope: Scope, body: int) -> None:
        symbol = self.symbols.get(path)
        if path in self.allocated or path in scope:
            raise Defect(f"State @{path} exists already", op, "give every state.alloc a path of its own")
        if symbol is not None and not symbol.born:
            raise Defect(
                f"State @{path} is an input of the program and cannot be allocated",
                op,
                "mark the symbol as born",
            )
        self.allocated.add(path)
        if symbol is None:
            scope[path] = Current(types, body)
            return
        self.born(op, path, body)
        if not _agree(types, symbol.types):
            raise Defect(
                f"State @{path} is born as {_shown(types)}, and the State table says {_shown(symbol.types)}",
                op,
                "",
            )
        scope[path] = Current(types, 0)

    def born(self, op: Op, path: str, body: int) -> None:
        if body != 0:
            raise Defect(
                f"State @{path} outlives the program but is born in a loop", op, "create it before the loop"
            )

    def nested(self, op: Op, scope: Scope, body: int, rule: int) -> None:
        if op.name == "flow.cond":
            self.branches(op, scope, body, rule)
            return
        if op.name == "xform.vmap":
            self.lanes(op, scope, body, rule)
            return
        if op.name == "xform.shard_map":
            self.shards(op, scope, body, rule)
            return
        straight = STRAIGHT.get(op.name, 0)
        for i, region in enumerate(op.regions):
            if i < straight:
                self.region(region, scope, body, rule)
                continue
            self.bodies += 1
            self.region(region, dict(scope), self.bodies, self.bodies if op.name in RULES else rule)

    def lanes(self, op: Op, scope: Scope, body: int, rule: int) -> None:
        """Lanes see slices of mapped States, and what they write to States of their own is stacked
        afterwards.
        """
        mapped, kept, private = state_axes(op, "in_states"), state_axes(op, "out_states"), private_states(op)
        size: int = op.attributes["size"]
        inner = dict(scope)
        for path in (*mapped, *kept, *private):
            inner[path] = Current(_look_up(op, path, scope).types, body)
        for path, axis in mapped.items():
            try:
                types = tuple(one_lane(type, axis) for type in scope[path].types)
            except IndexError:
                types = ()
            if tuple(all_lanes(type, axis, size) for type in types) != scope[path].types:
                raise Defect(
                    f"State @{path} is {_shown(scope[path].types)} and has no axis {axis} of size {size}",
                    op,
                    "change in_states",
                )
            inner[path] = Current(types, body)
        for write in lane_writes(op):
            path = str(write.attributes.get("symbol"))
            if path in mapped and path not in kept and path not in private:
                raise Defect(
                    f"State @{path} is mapped over lanes, and nothing says what becomes of what they write",
                    op,
                    "add it to out_states",
                )
        for alloc in op.walk("state.alloc"):
            path = str(alloc.attributes.get("symbol"))
            if path in self.symbols:
                raise Defect(
                    f"State @{path} outlives the program but is born once per lane",
                    alloc,
                    "create it before the op",
                )
        self.region(op.regions[0], inner, body, rule)
        for path, old in scope.items():
            if path in kept:
                types = tuple(all_lanes(type, kept[path], size) for type in inner[path].types)
            elif path in mapped or path in private:
                continue
            else:
                types = inner[path].types
            if old.body != body and not _agree(types, old.types):
                raise Defect(
                    f"this changes State @{path} from {_shown(old.types)} to {_shown(types)} in a body that may run many times",
                    op,
                    "",
                )
            scope[path] = Current(types, old.body)

    def shards(self, op: Op, scope: Scope, body: int, rule: int) -> None:
        """A device sees its shard of the States that have specs."""
        specs, private, sizes = state_specs(op), private_states(op), mesh_sizes(op.attributes["mesh"])
        inner = dict(scope)
        for path in (*specs, *private):
            inner[path] = Current(_look_up(op, path, scope).types, body)
        for path, (before, _) in specs.items():
            try:
                pairs = zip(scope[path].types, before, strict=True)
                inner[path] = Current(tuple(local_type(type, spec, sizes) for type, spec in pairs), body)
            except ValueError as error:
                raise Defect(f"State @{path}: {error}", op, "change its specs in states") from None
        for access in op.walk("state.alloc"):
            if access.attributes.get("symbol") in self.symbols:
                raise Defect(
                    f"State @{access.symbol} outlives the program but is born once per device",
                    access,
                    "create it before the op",
                )
        self.region(op.regions[0], inner, body, rule)
        for path, old in scope.items():
            if path in private:
                continue
            types = inner[path].types
            if path in specs:
                after = specs[path][1]
                if len(after) != len(types):
                    raise Defect(
                        f"State @{path} has {len(types)} leaves at exit and {len(after)} specs", op, ""
                    )
                types = tuple(global_type(t, spec, sizes) for t, spec in zip(types, after, strict=True))
            if old.body != body and not _agree(types, old.types):
                raise Defect(
                    f"this changes State @{path} from {_shown(old.types)} to {_shown(types)} "
                    "in a body that may run many times",
                    op,
                    "",
                )
            scope[path] = Current(types, old.body)

    def branches(self, op: Op, scope: Scope, body: int, rule: int) -> None:
        ends = []
        for region in op.regions:
            end = dict(scope)
            self.region(region, end, body, rule)
            ends.append(end)
        for i, end in enumerate(ends[1:], 1):
            for path in {**ends[0], **end}:
                first, other = ends[0].get(path), end.get(path)
                if first is None or other is None:
                    raise Defect(
                        f"State @{path} is born in some branches only", op, "create it before the branches"
                    )
                if not _agree(first.types, other.types):
                    left, right = _shown(first.types), _shown(other.types)
                    raise Defect(
                        f"branch 0 leaves State @{path} as {left}, branch {i} as {right}",
                        op,
                        "let every branch leave the same type",
                    )
        if ends:
            scope.update(ends[0])


def _look_up(op: Op, path: str, scope: Scope) -> Current:
    current = scope.get(path)
    if current is None:
        close = difflib.get_close_matches(path, scope, 1)
        hint = (
            f"do you mean @{close[0]}?" if close else "declare it in the State table, or allocate it before"
        )
        raise Defect(f"there is no State @{path} here", op, hint)
    return current


def _agree(a: tuple[Type, ...], b: tuple[Type, ...]) -> bool:
    return a == b or (len(a) == len(b) and all(map(same_type, a, b)))


def _shown(types: tuple[Type, ...]) -> str:
    return str(types[0]) if len(types) == 1 else f"({', '.join(map(str, types))})"


__all__ = ["Current", "check_states"]

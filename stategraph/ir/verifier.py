"""Is this a program? The rules that every pass may rely on, and must leave intact.

Checked in this order, up to the first defect:

1. *structure*: owners, parents and uses agree; every value is defined once and before it is used, in the same
   region or one around it; a region ends with its only ``flow.yield``; op names are registered (so their
   effects are known); locations are locations;
2. *types* of structured ops (``verify_types``): what goes into a loop, comes around and comes out is of one
   type;
3. *States* (``verify_states``): symbols exist where they are used, and every access agrees with the State's
   type at that point;
4. the *head*: names, trees, captured arrays and the State table fit the body.
"""

from __future__ import annotations

import difflib
import linecache

from stategraph.ir.arrays import dtype_name, host_data, key_impl
from stategraph.ir.core import Constant, Op, Program, Region, StateSymbol, Value
from stategraph.ir.errors import Defect, VerifyError, caret
from stategraph.ir.location import Location
from stategraph.ir.printer import Printer
from stategraph.ir.registry import definition_of, registered_names
from stategraph.ir.types import EVENTS, KeyType, TensorType, Type
from stategraph.ir.verify_states import check_states
from stategraph.ir.verify_types import check_types


def verify(program: Program) -> None:
    """Check every rule of the IR.

    Raises ``VerifyError`` for the first defect, with the op, the user's line and a hint.
    """
    try:
        _Structure().program(program)
        check_types(program)
        check_states(program)
        _check_head(program)
    except Defect as defect:
        raise VerifyError(defect.message, _report(program, defect), defect.op) from None


class _Structure:
    """One walk over the program in order."""

    def __init__(self) -> None:
        self.defined: set[Value] = set()
        self.uses: dict[Value, list[Op]] = {}

    def program(self, program: Program) -> None:
        if program.body.owner is not program:
            raise Defect("the program's body does not know its program", None, "set body.owner")
        self.region(program.body, None)
        for value, users in self.uses.items():
            if users != value._users and sorted(map(id, users)) != sorted(map(id, value._users)):
                self._wrong_users(value, users)

    def region(self, region: Region, parent: Op | None) -> None:
        ops, defined, uses = region.ops, self.defined, self.uses
        own: list[Value] = []
        self._define(region.args, region, parent, own)
        if not ops or ops[-1].name != "flow.yield":
            where = "the program's body" if parent is None else f"a region of {parent.name}"
            raise Defect(
                f"{where} does not end with flow.yield", parent, "close it with region.yield_(values)"
            )
        last = ops[-1]
        for op in ops:
            if op.parent is not region:
                raise Defect(
                    f"{op.name} stands in a region that is not its parent",
                    op,
                    "place ops with a Rewriter or region.append",
                )
            if definition_of(op.name) is None:
                raise _unregistered(op)
            if type(op.location) is not Location:
                raise Defect(
                    f"{op.name} has no location", op, "give every new op the location of the op it stands for"
                )
            for operand in op.operands:
                if operand not in defined:
                    if type(operand) is not Constant:
                        raise self._undefined(op, operand)
                    _check_constant(op, operand)
                    continue
                users = uses.get(operand)
                if users is None:
                    uses[operand] = [op]
                else:
                    users.append(op)
            for nested in op.regions:
                if nested.owner is not op:
                    raise Defect(
                        f"a region of {op.name} belongs to another op",
                        op,
                        "clone regions that are used twice",
                    )
                self.region(nested, op)
            if op.results:
                self._define(op.results, op, op, own)
            if op.name == "flow.yield" and op is not last:
                raise Defect(
                    "flow.yield is not the last op of its region", op, "nothing can run after a yield"
                )
        for value in own:
            if value._users and value not in uses:
                self._wrong_users(value, [])
        defined.difference_update(own)

    def _define(self, values: list[Value], owner: Op | Region, op: Op | None, own: list[Value]) -> None:
        for i, value in enumerate(values):
            if value.owner is not owner or value.index != i:
                raise Defect(
                    f"value {i} here has another owner or position",
                    op,
                    "make results and arguments with their op or region",
                )
            if value.event is not None and (type(value.type) is not TensorType or value.event not in EVENTS):
                raise Defect(
                    f"value {i} here is of type {value.type} and said to be {value.event!r}",
                    op,
                    f"tensors may be refined by one of {', '.join(EVENTS)}",
                )
            if value in self.defined:
                raise Defect(
                    f"value {i} here is defined twice", op, "an op can stand in one place only: clone it"
                )
            self.defined.add(value)
            own.append(value)

    def _undefined(self, op: Op, operand: Value) -> Defect:
        place = operand.owner
        position = op.operands.index(operand)
        name = f"operand {position} of {op.name}"
        if place is None:
            return Defect(
                f"{name} is defined nowhere",
                op,
                "an operand is an op's result, a region's argument or a Constant",
            )
        maker = place.name if isinstance(place, Op) else "a region"
        reason = "later, or in a region that ended" if _is_placed(place) else "by something that was removed"
        return Defect(
            f"{name} is not visible here: {maker} defines it {reason}",
            op,
            "move the definition up, return it from its region, or replace its uses before erasing it",
        )

    def _wrong_users(self, value: Value, users: list[Op]) -> None:
        op = next((u for u in [*users, *value._users] if users.count(u) != value._users.count(u)), None)
        raise Defect(
            f"the uses of value {value.index} are out of date: {len(value._users)} noted, {len(users)} real",
            op,
            "change operands through a Rewriter (set_operands, replace_uses, erase), never in place",
        )


def _unregistered(op: Op) -> Defect:
    close = difflib.get_close_matches(op.name, registered_names(), 1)
    hint = "register it with register_op(name, effects=...)"
    return Defect(
        f"no op is called {op.name!r}", op, f"do you mean {close[0]!r}? Otherwise {hint}" if close else hint
    )


def _is_placed(owner: Op | Region) -> bool:
    return isinstance(owner, Region) or owner.parent is not None


def _check_constant(op: Op, constant: Constant) -> None:
    type = constant.type
    data = constant.data
    if isinstance(type, TensorType) and (dtype_name(data.dtype), data.shape) != (type.dtype, type.shape):
        found = TensorType(dtype_name(data.dtype), data.shape)
        raise Defect(
            f"a constant of {op.name} has type {type} and holds {found}", op, "let Constant derive its type"
        )


def _check_head(program: Program) -> None:
    args, names = program.body.args, program.argument_names
    if len(names) != len(args):
        raise Defect(
            f"the program names {len(names)} arguments and has {len(args)}",
            None,
            "keep argument_names in step",
        )
    captured = list(program.captured)
    if captured and names[-len(captured) :] != captured:
        raise Defect(
            "the last argument names are not those of the captured arrays",
            None,
            "captured arguments come last",
        )
    for name, arg in zip(captured, program.captured_args, strict=True):
        found = _array_type(program.captured[name])
        if not _fits(found, arg.type):
            raise Defect(f"captured array {name!r} has type {found} and its argument {arg.type}", None, "")
    _count("argument", program.argument_tree.leaf_count, len(program.arguments))
    _count("result", program.result_tree.leaf_count, len(program.results))
    if len(program.result_names) != len(program.results):
        raise Defect(
            f"the program names {len(program.result_names)} results and yields {len(program.results)}",
            program.body.terminator,
            "keep result_names in step with the yield",
        )
    if type(program.location) is not Location:
        raise Defect("the program has no location", None, "use UNKNOWN when there is none")
    for path, symbol in program.states.items():
        _check_symbol(path, symbol)


def _count(what: str, leaves: int, values: int) -> None:
    if leaves != values:
        raise Defect(
            f"the {what} tree has {leaves} leaves for {values} {what}s", None, f"keep {what}_tree in step"
        )


def _check_symbol(path: str, symbol: StateSymbol) -> None:
    if symbol.path != path:
        raise Defect(f"the State table holds @{symbol.path} under the name {path!r}", None, "")
    for types, tree in ((symbol.types, symbol.tree), (symbol.result_types, symbol.result_tree)):
        if tree.leaf_count != len(types):
            raise Defect(
                f"State @{path} has {len(types)} types for a tree of {tree.leaf_count} leaves", None, ""
            )
        weak = [type for type in types if isinstance(type, TensorType) and type.weak]
        if weak:
            raise Defect(
                f"State @{path} has the weak type {weak[0]}",
                None,
                "a State's types are strong: type.strong()",
            )
    if type(symbol.location) is not Location:
        raise Defect(f"State @{path} has no location", None, "use UNKNOWN when there is none")
    if symbol.initial is None:
        return
    found = [_array_type(array) for array in symbol.initial]
    if len(found) != len(symbol.types) or not all(map(_fits, found, symbol.types)):
        shown = ", ".join(map(str, found))
        raise Defect(f"the initial value of State @{path} has types ({shown}), not its own", None, "")


def _fits(found: Type, wanted: Type) -> bool:
    return found == (wanted.strong() if isinstance(wanted, TensorType) else wanted)


def _array_type(array: object) -> Type:
    impl = key_impl(array)
    if impl is not None:
        return KeyType(impl, tuple(array.shape))  # type: ignore[attr-defined]
    if hasattr(array, "dtype") and hasattr(array, "shape"):  # without a copy from a device
        return TensorType(dtype_name(array.dtype), tuple(array.shape))
    data = host_data(array)
    return TensorType(dtype_name(data.dtype), data.shape)


def _report(program: Program, defect: Defect) -> str:
    """Sentence, the op as printed with a caret, the user's line, a hint."""
    parts = [f"{defect.message}."]
    op = defect.op
    if op is not None:
        line = _printed_line(program, op)
        if line is not None:
            parts.append(caret(line, _name_column(line, op.name)))
        if type(op.location) is Location and op.location.known:
            parts.append(f"  at:   {op.location}")
            source = linecache.getline(op.location.file, op.location.line).strip()
            if source:
                parts.append(f"          {source}")
    if defect.hint:
        parts.append(f"  hint: {defect.hint}")
    return "\n".join(parts)


def _printed_line(program: Program, op: Op) -> str | None:
    printer = Printer(locations=False)
    try:
        printer.program(program, resources=False)
    except Exception:  # so broken that it cannot be printed: the sentence has to do
        return None
    number = printer.op_lines.get(op)
    return None if number is None else printer.lines[number].strip()


def _name_column(line: str, name: str) -> int:
    start = line.find(" = ") + 3 if line.startswith("%") else 0
    return max(line.find(name, start), 0) + 1

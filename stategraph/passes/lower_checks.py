"""Runtime checks become State, which hoisting knows how to thread.

A program with ``check.error_if`` ops gets one more State, born at its top: a code, 0 while nothing has failed,
and the values that each check failed with. A check writes its number and its values there if it fails and is
the first to do so. It is an ordinary State in loops, branches and gradients. Two kinds of bodies have a *ledger*
of their own, a local State whose end values become results of the op, and are entered in the outer one after
it:

- the lanes of a ``xform.vmap`` and the devices of a ``xform.shard_map``, of which the first that fails counts;
- functions with derivative rules, of which either the function or its rule runs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import attrs
import numpy as np

from stategraph.ir.attributes import DType
from stategraph.ir.core import Constant, Op, Program, Region, StateSymbol, Value
from stategraph.ir.lanes import all_lanes, shape_of
from stategraph.ir.location import Location
from stategraph.ir.shards import mesh_sizes
from stategraph.ir.tree import LEAF, Tree
from stategraph.ir.types import TensorType, Type, numpy_dtype
from stategraph.passes.base import Pass, PassError
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, insert_arg, insert_results, insert_yields
from stategraph.passes.registry import register

CHECK = "check.error_if"
RULES = ("flow.custom_jvp", "flow.custom_vjp")
_I32, _BOOL = TensorType("i32"), TensorType("bool")


def _code(number: int) -> Constant:
    return Constant(np.int32(number), _I32)


_ZERO = _code(0)


@register
@attrs.frozen
class LowerChecks(Pass):
    """Turn runtime checks into State that says which check failed first, and with which values."""

    name = "lower-checks"

    def run(self, program: Program, context: Context) -> None:
        if next(program.walk(CHECK), None) is None:
            return
        same: dict[Op, Op] = {}
        _find_repeated(program.body, (), same)
        checks = [op for op in program.walk(CHECK) if op not in same]
        numbers = {op: i for i, op in enumerate(checks, 1)}
        for op, original in same.items():
            numbers[op] = numbers[original]
        path = _free("checks", program)
        ledger = _Ledger(path, checks, numbers)
        program.states[path] = StateSymbol(
            path,
            "Checks",
            tuple(ledger.types),
            Tree("tuple", (LEAF,) * len(ledger.types)),
            born=True,
            attributes={"checks": tuple(map(_said, checks))},
        )
        _Lowering(program, numbers).region(program.body, ledger, ())
        ledger.open(program.body)
        context.explain(
            program.states[path],
            "threads checks through the program",
            reason="a failure is an output, and raised after the call",
            numbers={"checks": len(checks)},
        )


def _find_repeated(region: Region, functions: tuple[list[Op], ...], same: dict[Op, Op]) -> None:
    """A function inside its own rule has the checks of the function: which is which. ``functions`` are the
    checks of the functions whose rules the region is part of, outermost first.
    """
    for op in region.ops:
        if op.name in RULES and "recursive" in op.attributes:
            known = functions[-op.attributes["recursive"]]
            same.update(zip(op.walk(CHECK), known, strict=True))
        elif op.name in RULES:
            call, *rules = op.regions
            _find_repeated(call, functions, same)
            checks = [same.get(check, check) for check in call.walk(CHECK)]
            for rule in rules:
                _find_repeated(rule, (*functions, checks), same)
        else:
            for inner in op.regions:
                _find_repeated(inner, functions, same)


def _said(op: Op) -> dict[str, object]:
    return {
        **op.attributes,
        "at": op.location.fields[:3],
        "count": len(op.operands) - 1,
    }


def _free(name: str, program: Program) -> str:
    taken = {*program.states, *(op.symbol for op in program.walk("state.alloc"))}
    count, path = 0, name
    while path in taken:
        count += 1
        path = f"{name}_{count}"
    return path


class _Ledger:
    """A State for the failures of some checks: where in its leaves which check has its values."""

    def __init__(self, path: str, checks: Sequence[Op], numbers: dict[Op, int]) -> None:
        self.path = path
        self.types: list[Type] = [_I32]
        self.slots: dict[int, slice] = {}
        for op in checks:
            if numbers[op] in self.slots:
                continue
            start = len(self.types)
            self.types += [_strong(value.type) for value in op.operands[1:]]
            self.slots[numbers[op]] = slice(start, len(self.types))

    def again(self, path: str) -> _Ledger:
        """Another ledger for the same checks."""
        other = copy.copy(self)
        other.path = path
        return other

    def open(self, region: Region) -> None:
        """Create the State at the top of ``region``."""
        made: list[Op] = []
        values: list[Value] = []
        for type in self.types:
            shape = shape_of(type)
            values.append(_scalar_zero(type))
            if shape:
                attributes = {"shape": shape, "broadcast_dimensions": (), "sharding": None}
                made.append(Op("jax.broadcast_in_dim", [values.pop()], [type], attributes))
                values.append(made[-1].result)
        tree = Tree("tuple", (LEAF,) * len(self.types))
        made.append(Op("state.alloc", values, (), {"symbol": self.path, "kind": "Checks", "tree": tree}))
        for op in made:
            op.parent = region
        region.ops[:0] = made

    def read(self, location: Location) -> Op:
        return Op("state.read", (), self.types, {"symbol": self.path}, (), location)

    def enter(self, failed: Value, code: Value, new: dict[int, Value], location: Location) -> list[Op]:
        """The ops that note a failure, unless there was one before: leaf ``i`` becomes ``new[i]``."""
        read = self.read(location)
        old = list(read.results)
        none = Op("jax.eq", [old[0], _ZERO], [_BOOL], {}, (), location)
        first = Op("jax.and", [none.result, failed], [_BOOL], {}, (), location)
        ops, leaves = [read, none, first], old
        for i, value in {0: code, **new}.items():
            if value.type != old[i].type:
                attributes = {"new_dtype": DType(old[i].type.dtype), "weak_type": False, "sharding": None}  # type: ignore[union-attr]
                ops.append(Op("jax.convert_element_type", [value], [old[i].type], attributes, (), location))
                value = ops[-1].result
            chosen = Op("jax.select_n", [first.result, old[i], value], [old[i].type], {}, (), location)
            ops.append(chosen)
            leaves = [*leaves[:i], chosen.result, *leaves[i + 1 :]]
        ops.append(Op("state.write", leaves, (), {"symbol": self.path}, (), location))
        return ops


_Rules = tuple[_Ledger | None, ...]
"""The ledgers of the functions whose rules a region is part of, outermost first; None for one without checks."""


class _Lowering:
    def __init__(self, program: Program, numbers: dict[Op, int]) -> None:
        self.program = program
        self.numbers = numbers
        self.count = 0

    def region(self, region: Region, ledger: _Ledger, rules: _Rules) -> None:
        """Lower the checks of one region and below."""
        for op in list(region.ops):
            if op.name == CHECK:
                number = self.numbers[op]
                slot = ledger.slots[number]
                new = dict(zip(range(slot.start, slot.stop), op.operands[1:], strict=True))
                code = _code(number)
                REWRITER.insert_before(op, *ledger.enter(op.operands[0], code, new, op.location))
                REWRITER.erase(op)
            elif op.name in RULES and "recursive" in op.attributes:
                self.recursive(op, ledger, rules)
            elif op.name == "xform.vmap" and next(op.walk(CHECK), None) is not None:
                self.lanes(op, ledger, rules)
            elif op.name == "xform.shard_map" and next(op.walk(CHECK), None) is not None:
                self.devices(op, ledger, rules)
            elif op.name in RULES:
                self.rule(op, ledger, rules)
            elif op.regions:
                if next(op.walk(CHECK), None) is not None and op.name.startswith("jax."):
                    raise PassError(
                        f"a check stands inside the function given to {op.name}, which may call it any number of times\n"
                        f"  at:  {op.location}\n  fix: check before or after it"
                    )
                for inner in op.regions:
                    self.region(inner, ledger, rules)

    def own(self, op: Op) -> _Ledger:
        """A ledger for the checks inside ``op``."""
        return _Ledger(self.free(op), list(op.walk(CHECK)), self.numbers)

    def free(self, op: Op) -> str:
        """A path for a ledger of ``op``."""
        self.count += 1
        return _free(f"checks_in_{op.name.rsplit('.', 1)[-1]}_{self.count}", self.program)

    def lanes(self, op: Op, outer: _Ledger, rules: _Rules) -> None:
        ledger = self.own(op)
        (region,) = op.regions
        self.region(region, ledger, rules)
        ledger.open(region)
        size: int = op.attributes["size"]
        values = self.closed(region, ledger, len(region.yielded))
        types = [all_lanes(type, 0, size) for type in ledger.types]
        results = insert_results(op, len(op.results), types, [None] * len(values))
        op.attributes = {
            **op.attributes,
            "out_axes": (*op.attributes["out_axes"], *[0] * len(results)),
        }
        if size:
            self.first_of(op, size, results, ledger, outer)

    def devices(self, op: Op, outer: _Ledger, rules: _Rules) -> None:
        """Like lanes: what the devices have is put together along a new axis."""
        ledger = self.own(op)
        (region,) = op.regions
        self.region(region, ledger, rules)
        ledger.open(region)
        axes: tuple[str, ...] = op.attributes["axes"]
        sizes = mesh_sizes(op.attributes["mesh"])
        count = math.prod(sizes[axis] for axis in axes)
        types = [all_lanes(type, 0, count) for type in ledger.types]
        values = []
        for value in self.closed(region, ledger, len(region.yielded)):
            shape = shape_of(value.type)
            attributes = {
                "shape": (1, *shape),
                "broadcast_dimensions": tuple(range(1, len(shape) + 1)),
                "sharding": None,
            }
            kind = all_lanes(value.type, 0, 1)
            values.append(Op("jax.broadcast_in_dim", [value], [kind], attributes, (), op.location))
        REWRITER.insert_before(region.terminator, *values)
        kept = region.yielded[: len(region.yielded) - len(values)]
        REWRITER.set_operands(region.terminator, [*kept, *(value.result for value in values)])
        results = insert_results(op, len(op.results), types, [None] * len(types))
        specs = ((axes,),) * len(results)
        op.attributes = {**op.attributes, "out_specs": (*op.attributes["out_specs"], *specs)}
        self.first_of(op, count, results, ledger, outer)

    def first_of(self, op: Op, size: int, results: Sequence[Value], ledger: _Ledger, outer: _Ledger) -> None:
        """Note after ``op`` the failure of the first of ``size`` lanes or devices that failed."""
        place = op.location
        lanes = TensorType("i32", (size,))
        shape = {"shape": (size,), "broadcast_dimensions": (), "sharding": None}
        zeros = Op("jax.broadcast_in_dim", [_ZERO], [lanes], shape, (), place)
        failed = Op("jax.ne", [results[0], zeros.result], [TensorType("bool", (size,))], {}, (), place)
        axes = {"axes": (0,), "index_dtype": DType("i32")}
        first = Op("jax.argmax", [failed.result], [_I32], axes, (), place)
        ops = [zeros, failed, first]
        chosen = []
        for whole, type in zip(results, ledger.types, strict=True):
            rest = shape_of(type)
            sizes = {"slice_sizes": (1, *rest)}
            start = [first.result, *(_ZERO for _ in rest)]
            cut = Op("jax.dynamic_slice", [whole, *start], [all_lanes(type, 0, 1)], sizes, (), place)
            lane = Op("jax.squeeze", [cut.result], [type], {"dimensions": (0,)}, (), place)
            ops += [cut, lane]
            chosen.append(lane.result)
        REWRITER.insert_after(op, *ops, *self.passed_on(ledger, outer, chosen, place))

    def rule(self, op: Op, outer: _Ledger, rules: _Rules) -> None:
        call, first, *backward = op.regions
        if next(op.walk(CHECK), None) is None:
            self.region(call, outer, rules)
            for region in (first, *backward):
                self.region(region, outer, (*rules, None))
            return
        ledger = self.own(op)
        for region in backward:
            for check in region.walk(CHECK):
                raise PassError(
                    f"a check stands in the backward rule of {op.attributes.get('name', 'a function')}, which can only "
                    f"return gradients\n  at:  {check.location}\n  fix: check in the forward rule"
                )
        self.region(call, ledger, rules)
        self.region(first, ledger, (*rules, ledger))
        for region in backward:
            self.region(region, ledger, (*rules, ledger))
        for region in (call, first):
            ledger.open(region)
        count = len(op.results)
        self.closed(call, ledger, count)
        self.closed(first, ledger, count)
        moving = [type for type in ledger.types if _differentiable(type)]
        if op.name == "flow.custom_jvp":
            zeros = [self.zero(first, type) for type in moving]
            insert_yields(first, len(first.yielded), zeros)
        else:
            for type in moving:
                insert_arg(backward[0], len(backward[0].args), type, None)
        results = insert_results(op, count, ledger.types, [None] * len(ledger.types))
        REWRITER.insert_after(op, *self.passed_on(ledger, outer, results, op.location))

    def recursive(self, op: Op, outer: _Ledger, rules: _Rules) -> None:
        """A function inside its own rule returns what the function returns."""
        function = rules[-op.attributes["recursive"]]
        if function is None:
            return
        ledger = function.again(self.free(op))
        (region,) = op.regions
        self.region(region, ledger, rules)
        ledger.open(region)
        self.closed(region, ledger, len(op.results))
        results = insert_results(op, len(op.results), ledger.types, [None] * len(ledger.types))
        REWRITER.insert_after(op, *self.passed_on(ledger, outer, results, op.location))

    def closed(self, region: Region, ledger: _Ledger, position: int) -> list[Value]:
        """Return what the ledger holds at the end of ``region``."""
        read = ledger.read(region.terminator.location)
        REWRITER.insert_before(region.terminator, read)
        insert_yields(region, position, list(read.results))
        return list(read.results)

    def passed_on(self, inner: _Ledger, outer: _Ledger, values: Sequence[Value], place: Location) -> list[Op]:
        """Note in the outer ledger what an inner one holds."""
        failed = Op("jax.ne", [values[0], _ZERO], [_BOOL], {}, (), place)
        new = {
            i: values[j]
            for number, slot in inner.slots.items()
            for i, j in zip(_positions(outer.slots[number]), _positions(slot), strict=True)
        }
        return [failed, *outer.enter(failed.result, values[0], new, place)]

    def zero(self, region: Region, type: Type) -> Value:
        attributes = {"shape": shape_of(type), "broadcast_dimensions": (), "sharding": None}
        constant = _scalar_zero(type)
        if not shape_of(type):
            return constant
        op = Op("jax.broadcast_in_dim", [constant], [type], attributes, (), region.terminator.location)
        REWRITER.insert_before(region.terminator, op)
        return op.result


def _strong(type: Type) -> Type:
    return type.strong() if isinstance(type, TensorType) else type


def _scalar_zero(type: Type) -> Constant:
    assert isinstance(type, TensorType)
    return Constant(np.zeros((), numpy_dtype(type.dtype)), TensorType(type.dtype))


def _positions(slot: slice) -> range:
    return range(slot.start, slot.stop)


def _differentiable(type: Type) -> bool:
    return isinstance(type, TensorType) and type.dtype.startswith(("f", "bf", "c"))

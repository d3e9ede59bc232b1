"""Types of structured ops: what goes into a region, comes around and comes out is of one type.

Weak types are no difference here, as in JAX. One rule per op name; a rule returns nothing or raises
``Defect``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stategraph.ir.attributes import Symbol
from stategraph.ir.core import Op, Program, Region, Value
from stategraph.ir.errors import Defect
from stategraph.ir.lanes import is_state_axes, one_lane, shape_of
from stategraph.ir.registry import definition_of
from stategraph.ir.shards import local_type, mesh_sizes, problem
from stategraph.ir.types import KeyType, TensorType, Type


def check_types(program: Program) -> None:
    """Check every op that has a rule of its own, outermost first."""
    _region(program.body)


def same_type(a: Type, b: Type) -> bool:
    """Equal but for the weak flag."""
    if a == b:
        return True
    return isinstance(a, TensorType) and isinstance(b, TensorType) and a.strong() == b.strong()


def stacked(type: Type, length: int) -> Type:
    """``length`` of these along a new first axis."""
    if isinstance(type, TensorType):
        return TensorType(type.dtype, (length, *type.shape), type.weak)
    if isinstance(type, KeyType):
        return KeyType(type.impl, (length, *type.shape))
    return type


def _region(region: Region) -> None:
    for op in region.ops:
        name = op.name
        rule = _RULES.get(name)
        if rule is not None:
            rule(op)
        definition = definition_of(name)
        if definition is not None and (problem := definition.verify(op)) is not None:
            raise Defect(problem, op, "")
        for nested in op.regions:
            _region(nested)


def _types(values: Sequence[Value]) -> list[Type]:
    return [value.type for value in values]


def _match(op: Op, what: str, found: Sequence[Type], other: str, wanted: Sequence[Type]) -> None:
    """``what`` (of types ``found``) has to agree with ``other``."""
    if len(found) != len(wanted):
        raise Defect(
            f"{op.name}: {what} are {len(found)} and {other} are {len(wanted)}",
            op,
            f"make {what} agree with {other}",
        )
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if not same_type(a, b):
            raise Defect(
                f"{op.name}: number {i} of {what} is {a}, of {other} {b}",
                op,
                f"make {what} agree with {other}",
            )


def _regions(op: Op, count: int) -> list[Region]:
    if len(op.regions) != count:
        raise Defect(f"{op.name} has {len(op.regions)} regions and needs {count}", op, "")
    return op.regions


def _attribute(op: Op, name: str, wanted: type) -> None:
    value = op.attributes.get(name)
    if type(value) is not wanted:
        raise Defect(f"{op.name}: attribute {name!r} is {value!r}, not of type {wanted.__name__}", op, "")


def _count(op: Op, name: str, least: int) -> int:
    value = op.attributes.get(name)
    if type(value) is not int or value < least:
        raise Defect(f"{op.name}: attribute {name!r} is {value!r}, not an int of at least {least}", op, "")
    return value


def _scan(op: Op) -> None:
    (body,) = _regions(op, 1)
    length, count = _count(op, "length", 0), _count(op, "carry", 0)
    _attribute(op, "reverse", bool)
    _count(op, "unroll", 1)
    if count > len(op.operands):
        raise Defect(
            f"flow.scan carries {count} values and has {len(op.operands)} operands",
            op,
            "operands are inits, then xs",
        )
    inits, xs = op.operands[:count], op.operands[count:]
    args, yielded = _types(body.args), _types(body.yielded)
    _match(op, "the body's arguments", args[:count], "the initial carries", _types(inits))
    _match(
        op,
        "the stacked inputs",
        _types(xs),
        "the elements in the body",
        [stacked(t, length) for t in args[count:]],
    )
    _match(op, "the carries that the body yields", yielded[:count], "the initial carries", _types(inits))
    _match(op, "the results", _types(op.results), "what the body yields", [
        *yielded[:count], *(stacked(t, length) for t in yielded[count:])
    ])  # fmt: skip


def _while(op: Op) -> None:
    condition, body = _regions(op, 2)
    carries = _types(op.operands)
    _match(op, "the condition's arguments", _types(condition.args), "the initial carries", carries)
    _match(op, "the body's arguments", _types(body.args), "the initial carries", carries)
    # A batched loop has one condition per lane: it runs while any holds, and a lane whose condition fails
    # keeps its carries.
    test = _types(condition.yielded)
    if len(test) != 1 or not isinstance(test[0], TensorType) or test[0].dtype != "bool":
        _match(op, "what the condition yields", test, "a single bool[]", [TensorType("bool")])
    _match(op, "the carries that the body yields", _types(body.yielded), "the initial carries", carries)
    _match(op, "the results", _types(op.results), "the carries", carries)


def _cond(op: Op) -> None:
    if len(op.operands) != 1:
        raise Defect(f"flow.cond has {len(op.operands)} operands and needs one, the branch's index", op, "")
    index = op.operands[0].type
    if (
        not isinstance(index, TensorType)
        or index.shape
        or not (index.dtype == "bool" or index.dtype[0] in "iu")
    ):
        raise Defect(f"flow.cond: the index is {index}, not a bool or an integer", op, "")
    if not op.regions or (index.dtype == "bool" and len(op.regions) != 2):
        needed = "two branches" if index.dtype == "bool" else "a branch"
        raise Defect(
            f"flow.cond with a {index} index has {len(op.regions)} branches and needs {needed}", op, ""
        )
    for i, branch in enumerate(op.regions):
        _match(op, f"the arguments of branch {i}", _types(branch.args), "none", [])
        _match(op, f"what branch {i} yields", _types(branch.yielded), "the results", _types(op.results))


def _body(op: Op, body: Region) -> None:
    _match(op, "the body's arguments", _types(body.args), "the operands", _types(op.operands))
    _match(op, "what the body yields", _types(body.yielded), "the results", _types(op.results))


def _call(op: Op) -> None:
    _attribute(op, "name", str)
    _body(op, _regions(op, 1)[0])


def _remat(op: Op) -> None:
    _body(op, _regions(op, 1)[0])


def _custom_jvp(op: Op) -> None:
    if "recursive" in op.attributes:  # a rule that calls its own function: the rule stands around this op
        _body(op, _regions(op, 1)[0])
        return
    call, jvp = _regions(op, 2)
    _body(op, call)
    operands, results = _types(op.operands), _types(op.results)
    _match(op, "the rule's first arguments", _types(jvp.args[: len(operands)]), "the operands", operands)
    _match(op, "the rule's first results", _types(jvp.yielded[: len(results)]), "the results", results)


def _custom_vjp(op: Op) -> None:
    if "recursive" in op.attributes:
        _body(op, _regions(op, 1)[0])
        return
    call, forward, _ = _regions(op, 3)
    _body(op, call)
    results = _types(op.results)
    _match(op, "the forward rule's arguments", _types(forward.args), "the operands", _types(op.operands))
    _match(
        op,
        "the forward rule's first results",
        _types(forward.yielded[: len(results)]),
        "the results",
        results,
    )


def _grad(op: Op) -> None:
    (body,) = _regions(op, 1)
    _match(op, "the body's arguments", _types(body.args), "the operands", _types(op.operands))
    values = _types(body.yielded)
    _match(op, "the first results", _types(op.results[: len(values)]), "what the body yields", values)
    known = len(values) + len(op.operands)
    if len(op.results) < known or (len(op.results) > known and not op.attributes.get("states")):
        counts = f"{len(op.results)} results for {len(values)} values and {len(op.operands)} gradients"
        raise Defect(
            f"xform.grad has {counts}",
            op,
            "its results are what the body yields, then one gradient per operand and per leaf of its states",
        )
    _symbols(op)


def _symbols(op: Op) -> None:
    states = op.attributes.get("states", ())
    if not isinstance(states, tuple) or not all(isinstance(state, (Symbol, str)) for state in states):
        raise Defect(
            f"{op.name}: attribute 'states' is not a tuple of symbols", op, "write states = (@net.W,)"
        )


def _jvp(op: Op) -> None:
    """Operands: the tangents of the differentiable arguments, then the arguments."""
    body, seeds, outputs = _product(op)
    values = body.yielded
    moved = [_in_lanes(op, value.type) for value in values[:outputs] if _has_tangent(value.type)]
    _match(op, "the last results", _types(op.results[len(values) :]), "the tangents of the outputs", moved)
    if not op.attributes.get("states"):
        wanted = [_in_lanes(op, arg.type) for arg in body.args if _has_tangent(arg.type)]
        _match(op, "the tangents", seeds, "the body's differentiable arguments", wanted)


def _vjp(op: Op) -> None:
    """Operands: the cotangents of the differentiable outputs, then the arguments."""
    body, seeds, outputs = _product(op)
    values = body.yielded
    wanted = [_in_lanes(op, value.type) for value in values[:outputs] if _has_tangent(value.type)]
    _match(op, "the cotangents", seeds, "the body's differentiable outputs", wanted)
    gradients = _types(op.results[len(values) :])
    moved = [_in_lanes(op, arg.type) for arg in body.args if _has_tangent(arg.type)]
    if op.attributes.get("states"):
        gradients = gradients[: len(moved)]
    _match(op, "the last results", gradients, "the body's differentiable arguments", moved)


def _product(op: Op) -> tuple[Region, list[Type], int]:
    """What jvp and vjp have in common: (the body, the types of the tangents or cotangents, how many outputs)."""
    (body,) = _regions(op, 1)
    outputs = _count(op, "outputs", 0)
    lanes = op.attributes.get("lanes")
    if lanes is not None:
        _count(op, "lanes", 0)
    values = _types(body.yielded)
    if outputs > len(values):
        raise Defect(f"{op.name} has {outputs} outputs and its body yields {len(values)} values", op, "")
    seeds = len(op.operands) - len(body.args)
    if seeds < 0:
        raise Defect(f"{op.name} has {len(op.operands)} operands for {len(body.args)} arguments", op, "")
    _match(op, "the body's arguments", _types(body.args), "the last operands", _types(op.operands[seeds:]))
    _match(op, "the first results", _types(op.results[: len(values)]), "what the body yields", values)
    _symbols(op)
    return body, _types(op.operands[:seeds]), outputs


def _in_lanes(op: Op, type: Type) -> Type:
    """The type of a tangent or gradient of a value of this type."""
    lanes = op.attributes.get("lanes")
    return type if lanes is None else stacked(type, lanes)


def _has_tangent(type: Type) -> bool:
    return isinstance(type, TensorType) and type.dtype.startswith(("f", "bf", "c")) and type.dtype != "f0"


def _vmap(op: Op) -> None:
    (body,) = _regions(op, 1)
    size = _count(op, "size", 0)
    if not isinstance(op.attributes.get("axis_name"), (str, type(None))):
        raise Defect(f"xform.vmap: axis_name is {op.attributes['axis_name']!r}, no name", op, "")
    spread = op.attributes.get("spmd_axis_name")
    if not all(
        isinstance(name, (str, type(None))) for name in (spread if isinstance(spread, tuple) else (spread,))
    ):
        raise Defect(f"xform.vmap: spmd_axis_name is {spread!r}, neither a name nor a tuple of names", op, "")
    for name in ("in_states", "out_states"):
        if not is_state_axes(op.attributes.get(name)):
            raise Defect(
                f"xform.vmap: attribute {name!r} is no tuple of (@state, axis)",
                op,
                f"write {name} = ((@net.h, 0),)",
            )
    private = op.attributes.get("private")
    if not isinstance(private, tuple) or not all(isinstance(symbol, Symbol) for symbol in private):
        raise Defect(
            "xform.vmap: attribute 'private' is no tuple of symbols", op, "write private = (@net.h,)"
        )
    _match(
        op,
        "the body's arguments",
        _types(body.args),
        "a lane of the operands",
        _lanes(op, "in_axes", op.operands, size),
    )
    _match(
        op,
        "what the body yields",
        _types(body.yielded),
        "a lane of the results",
        _lanes(op, "out_axes", op.results, size),
    )


def _lanes(op: Op, name: str, values: Sequence[Value], size: int) -> list[Type]:
    """What one lane has of ``values``."""
    axes = op.attributes.get(name)
    if not isinstance(axes, tuple) or not all(axis is None or type(axis) is int for axis in axes):
        raise Defect(f"xform.vmap: attribute {name!r} is {axes!r}, not a tuple of ints and none", op, "")
    if len(axes) != len(values):
        raise Defect(f"xform.vmap: {name} are {len(axes)}, for {len(values)} values", op, "")
    found = []
    for axis, value in zip(axes, values, strict=True):
        if axis is None:
            found.append(value.type)
            continue
        shape = shape_of(value.type)
        if not 0 <= axis < len(shape) or shape[axis] != size:
            raise Defect(f"xform.vmap: {value.type} has no axis {axis} of size {size}", op, f"change {name}")
        found.append(one_lane(value.type, axis))
    return found


def _kernel(op: Op) -> None:
    """A body that sees nothing but its arguments, and pairs (operand, result) of one type that share memory."""
    (body,) = _regions(op, 1)
    _match(op, "the body's arguments", _types(body.args), "the operands", _types(op.operands))
    _match(op, "the results", _types(op.results), "what the body yields", _types(body.yielded))
    aliases = op.attributes.get("aliases")
    if not isinstance(aliases, tuple) or not all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in aliases
    ):
        raise Defect(f"native.kernel: attribute 'aliases' is {aliases!r}, not pairs of ints", op, "")
    for operand, result in aliases:
        if not (0 <= operand < len(op.operands) and 0 <= result < len(op.results)):
            raise Defect(f"native.kernel has no operand {operand} and result {result}", op, "change aliases")
        _match(
            op,
            "the results that take an operand's memory",
            [op.results[result].type],
            "these operands",
            [op.operands[operand].type],
        )
    for side in zip(*aliases, strict=True):
        if len(set(side)) < len(side):
            raise Defect(
                "native.kernel: two results share the memory of one operand, or two operands that of one result",
                op,
                "",
            )


def _shard_map(op: Op) -> None:
    (body,) = _regions(op, 1)
    wrong = problem(op)
    if wrong is not None:
        raise Defect(f"xform.shard_map: {wrong}", op, "")
    sizes = mesh_sizes(op.attributes["mesh"])

    def shards(name: str, values: Sequence[Value]) -> list[Type]:
        try:
            pairs = zip(values, op.attributes[name], strict=True)
            return [local_type(value.type, spec, sizes) for value, spec in pairs]
        except ValueError as error:
            raise Defect(f"xform.shard_map: {error}", op, f"change {name}") from None

    operands, results = shards("in_specs", op.operands), shards("out_specs", op.results)
    _match(op, "the body's arguments", _types(body.args), "a shard of the operands", operands)
    _match(op, "what the body yields", _types(body.yielded), "a shard of the results", results)


def _no_results(op: Op) -> None:
    if op.results or op.regions:
        raise Defect(f"{op.name} has no results and no regions", op, "")


def _read(op: Op) -> None:
    if op.operands or op.regions:
        raise Defect("state.read has no operands and no regions", op, "")


_RULES: dict[str, Callable[[Op], None]] = {
    "flow.yield": _no_results,
    "flow.scan": _scan,
    "flow.while": _while,
    "flow.cond": _cond,
    "flow.call": _call,
    "flow.custom_jvp": _custom_jvp,
    "flow.custom_vjp": _custom_vjp,
    "xform.remat": _remat,
    "native.kernel": _kernel,
    "xform.grad": _grad,
    "xform.vmap": _vmap,
    "xform.shard_map": _shard_map,
    "xform.jvp": _jvp,
    "xform.vjp": _vjp,
    "state.read": _read,
    "state.write": _no_results,
    "state.alloc": _no_results,
}

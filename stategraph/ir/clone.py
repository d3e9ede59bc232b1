"""Copying programs, regions and ops."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from stategraph.ir.core import Constant, Op, Program, Region, Value

ValueMap = dict[Value, Value]


def clone_op(op: Op, values: ValueMap) -> Op:
    """A copy of ``op`` whose operands are looked up in ``values`` (kept when absent); results are added to
    ``values``."""
    new = Op(
        op.name,
        [_copied(operand, values) for operand in op.operands],
        (),
        dict(op.attributes),
        (),
        op.location,
    )
    new.results = [Value(result.type, new, i, result.name) for i, result in enumerate(op.results)]
    for result, copy in zip(op.results, new.results, strict=True):
        values[result] = copy
        copy.event = result.event
    for region in op.regions:
        copied = clone_region(region, values)
        copied.owner = new
        new.regions.append(copied)
    return new


def _copied(operand: Value, values: ValueMap) -> Value:
    """The copy's operand. Constants are copied too (not their arrays): a value shared by two programs would
    keep the users of one alive in the other."""
    if isinstance(operand, Constant):
        return Constant(operand.data, operand.type)
    return values.get(operand, operand)


def clone_region(region: Region, values: ValueMap) -> Region:
    """A copy of ``region``; values defined outside of it are looked up in ``values`` and shared when
    absent."""
    new = Region((arg.type for arg in region.args), (arg.name for arg in region.args))
    for arg, copy in zip(region.args, new.args, strict=True):
        values[arg] = copy
        copy.event = arg.event
    for op in region.ops:
        new.append(clone_op(op, values))
    return new


def clone_ops(ops: Iterable[Op], values: ValueMap) -> list[Op]:
    return [clone_op(op, values) for op in ops]


def clone_program(program: Program) -> Program:
    """An independent copy of a program."""
    return Program(
        name=program.name,
        body=clone_region(program.body, {}),
        states={
            path: attrs.evolve(symbol, attributes=dict(symbol.attributes))
            for path, symbol in program.states.items()
        },
        argument_names=list(program.argument_names),
        argument_tree=program.argument_tree,
        captured=dict(program.captured),
        result_names=list(program.result_names),
        result_tree=program.result_tree,
        attributes=dict(program.attributes),
        location=program.location,
        version=program.version,
    )

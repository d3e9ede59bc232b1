"""Equality: names of values do not count, everything else does. Copies are equal and independent."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stategraph import ir
from stategraph.ir import Location, Op, Program, Rewriter, TensorType
from stategraph.ir.structure import _attribute
from tests.ir.conftest import STEP
from tests.ir.programs import random_program


def rename(program: Program) -> None:
    for op in program.walk():
        for value in (*op.results, *(arg for region in op.regions for arg in region.args)):
            value.name = "renamed"


def test_names_of_values_do_not_count(step: Program) -> None:
    other = step.copy()
    rename(other)
    assert other == step and ir.fingerprint(other) == ir.fingerprint(step)
    assert str(other) != str(step)


def op(program: Program, name: str) -> Op:
    return next(program.walk(name))


CHANGES: list[Callable[[Program], Any]] = [
    lambda p: setattr(p, "name", "other"),
    lambda p: p.argument_names.__setitem__(0, "z"),
    lambda p: p.result_names.__setitem__(0, "z"),
    lambda p: setattr(p, "argument_tree", ir.LEAF),
    lambda p: setattr(p, "result_tree", ir.tuple_tree(ir.LEAF)),
    lambda p: p.captured.__setitem__("table", np.zeros(2, np.float32)),
    lambda p: p.attributes.__setitem__("a", 1),
    lambda p: setattr(p, "location", Location("x.py", 1)),
    lambda p: setattr(p.states["net.h"], "kind", "Other"),
    lambda p: setattr(p.states["net.h"], "born", True),
    lambda p: setattr(p.states["net.h"], "initial", None),
    lambda p: setattr(p.states["net.h"], "final_types", (TensorType("i32"),)),
    lambda p: p.states["net.h"].attributes.__setitem__("batch_axis", 0.0),
    lambda p: setattr(p.states["net.h"], "location", Location("x.py", 1)),
    lambda p: p.states.__setitem__(
        "count", p.states.pop("count").__class__("count", "State", (TensorType("i32"),))
    ),
    lambda p: setattr(op(p, "jax.mul"), "name", "jax.add"),
    lambda p: setattr(op(p, "jax.mul"), "location", Location("x.py", 1)),
    lambda p: op(p, "flow.scan").attributes.__setitem__("reverse", True),
    lambda p: setattr(op(p, "jax.mul").result, "type", TensorType("f32", (3,), True)),
    lambda p: Rewriter().set_operands(op(p, "jax.mul"), op(p, "jax.mul").operands[::-1]),
    lambda p: Rewriter().set_operands(
        op(p, "jax.add"), [op(p, "jax.add").operands[0], ir.Constant(np.int32(2))]
    ),
    lambda p: op(p, "flow.cond").regions.reverse(),
    lambda p: Rewriter().insert_before(op(p, "jax.gt"), Op("jax.k")),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_everything_else_counts(step: Program, number: int) -> None:
    other = step.copy()
    CHANGES[number](other)
    assert other != step
    assert ir.fingerprint(other) != ir.fingerprint(step)


DIFFERENT = [
    1,
    1.0,
    True,
    0,
    0.0,
    -0.0,
    None,
    "1",
    b"1",
    (1,),
    [1],
    {"a": 1},
    {"a": True},
    float("nan"),
    1j,
    complex(-0.0, 1),
]
DIFFERENT += [
    ir.Record("R", (("a", 1),)),
    ir.Record("R", (("a", 1.0),)),
    ir.DType("f32"),
    ir.Symbol("f32"),
    ir.RegionRef(1),
]
DIFFERENT += [ir.Dense(np.zeros(2000)), ir.Dense(np.eye(1, 2000)[0]), ir.Dense(np.zeros(2000, np.int64))]
DIFFERENT += [
    ir.Tree("dict", (ir.LEAF,), (1,)),
    ir.Tree("dict", (ir.LEAF,), (True,)),
    TensorType("f32"),
    ir.EnumValue("A", "B"),
]


def test_attributes_that_python_calls_equal_are_told_apart() -> None:
    keys = [repr(_attribute(value)) for value in DIFFERENT]
    assert len(set(keys)) == len(keys)
    assert all(_attribute(value) == _attribute(value) for value in DIFFERENT)


def test_a_program_is_not_equal_to_something_else(step: Program) -> None:
    assert step != 3


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_is_equal_and_independent(seed: int) -> None:
    program = random_program(seed)
    text = str(program)
    copy = program.copy()
    assert copy == program and str(copy) == text
    ir.verify(copy)
    ids = {id(op) for op in program.walk()} | {id(value) for op in program.walk() for value in op.results}
    assert not any(id(op) in ids or any(id(value) in ids for value in op.results) for op in copy.walk())
    rename(copy)
    for op in list(copy.walk("state.write")):
        Rewriter().erase(op)
    assert str(program) == text


def test_a_copy_shares_no_constant_with_its_original(step: Program) -> None:
    """A shared one would keep the ops of every copy alive."""
    constants = {id(v) for o in step.walk() for v in o.operands if isinstance(v, ir.Constant)}
    assert constants and not any(id(v) in constants for o in step.copy().walk() for v in o.operands)


def test_cloning_ops_maps_values(step: Program) -> None:
    scan = op(step, "flow.scan")
    x = ir.Value(TensorType("f32", (3,)))
    values = {step.body.args[0]: x}
    (copy,) = ir.clone_ops([scan], values)
    assert copy.operands == [scan.operands[0], x] and values[scan.results[0]] is copy.results[0]
    assert copy.parent is None and copy.location is scan.location


def test_functional_form() -> None:
    program = ir.parse(STEP)
    assert not program.functional
    text = """stategraph 1
        program @p() -> () { state @s : S<f32[]>
        %0 = state.read @s : f32[] %1 = jax.neg %0 : f32[] state.write @s, %1
        flow.yield }"""
    program = ir.parse(text)
    assert program.functional
    assert [o.name for o in (*ir.entry_reads(program), *ir.exit_writes(program))] == [
        "state.read",
        "state.write",
    ]
    assert not ir.parse(
        text.replace("state.write @s, %1", "state.write @s, %1 state.write @s, %1")
    ).functional
    assert not ir.parse(text.replace("state.write @s, %1", "state.write @s, %1\n jax.k")).functional

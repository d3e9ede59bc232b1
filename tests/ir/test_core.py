"""Values, ops, regions, programs: what a pass author lives on."""

import pytest

from stategraph import ir
from stategraph.ir import Op, Program, Region, TensorType


def test_walk_is_in_order_and_can_be_narrowed(step: Program) -> None:
    names = [op.name for op in step.walk()]
    assert names[:4] == ["state.read", "state.read", "flow.scan", "state.read"]
    assert [op.symbol for op in step.walk("state.write")] == ["count", "net.h"]
    assert len(list(step.walk("state.read", "state.write"))) == 6
    assert [op.name for op in next(step.walk("flow.call")).walk()][:2] == ["state.alloc", "state.read"]


def test_uses_name_op_and_position() -> None:
    program = ir.parse(
        "stategraph 1 program @p(%x : f32[]) -> () { jax.a %x, %x\n jax.b 1:i32[], %x\n flow.yield }"
    )
    x = program.body.args[0]
    a, b, _ = program.body.ops
    assert x.uses == [(a, 0), (a, 1), (b, 1)] and x.users == [a, b] and x.defining_op is None


def test_result_wants_exactly_one(step: Program) -> None:
    assert next(step.walk("jax.gt")).result.type == TensorType("bool")
    with pytest.raises(ValueError):
        next(step.walk("flow.scan")).result


def test_the_face_of_a_program(step: Program) -> None:
    assert [arg.name for arg in step.arguments] == ["x", "lr"]
    assert [arg.name for arg in step.captured_args] == ["table"]
    assert [value.name for value in step.results] == ["loss"]
    assert step.states["net.W"].nbytes == 16
    assert repr(step) == "<program @step: 25 ops, 3 states>"
    assert str(step) == step.to_text() == ir.print_program(step)


def test_reprs_have_no_addresses(step: Program) -> None:
    op = next(step.walk("jax.gt"))
    texts = [repr(op), repr(op.result), repr(op.operands[1]), repr(op.location), repr(step.states["net.h"])]
    assert texts[0] == "<op %p = jax.gt at model.py:15 (step)>"
    assert not any(" at 0x" in text for text in texts)


def test_ops_and_values_compare_by_identity() -> None:
    assert Op("jax.a") != Op("jax.a")
    assert len({Region(), Region()}) == 2

"""After every edit the program is still valid, and says what it should."""

import random

import pytest

from stategraph import ir
from stategraph.ir import Constant, Op, Program, Rewriter, TensorType, verify
from tests.ir.programs import random_program

REWRITER = Rewriter()


def first(program: Program, name: str) -> Op:
    return next(program.walk(name))


def test_insert_keeps_order_and_gives_a_location(step: Program) -> None:
    anchor = first(step, "jax.gt")
    before, after = Op("jax.a"), Op("jax.b", location=ir.Location("mine.py", 1))
    REWRITER.insert_before(anchor, before)
    REWRITER.insert_after(anchor, after)
    position = step.body.ops.index(anchor)
    assert step.body.ops[position - 1 : position + 2] == [before, anchor, after]
    assert before.location == anchor.location and after.location.file == "mine.py"
    REWRITER.insert_at_start(step.body, start := Op("jax.c"))
    assert step.body.ops[0] is start
    verify(step)


def test_replace_moves_uses_and_the_name(step: Program) -> None:
    old = first(step, "state.read")
    users = old.results[0].users
    new = Op("jax.make", (), [old.results[0].type])
    REWRITER.insert_before(old, new)
    REWRITER.replace(old, new.results)
    assert new.result.users == users and new.result.name == "h"
    assert old.parent is None and old not in step.body.ops
    verify(step)


def test_replace_with_one_op(step: Program) -> None:
    gt = first(step, "jax.gt")
    new = REWRITER.replace_with(gt, Op("jax.lt", gt.operands, [gt.result.type]))
    assert new in step.body.ops and gt not in step.body.ops and new.location == gt.location
    verify(step)


def test_a_value_replaced_by_itself_stays(step: Program) -> None:
    value = step.body.args[0]
    REWRITER.replace_uses(value, value)
    verify(step)


def test_an_operand_taken_twice_is_replaced_twice() -> None:
    program = ir.parse(
        "stategraph 1 program @p(%x : f32[], %y : f32[]) -> () { jax.add %x, %x\n flow.yield }"
    )
    x, y = program.body.args
    REWRITER.replace_uses(x, y)
    assert program.body.ops[0].operands == [y, y] and not x.has_uses and len(y.uses) == 2
    verify(program)


def test_erasing_something_in_use_is_refused(step: Program) -> None:
    with pytest.raises(ValueError, match="is still taken by"):
        REWRITER.erase(first(step, "state.read"))


def test_erasing_a_region_op_lets_go_of_what_it_captured(step: Program) -> None:
    scan, write = first(step, "flow.scan"), step.body.ops[3]
    lr = step.body.args[1]
    assert lr.has_uses
    REWRITER.erase_all([scan, write])
    assert not lr.has_uses
    verify(step)


def test_move_to_another_region(step: Program) -> None:
    inside = first(step, "jax.mul")
    read = first(step, "state.read")
    REWRITER.move_before(read, first(step, "flow.scan"))
    cond = first(step, "flow.cond")
    moved = Op("jax.make", (), [TensorType("f32")])
    REWRITER.insert_before(inside, moved)
    REWRITER.move_before(moved, cond)
    assert moved.parent is step.body
    verify(step)


def test_new_carries_of_a_loop(step: Program) -> None:
    loop = first(step, "flow.while")
    condition, body = loop.regions
    kind = TensorType("f32")
    REWRITER.set_operands(loop, [*loop.operands, Constant(1.0, None)])
    loop.operands[-1].type = kind
    loop.operands[-1].data = loop.operands[-1].data.astype("float32")  # type: ignore[attr-defined]
    REWRITER.add_region_arg(condition, kind, "extra")
    extra = REWRITER.add_region_arg(body, kind)
    REWRITER.set_operands(body.terminator, [*body.yielded, extra])
    result = REWRITER.add_result(loop, kind, "extra")
    assert (result.index, extra.index) == (1, 1)
    verify(step)


def test_an_op_that_stands_nowhere_is_no_anchor() -> None:
    with pytest.raises(ValueError, match="stands in no region"):
        REWRITER.insert_before(Op("jax.a"), Op("jax.b"))


@pytest.mark.parametrize("seed", range(30))
def test_random_edits_keep_programs_valid(seed: int) -> None:
    """Erase unused pure ops, and replace values by others of their type that are defined before."""
    rng = random.Random(seed)
    program = random_program(seed, 20)
    for _ in range(30):
        region = rng.choice([program.body, *(r for op in program.walk() for r in op.regions)])
        op = rng.choice(region.ops)
        if op.name != "flow.yield" and ir.is_pure(op) and not any(r.has_uses for r in op.results):
            REWRITER.erase(op)
        elif op.results:
            earlier = [r for other in region.ops[: region.ops.index(op)] for r in other.results]
            same = [value for value in (*region.args, *earlier) if value.type == op.results[0].type]
            if same:
                REWRITER.replace_uses(op.results[0], rng.choice(same))
    verify(program)
    assert ir.parse(str(program)) == program

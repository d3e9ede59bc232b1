"""A valid program passes; each kind of defect is refused, and named."""

from collections.abc import Callable

import numpy as np
import pytest

from stategraph import ir
from stategraph.ir import Constant, Op, Program, Region, Rewriter, TensorType, VerifyError, verify
from tests.ir.conftest import STEP
from tests.ir.programs import random_program

F32, I32, BOOL = TensorType("f32"), TensorType("i32"), TensorType("bool")


def first(program: Program, name: str) -> Op:
    return next(program.walk(name))


def refused(program: Program) -> VerifyError:
    with pytest.raises(VerifyError) as caught:
        verify(program)
    return caught.value


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_are_valid(seed: int) -> None:
    verify(random_program(seed))


# ---------------------------------------------------------------------------------------- defects in the text

TEXT_DEFECTS = [
    ("xs(%e = %x : f32[])", "xs(%e = %x : i32[])", "flow.scan: number 0 of the stacked inputs is f32[3]"),
    ("flow.yield %1, %2", "flow.yield %2, %2", "number 0 of the carries that the body yields is f32[]"),
    ("flow.yield %1, %2", "flow.yield %1", "the results are 2 and what the body yields are 1"),
    ("[length = 3]", "[length = 4]", "number 0 of the stacked inputs is f32[3]"),
    ("[length = 3]", "[length = -1]", "attribute 'length' is -1"),
    ("[length = 3]", "[length = 3, unroll = true]", "attribute 'unroll' is True"),
    ("[length = 3]", "[length = 3, reverse = 0]", "attribute 'reverse' is 0"),
    ("%last, %ys = flow.scan", "%last, %ys = flow.skan", "expected"),
    (": f32[3], f32[3] #2 {", ": f32[3], i32[3] #2 {", "number 1 of the results is i32[3]"),
    ("flow.yield %3\n", "flow.yield %j\n", "what the condition yields is f32[]"),
    ("flow.yield %4\n", "flow.yield 1:i32[]\n", "number 0 of the carries that the body yields is i32[]"),
    ("carry(%j = %e : f32[])", "carry(%j = %x : f32[])", "number 0 of the condition's arguments is f32[]"),
    ("flow.cond %p : f32[]", "flow.cond %h : f32[]", "the index is f32[3]"),
    ("    flow.yield %b\n  } branch 1", "    flow.yield %h\n  } branch 1", "what branch 0 yields is f32[3]"),
    ("    flow.yield %5", "    flow.yield", "what branch 1 yields are 0 and the results are 1"),
    (
        "flow.call @square(%v = %b : f32[])",
        "flow.call @square(%v = %h : f32[])",
        "the body's arguments is f32[]",
    ),
    ("%h = state.read @net.h", "%h = state.read @net.g", "there is no State @net.g here"),
    ("%n = state.read @count : i32[]", "%n = state.read @count : f32[]", "this reads State @count as f32[]"),
    ("state.write @count, %0", "state.write @count, %e", "this changes State @count from i32[] to f32[]"),
    (
        "state.write @net.h, %last",
        "state.write @net.h, %b",
        "State @net.h ends as f32[], and the table says f32[3]",
    ),
    ("state.write @net.h, %last", "state.write @local, %b", "there is no State @local here"),
    ("state.alloc @local = %v", "state.alloc @net.h = %v", "State @net.h exists already"),
    ("state.alloc @local = %v", "state.write @local, %v", "there is no State @local here"),
    ("= jax.gt %b", "= jaxx.gt %b", "no op is called 'jaxx.gt'"),
    ("host.debug_print", "host.debug_prin", "no op is called 'host.debug_prin'"),
    ("  flow.yield %loss\n", "", "the program's body does not end with flow.yield"),
    ("  %p = jax.gt", "  flow.yield\n  %p = jax.gt", "flow.yield is not the last op of its region"),
    ("tree * {", "tree (*, *) {", "the result tree has 2 leaves for 1 results"),
    ("%lr : f32[])", "%lr : f32[]) tree *", "the argument tree has 1 leaves for 2 arguments"),
    (
        'ParamState<{"b": f32[], "w": f32[3]}>',
        'ParamState<{"b": f32[]*, "w": f32[3]}>',
        "has the weak type f32[]*",
    ),
    ("%table : f32[2]", "%table : f32[3]", "captured array 'table' has type f32[2]"),
    ("= [$1] #0", "= [$0] #0", "the initial value of State @net.h has types (f32[2])"),
    ("state @count", "state born @count", "there is no State @count here"),
]


@pytest.mark.parametrize(("old", "new", "message"), TEXT_DEFECTS)
def test_a_defect_is_named(old: str, new: str, message: str) -> None:
    assert old in STEP
    text = STEP.replace(old, new, 1)
    try:
        program = ir.parse(text)
    except ir.ParseError as error:
        assert message in str(error)
        return
    assert message in refused(program).message


# ------------------------------------------------------------------------------ defects that text cannot hold


def use_before_definition(program: Program) -> None:
    program.body.ops.insert(0, program.body.ops.pop(3))


def use_from_an_ended_region(program: Program) -> None:
    inner = first(program, "jax.mul").result
    Rewriter().set_operands(program.body.terminator, [inner])


def use_of_an_erased_op(program: Program) -> None:
    Rewriter().set_operands(program.body.terminator, [Op("jax.make", (), [F32]).result])


def use_of_a_foreign_value(program: Program) -> None:
    Rewriter().set_operands(program.body.terminator, [ir.Value(F32)])


def operand_changed_in_place(program: Program) -> None:
    add = first(program, "jax.add")
    add.operands[0] = add.operands[1]


def user_forgotten(program: Program) -> None:
    program.body.args[0]._users.clear()


def user_too_many(program: Program) -> None:
    program.body.args[0]._users.append(program.body.terminator)


def user_of_an_unused_value(program: Program) -> None:
    first(program, "flow.scan").results[1]._users.append(program.body.terminator)


def wrong_parent(program: Program) -> None:
    first(program, "jax.add").parent = program.body


def region_shared_by_two_ops(program: Program) -> None:
    cond = first(program, "flow.cond")
    call = first(program, "flow.call")
    cond.regions[0] = call.regions[0]


def op_placed_twice(program: Program) -> None:
    program.body.ops.insert(1, program.body.ops[0])


def result_of_another_op(program: Program) -> None:
    first(program, "state.read").results[0].index = 3


def no_location(program: Program) -> None:
    first(program, "jax.add").location = None  # type: ignore[assignment]


def body_of_another_program(program: Program) -> None:
    program.body.owner = None


def wrong_constant(program: Program) -> None:
    Rewriter().set_operands(program.body.terminator, [Constant(np.int32(1), F32)])


def empty_region(program: Program) -> None:
    first(program, "flow.call").regions[0].ops.clear()


def too_many_names(program: Program) -> None:
    program.argument_names.append("z")


def too_few_result_names(program: Program) -> None:
    program.result_names.clear()


def captured_renamed(program: Program) -> None:
    program.argument_names[-1] = "other"


def symbol_renamed(program: Program) -> None:
    program.states["net.h"].path = "net.g"


def state_of_wrong_tree(program: Program) -> None:
    program.states["net.h"].tree = ir.tuple_tree()


def no_symbol(program: Program) -> None:
    del first(program, "state.write").attributes["symbol"]


OBJECT_DEFECTS: list[tuple[Callable[[Program], None], str]] = [
    (use_before_definition, "operand 0 of state.write is not visible here: flow.scan defines it later"),
    (use_from_an_ended_region, "is not visible here: jax.mul defines it later, or in a region that ended"),
    (use_of_an_erased_op, "jax.make defines it by something that was removed"),
    (use_of_a_foreign_value, "is defined nowhere"),
    (operand_changed_in_place, "the uses of value 0 are out of date: 1 noted, 0 real"),
    (user_forgotten, "the uses of value 0 are out of date: 0 noted, 1 real"),
    (user_too_many, "the uses of value 0 are out of date: 2 noted, 1 real"),
    (user_of_an_unused_value, "the uses of value 1 are out of date: 1 noted, 0 real"),
    (wrong_parent, "jax.add stands in a region that is not its parent"),
    (region_shared_by_two_ops, "a region of flow.cond belongs to another op"),
    (op_placed_twice, "is defined twice"),
    (result_of_another_op, "has another owner or position"),
    (no_location, "jax.add has no location"),
    (body_of_another_program, "the program's body does not know its program"),
    (wrong_constant, "a constant of flow.yield has type f32[] and holds i32[]"),
    (empty_region, "a region of flow.call does not end with flow.yield"),
    (too_many_names, "the program names 4 arguments and has 3"),
    (too_few_result_names, "names 0 results and yields 1"),
    (captured_renamed, "the last argument names are not those of the captured arrays"),
    (symbol_renamed, "holds @net.g under the name 'net.h'"),
    (state_of_wrong_tree, "State @net.h has 1 types for a tree of 0 leaves"),
    (no_symbol, "names no State"),
]


@pytest.mark.parametrize(("break_it", "message"), OBJECT_DEFECTS)
def test_a_broken_object_is_named(step: Program, break_it: Callable[[Program], None], message: str) -> None:
    break_it(step)
    assert message in refused(step).message


# -------------------------------------------------------------------------------------------- States in order

HEAD = "stategraph 1\nprogram @p(%x : f32[], %y : i32[]) -> () {\n"


def check(body: str) -> str:
    """The verifier's sentence about a program with this body, empty when it is valid."""
    program = ir.parse(HEAD + body + "\nflow.yield }")
    try:
        verify(program)
    except VerifyError as error:
        return error.message
    return ""


LEGAL = {
    "a type may change in straight-line code": """
        state @s : State<f32[]> -> <i32[]>
        state.write @s, %y
        %0 = state.read @s : i32[]""",
    "a type may change in a call": """
        state @s : State<f32[]> -> <i32[]>
        flow.call @f() { state.write @s, %y flow.yield }""",
    "a type may change alike in all branches": """
        state @s : State<f32[]> -> <i32[]>
        flow.cond true:bool[] branch 0 { state.write @s, %y flow.yield }
                               branch 1 { state.write @s, 1:i32[] flow.yield }
        %0 = state.read @s : i32[]""",
    "a local State may change its type in its own loop body": """
        flow.scan [length = 2] { state.alloc @s = %x state.write @s, %y
                                 %0 = state.read @s : i32[] flow.yield }""",
    "a State may be born": """
        state born @s : State<f32[]>
        state.alloc @s = %x
        %0 = state.read @s : f32[]""",
    "a State may be born by a write, in functional form": """
        state born @s : State<f32[]>
        state.write @s, %x""",
    "a State may be born in all branches": """
        state born @s : State<f32[]>
        flow.cond true:bool[] branch 0 { state.write @s, %x flow.yield }
                               branch 1 { state.write @s, %x flow.yield }""",
    "a derivative rule may have States of its own": """
        %0 = flow.custom_jvp %x : f32[] call(%a : f32[]) { flow.yield %a } jvp(%b : f32[], %c : f32[]) {
          state.alloc @t = %b state.write @t, %c flow.yield %b, %c }""",
    "a weak value may be written": """
        state @s : State<f32[]>
        state.write @s, 1.0:f32[]*""",
}

ILLEGAL = {
    """ state @s : State<f32[]> -> <i32[]>
        flow.scan [length = 2] { state.write @s, %y flow.yield }""": "in a body that may run many times",
    """ state @s : State<f32[]> -> <i32[]>
        flow.while cond { flow.yield true:bool[] }
                   body { state.write @s, %y flow.yield }""": "may run many times",
    """ state @s : State<f32[]> -> <i32[]>
        flow.cond true:bool[] branch 0 { state.write @s, %y flow.yield } branch 1 { flow.yield }""": (
        "branch 0 leaves State @s as i32[], branch 1 as f32[]"
    ),
    """ state @s : State<f32[]>
        state.write @s, %y""": "State @s ends as i32[], and the table says f32[]",
    """ state born @s : State<f32[]>""": "State @s is born in this program, and nothing gives it a value",
    """ state born @s : State<f32[]>
        state.alloc @s = %y""": "State @s is born as i32[], and the State table says f32[]",
    """ state born @s : State<f32[]>
        flow.scan [length = 2] { state.alloc @s = %x flow.yield }""": "is born in a loop",
    """ state born @s : State<f32[]>
        flow.cond true:bool[] branch 0 { state.write @s, %x flow.yield } branch 1 { flow.yield }""": (
        "State @s is born in some branches only"
    ),
    """ state.alloc @s = %x
        state.alloc @s = %x""": "State @s exists already",
    """ flow.call @f() { state.alloc @s = %x flow.yield }
        flow.call @f() { state.alloc @s = %x flow.yield }""": "State @s exists already",
    """ flow.call @f() { state.alloc @s = %x flow.yield }
        %0 = state.read @s : f32[]""": "there is no State @s here",
    """ state @s : State<f32[]>
        %0 = flow.custom_jvp %x : f32[] call(%a : f32[]) { flow.yield %a } jvp(%b : f32[], %c : f32[]) {
          state.write @s, %b flow.yield %b, %c }""": "a derivative rule writes State @s",
    """ %0 = flow.custom_jvp %x : f32[] call(%a : f32[]) { flow.yield %a }""": "has 1 regions and needs 2",
    """ %0 = flow.custom_vjp %x : f32[] call(%a : f32[]) { flow.yield %a }
          fwd { flow.yield %x } bwd { flow.yield }""": ("the forward rule's arguments are 0"),
    """ %0 = xform.grad (%a = %x : f32[]) : f32[] { flow.yield %a }""": (
        "xform.grad has 1 results for 1 values and 1 gradients"
    ),
    """ flow.cond %y""": "has 0 branches and needs a branch",
    """ flow.cond true:bool[] branch 0 { flow.yield }""": "has 1 branches and needs two branches",
    """ flow.cond %y, %y branch 0 { flow.yield }""": "has 2 operands and needs one",
    """ "flow.scan" {carry = 3, length = 1, reverse = false, unroll = 1}
          region { flow.yield }""": "carries 3 values",
    """ "flow.while" region { flow.yield }""": "flow.while has 1 regions and needs 2",
    """ %0 = state.alloc @s = %x : f32[]""": "state.alloc has no results",
}


@pytest.mark.parametrize("what", LEGAL)
def test_states(what: str) -> None:
    assert check(LEGAL[what]) == ""


@pytest.mark.parametrize("body", ILLEGAL)
def test_misused_states_and_ops(body: str) -> None:
    assert ILLEGAL[body] in check(body)


# --------------------------------------------------------------------------------------------------- messages


def test_the_message_shows_the_op_the_users_line_and_a_hint(tmp_path) -> None:
    source = tmp_path / "model.py"
    source.write_text("import jax\nx = jnp.add(a, b)\n")
    place = ir.Location(str(source), 2, "step")
    body = Region([F32], ["x"])
    body.append(Op("jaxx.add", (body.args[0],), (F32,), location=place))
    body.yield_([])
    error = refused(Program("p", body, {}, ["x"], ir.tuple_tree(ir.LEAF)))
    assert str(error) == (
        "no op is called 'jaxx.add'.\n"
        "   | %0 = jaxx.add %x : f32[]\n"
        "   |      ^\n"
        f"  at:   {source}:2 (step)\n"
        "          x = jnp.add(a, b)\n"
        "  hint: register it with register_op(name, effects=...)"
    )
    assert error.op is body.ops[0]


def test_a_misspelt_op_gets_a_suggestion(step: Program) -> None:
    first(step, "flow.while").name = "flow.wile"
    assert "do you mean 'flow.while'?" in str(refused(step))


def test_a_plugins_own_check_is_asked() -> None:
    if ir.definition_of("test.even") is None:
        ir.register_op(
            "test.even",
            effects=ir.no_effects,
            verify=lambda op: None if len(op.operands) % 2 == 0 else "test.even takes pairs",
        )
    assert check("test.even %x, %y") == ""
    assert check("test.even %x") == "test.even takes pairs"


def test_a_program_too_broken_to_print_is_still_reported(step: Program) -> None:
    step.body.ops[0].results[0].type = None  # type: ignore[assignment]
    step.body.ops[0].location = 3  # type: ignore[assignment]
    assert refused(step).message == "state.read has no location"

"""Errors of the parser: where, and what was expected."""

import pytest

from stategraph import ir
from stategraph.errors import StateGraphError
from stategraph.ir import ParseError, parse
from tests.ir.conftest import STEP

HEAD = "stategraph 1\nprogram @p(%x : f32[3]) -> () {\n"


def error(text: str) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(text, "m.sg")
    return caught.value


ERRORS = [
    ("", 1, 1, "expected 'stategraph', found end of text"),
    ("stategraph 2\n", 1, 12, "this text has format 2, and this StateGraph reads formats 1 to 1"),
    ("stategraph x", 1, 12, "expected the version of the format, found 'x'"),
    ("stategraph 1\nprogram p", 2, 9, "expected a path such as @net.h, found 'p'"),
    (HEAD + "  %y = jax.add %x, %z : f32[3]", 3, 20, "%z is not defined here"),
    (HEAD + "  %yy = jax.neg %x : f32[3]\n  jax.neg %y", 4, 11, "%y is not defined here; do you mean %yy?"),
    (HEAD + "  %x = jax.neg %x : f32[3]", 3, 3, "%x is defined twice"),
    (HEAD + "  %y, %y = jax.neg %x : f32[3], f32[3]", 3, 7, "%y is defined twice"),
    (HEAD + "  %y = jax.neg %x", 3, 3, "jax.neg defines 1 values and names 0 types"),
    (HEAD + "  %y = jax.neg %x : f33[3]", 3, 21, "there is no dtype 'f33'"),
    (HEAD + "  %y = jax.neg %x : 3", 3, 21, "expected a type such as f32[3], found '3'"),
    (HEAD + "  jax.neg %x {a = 1, a = 2}", 3, 22, "attribute 'a' is given twice"),
    (HEAD + "  jax.neg %x {a = }", 3, 19, "expected the value of an attribute, found '}'"),
    (HEAD + "  jax.neg %x {a = a.b.c}", 3, 19, "expected a dtype, ENUM.MEMBER or another value"),
    (HEAD + "  jax.neg %x {a = 0x1}", 3, 19, "bits in hexadecimal stand for an element of an array only"),
    (HEAD + "  jax.neg %x {a = (1 2)}", 3, 22, "expected ',' or ')', found '2'"),
    (HEAD + "  jax.neg %x {a = {[]: 1}}", 3, 20, "this cannot be a key"),
    (HEAD + '  jax.neg %x {a = "\\q"}', 3, 19, "there is no escape \\q"),
    (HEAD + '  jax.neg %x {a = bytes<"x">}', 3, 25, "expected bytes in hexadecimal"),
    (HEAD + '  jax.neg %x {a = "', 3, 19, "this string does not end"),
    (HEAD + "  jax.neg 1.0:i32[]", 3, 11, "1.0 is no i32"),
    (HEAD + "  jax.neg 300:u8[]", 3, 11, "300"),
    (HEAD + "  jax.neg true:i32[]", 3, 11, "true is no i32"),
    (HEAD + "  jax.neg [1, 2]:i32[3]", 3, 11, "i32[3] takes 3 elements, found 2"),
    (HEAD + "  jax.neg 1:key<fry>[]", 3, 11, "a literal has a tensor type, not key<fry>[]"),
    (HEAD + "  jax.neg $3:f32[]", 3, 11, "there is no resource $3 at the end of the text"),
    (HEAD + "  jax.neg %x #7", 3, 14, "there is no location #7 at the end of the text"),
    (HEAD + "  jax.neg %x ?", 3, 14, "'?' begins nothing that is known here"),
    (HEAD + "  flow.yield", 3, 13, "expected '}' or an op, found end of text"),
    (HEAD + "  flow.yield } }", 3, 16, "expected the end of the program, found '}'"),
    (HEAD + "  flow.scan [length = 1] carry(%c %x) { flow.yield }", 3, 35, "expected '=', found '%x'"),
    (HEAD + "  flow.while body { flow.yield }", 3, 14, "expected 'cond', found 'body'"),
    (HEAD + "  flow.cond %x branch 1 { flow.yield }", 3, 23, "expected branch 0"),
    (HEAD + "  state @s : S<f32[]> state @s : S<f32[]>", 3, 29, "two States are called @s"),
    (
        "stategraph 1\nprogram @p(%x : f32[3]) -> (y : i32[]) {\n  flow.yield %x\n}",
        2,
        33,
        "yields f32[3] here, not i32[]",
    ),
    (STEP.replace('"AACAPwAAAEA="', '"AACAPw=="'), 50, 8, "do not fit: f32[2] takes 8 bytes, found 4"),
    (STEP.replace('"AACAPwAAAEA="', '"!"'), 50, 8, "the bits of resource $0 do not fit"),
    (STEP + "x", 53, 1, "expected the end of the text, found 'x'"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), ERRORS)
def test_errors_say_where_and_what(text: str, line: int, column: int, message: str) -> None:
    found = error(text)
    assert message in found.message
    assert (found.line, found.column) == (line, column)


def test_an_error_shows_the_line_and_a_caret() -> None:
    assert str(error(HEAD + "  %y = jax.add %x, %z : f32[3]\n}")) == (
        "m.sg:3:20: %z is not defined here\n  3 |   %y = jax.add %x, %z : f32[3]\n    |                    ^"
    )


def test_parse_errors_are_this_projects() -> None:
    assert issubclass(ParseError, StateGraphError)
    assert issubclass(ir.VerifyError, StateGraphError)


def test_no_text_ends_in_another_exception() -> None:
    """Every prefix of a program, and every program with one token left out, parses or is a ParseError."""
    tokens = STEP.split(" ")
    for i in range(0, len(tokens)):
        for text in (" ".join(tokens[:i]), " ".join([*tokens[:i], *tokens[i + 1 :]])):
            try:
                parse(text)
            except ParseError:
                pass


def test_space_and_comments_are_free() -> None:
    program = parse(
        """// a comment
        stategraph 1 program @p ( %x : f32[] , )   // "another"
        -> ( y , ) tree * { %0 = jax.neg %x : f32[] %1 = jax.neg %0 : f32[] flow.yield %1 }"""
    )
    assert [op.name for op in program.walk()] == ["jax.neg", "jax.neg", "flow.yield"]


def test_operands_begin_on_the_line_of_the_op() -> None:
    program = parse(HEAD + "jax.noop\n%y = jax.neg %x : f32[3]\nflow.yield }")
    assert [len(op.operands) for op in program.walk()] == [0, 1, 0]


def test_sibling_regions_may_use_the_same_names() -> None:
    branch = "{ %a = jax.k : f32[] flow.yield }"
    text = f"flow.cond true:bool[] branch 0 {branch} branch 1 {branch}"
    ir.verify(parse(HEAD + text + " flow.yield }"))


def test_names_of_a_region_end_with_it() -> None:
    text = HEAD + "flow.cond true:bool[] branch 0 { %a = jax.k : f32[] flow.yield }\n jax.neg %a"
    assert "%a is not defined here" in error(text).message


def test_the_generic_form_of_a_structured_op_is_read_too() -> None:
    nice = parse(HEAD + "%y = flow.call @f(%a = %x : f32[3]) : f32[3] { flow.yield %a } flow.yield }")
    generic = parse(
        HEAD + '%y = "flow.call" %x {name = "f"} : f32[3] region(%a : f32[3]) { flow.yield %a } flow.yield }'
    )
    assert nice == generic

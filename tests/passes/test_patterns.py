"""Pattern rewriting: reading rules, matching bit by bit, stopping in time."""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import ir
from stategraph.passes import Context, PassError
from stategraph.passes.manager import PassManager
from stategraph.passes.patterns import Pattern, PatternRewriter, apply_patterns, kind_of, rule, rules


def body(lines: str, args: str = "%x : f32[], %i : i32[]", result: str = "f32[]") -> ir.Program:
    return ir.parse(f"stategraph 1\nprogram @p({args}) -> (out : {result}) {{\n{lines}\n}}\n")


def rewritten(program: ir.Program, *patterns: Pattern, exactness: str = "reduction-order") -> str:
    apply_patterns(program, patterns, Context(program, exactness))
    (value,) = program.results
    if isinstance(value, ir.Constant):
        return str(value.data)
    return value.name if value.defining_op is None else value.defining_op.name  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "lines", "outcome"),
    [
        ("jax.neg(jax.neg(x)) -> x", "%a = jax.neg %x : f32[]\n%b = jax.neg %a : f32[]\nflow.yield %b", "x"),
        (
            "jax.neg(jax.neg(x)) -> x",
            "%a = jax.sin %x : f32[]\n%b = jax.neg %a : f32[]\nflow.yield %b",
            "jax.neg",
        ),
        ("jax.sub(x, x) -> 0", "%a = jax.sub %x, %x : f32[]\nflow.yield %a", "0.0"),
        ("jax.sub(x:int, x) -> 0", "%a = jax.sub %x, %x : f32[]\nflow.yield %a", "jax.sub"),
        ("jax.add(x, 0) -> x", "%a = jax.add 0.0:f32[], %x : f32[]\nflow.yield %a", "x"),
        ("jax.add(x, 0) -> x", "%a = jax.add -0.0:f32[], %x : f32[]\nflow.yield %a", "jax.add"),
        ("jax.sub(x, 0) -> x", "%a = jax.sub 0.0:f32[], %x : f32[]\nflow.yield %a", "jax.sub"),
        ("jax.sub(0, x) -> jax.neg(x)", "%a = jax.sub 0.0:f32[], %x : f32[]\nflow.yield %a", "jax.neg"),
        ("jax.add(x, 0.5) -> x", "%a = jax.add 0.5:f32[], %x : f32[]\nflow.yield %a", "x"),
        ("jax.mul(x, 1) -> x", "%a = jax.mul %x, 1.0:f32[]* : f32[]*\nflow.yield %a", "jax.mul"),
    ],
)
def test_a_line_of_algebra_matches_exactly_what_it_says(text: str, lines: str, outcome: str) -> None:
    result = "f32[]*" if "f32[]*\n" in lines else "f32[]"
    assert rewritten(body(lines, result=result), rule(text)) == outcome


def test_numbers_match_constants_spread_by_a_broadcast() -> None:
    lines = "%z = jax.broadcast_in_dim 0:i32[] {shape = (3,), broadcast_dimensions = ()} : i32[3]\n"
    lines += "%a = jax.add %i, %z : i32[3]\nflow.yield %a"
    assert rewritten(body(lines, "%i : i32[3]", "i32[3]"), rule("jax.add(x:int, 0) -> x")) == "i"


def test_a_table_holds_one_rule_a_line() -> None:
    table = rules("fast-math", "jax.add(x, 0) -> x   # zero\n\n  # only a comment\njax.mul(x, 1) -> x")
    assert [(pattern.name, pattern.exactness) for pattern in table] == [
        ("jax.add(x, 0) -> x", "fast-math"),
        ("jax.mul(x, 1) -> x", "fast-math"),
    ]


def test_rules_beyond_the_exactness_are_not_applied() -> None:
    lines = "%a = jax.mul %x, 0.0:f32[] : f32[]\nflow.yield %a"
    sloppy = rule("jax.mul(x, 0) -> 0", "fast-math")
    assert rewritten(body(lines), sloppy) == "jax.mul"
    assert rewritten(body(lines), sloppy, exactness="fast-math") == "0.0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jax.neg(x)", "not of the form"),
        ("x -> x", "not of the form"),
        ("jax.neg(x) -> y", "y is not bound"),
        ("jax.neg(x:odd) -> x", "cannot read 'x:odd'"),
        ("jax.neg(x -> x", "expected ')'"),
        ("jax.neg x -> x", "expected '('"),
        ("jax.neg(x) -> x x", "is left over"),
        ("jax.neg(x) -> $", "cannot read '$'"),
        ("jax.neg(x) ->", "ends too early"),
    ],
)
def test_a_rule_that_cannot_be_read_is_an_error(text: str, message: str) -> None:
    with pytest.raises(PassError, match=re.escape(message)):
        rule(text)


def test_patterns_that_undo_each_other_are_stopped_and_named() -> None:
    program = body("%a = jax.add %x, %x : f32[]\nflow.yield %a")
    there, back = rule("jax.add(x, x) -> jax.mul(x, 2)"), rule("jax.mul(x, 2) -> jax.add(x, x)")
    context = Context(program)
    with pytest.warns(UserWarning, match="undo each other") as caught:
        applied = apply_patterns(program, [there, back], context)
    assert there.name in str(caught[0].message) and back.name in str(caught[0].message)
    assert sum(applied.values()) == 68  # four times the one op that could match, and 64
    assert context.explanations[0].numbers == {"rewrites": 68}
    ir.parse(str(program))


def test_rewrites_lead_to_rewrites_in_the_users() -> None:
    lines = (
        "\n".join(f"%v{k} = jax.neg %{f'v{k - 1}' if k else 'x'} : f32[]" for k in range(100))
        + "\nflow.yield %v99"
    )
    assert rewritten(body(lines), rule("jax.neg(jax.neg(x)) -> x")) == "x"


def test_a_pattern_class_sees_attributes_and_new_ops_get_the_place_of_the_old() -> None:
    class Rename(Pattern):
        name = "rename"
        ops = ("jax.old",)

        def rewrite(self, op: ir.Op, rewriter: PatternRewriter) -> bool:
            rewriter.replace_with(op, ir.Op("jax.new", op.operands, [op.result.type], dict(op.attributes)))
            return True

    program = body("%a = jax.old %x {k = 1} : f32[]\nflow.yield %a")
    program.body.ops[0].location = ir.Location("m.py", 3)
    assert rewritten(program, Rename()) == "jax.new"
    op = program.body.ops[0]
    assert (op.attributes, op.location.line) == ({"k": 1}, 3)


def test_kinds_of_dtypes() -> None:
    assert [kind_of(d) for d in ("f32", "bf16", "f8_e4m3fn", "i4", "u8", "c64", "bool")] == [
        *["float"] * 3,
        *["int"] * 2,
        "complex",
        "bool",
    ]
    assert np.dtype(bool).kind == "b"


@pytest.mark.core
def test_unstack_is_slices_without_their_axis() -> None:
    """Newer versions of JAX have an op for it, also for keys."""
    text = """stategraph 1

    program @f(%k : key<fry>[2], %x : f32[3,2]) -> (a : key<fry>[], b : key<fry>[], c : f32[3], d : f32[3]) {
      %0, %1 = jax.unstack %k {axis = 0} : key<fry>[], key<fry>[]
      %2, %3 = jax.unstack %x {axis = 1} : f32[3], f32[3]
      flow.yield %0, %1, %2, %3
    }
    """
    program = PassManager("algebra").run(ir.parse(text)).program
    ops = program.body.ops[:-1]
    assert [op.name for op in ops] == ["jax.slice", "jax.squeeze"] * 4
    begins = [(op.attributes["start_indices"], op.attributes["limit_indices"]) for op in ops[::2]]
    assert begins == [((0,), (1,)), ((1,), (2,)), ((0, 0), (3, 1)), ((0, 1), (3, 2))]
    assert [op.attributes["dimensions"] for op in ops[1::2]] == [(0,), (0,), (1,), (1,)]
    assert program.body.yielded == [op.result for op in ops[1::2]]


@pytest.mark.core
def test_no_unstack_is_left_after_the_default_pipeline() -> None:
    def parts(x: Any) -> Any:
        first, second = jnp.unstack(x)
        return first - 2.0 * second

    lowered = sg.trace(parts, jnp.arange(6.0).reshape(2, 3)).lower()
    assert "jax.unstack" not in [op.name for op in lowered.program.walk()]
    assert np.array_equal(lowered.compile()(jnp.arange(6.0).reshape(2, 3)), [-6.0, -7.0, -8.0])

"""Folding: what is evaluated, what never is."""

from __future__ import annotations

import numpy as np
import pytest

from stategraph import ir
from stategraph.passes import hooks, run_passes

ADD = {"jax.add": np.add, "jax.mul": np.multiply, "jax.sub": np.subtract}


def evaluate(op: ir.Op) -> list[np.ndarray] | None:
    if op.name not in ADD:
        return None
    return [np.asarray(ADD[op.name](*(operand.data for operand in op.operands)))]  # type: ignore[attr-defined]


@pytest.fixture
def evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_evaluator", evaluate)


def folded(lines: str, result: str = "f32[]", pipeline: str = "fold-constants") -> ir.Program:
    text = f"stategraph 1\nprogram @p(%x : f32[], %y : f32[3]) -> (out : {result}) {{\n{lines}\n}}\n"
    return run_passes(ir.parse(text), pipeline).program


def ops(program: ir.Program) -> list[str]:
    return [op.name for op in program.walk()][:-1]


@pytest.mark.usefixtures("evaluator")
def test_chains_of_constants_are_evaluated_in_loops_too() -> None:
    program = folded(
        """%a = jax.add 1.5:f32[], 2.0:f32[] : f32[]
        %r = flow.scan [length = 2] carry(%c = %x : f32[]) : f32[] {
          %b = jax.mul %a, %a : f32[]
          %d = jax.add %c, %b : f32[]
          flow.yield %d
        }
        flow.yield %r"""
    )
    assert ops(program) == ["flow.scan", "jax.add", "flow.yield"]
    (constant,) = (v for op in program.walk("jax.add") for v in op.operands if isinstance(v, ir.Constant))
    assert (float(constant.data), str(constant.type)) == (12.25, "f32[]")


@pytest.mark.usefixtures("evaluator")
def test_a_folded_index_takes_its_branch() -> None:
    program = folded(
        """%i = jax.add 0:i32[], 1:i32[] : i32[]
        %r = flow.cond %i : f32[] branch 0 {
          flow.yield 5.0:f32[]
        } branch 1 {
          %s = jax.sin %x : f32[]
          flow.yield %s
        }
        flow.yield %r"""
    )
    assert ops(program) == ["jax.sin"]


@pytest.mark.usefixtures("evaluator")
@pytest.mark.parametrize(
    "line",
    [
        "jax.sub %x, %x : f32[]",
        "jax.mul %x, 0.0:f32[] : f32[]",
        "jax.add 0.0:f32[], %x : f32[]",
        "jax.add 1.0:f32[], 2.0:f32[] {effects = unknown} : f32[]",
        'jax.add 1.0:f32[], 2.0:f32[] {axis_name = "devices"} : f32[]',
        'jax.add 1.0:f32[], 2.0:f32[] {axes = ("devices",)} : f32[]',
        "jax.random_thing 1.0:f32[] : f32[]",
        "host.pure_callback 1.0:f32[] : f32[]",
    ],
)
def test_what_is_no_constant_or_cannot_be_known_is_left_alone(line: str) -> None:
    for pipeline in ("fold-constants", "fold-constants,algebra"):
        assert ops(folded(f"%a = {line}\nflow.yield %a", pipeline=pipeline)) == [line.split()[0]]


@pytest.mark.usefixtures("evaluator")
def test_results_stay_computed_when_they_are_large() -> None:
    line = "%a = jax.add dense<[1, 2, 3] : f32[3]>, 2.0:f32[] : f32[3]\nflow.yield %a"
    text = line.replace("dense<[1, 2, 3] : f32[3]>", "1.0:f32[]")
    assert ops(folded(text, "f32[3]", "fold-constants{max_elements=2}")) == ["jax.add"]


def test_without_a_backend_only_exact_arithmetic_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_evaluator", None)
    assert ops(folded("%a = jax.exp 1.0:f32[] {accuracy = none} : f32[]\nflow.yield %a")) == ["jax.exp"]


def test_while_loops_are_left_alone() -> None:
    program = folded(
        """%r = flow.while carry(%c = %x : f32[]) : f32[] cond {
          flow.yield false:bool[]
        } body {
          flow.yield %c
        }
        flow.yield %r"""
    )
    assert ops(program)[0] == "flow.while"


def test_installing_hooks_keeps_those_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_evaluator", None)
    monkeypatch.setattr(hooks, "_validator", None)
    hooks.install(evaluate=evaluate)
    hooks.install(validate=lambda before, after, name: None)
    assert hooks.can_evaluate() and hooks.validator() is not None

"""The manager: copies, instruments, analyses, reports."""

from __future__ import annotations

import io
import json

import attrs
import numpy as np
import pytest

from stategraph import ir
from stategraph.backends import reference_compare
from stategraph.passes import (
    Bisect,
    Context,
    Instrument,
    Pass,
    PassError,
    PassManager,
    PrintProgram,
    Statistics,
    Timing,
    Validate,
    Verify,
    count,
    hooks,
    register,
    run_passes,
)

TEXT = """stategraph 1
program @p(%x : f32[]) -> (out : f32[]) {
  state @h : State<f32[]>
  %r = flow.scan [length = 3] carry(%a = %x : f32[]) : f32[] #0 {
    %old = state.read @h : f32[]
    %dead = jax.neg %a : f32[]
    %new = jax.add %a, %old : f32[]
    state.write @h, %new
    flow.yield %new
  }
  flow.yield %r
}

locations {
  #0 = "model.py":12 in "step"
}
"""


@pytest.fixture
def program() -> ir.Program:
    return ir.parse(TEXT)


@register
def test_report_writes(program: ir.Program, context: Context) -> None:
    """Report the State writes of every loop."""
    for loop in program.walk("flow.scan", "flow.while"):
        context.report(loop, "State writes per trip", writes=sum(1 for _ in loop.walk("state.write")))


test_report_writes.__test__ = False  # type: ignore[attr-defined]


@register
@attrs.frozen
class Break(Pass):
    """Yield something else."""

    name = "test-break"

    def run(self, program: ir.Program, context: Context) -> None:
        ir.Rewriter().set_operands(program.body.terminator, [ir.Constant(np.float32(0.0))])


def test_passes_work_on_a_copy(program: ir.Program) -> None:
    text = str(program)
    outcome = run_passes(program, "dce")
    assert str(program) == text != str(outcome.program)
    assert PassManager("dce").run(program, copy=False).program is program


def test_statistics_count_and_say_what_changed(program: ir.Program) -> None:
    statistics = Statistics()
    run_passes(program, "dce,dce,test-report-writes", instruments=[statistics])
    data = json.loads(json.dumps(statistics.as_json()))
    first, second, third = data["passes"]
    assert first == {
        "pass": "dce",
        "changed": True,
        "before": {"ops": 5, "accesses": 2, "carried": 1},
        "after": {"ops": 4, "accesses": 2, "carried": 1},
        "reports": [],
    }
    assert not second["changed"] and not third["changed"]
    assert third["reports"][0]["numbers"] == {"writes": 1}
    assert third["reports"][0]["location"] == "model.py:12 (step)"
    assert "5 -> 4" in statistics.as_text() and "writes = 1" in statistics.as_text()


def test_reports_become_explanations(program: ir.Program) -> None:
    (told,) = run_passes(program, "test-report-writes").explanations
    assert str(told) == "model.py:12: flow.scan: State writes per trip (writes = 1) [test-report-writes]"
    assert (told.subject, told.location.line, told.numbers) == ("flow.scan", 12, {"writes": 1})


def test_instruments_nest_around_every_pass(program: ir.Program) -> None:
    class Note(Instrument):
        def __init__(self, name: str) -> None:
            self.name = name

        def before_pass(self, pass_: Pass, context: Context) -> None:
            notes.append(f"{self.name} before {pass_}")

        def after_pass(self, pass_: Pass, context: Context) -> None:
            notes.append(f"{self.name} after {pass_}")

    notes: list[str] = []
    run_passes(program, "dce", instruments=[Note("outer"), Note("inner")])
    assert notes == ["outer before dce", "inner before dce", "inner after dce", "outer after dce"]


def test_verification_names_the_pass_that_broke_the_program(program: ir.Program) -> None:
    @register(name="test-corrupt")
    def corrupt(program: ir.Program) -> None:
        program.body.ops.reverse()

    with pytest.raises(ir.VerifyError) as caught:
        run_passes(program, "dce,test-corrupt", instruments=[Verify()])
    assert caught.value.__notes__ == ["while running pass test-corrupt on program @p"]


def test_validation_compares_before_and_after_only_when_something_changed(program: ir.Program) -> None:
    compared = []

    def validator(before: ir.Program, after: ir.Program, pass_: Pass) -> None:
        compared.append((count(before).ops, count(after).ops, pass_.name))

    run_passes(program, "dce,dce", instruments=[Validate()], validator=validator)
    assert compared == [(5, 4, "dce")]


def test_a_validation_that_had_nothing_to_compare_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """stategraph 1
program @endless(%x : f32[]) -> (out : f32[]) {
  %unused = jax.add %x, 1.0:f32[] : f32[]
  %y = flow.while carry(%v = %x : f32[]) : f32[] cond {
    %go = jax.eq %v, %v : bool[]
    flow.yield %go
  } body {
    flow.yield %x
  }
  flow.yield %y
}
"""
    monkeypatch.setattr(hooks, "_validator", None)
    reference_compare.install()
    with pytest.warns(UserWarning, match="pass dce was not validated on @endless"):
        run_passes(ir.parse(text), "dce", instruments=[Validate()])


def test_validation_by_the_backend_catches_a_pass_that_lies(
    program: ir.Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_validator", None)
    monkeypatch.setattr(hooks, "_evaluator", None)
    reference_compare.install()
    run_passes(program, "dce", instruments=[Validate()])
    with pytest.raises(reference_compare.ValidationError, match="does not compute") as caught:
        run_passes(program, "test-break", instruments=[Validate()])
    assert "while running pass test-break on program @p" in caught.value.__notes__


def test_validation_without_anybody_who_can_is_an_error(
    program: ir.Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_validator", None)
    with pytest.raises(PassError, match="nobody can validate"):
        run_passes(program, "dce", instruments=[Validate()])


def test_bisecting_runs_only_the_first_passes(program: ir.Program) -> None:
    stream = io.StringIO()
    outcome = run_passes(program, "cse,dce,licm", instruments=[Bisect(2, stream)])
    assert str(outcome.pipeline) == "cse,dce"
    assert stream.getvalue().splitlines() == [
        "bisect: running pass 1, cse",
        "bisect: running pass 2, dce",
        "bisect: not running pass 3, licm",
    ]


def test_programs_are_printed_where_one_asked_for_it(program: ir.Program) -> None:
    def titles(pipeline: str, **wishes: object) -> list[str]:
        stream = io.StringIO()
        instrument = PrintProgram(stream=stream, **wishes)  # type: ignore[arg-type]
        run_passes(program, pipeline, instruments=[instrument])
        return [line for line in stream.getvalue().splitlines() if line.startswith("// -----")]

    assert titles("cse,dce,dce", after_change=True) == ["// ----- after dce"]
    assert titles("cse,dce", after_all=True) == ["// ----- after cse", "// ----- after dce"]
    assert titles("cse,dce", after=["cse"], before=["dce"]) == ["// ----- after cse", "// ----- before dce"]
    with pytest.raises(PassError, match="nothing to print at licm"):
        titles("cse", after=["licm"])


def test_timing_gives_seconds_and_a_table(program: ir.Program) -> None:
    timing = Timing()
    run_passes(program, "cse,dce", instruments=[timing])
    assert [entry["pass"] for entry in timing.as_json()] == ["cse", "dce"]
    assert timing.total > 0
    assert timing.as_text().splitlines()[-1].startswith("total")


def test_analyses_are_computed_once_and_forgotten_after_a_pass_that_does_not_keep_them(
    program: ir.Program,
) -> None:
    computed = []

    def size(program: ir.Program) -> int:
        computed.append(1)
        return sum(1 for _ in program.walk())

    def depth(program: ir.Program) -> int:
        return 2

    @attrs.frozen
    class Look(Pass):
        name = "test-look"
        preserves = (size,)

        def run(self, program: ir.Program, context: Context) -> None:
            assert context.analysis(size) == context.analysis(size)

    run_passes(program, [Look(), Look()])
    assert len(computed) == 1
    run_passes(program, [Look(), "dce", Look()])
    assert len(computed) == 3


def test_a_pass_that_returns_something_is_told_so(program: ir.Program) -> None:
    @register(name="test-returns")
    def returns(program: ir.Program) -> object:
        return program

    with pytest.raises(PassError, match="returned Program; a pass edits its program and returns nothing"):
        run_passes(program, "test-returns")

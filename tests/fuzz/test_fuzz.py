"""A minute of random programs, the same ones every time, and compilers that are broken on purpose.

``make fuzz`` looks at fresh ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from stategraph.backends.reference_compare import ValidationError, install
from stategraph.ir.core import Program
from stategraph.passes import Pass, Validate, run_passes
from stategraph.passes.context import Context
from stategraph.passes.registry import lookup
from tests.fuzz import harness
from tests.fuzz.generator import generate
from tests.fuzz.reduce import reduce
from tests.fuzz.run import ended_after
from tests.support import ROOT, run_contraction_free

RUN = str(ROOT / "tests" / "fuzz" / "run.py")
PROGRAMS = 12
"""For each of the two runs."""


@pytest.mark.slow
@pytest.mark.no_program_checks
@pytest.mark.parametrize("seed", [20240, 33071665])
def test_random_programs_mean_the_same_in_every_way_of_running_them(seed: int, tmp_path: Path) -> None:
    many = ["--count", str(PROGRAMS), "--seconds", "inf"]
    ran = run_contraction_free(RUN, "--seed", str(seed), *many, "--output", str(tmp_path), "--reduce", "30")
    print(ran.stdout[-3000:], ran.stderr[-1000:])
    found = "\n\n".join(path.read_text() for path in sorted(tmp_path.glob("test_*.py")))
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}\n{found}"
    count = {
        name: int(number) for number, name in re.findall(r"(\d+) (programs|invalid programs)", ran.stdout)
    }
    assert count.get("invalid programs", 0) <= max(1, count["programs"] // 10), ran.stdout
    assert "bits comparable: True" in ran.stdout or "aarch64" in os.uname().machine


def test_a_seed_gives_the_same_program_every_time() -> None:
    assert generate(7) == generate(7) != generate(8)


def test_most_generated_programs_are_legal() -> None:
    failures = [harness.check(generate(seed), seed, pipelines=0, compiled=False) for seed in range(900, 906)]
    assert failures == [None] * len(failures)


# ---------------------------------------------------------------------------------------------- planted bugs


def _sabotaged(pass_name: str, damage: Callable[[Program], None]) -> Callable[..., Any]:
    """The ``run`` of a pass, with ``damage`` done to the program on the way."""
    original = lookup(pass_name).run

    def run(self: Pass, program: Program, context: Context) -> None:
        damage(program)
        original(self, program, context)

    return run


def _drop_a_print(program: Program) -> None:
    from stategraph.ir.rewriter import Rewriter

    op = next(program.walk("host.debug_print"), None)
    if op is not None:
        Rewriter().erase(op)


def _forget_a_write(program: Program) -> None:
    from stategraph.ir.rewriter import Rewriter

    op = next(iter(program.walk("state.write")), None)
    if op is not None:
        Rewriter().erase(op)


def _forget_a_conditional_write(program: Program) -> None:
    from stategraph.ir.rewriter import Rewriter

    for branches in program.walk("flow.cond"):
        op = next(branches.walk("state.write"), None)
        if op is not None:
            Rewriter().erase(op)
            return


def _swap_branches(program: Program) -> None:
    for op in program.walk("flow.cond"):
        op.regions.reverse()
        return


def _one_trip_less(program: Program) -> None:
    for op in program.walk("flow.scan"):
        if op.attributes["length"] > 1 and len(op.operands) == op.attributes["carry"] == len(op.results):
            op.attributes = {**op.attributes, "length": op.attributes["length"] - 1}
            return


def _stale_read(program: Program) -> None:
    """As if forwarding forgot that a loop writes: a read after it gets the value from before it."""
    from stategraph.ir.rewriter import Rewriter

    known: dict[str, list[Any]] = {}
    for op in list(program.body.ops):
        if op.name == "state.write":
            known[op.symbol] = list(op.operands)
        elif op.name == "state.read" and op.symbol in known:
            for result, value in zip(op.results, known[op.symbol], strict=True):
                Rewriter().replace_uses(result, value)
        # missing: regions that write


PLANTED = {
    "dce drops a debug print": ("dce", _drop_a_print),
    "dce drops a State write": ("dce", _forget_a_write),
    "hoist-state drops a conditional write": ("hoist-state", _forget_a_conditional_write),
    "simplify-branches swaps the branches": ("simplify-branches", _swap_branches),
    "simplify-loops loses a trip": ("simplify-loops", _one_trip_less),
    "forward-state forgets that loops write": ("forward-state", _stale_read),
}


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def planted(name: str) -> None:
        pass_name, damage = PLANTED[name]
        monkeypatch.setattr(lookup(pass_name), "run", _sabotaged(pass_name, damage))

    yield planted


@pytest.mark.no_program_checks
@pytest.mark.parametrize("name", PLANTED)
def test_the_generator_catches_a_planted_miscompilation(name: str, plant: Callable[[str], None]) -> None:
    plant(name)
    pass_name = PLANTED[name][0]
    for seed in range(60):
        failure = harness.check(
            generate(seed, gradients=False), seed, pipelines=0, compiled=False, only=pass_name
        )
        if failure is not None:
            assert failure.stage == "rewritten", failure
            return
    pytest.fail("60 programs and nothing noticed")


TWO_PRINTS = """
import jax
import jax.numpy as jnp
from stategraph import State

EXACT = True
LOG = []


def make():
    s = State(jnp.float32(1.0))
    t = State(0)

    def program(x):
        t.value += 1
        y = jnp.tanh(x) * s.value
        jax.debug.print("u p1 {}", y)
        z = jax.lax.fori_loop(0, 3, lambda i, c: c * 0.5 + i, y)
        s.value = z
        w = jnp.maximum(y, z)
        return w + t.value

    return program, (jnp.float32(0.3),), {"s": s, "t": t}
"""


@pytest.mark.no_program_checks
def test_validation_catches_a_planted_miscompilation(plant: Callable[[str], None]) -> None:
    install()
    program = harness.Traced(TWO_PRINTS).program
    run_passes(program, "dce", instruments=[Validate()])
    plant("dce drops a debug print")
    with pytest.raises(ValidationError, match="the host no longer sees"):
        run_passes(program, "dce", instruments=[Validate()])


@pytest.mark.no_program_checks
def test_a_failure_is_reduced_to_what_matters(plant: Callable[[str], None]) -> None:
    plant("dce drops a debug print")

    def fails(candidate: str) -> bool:
        try:
            failure = harness.check(candidate, pipelines=0, compiled=False, only="dce")
        except harness.Invalid:
            return False
        return failure is not None and failure.stage == "rewritten"

    small = reduce(TWO_PRINTS, fails, seconds=30)
    body = small[small.index("def program") : small.index("return (program")].splitlines()
    assert fails(small)
    assert len(body) <= 6 and "fori_loop" not in small and "tanh" not in small, small


def test_a_reduced_program_that_never_ends_is_given_up() -> None:
    with pytest.raises(TimeoutError, match=r"took more than 0\.2 s"), ended_after(0.2):
        while True:
            pass


def test_only_the_signs_of_zeros_are_not_compared_with_compiled_code() -> None:
    def seen(number: float) -> harness.Outcome:
        array = jnp.array([number, -0.25])
        return harness.outcome([array], {"s": array}, f"o p1 {array}", [array.tolist()], "")

    found = seen(-0.0)
    assert harness.difference(found, seen(0.0), harness.EXACT)
    plain = harness.without_signs_of_zeros(found)
    assert not harness.difference(plain, harness.without_signs_of_zeros(seen(0.0)), harness.EXACT)
    assert harness.difference(plain, harness.without_signs_of_zeros(seen(-1e-9)), harness.EXACT)

"""Golden examples: what each pass makes of a program, as text that one can read.

A file holds cases, each of them

    // ===== what the case shows
    // RUN: the pipeline
    stategraph 1
    program ...
    // -----
    ... the program that has to come out

`UPDATE_GOLDEN=1 pytest tests/passes/test_golden.py` writes what comes out into the files, for review with
`git diff`. Every case is verified after every pass,
and executed before and after unless a line // NOT EXECUTED says why not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import attrs
import pytest

from stategraph import ir
from stategraph.backends.reference_compare import observe, random_sample
from stategraph.passes import DEFAULT, EXACTNESS, Verify, parse_pipeline, run_passes
from tests.support import execute_both

FOLDER = Path(__file__).parent / "golden"
TITLE, EXPECTED = "// ===== ", "// -----\n"


@attrs.frozen
class Case:
    file: Path
    title: str
    pipeline: str
    source: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file.stem}: {self.title}"


def cases_of(file: Path) -> list[Case]:
    found = []
    for chunk in re.split(f"^{TITLE}", file.read_text(), flags=re.MULTILINE)[1:]:
        title, _, rest = chunk.partition("\n")
        source, _, expected = rest.partition(EXPECTED)
        run = re.search(r"^// RUN: (.*)$", source, flags=re.MULTILINE)
        assert run is not None, f"{file}: case {title!r} has no // RUN: line"
        found.append(Case(file, title, run.group(1).strip(), source, expected))
    return found


CASES = [case for file in sorted(FOLDER.glob("*.sg")) for case in cases_of(file)]


def exactness_of(pipeline: str) -> str:
    """What all passes of a pipeline keep."""
    return max((item.exactness for item in parse_pipeline(pipeline)), key=EXACTNESS.index)


def after(case: Case) -> tuple[ir.Program, ir.Program, str]:
    before = ir.parse(case.source)
    program = run_passes(before, case.pipeline, instruments=[Verify()]).program
    return before, program, program.to_text().strip() + "\n"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_pass_makes_of_the_program_what_the_file_says(case: Case) -> None:
    before, program, text = after(case)
    assert ir.parse(text) is not None
    if "// NOT EXECUTED" not in case.source:
        observe(before, random_sample(before, 0, False))  # it can be executed at all
        execute_both(before, program, exactness=exactness_of(case.pipeline))
    if os.environ.get("UPDATE_GOLDEN") and text.strip() != case.expected.strip():
        update(case, text)
    else:
        assert text.strip() == case.expected.strip()


def update(case: Case, text: str) -> None:
    chunks = [c if c.title != case.title else attrs.evolve(case, expected=text) for c in cases_of(case.file)]
    parts = [f"{TITLE}{c.title}\n{c.source}{EXPECTED}{c.expected.strip()}\n\n" for c in chunks]
    case.file.write_text("".join(parts).rstrip() + "\n")


ELSEWHERE = {"expand-transforms"}
"""What it makes is what JAX's differentiation gives, which changes from one JAX to the next: tested by
running it.
"""


def test_every_pass_has_a_golden_example() -> None:
    covered = " ".join(case.pipeline for case in CASES)
    assert [name for name in dict.fromkeys(DEFAULT) if name not in covered and name not in ELSEWHERE] == []

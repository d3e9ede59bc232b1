"""Instruments: what can be done around each pass without the passes knowing.

An instrument overrides some of five methods. It may keep a pass from running (``Bisect``), look at the
program before and after (``Verify``, ``Validate``, ``PrintProgram``), or measure (``Timing``,
``Statistics``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

import attrs

from stategraph.ir.core import Program
from stategraph.ir.forms import STATE_OPS
from stategraph.ir.structure import fingerprint
from stategraph.passes.base import Pass, PassError
from stategraph.passes.context import Context


class Instrument:
    """Base class; every method does nothing."""

    def before_pipeline(self, pipeline: tuple[Pass, ...], context: Context) -> None:
        """Called once, before all passes."""

    def should_run(self, pass_: Pass, context: Context) -> bool:
        """Whether the pass may run; asked once for every pass."""
        return True

    def before_pass(self, pass_: Pass, context: Context) -> None:
        """Called right before a pass that runs."""

    def after_pass(self, pass_: Pass, context: Context) -> None:
        """Called right after a pass that ran without an error."""

    def after_pipeline(self, context: Context) -> None:
        """Called once, after all passes."""


class Verify(Instrument):
    """Verify the program before the first pass and after every pass."""

    def before_pipeline(self, pipeline: tuple[Pass, ...], context: Context) -> None:
        self._verify(context.program)

    def after_pass(self, pass_: Pass, context: Context) -> None:
        self._verify(context.program)

    def _verify(self, program: Program) -> None:
        from stategraph.ir.verifier import verify

        verify(program)


class Validate(Instrument):
    """Compare the program before and after every pass that changed it, by running both."""

    def __init__(self) -> None:
        self._before: Program | None = None

    def before_pipeline(self, pipeline: tuple[Pass, ...], context: Context) -> None:
        if context.validator is None:
            raise PassError(
                "nobody can validate programs: "
                "call stategraph.backends.reference_compare.install(), or pass validator="
            )

    def before_pass(self, pass_: Pass, context: Context) -> None:
        self._before = context.program.copy()

    def after_pass(self, pass_: Pass, context: Context) -> None:
        before, self._before = self._before, None
        assert before is not None and context.validator is not None
        if fingerprint(before) != context.analysis(fingerprint):
            context.validator(before, context.program, pass_)


class Bisect(Instrument):
    """Run only the first ``limit`` passes, and say which was the last: to find the pass that breaks a
    program.
    """

    def __init__(self, limit: int, stream: TextIO | None = None) -> None:
        self.limit = limit
        self._stream = stream
        self._count = 0

    def before_pipeline(self, pipeline: tuple[Pass, ...], context: Context) -> None:
        self._count = 0

    def should_run(self, pass_: Pass, context: Context) -> bool:
        self._count += 1
        allowed = self._count <= self.limit
        verb = "running" if allowed else "not running"
        print(f"bisect: {verb} pass {self._count}, {pass_}", file=self._stream or sys.stderr)
        return allowed


class PrintProgram(Instrument):
    """Print the program before or after passes, to stderr unless ``stream`` is given.

    ``before`` and ``after`` hold names of passes; ``after_all`` and ``before_all`` mean every pass,
    ``after_change`` every pass that changed something.
    """

    def __init__(
        self,
        *,
        before: Iterable[str] = (),
        after: Iterable[str] = (),
        before_all: bool = False,
        after_all: bool = False,
        after_change: bool = False,
        locations: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._before = frozenset(before)
        self._after = frozenset(after)
        self._before_all = before_all
        self._after_all = after_all
        self._after_change = after_change
        self._locations = locations
        self._stream = stream
        self._fingerprint = ""

    def before_pipeline(self, pipeline: tuple[Pass, ...], context: Context) -> None:
        missing = (self._before | self._after) - {pass_.name for pass_ in pipeline}
        if missing:
            raise PassError(
                f"nothing to print at {', '.join(sorted(missing))}: no such pass in the pipeline {pipeline}"
            )

    def before_pass(self, pass_: Pass, context: Context) -> None:
        if self._after_change:
            self._fingerprint = context.analysis(fingerprint)
        if self._before_all or pass_.name in self._before:
            self._print(f"before {pass_}", context.program)

    def after_pass(self, pass_: Pass, context: Context) -> None:
        changed = self._after_change and context.analysis(fingerprint) != self._fingerprint
        if self._after_all or changed or pass_.name in self._after:
            self._print(f"after {pass_}", context.program)

    def _print(self, title: str, program: Program) -> None:
        text = program.to_text(locations=self._locations)
        print(f"// ----- {title}\n{text}", file=self._stream or sys.stderr)


class Timing(Instrument):
    """How long each pass took. Give it as the last instrument, so that the others are not counted."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []
        self._start = 0.0

    def before_pass(self, pass_: Pass, context: Context) -> None:
        self._start = time.perf_counter()

    def after_pass(self, pass_: Pass, context: Context) -> None:
        self.seconds.append((str(pass_), time.perf_counter() - self._start))

    @property
    def total(self) -> float:
        return sum(seconds for _, seconds in self.seconds)

    def as_json(self) -> list[dict[str, Any]]:
        return [{"pass": name, "seconds": seconds} for name, seconds in self.seconds]

    def as_text(self) -> str:
        total = self.total or 1.0
        rows = [(name, f"{1e3 * s:.3f}", f"{100 * s / total:.1f}") for name, s in self.seconds]
        return table(("pass", "ms", "%"), [*rows, ("total", f"{1e3 * self.total:.3f}", "100.0")])


@attrs.frozen
class Counts:
    """The size of a program."""

    ops: int
    """All ops, in nested regions too, without the terminators."""
    accesses: int
    """Reads, writes and allocations of State."""
    carried: int
    """Values that loops carry from trip to trip."""

    def as_json(self) -> dict[str, int]:
        return attrs.asdict(self)


def count(program: Program) -> Counts:
    """Count a program's ops, State accesses and carried values."""
    ops = accesses = carried = 0
    for op in program.walk():
        ops += op.name != "flow.yield"
        accesses += op.name in STATE_OPS
        if op.name == "flow.while":
            carried += len(op.operands)
        elif op.name == "flow.scan":
            carried += op.attributes["carry"]
    return Counts(ops, accesses, carried)


@attrs.frozen
class PassStatistics:
    """What one pass did."""

    pass_: str
    changed: bool
    before: Counts
    after: Counts
    reports: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return {
            "pass": self.pass_,
            "changed": self.changed,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "reports": self.reports,
        }


class Statistics(Instrument):
    """The size of the program before and after each pass, whether the pass changed it, and what the pass
    reported.
    """

    def __init__(self) -> None:
        self.program = ""
        self.passes: list[PassStatistics] = []
        self._before: tuple[str, Counts, int] = ("", Counts(0, 0, 0), 0)

    def before_pipeline(self, pipeline: tuple[Pass, ...], context: Context) -> None:
        self.program = context.program.name
        self.passes.clear()

    def before_pass(self, pass_: Pass, context: Context) -> None:
        self._before = (context.analysis(fingerprint), context.analysis(count), len(context.explanations))

    def after_pass(self, pass_: Pass, context: Context) -> None:
        print_before, counts_before, told = self._before
        changed = context.analysis(fingerprint) != print_before
        reports = [explanation.as_json() for explanation in context.explanations[told:]]
        self.passes.append(
            PassStatistics(str(pass_), changed, counts_before, context.analysis(count), reports)
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data for ``json.dump``."""
        return {"program": self.program, "passes": [entry.as_json() for entry in self.passes]}

    def as_text(self) -> str:
        rows = []
        for entry in self.passes:
            pairs = zip(attrs.astuple(entry.before), attrs.astuple(entry.after), strict=True)
            cells = [str(b) if b == a else f"{b} -> {a}" for b, a in pairs]
            rows.append((entry.pass_, *cells, "" if entry.changed else "no change"))
        text = table(("pass", "ops", "State accesses", "carried values", ""), rows)
        told = [f"  {_report(report)}" for entry in self.passes for report in entry.reports]
        return "\n".join([text, *(["reports:", *told] if told else [])])


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns of text; the first is aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def _report(report: dict[str, Any]) -> str:
    figures = ", ".join(f"{key} = {value}" for key, value in report["numbers"].items())
    place = f"{report['location']}: " if report["location"] else ""
    return f"{report['pass']}: {place}{report['subject']}: {report['decision']}" + (
        f" ({figures})" if figures else ""
    )

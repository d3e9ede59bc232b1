"""``stategraph explain``: what the compiler decided about each State and op."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from stategraph.cli.console import OK, CommandError, UsageError, suggestion
from stategraph.cli.dump import trace_target
from stategraph.cli.output import load_files, offer_backend, write
from stategraph.cli.targets import user_code
from stategraph.errors import LoweringError
from stategraph.passes.context import Explanation
from stategraph.passes.instruments import Verify

HEADS = ("place", "what", "decision", "by", "figures")


def run(options: Any) -> int:
    load_files(options.load)
    traced = trace_target(options)
    offer_backend(traced.program)
    try:
        with user_code():
            lowered = traced.lower(
                passes=options.passes,
                exactness=options.exactness,
                platforms=options.platform,
                instruments=[Verify()],
            )
    except LoweringError as error:
        raise CommandError(str(error)) from error
    found = _chosen(lowered.explain(), options.only)
    if options.format == "json":
        text = json.dumps([explanation.as_json() for explanation in found], indent=1)
    else:
        text = table(found)
    write(text, options.output)
    return OK


def _chosen(found: Sequence[Explanation], only: list[str] | None) -> list[Explanation]:
    """The decisions of these passes or stages, all if none is named."""
    if only is None:
        return list(found)
    from stategraph.passes.registry import names

    known = {*names(), *(explanation.pass_name for explanation in found)}
    for name in only:
        if name not in known:
            raise UsageError(f"--only: nothing is called {name!r}{suggestion(name, sorted(known))}")
    return [explanation for explanation in found if explanation.pass_name in only]


def table(found: Sequence[Explanation]) -> str:
    """One row a decision; below it the reason, and what to write to have it otherwise."""
    rows = [
        (_place(e), e.subject, e.decision, e.pass_name, ", ".join(f"{k}={v}" for k, v in e.numbers.items()))
        for e in found
    ]
    widths = [max(map(len, column)) for column in zip(HEADS, *rows, strict=True)]
    lines = [_row(HEADS, widths), _row(["-" * width for width in widths], widths)]
    for row, explanation in zip(rows, found, strict=True):
        lines.append(_row(row, widths))
        if explanation.reason:
            lines.append(f"    because {explanation.reason}")
        if explanation.advice:
            lines.append(f"    to change it: {explanation.advice}")
    return "\n".join(lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _place(explanation: Explanation) -> str:
    location = explanation.location
    if not location.known:
        return ""
    file = os.path.relpath(location.file) if os.path.isabs(location.file) else location.file
    shorter = file if len(file) < len(location.file) else location.file
    return f"{shorter}:{location.line}"

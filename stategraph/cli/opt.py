"""``stategraph opt``: passes on the text of a program. Needs JAX only where a pass evaluates constants or a
program is run.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from stategraph.cli.console import OK
from stategraph.cli.output import (
    instruments,
    load_files,
    offer_backend,
    read_program,
    render,
    show_explanations,
    show_timing,
    write,
)
from stategraph.cli.targets import user_code
from stategraph.passes.instruments import Bisect, Instrument, PrintProgram, Statistics
from stategraph.passes.manager import PassManager


def run(options: Any) -> int:
    load_files(options.load)
    program = read_program(options.file)
    offer_backend(program)
    watchers, timing = instruments(options)
    statistics = Statistics() if options.statistics else None
    extra: list[Instrument] = [
        *([Bisect(options.bisect)] if options.bisect is not None else []),
        *([statistics] if statistics is not None else []),
        *_printing(options),
    ]
    manager = PassManager(
        options.passes,
        exactness=options.exactness or "reduction-order",
        instruments=[*watchers[:-1], *extra, timing],
    )
    with user_code():
        outcome = manager.run(program, copy=False)
    write(render(outcome.program, options), options.output, is_program=options.format == "text")
    if statistics is not None:
        text = (
            statistics.as_text()
            if options.statistics == "text"
            else json.dumps(statistics.as_json(), indent=1)
        )
        print(text, file=sys.stderr)
    if options.explain:
        show_explanations(outcome.explanations)
    if options.timing:
        show_timing(timing, {})
    return OK


def _printing(options: Any) -> list[Instrument]:
    if not (
        options.print_after_all or options.print_after_change or options.print_after or options.print_before
    ):
        return []
    return [
        PrintProgram(
            before=options.print_before,
            after=options.print_after,
            after_all=options.print_after_all,
            after_change=options.print_after_change,
            locations=not options.no_locations,
        )
    ]

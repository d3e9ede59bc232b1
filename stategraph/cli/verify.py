"""``stategraph verify``: whether programs obey the rules of the IR."""

from __future__ import annotations

from typing import Any

from stategraph.cli.console import OK, report
from stategraph.cli.output import read_program
from stategraph.ir.errors import StateGraphError


def run(options: Any) -> int:
    worst = OK
    for file in options.files:
        try:
            program = read_program(file)
        except StateGraphError as error:
            worst = max(worst, report(error, options.traceback))
            if len(options.files) > 1:
                print(f"{file}: not valid")
            continue
        ops = sum(op.name != "flow.yield" for op in program.walk())
        form = "functional" if program.functional else "stateful"
        states = len(program.states)
        print(f"{file}: valid, {form}, {ops} ops, {states} State{'s' * (states != 1)}")
    return worst

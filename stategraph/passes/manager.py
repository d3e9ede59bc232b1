"""Runs a pipeline on a copy of a program, with instruments around every pass.

    outcome = PassManager("default,my-pass", instruments=[VerifyEach(), Timing()]).run(program)
    outcome.program, outcome.explanations

The manager itself does nothing but call the passes; everything that costs time (verifying, printing,
counting) is an instrument that somebody asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from stategraph.ir.core import Program
from stategraph.passes import hooks
from stategraph.passes.base import Pass, PassError
from stategraph.passes.context import Context, Explanation, Validator
from stategraph.passes.instruments import Instrument
from stategraph.passes.pipeline import Passes, Pipeline, parse_pipeline


@attrs.frozen(eq=False)
class Outcome:
    """What a pipeline left: the new program, and what the passes told."""

    program: Program
    pipeline: Pipeline
    """The passes that ran."""
    explanations: list[Explanation]


class PassManager:
    """Runs passes in order.

    ``passes`` is anything ``parse_pipeline`` takes. ``exactness`` limits the default pipeline and the rules
    of passes. ``validator`` replaces the comparison of programs that a backend has installed (see ``hooks``).
    ``platform`` is where the program will run (``cpu``, ``gpu``, ``tpu``), this machine if not given.
    Instruments nest like context managers: the first sees a pass earliest before and latest after.
    """

    def __init__(
        self,
        passes: Passes = "default",
        *,
        exactness: str = "reduction-order",
        instruments: Sequence[Instrument] = (),
        validator: Validator | None = None,
        platform: str | None = None,
    ) -> None:
        self.pipeline = parse_pipeline(passes, exactness=exactness)
        self.exactness = exactness
        self.instruments = tuple(instruments)
        self.validator = validator
        self.platform = platform

    def run(self, program: Program, *, copy: bool = True) -> Outcome:
        """Run the pipeline on a copy of ``program`` (on itself with ``copy=False``, for programs nobody else
        holds).
        """
        program = program.copy() if copy else program
        context = Context(program, self.exactness, self.validator or hooks.validator())
        context.platform = self.platform
        for instrument in self.instruments:
            instrument.before_pipeline(self.pipeline, context)
        ran = [pass_ for pass_ in self.pipeline if self._run_one(pass_, context)]
        for instrument in reversed(self.instruments):
            instrument.after_pipeline(context)
        return Outcome(program, Pipeline(ran), context.explanations)

    def _run_one(self, pass_: Pass, context: Context) -> bool:
        if not all(instrument.should_run(pass_, context) for instrument in self.instruments):
            return False
        context.current = pass_
        try:
            for instrument in self.instruments:
                instrument.before_pass(pass_, context)
            returned: object = pass_.run(context.program, context)  # type: ignore[func-returns-value]
            if returned is not None:
                what = type(returned).__name__
                raise PassError(
                    f"pass {pass_.name!r} returned {what}; a pass edits its program and returns nothing"
                )
            context.invalidate(pass_.preserves)
            for instrument in reversed(self.instruments):
                instrument.after_pass(pass_, context)
        except Exception as error:
            error.add_note(f"while running pass {pass_} on program @{context.program.name}")
            raise
        finally:
            context.current = None
        return True


def run_passes(
    program: Program,
    passes: Passes = "default",
    *,
    exactness: str = "reduction-order",
    instruments: Sequence[Instrument] = (),
    validator: Validator | None = None,
) -> Outcome:
    """Run ``passes`` on a copy of ``program``: ``PassManager(passes, …).run(program)``."""
    return PassManager(passes, exactness=exactness, instruments=instruments, validator=validator).run(program)

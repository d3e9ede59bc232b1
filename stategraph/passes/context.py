"""What a running pass has at hand: reports, explanations, analyses, and the exactness that the user chose.

An *explanation* records one decision: what was decided, about which State or op, where in the user's code, by
which pass, why, with which figures, and how to change it. ``.explain()`` and the statistics show them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from stategraph.ir.core import Op, Program, StateSymbol
from stategraph.ir.location import UNKNOWN, Location
from stategraph.passes.base import Pass, allows

T = TypeVar("T")
Validator = Callable[[Program, Program, Pass], None]
"""Compares a program before and after a pass (by running both) and raises when they differ."""
Number = int | float | str


@attrs.frozen
class Explanation:
    """One decision about one State or op."""

    pass_name: str
    """Who decided: a pass, or a stage such as ``trace``."""
    subject: str
    """About what: ``@net.h`` for a State, the op's name otherwise."""
    location: Location
    """The user's line."""
    decision: str
    reason: str = ""
    numbers: Mapping[str, Number] = attrs.Factory(dict)
    """Figures: counts, bytes, costs."""
    advice: str = ""
    """What to write to have it otherwise."""

    def __str__(self) -> str:
        figures = ", ".join(f"{key} = {value}" for key, value in self.numbers.items())
        place = f"{self.location.file}:{self.location.line}: " if self.location.known else ""
        text = f"{place}{self.subject}: {self.decision}" + (f" ({figures})" if figures else "")
        if self.reason:
            text += f", because {self.reason}"
        text += f" [{self.pass_name}]"
        return f"{text}\n    to change it: {self.advice}" if self.advice else text

    def as_json(self) -> dict[str, Any]:
        return {
            "pass": self.pass_name,
            "subject": self.subject,
            "location": str(self.location) if self.location.known else None,
            "decision": self.decision,
            "reason": self.reason,
            "numbers": dict(self.numbers),
            "advice": self.advice,
        }


def subject_of(what: Op | StateSymbol | str) -> tuple[str, Location]:
    """How an explanation names a State or an op, and where it is."""
    if isinstance(what, str):
        return what, UNKNOWN
    if isinstance(what, StateSymbol):
        return f"@{what.path}", what.location
    symbol = what.attributes.get("symbol")
    return (f"@{symbol}" if isinstance(symbol, str) else what.name), what.location


@attrs.define(eq=False)
class Context:
    """The surroundings of a pipeline while it runs on ``program``."""

    program: Program
    exactness: str = "reduction-order"
    validator: Validator | None = None
    explanations: list[Explanation] = attrs.Factory(list)
    current: Pass | None = None
    """The pass that is running."""
    platform: str | None = None
    """Where the program will run: ``cpu``, ``gpu``, ``tpu``; None for this machine."""
    _analyses: dict[Callable[[Program], Any], Any] = attrs.Factory(dict)

    def report(self, what: Op | StateSymbol | str, decision: str, **numbers: Number) -> None:
        """Tell the user: ``context.report(loop, "moved ops out of the loop", ops=3)``."""
        self.explain(what, decision, numbers=numbers)

    def explain(
        self,
        what: Op | StateSymbol | str,
        decision: str,
        *,
        reason: str = "",
        advice: str = "",
        location: Location | None = None,
        numbers: Mapping[str, Number] | None = None,
    ) -> None:
        """``report`` with the reason for the decision and what the user can do about it."""
        subject, found = subject_of(what)
        by = self.current.name if self.current is not None else ""
        self.explanations.append(
            Explanation(
                by,
                subject,
                found if location is None else location,
                decision,
                reason,
                dict(numbers or {}),
                advice,
            )
        )

    def allows(self, exactness: str) -> bool:
        """Whether the chosen level permits a rewrite of this exactness."""
        return allows(self.exactness, exactness)

    def analysis(self, compute: Callable[[Program], T]) -> T:
        """``compute(program)``, computed once until a pass has run that does not preserve it."""
        if compute not in self._analyses:
            self._analyses[compute] = compute(self.program)
        found: T = self._analyses[compute]
        return found

    def invalidate(self, preserved: tuple[Callable[[Program], Any], ...] = ()) -> None:
        """Forget all analyses but the ``preserved`` ones."""
        self._analyses = {key: value for key, value in self._analyses.items() if key in preserved}

"""What passes borrow from a backend: running one op on constants, and comparing two programs by running them.

This package knows no array library but NumPy. A backend installs what it can do when it is imported; without
it constants are not evaluated, and validation says that nobody can do it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stategraph.ir.core import Op
from stategraph.passes.arithmetic import evaluate_exactly
from stategraph.passes.context import Validator

Evaluator = Callable[[Op], "list[np.ndarray] | None"]

Platform = Callable[[], str]

_evaluator: Evaluator | None = None
_validator: Validator | None = None
_platform: Platform | None = None


def install(
    *,
    evaluate: Evaluator | None = None,
    validate: Validator | None = None,
    platform: Platform | None = None,
) -> None:
    """Offer hooks; those not given stay as they are.

    ``evaluate(op)`` gets an op whose operands are all constants and returns its results, or None when it
    cannot know them; ``validate(before, after, pass_)`` raises when the programs compute different
    things; ``platform()`` names the machine that runs programs: ``cpu``, ``gpu``, ``tpu``.
    """
    global _evaluator, _validator, _platform
    _evaluator = evaluate if evaluate is not None else _evaluator
    _validator = validate if validate is not None else _validator
    _platform = platform if platform is not None else _platform


def can_evaluate() -> bool:
    """Whether a backend offers to evaluate ops beyond plain arithmetic."""
    return _evaluator is not None


def evaluate(op: Op) -> list[np.ndarray] | None:
    """The results of an op on constants; None when nobody can tell."""
    found = evaluate_exactly(op)
    if found is not None or _evaluator is None:
        return found
    return _evaluator(op)


def platform() -> str:
    """What programs run on, unless somebody says otherwise."""
    return "cpu" if _platform is None else _platform()


def validator() -> Validator | None:
    """The installed comparison of two programs."""
    return _validator

"""A State is a place for a value, not the value: used like an array, it says what to write.

``state + 1``, ``state += 1``, ``state[0] = 1`` and ``state > 0`` are errors that name the State and the fix. The operators are
added at run time, so that type checkers refuse such code as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stategraph import _jax
from stategraph.errors import StateTypeError, describe

BINARY = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "matmul": "@",
    "and": "&",
    "or": "|",
    "xor": "^",
}
"""Operators that have a reflected form, ``__radd__`` and so on."""

UNARY = {"neg": "-", "pos": "+", "abs": "abs", "invert": "~"}
COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}  # == and hash are those of the object
ITEMS = {"setitem": "[...] ="}  # with __getitem__, NumPy would take a State for a sequence


class Operators:
    """The base class of State that refuses arithmetic."""

    __slots__ = ()


def _refusal(use: str) -> Callable[..., Any]:
    def refuse(self: Any, *operands: Any) -> Any:
        raise StateTypeError(
            describe(
                f"{self._describe()} is used like an array, in {use}.",
                state=self._describe(),
                created=self.source_location,
                at=_jax.here(),
                why="a State is a place for a value",
                fix="write state.value for the value, and state.value = ... to change it",
            )
        )

    return refuse


for _name, _use in (BINARY | UNARY | COMPARISONS | ITEMS).items():
    setattr(Operators, f"__{_name}__", _refusal(_use))
for _name, _use in BINARY.items():
    setattr(Operators, f"__r{_name}__", _refusal(_use))

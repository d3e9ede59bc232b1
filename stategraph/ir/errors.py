"""The base of this project's errors, and the two that the IR itself raises."""

from __future__ import annotations

from typing import Any


class StateGraphError(Exception):
    """Base class of all errors that StateGraph raises on purpose."""


class ParseError(StateGraphError):
    """Text that is not a program: where it stops making sense (``line``, ``column``, from 1) and what was
    expected there."""

    def __init__(self, message: str, source: str, position: int, filename: str = "<text>") -> None:
        before = source[:position]
        self.message = message
        self.filename = filename
        self.line = before.count("\n") + 1
        self.column = position - (before.rfind("\n") + 1) + 1
        text = f"{filename}:{self.line}:{self.column}: {message}"
        if source:
            text += "\n" + caret(source.split("\n")[self.line - 1], self.column, str(self.line))
        super().__init__(text)


class VerifyError(StateGraphError):
    """A program that breaks a rule of the IR. ``message`` is the sentence alone, ``op`` the offending op when
    there is one."""

    def __init__(self, message: str, text: str | None = None, op: object = None) -> None:
        super().__init__(message if text is None else text)
        self.message = message
        self.op = op


def caret(text: str, column: int, margin: str = "", width: int = 100) -> str:
    """Two lines: ``text``, cut to ``width`` around ``column``, and a caret under that column (from 1)."""
    start = max(0, column - 1 - width * 2 // 3) if len(text) > width else 0
    shown = text[start : start + width]
    return f"  {margin} | {shown}\n  {' ' * len(margin)} | {' ' * (column - 1 - start)}^"


class Defect(Exception):
    """What a check of the verifier raises; ``verify`` makes a ``VerifyError`` of it. ``op`` is None for the
    program's head."""

    def __init__(self, message: str, op: Any, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.op = op
        self.hint = hint

"""What a command says and how it ends.

Dumps go to stdout and nothing else does, so that they can be piped; messages go to stderr. Exit codes:

    0    success
    1    the program, the model or a file is wrong
    2    the command line is wrong
    3    StateGraph failed where it should not have: a bug
    130  interrupted (Ctrl-C)
    141  nobody reads the output any more (a closed pipe)
"""

from __future__ import annotations

import difflib
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from stategraph.ir.errors import StateGraphError

OK, ERROR, USAGE, INTERNAL, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 3, 130, 141

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_COLOURS = {"error": "31;1", "warning": "33;1", "note": "36;1"}
_SYNTAX = {"comment": "90", "string": "32", "state": "33;1", "value": "34", "type": "36", "op": "35"}


class CommandError(StateGraphError):
    """Something that the user can put right. ``note`` is one more line on how."""

    exit_code = ERROR

    def __init__(self, message: str, note: str = "") -> None:
        super().__init__(message)
        self.note = note


class UsageError(CommandError):
    """A command line that cannot be understood."""

    exit_code = USAGE


def say(kind: str, message: str) -> None:
    """One message on stderr: ``error: …``, ``warning: …`` or ``note: …``."""
    print(f"{paint(kind + ':', _COLOURS[kind], sys.stderr)} {message}", file=sys.stderr)


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that takes colours (``NO_COLOR`` and ``TERM=dumb`` turn them off)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def paint(text: str, colour: str, stream: TextIO) -> str:
    return f"\033[{colour}m{text}\033[0m" if has_colours(stream) else text


def highlight(text: str, stream: TextIO) -> str:
    """Program text in colours, where ``stream`` shows them."""
    if not has_colours(stream):
        return text
    return _pattern().sub(lambda match: f"\033[{_SYNTAX[match.lastgroup or 'op']}m{match[0]}\033[0m", text)


def _pattern() -> re.Pattern[str]:
    from stategraph.ir.spelling import PATH, SHAPE, STRING

    return re.compile(
        rf"(?P<comment>//.*|\#\d+\b)|(?P<string>{STRING})|(?P<state>@(?:{PATH}|{STRING}))|(?P<value>%[\w.]+)"
        rf"|(?P<type>[^\W\d]\w*{SHAPE}\*?|key<\w+>{SHAPE})|(?P<op>\b[a-z_]\w*\.[\w.]+\b|\bprogram\b)"
    )


def suggestion(name: str, candidates: Iterable[str]) -> str:
    """``; did you mean 'dump'?`` for a misspelt name, or nothing."""
    known = list(candidates)
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.55)
    if not found:  # 'lasyer' finds 'model.layer', 'HLO' finds 'hlo'
        found = [one for one in known if one.lower() == name.lower() or one.endswith("." + name)][:1]
    return f"; did you mean {found[0]!r}?" if found else ""


# --------------------------------------------------------------------------------------------------- failures


def report(error: BaseException, with_traceback: bool) -> int:
    """Tell the user about a failure; the exit code."""
    if with_traceback:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, CommandError):
        say("error", str(error))
        if error.note:
            say("note", error.note)
        return error.exit_code
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()) if "\n" not in note)
    if isinstance(error, StateGraphError):
        say("error", f"{error}{notes}")
        return ERROR
    if isinstance(error, OSError) and error.filename is not None:
        say("error", f"{error.filename}: {error.strerror}")
        return ERROR
    place = blame(error)
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    if place:
        say("error", f"{what}\n{place}{notes}")
        if not with_traceback:
            say("note", "--traceback shows the whole traceback")
        return ERROR
    say("error", f"internal error: {what}{notes}")
    if not with_traceback:
        say("note", "this is a bug in StateGraph; please report it with the output of --traceback")
    return INTERNAL


def blame(error: BaseException) -> str:
    """The lines of the user's code that an error came through, innermost last; empty when there are none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"  at:    {_shown(error.filename)}:{error.lineno}"
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        if is_user_file(frame.filename):
            source = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
            lines.append(
                f"  at:    {_shown(frame.filename)}:{frame.lineno} ({frame.name})"
                + (f"\n           {source}" if source else "")
            )
    return "\n".join(lines[-3:])


def is_user_file(name: str) -> bool:
    """Whether a file is neither ours nor Python's nor that of an installed library (a plugin's passes are the
    user's).
    """
    if name.startswith("<") or name.startswith(_PACKAGE):
        return False
    parts = Path(name).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return parts[-1] != "__init__.py" and not _LIBRARIES & set(parts)
    return not name.startswith(os.path.dirname(os.__file__))


_LIBRARIES = {
    "jax",
    "jaxlib",
    "numpy",
    "ml_dtypes",
    "networkx",
    "attr",
    "attrs",
    "_pytest",
    "pluggy",
    "pytest",
    "xdist",
    "execnet",
}


def _shown(file: str) -> str:
    try:
        relative = os.path.relpath(file)
    except ValueError:
        return file
    return file if relative.startswith("..") else relative

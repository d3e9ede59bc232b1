"""The errors of this project.

Every message answers, in this order: what happened, to which State (path and where it was created), at which
line of yours, why, and what to write instead. ``describe`` lays these parts out.
"""

from __future__ import annotations

import linecache
import sys

from stategraph.ir.errors import StateGraphError as StateGraphError
from stategraph.ir.location import Location


class TraceError(StateGraphError):
    """Something in a traced function that cannot become part of a program."""


class StateTypeError(StateGraphError, TypeError):
    """A State was given a value of another structure, shape or dtype where that is not possible."""


class StateAccessError(StateGraphError):
    """A State was read or written where its value cannot be known or kept."""


class ConcretizationError(TraceError, TypeError):
    """Python asked for the concrete value of something that is only known when the program runs."""


class LoweringError(StateGraphError):
    """A program that cannot be turned into an executable, with the op and the reason."""


class CallError(StateGraphError):
    """A compiled program was called with something that it was not compiled for, or its last call failed."""


class ExportError(StateGraphError):
    """A program that cannot be exported, or a file that is not an exported program."""


def describe(
    what: str,
    *,
    state: str = "",
    created: Location | str | None = None,
    at: Location | str | None = None,
    why: str = "",
    fix: str = "",
) -> str:
    """Lay out one error message. Parts that are empty or unknown are left out."""
    lines = [what]
    origin = f"created at {_place(created)}" if created and str(created) else ""
    if state or origin:
        lines.append(f"  state: {', '.join(filter(None, (state, origin)))}")
    if at and str(at):
        lines.append(f"  at:    {_place(at)}")
        source = source_line(at) if isinstance(at, Location) else ""
        if source:
            lines.append(f"           {source}")
    if why:
        lines.append(f"  why:   {why}")
    if fix:
        lines.append(f"  fix:   {fix}")
    return "\n".join(lines)


def source_line(location: Location) -> str:
    """The text of the user's line, empty when it cannot be read."""
    if not location.known:
        return ""
    line = linecache.getline(location.file, location.line).strip()
    return line or _cell_line(location.file, location.line)


def _cell_line(file: str, line: int) -> str:
    """The text of a line of the notebook cell ``In[5]``, empty for anything else."""
    ipython = sys.modules.get("IPython")
    number = file.removeprefix("In[").removesuffix("]")
    if ipython is None or not number.isdigit():
        return ""
    shell = ipython.get_ipython()
    cells = shell.user_ns.get("In", []) if shell is not None else []
    lines = cells[int(number)].splitlines() if int(number) < len(cells) else []
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def _place(place: Location | str | None) -> str:
    if isinstance(place, Location):
        return f"{place.file}:{place.line}" if place.known else "an unknown line"
    return str(place)

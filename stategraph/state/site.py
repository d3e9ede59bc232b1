"""Where a State was made: the line of the user's that called for it."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from stategraph import _jax
from stategraph.ir.location import Location

PACKAGE = str(pathlib.Path(__file__).parent.parent)
COMMAND = ("stategraph", "<frozen runpy>")
"""The files that run the command."""


def creation_site() -> tuple[Any, int]:
    """(code, line) of the innermost frame outside of this package: the line that made the State. When that is the ``stategraph``
    command itself, which made a model of a class, it is the line of the package.
    """
    frame = sys._getframe(2)
    code, line = frame.f_code, frame.f_lineno
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is not None and pathlib.PurePath(frame.f_code.co_filename).name not in COMMAND:
        code, line = frame.f_code, frame.f_lineno
    return (code, line)


def location(site: tuple[Any, int]) -> Location:
    code, line = site
    return Location.deferred(
        site, lambda _: (_jax.display_file(code.co_filename), line, code.co_qualname, "")
    )


def short(site: tuple[Any, int]) -> str:
    return f"{_jax.display_file(site[0].co_filename)}:{site[1]}"

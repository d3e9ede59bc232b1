"""Where equations come from: from JAX's records to ``Location`` and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from jax._src import source_info_util

from stategraph.ir.location import Location


def resolve_source(source: Any) -> tuple[str, int, str, str]:
    """(file, line, function, scope) of a JAX source info, in the user's code."""
    scope = str(source.name_stack) if source.name_stack else ""
    frame = source_info_util.user_frame(source.traceback) if source.traceback is not None else None
    if frame is None:
        return ("", 0, "", scope)
    return (display_file(frame.file_name), frame.start_line, frame.function_name, scope)


def location_of(eqn: Any, fallback: Location | None = None) -> Location:
    return Location.deferred(eqn.source_info, resolve_source, fallback)


def here() -> Location:
    """The user's current line, found when looked at."""
    return Location.deferred(source_info_util.current(), resolve_source)


def line_in_charge() -> Location:
    """The user's line that led here, for errors; slower than ``here``.

    JAX records the stack only from the function that is being traced on. Where that function is not the user's
    own (a gradient called eagerly), this is the line outside that called for the trace.
    """
    location = here()
    frame = None if location.known else sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if source_info_util.is_user_filename(code.co_filename):
            return Location(display_file(code.co_filename), frame.f_lineno, code.co_qualname, "")
        frame = frame.f_back
    return location


def user_variables() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(locals, globals) of the user's function that led here."""
    frame = sys._getframe(1)
    while not source_info_util.is_user_filename(frame.f_code.co_filename):
        if frame.f_back is None:
            return {}, {}
        frame = frame.f_back
    return frame.f_locals, frame.f_globals


def source_of(location: Location) -> Any:
    """What JAX needs to know of a location when an equation is built for it."""
    if location.source is not None:
        return location.source
    return source_info_util.new_source_info()


def display_file(file: str) -> str:
    """A file name as people write it: relative to the working directory, ``In[5]`` for a notebook cell."""
    ipython = sys.modules.get("IPython")
    if ipython is not None:
        shell = ipython.get_ipython()
        label = shell.compile.format_code_name(file) if shell is not None else None
        if label is not None:
            return str(label[1])
    import os

    try:
        relative = os.path.relpath(file)
    except ValueError:
        return file
    return file if relative.startswith("..") else relative

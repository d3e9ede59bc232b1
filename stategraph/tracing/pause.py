"""Pausing Python's cyclic garbage collector while a program is made.

Tracing and compiling allocate many small objects that all stay alive; the collector would walk them again and
again (measured: a third of the Python side of a first call). It is switched on again when the outermost user
is done.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

_LOCK = threading.Lock()
_depth = 0
_was_enabled = False


class paused_gc:
    """``with paused_gc(): ...`` — nested and concurrent use is fine."""

    def __enter__(self) -> None:
        global _depth, _was_enabled
        with _LOCK:
            if _depth == 0:
                _was_enabled = gc.isenabled()
                gc.disable()
            _depth += 1

    def __exit__(self, *exc: Any) -> None:
        global _depth
        with _LOCK:
            _depth -= 1
            if _depth == 0 and _was_enabled:
                gc.enable()

"""Compiled functions on their way through ``pickle``.

A compiled function is the function and how it is compiled: what was compiled stays in this process, and another one compiles
anew. Like a function of Python's it goes by name where it can be imported by it; a compiled method goes with its model.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

from stategraph.errors import PickleError, describe


def reduce_function(jitted: Any, make: Callable[..., Any], caller: types.FrameType) -> str | tuple[Any, ...]:
    """What ``__reduce_ex__`` returns for a compiled function.

    Args:
      jitted: the compiled function.
      make: makes one of a function and options.
      caller: who pickles. ``cloudpickle`` and ``dill`` take functions by value.

    Raises:
      PickleError: when it can be imported under no name, nor can its function.
    """
    by_value = _takes_functions(caller)
    if not (by_value and jitted.__module__ == "__main__") and _importable(jitted, jitted):
        name: str = jitted.__qualname__
        return name
    function = jitted.function
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.FunctionType) and not by_value and not _importable(function, function):
        raise PickleError(
            describe(
                f"The compiled function {function.__qualname__!r} cannot be pickled.",
                at=f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}",
                why=f"another process cannot import it from {function.__module__!r} by that name",
                fix="define it at the top of a module, or use cloudpickle, which takes functions by value",
            )
        )
    return (make, (jitted.function, jitted._said()))


def method_of(jitted: Any) -> tuple[Any, str]:
    """(model, name) of a compiled method: ``getattr`` of these gives it again."""
    model, name = jitted.__self__, jitted.__name__
    if getattr(model, name, None) != jitted:
        raise PickleError(
            describe(
                f"The compiled method {jitted.__qualname__!r} cannot be pickled or copied.",
                why=f"it is not the attribute {name!r} of its model",
                fix="pickle the model, and take the method from that",
            )
        )
    return model, name


def _importable(function: Any, wanted: Any) -> bool:
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", "").split("."):  # a compiled model has no name
        found = getattr(found, part, None)
    return found is wanted


def _takes_functions(caller: types.FrameType) -> bool:
    name = str(caller.f_globals.get("__name__"))
    return "cloudpickle" in name or name.split(".")[0] == "dill"

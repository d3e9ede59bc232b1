"""Eager calls of loops, branches and gradients, compiled and kept.

The key is what the call computes with: the code of its functions and what they close over. Models and States count by identity and are held
weakly: an entry goes when one of them does.
"""

from __future__ import annotations

import functools
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from stategraph.compile.plans import PlanCache
from stategraph.tracing.functions import signature_of

MOST_ENTRIES = 256
_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_CACHE: OrderedDict[Hashable, tuple[list[Any], PlanCache]] = OrderedDict()
_LOCK = threading.RLock()


def run_cached(name: str, functions: Sequence[Any], options: tuple[Any, ...], body: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """Run ``body(*operands)`` as a compiled program; ``functions`` and ``options`` say what it does."""
    held: list[Any] = []
    key = (name, options, tuple(function_key(function, held) for function in functions))
    with _LOCK:
        entry = _CACHE.get(key)
        if entry is None:
            references = [_weak(obj, key) for obj in held]
            entry = _CACHE[key] = (references, PlanCache())
            while len(_CACHE) > MOST_ENTRIES:
                _CACHE.popitem(last=False)
        else:
            _CACHE.move_to_end(key)
    body.__name__ = name
    return entry[1].call(body, _PLAIN, tuple(operands), {})


_PLAIN = signature_of(lambda *operands: None, None, None, None, None)


def function_key(function: Any, held: list[Any]) -> Hashable:
    """What identifies a function: its code and what it closes over. Objects that count by identity are added to ``held``."""
    if isinstance(function, types.FunctionType):
        contents = tuple(_content_key(cell, held) for cell in function.__closure__ or ())
        defaults = tuple(_value_key(value, held) for value in function.__defaults__ or ())
        named = tuple((k, _value_key(v, held)) for k, v in sorted((function.__kwdefaults__ or {}).items()))
        return (function.__code__, id(function.__globals__), contents, defaults, named)
    if isinstance(function, types.MethodType):
        return (function_key(function.__func__, held), _value_key(function.__self__, held))
    if isinstance(function, functools.partial):
        args = tuple(_value_key(value, held) for value in function.args)
        named = tuple((k, _value_key(v, held)) for k, v in sorted(function.keywords.items()))
        return (function_key(function.func, held), args, named)
    return _value_key(function, held)


def _content_key(cell: Any, held: list[Any]) -> Hashable:
    try:
        return _value_key(cell.cell_contents, held)
    except ValueError:
        return "empty"


def _value_key(value: Any, held: list[Any]) -> Hashable:
    if isinstance(value, _SCALARS):
        return (type(value), value)
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)) and len(held) < 1000:
        if any(value is other for other in held):
            return ("seen", id(value))
        if isinstance(value, types.FunctionType) and value.__closure__ and any(_holds(cell, value) for cell in value.__closure__):
            held.append(value)  # a recursive function closes over itself
            return ("id", id(value))
        return function_key(value, held)
    held.append(value)
    return ("id", id(value))


def _holds(cell: Any, function: Any) -> bool:
    try:
        return cell.cell_contents is function
    except ValueError:
        return False


def _weak(obj: Any, key: Hashable) -> Any:
    """A weak reference that takes the entry with it; objects that have none are kept."""

    def gone(_: Any) -> None:
        _CACHE.pop(key, None)

    try:
        return weakref.ref(obj, gone)
    except TypeError:
        return obj

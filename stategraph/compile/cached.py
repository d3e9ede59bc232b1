"""Eager calls of loops, branches and gradients, compiled and kept.

The key is what the call computes with: the code of its functions, what they close over and the globals that
they mention. Models, States and arrays count by identity and are held weakly: an entry goes when one of them
does.
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
_SCALARS = frozenset((bool, int, float, complex, str, bytes, type(None)))
_CACHE: OrderedDict[Hashable, tuple[list[Any], PlanCache]] = OrderedDict()
_LOCK = threading.RLock()


def run_cached(
    name: str,
    functions: Sequence[Any],
    options: tuple[Any, ...],
    body: Callable[..., Any],
    operands: Sequence[Any],
    *,
    assignments: bool = False,
) -> Any:
    """Run ``body(*operands)`` as a compiled program; ``functions`` and ``options`` say what it does.

    With ``assignments`` every call repeats the attribute assignments that the functions make.
    """
    held: list[Any] = []
    key = (name, options, tuple(function_key(function, held) for function in functions))
    with _LOCK:
        entry = _CACHE.get(key)
        if entry is None:
            references = [_weak(obj, key) for obj in held]
            entry = _CACHE[key] = (references, PlanCache(assignments=assignments))
            while len(_CACHE) > MOST_ENTRIES:
                _CACHE.popitem(last=False)
        else:
            _CACHE.move_to_end(key)
    body.__name__ = name
    return entry[1].call(body, _PLAIN, tuple(operands), {})


_PLAIN = signature_of(lambda *operands: None, None, None, None, None)


def function_key(function: Any, held: list[Any]) -> Hashable:
    """What identifies a function: its code, what it closes over, and the globals that it mentions.

    Objects that count by identity are added to ``held``; lists, tuples and dicts count by what is in them.
    """
    return _Identity(held).of(function)


class _Identity:
    """Builds one key. Functions and containers being looked at are known by their order, so that cycles end."""

    def __init__(self, held: list[Any]) -> None:
        self.held = held
        self.open: dict[int, int] = {}

    def of(self, value: Any) -> Hashable:
        kind = type(value)
        if kind in _SCALARS:
            return (kind, value, str(value) if kind in (float, complex) else None)  # 0.0 == -0.0, nan != nan
        if kind not in _LOOKED_INTO:
            self.held.append(value)
            return ("id", id(value))
        if id(value) in self.open:
            return ("again", self.open[id(value)])
        self.open[id(value)] = len(self.open)
        return (kind, _LOOKED_INTO[kind](self, value))

    def function(self, function: types.FunctionType) -> Hashable:
        return (
            function.__code__,
            id(function.__globals__),
            tuple(map(self.cell, function.__closure__ or ())),
            tuple(map(self.of, function.__defaults__ or ())),
            self.mapping(function.__kwdefaults__ or {}),
            tuple(
                self.shared(function, name)
                for name in _names_in(function.__code__)
                if name in function.__globals__
            ),
        )

    def cell(self, cell: Any) -> Hashable:
        try:
            return self.of(cell.cell_contents)
        except ValueError:
            return "empty"

    def shared(self, function: types.FunctionType, name: str) -> Hashable:
        """A global. Functions of the same module are looked into, those of other modules and modules
        themselves count by identity.
        """
        value = function.__globals__[name]
        if isinstance(value, types.FunctionType) and value.__globals__ is not function.__globals__:
            self.held.append(value)
            return ("id", id(value))
        return self.of(value)

    def method(self, method: types.MethodType) -> Hashable:
        return (self.of(method.__func__), self.of(method.__self__))

    def partial(self, call: functools.partial[Any]) -> Hashable:
        return (self.of(call.func), self.items(call.args), self.mapping(call.keywords))

    def items(self, items: Any) -> Hashable:
        return tuple(map(self.of, items))

    def mapping(self, mapping: Any) -> Hashable:
        return tuple([(self.of(key), self.of(value)) for key, value in mapping.items()])


_LOOKED_INTO: dict[type, Callable[[_Identity, Any], Hashable]] = {
    types.FunctionType: _Identity.function,
    types.MethodType: _Identity.method,
    functools.partial: _Identity.partial,
    list: _Identity.items,
    tuple: _Identity.items,
    dict: _Identity.mapping,
}


@functools.lru_cache(1024)
def _names_in(code: types.CodeType) -> tuple[str, ...]:
    """The globals that code may mention, code nested in it included."""
    names = dict.fromkeys(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names.update(dict.fromkeys(_names_in(const)))
    return tuple(names)


def _weak(obj: Any, key: Hashable) -> Any:
    """A weak reference that takes the entry with it; objects that have none are kept."""

    def gone(_: Any) -> None:
        _CACHE.pop(key, None)

    try:
        return weakref.ref(obj, gone)
    except TypeError:
        return obj

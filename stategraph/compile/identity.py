"""What a function computes with, as a key: its code, what it closes over, and the globals that it mentions.

Plain functions, bound methods, partials, transformed functions, lists, tuples and dicts are *looked into*. What is found
there counts by value (numbers, texts, NumPy arrays), by identity (models, States, all other objects), or, for JAX arrays, by
place: they are *open*, so that one key stands for a function of them. Two places that hold one array stay apart from two
that hold two.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from stategraph import _jax

_SCALARS = frozenset((bool, int, float, complex, str, bytes, type(None)))


class ByValue:
    """Something hashable that counts by value, whatever it is."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Identity:
    """Builds one key. Functions and containers being looked at are known by their order, so that cycles end.

    Args:
      closed: whether JAX arrays count by identity too.
    """

    def __init__(self, closed: bool = False) -> None:
        self.closed = closed
        self.held: list[Any] = []
        """What counts by identity."""
        self.arrays: list[Any] = []
        """The open arrays, each once, in the order of their places."""
        self.open: dict[int, int] = {}

    def of(self, value: Any) -> Hashable:
        kind = type(value)
        if kind in _SCALARS:
            return (kind, value, str(value) if kind in (float, complex) else None)  # 0.0 == -0.0, nan != nan
        look = _LOOKED_INTO.get(kind)
        if look is None:
            return _scalar(value) if isinstance(value, np.generic) else self.by_identity(value)
        if id(value) in self.open:
            return ("again", self.open[id(value)])
        self.open[id(value)] = len(self.open)
        return (kind, look(self, value))

    def by_identity(self, value: Any) -> Hashable:
        self.held.append(value)
        return ("id", id(value))

    def array(self, array: Any) -> Hashable:
        if self.closed:
            return self.by_identity(array)
        self.arrays.append(array)
        return None

    def numbers(self, array: np.ndarray) -> Hashable:
        """A NumPy array, which may be edited in place: what it holds now."""
        if array.dtype.hasobject:
            return self.by_identity(array)
        content = hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
        return (array.shape, array.dtype.str, array.dtype.name, content.digest())

    def function(self, function: types.FunctionType) -> Hashable:
        return (
            function.__code__,
            id(function.__globals__),
            tuple(map(self.cell, function.__closure__ or ())),
            tuple(map(self.of, function.__defaults__ or ())),
            self.mapping(function.__kwdefaults__ or {}),
            tuple([self.shared(function, name) for name in names_in(function.__code__)]),
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
        shared = function.__globals__
        if name not in shared:
            return "missing"
        value = shared[name]
        return self.by_identity(value) if is_elsewhere(function, value) else self.of(value)

    def method(self, method: types.MethodType) -> Hashable:
        return (self.of(method.__func__), self.of(method.__self__))

    def partial(self, call: functools.partial[Any]) -> Hashable:
        return (self.of(call.func), self.items(call.args), self.mapping(call.keywords))

    def wrapper(self, wrapper: Any) -> Hashable:
        return (self.of(wrapper.function), self.items(wrapper._said()))

    def by_value(self, thing: ByValue) -> Hashable:
        return (thing.value,)

    def items(self, items: Any) -> Hashable:
        return tuple(map(self.of, items))

    def mapping(self, mapping: Any) -> Hashable:
        return tuple([(self.of(key), self.of(value)) for key, value in mapping.items()])


_LOOKED_INTO: dict[type, Callable[[Identity, Any], Hashable]] = {
    types.FunctionType: Identity.function,
    types.MethodType: Identity.method,
    functools.partial: Identity.partial,
    list: Identity.items,
    tuple: Identity.items,
    dict: Identity.mapping,
    np.ndarray: Identity.numbers,
    ByValue: Identity.by_value,
    **dict.fromkeys(_jax.ARRAY_KINDS, Identity.array),
}


Kind = TypeVar("Kind", bound=type)


def looked_into(kind: Kind) -> Kind:
    """A class of functions made of another ``function`` and of what ``_said()`` returns: it is looked into as well."""
    _LOOKED_INTO[kind] = Identity.wrapper
    WRAPPERS.add(kind)
    return kind


WRAPPERS: set[type] = set()


def _scalar(value: np.generic) -> Hashable:
    return (type(value), value.dtype.str, value.tobytes())


def is_elsewhere(function: types.FunctionType, value: Any) -> bool:
    """Whether a global of ``function`` is a function of another module, which is not looked into."""
    return isinstance(value, types.FunctionType) and value.__globals__ is not function.__globals__


@functools.lru_cache(1024)
def names_in(code: types.CodeType) -> tuple[str, ...]:
    """The globals that code may mention, code nested in it included."""
    names = dict.fromkeys(
        str(found.argval)
        for found in dis.get_instructions(code)
        if "GLOBAL" in found.opname or found.opname == "LOAD_NAME"
    )
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names.update(dict.fromkeys(names_in(const)))
    return tuple(names)


def function_key(functions: Sequence[Any]) -> Hashable:
    """What identifies functions up to the values of the arrays that they close over: these count by type."""
    identity = Identity()
    parts = tuple([identity.of(function) for function in functions])
    return parts, tuple([(array.shape, array.dtype) for array in identity.arrays])

"""Functions in which other values stand for the arrays that they close over.

A program whose arrays are operands is traced from a copy of its functions: plain functions with cells and globals of their own, and
containers, wherever they lead to an array, and nowhere else. What ``identity`` looks into is copied; models and other objects
stay what they are.

Running a copy means what running the function means as long as nothing assigns what the copies have of their own;
``unchanged`` says whether that held.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from stategraph.compile.identity import WRAPPERS, is_elsewhere, names_in


class Copies:
    """Copies of functions.

    Args:
      roots: the functions.
      stand_ins: what stands for each array, by the id of the array.
    """

    def __init__(self, roots: Sequence[Any], stand_ins: Mapping[int, Any]) -> None:
        self.made: dict[int, Any] = dict(stand_ins)
        self.cells: dict[int, tuple[types.CellType, types.CellType]] = {}
        """(cell, its copy), by the id of the cell."""
        self.globals: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        """(globals, their copy), by id."""
        self.containers: list[tuple[Any, Any]] = []
        """(list or dict, its copy)."""
        self.before: list[tuple[Callable[[], Any], Any]] = []
        self.leading = _leading(roots, stand_ins)
        self.roots = [self.of(root) for root in roots]
        self._remember()

    def of(self, value: Any) -> Any:
        """The copy of a value, or the value itself where it leads to no array."""
        if id(value) not in self.leading:
            return value
        if id(value) not in self.made:
            kind = type(value)
            self.made[id(value)] = self.wrapper(value) if kind in WRAPPERS else _COPIED[kind](self, value)
        return self.made[id(value)]

    def function(self, function: types.FunctionType) -> types.FunctionType:
        cells = [self.cell(cell) for cell in function.__closure__ or ()]
        shared = function.__globals__
        mentioned = {
            name: shared[name]
            for name in names_in(function.__code__)
            if name in shared and not is_elsewhere(function, shared[name])
        }
        own = shared
        if any(id(value) in self.leading for value in mentioned.values()):
            own = self.globals.setdefault(id(shared), (shared, dict(shared)))[1]
        new = types.FunctionType(
            function.__code__, own, function.__name__, None, tuple(cells) if cells else None
        )
        self.made[id(function)] = new  # it may lead to itself
        if own is not shared:
            own.update({name: self.of(value) for name, value in mentioned.items()})
        for cell in function.__closure__ or ():
            if id(cell) in self.cells:
                self.cells[id(cell)][1].cell_contents = self.of(cell.cell_contents)
        defaults, named = function.__defaults__, function.__kwdefaults__
        new.__defaults__ = None if defaults is None else tuple(map(self.of, defaults))
        new.__kwdefaults__ = named and {name: self.of(value) for name, value in named.items()}
        new.__qualname__, new.__module__, new.__doc__ = (
            function.__qualname__,
            function.__module__,
            function.__doc__,
        )
        new.__dict__ = function.__dict__  # assigned in common
        return new

    def cell(self, cell: types.CellType) -> types.CellType:
        if id(cell) not in self.cells:
            try:
                if id(cell.cell_contents) not in self.leading:
                    return cell
            except ValueError:  # it is still empty
                return cell
            self.cells[id(cell)] = (cell, types.CellType())
        return self.cells[id(cell)][1]

    def method(self, method: types.MethodType) -> Any:
        return types.MethodType(self.of(method.__func__), self.of(method.__self__))

    def partial(self, call: functools.partial[Any]) -> Any:
        named = {name: self.of(value) for name, value in call.keywords.items()}
        return functools.partial(self.of(call.func), *map(self.of, call.args), **named)

    def wrapper(self, wrapper: Any) -> Any:
        new = copy.copy(wrapper)
        new.function = new.__wrapped__ = self.of(wrapper.function)
        return new

    def list(self, items: list[Any]) -> list[Any]:
        new: list[Any] = []
        self.made[id(items)] = new
        self.containers.append((items, new))
        new.extend(map(self.of, items))
        return new

    def dict(self, items: dict[Any, Any]) -> dict[Any, Any]:
        new: dict[Any, Any] = {}
        self.made[id(items)] = new
        self.containers.append((items, new))
        new.update({key: self.of(value) for key, value in items.items()})
        return new

    def tuple(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(map(self.of, items))

    # --------------------------------------------------------------------------------------------- afterwards

    def _remember(self) -> None:
        """What the originals and the copies hold, before anything runs."""
        for cell in [cell for pair in self.cells.values() for cell in pair]:
            self.before.append((functools.partial(_contents, cell), _contents(cell)))
        for container in [c for pair in (*self.globals.values(), *self.containers) for c in pair]:
            self.before.append((functools.partial(_items, container), _items(container)))

    def unchanged(self) -> bool:
        """Whether nothing was assigned to what has a copy, nor to a copy."""
        return all(_same(look(), then) for look, then in self.before)


_COPIED: dict[type, Callable[[Copies, Any], Any]] = {
    types.FunctionType: Copies.function,
    types.MethodType: Copies.method,
    functools.partial: Copies.partial,
    list: Copies.list,
    dict: Copies.dict,
    tuple: Copies.tuple,
}


def _parts(value: Any) -> Iterator[Any]:
    """What ``identity`` finds in a value when it looks into it."""
    if isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            contents = _contents(cell)
            if contents:
                yield contents[0]
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        shared = value.__globals__
        for name in names_in(value.__code__):
            if name in shared and not is_elsewhere(value, shared[name]):
                yield shared[name]
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif type(value) in WRAPPERS:
        yield value.function
    elif type(value) is dict:
        yield from value.values()
    elif type(value) in (list, tuple):
        yield from value


def _leading(roots: Sequence[Any], stand_ins: Mapping[int, Any]) -> set[int]:
    """The ids of all that leads from ``roots`` to an array."""
    parts: dict[int, list[int]] = {}
    stack = list(roots)
    while stack:
        value = stack.pop()
        if id(value) not in parts:
            inside = list(_parts(value))
            parts[id(value)] = list(map(id, inside))
            stack += inside
    found: set[int] = set(stand_ins)
    while True:  # at most one round for each value
        more = {value for value, inside in parts.items() if not found.isdisjoint(inside)} - found
        if not more:
            return found
        found |= more


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _items(container: Any) -> tuple[Hashable | Any, ...]:
    if isinstance(container, dict):
        return (*container, *container.values())
    return tuple(container)


def _same(now: tuple[Any, ...], then: tuple[Any, ...]) -> bool:
    return len(now) == len(then) and all(a is b for a, b in zip(now, then, strict=True))

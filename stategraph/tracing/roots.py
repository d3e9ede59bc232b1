"""Where a traced function gets its State from: names for symbols.

A State is named by its path in the object graph: relative to the model for ``trace(model)`` and for a bound
method, beginning with the variable's name for a closure or global. Those that are not found there are named after
themselves, a global variable of a module whose code may run, or the line that created them.
"""

from __future__ import annotations

import functools
import linecache
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from stategraph.graph.node import Node
from stategraph.graph.walk import path_text, walk
from stategraph.state import State

_NONE: Mapping[str, Any] = types.MappingProxyType({})
_NO_MODELS: Mapping[int, tuple[str, ...]] = types.MappingProxyType({})


def function_roots(function: Callable[..., Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(path prefix, object) for everything that a function can reach by name."""
    seen: set[int] = set()
    stack: list[Any] = [function]
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, functools.partial):
            stack += [*current.args, *current.keywords.values(), current.func]
        elif isinstance(current, types.MethodType):
            yield (), current.__self__
            stack.append(current.__func__)
        elif isinstance(current, types.FunctionType):
            for name, value in _names(current):
                yield (name,), value
                stack += filter(_is_function, value if isinstance(value, (list, tuple)) else (value,))
            if hasattr(current, "__wrapped__"):
                stack.append(current.__wrapped__)
        elif isinstance(current, (Node, State)):
            yield (), current
            stack += [vars(type(current)).get(name) for name in ("update", "__call__")]
        elif isinstance(getattr(current, "__self__", None), Node):
            yield (), current.__self__
        elif hasattr(current, "__wrapped__"):
            stack.append(current.__wrapped__)


def _is_function(value: Any) -> bool:
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        return True
    return "__wrapped__" in getattr(value, "__dict__", ())


def _names(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Closure variables, then globals that the code (or code nested in it) mentions, then defaults."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # the cell is still empty
            continue
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        for name in code.co_names:
            if name in function.__globals__:
                yield name, function.__globals__[name]
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    for index, value in enumerate(function.__defaults__ or ()):
        yield f"default{index}", value


def nameless_models(function: Callable[..., Any]) -> list[Node]:
    """The models that States are named relative to: a function's own, as in ``model.update``."""
    return [root for prefix, root in function_roots(function) if not prefix and isinstance(root, Node)]


def known_as(models: list[Node], *scopes: Mapping[str, Any]) -> dict[int, tuple[str, ...]]:
    """Under which names, or attributes of Nodes with names, the variables in scope know these: paths by id."""
    wanted = set(map(id, models))
    found: dict[int, tuple[str, ...]] = {}
    for scope in scopes if wanted else ():
        # What begins with an underscore (a notebook's last result) comes last.
        variables = sorted(scope.items(), key=lambda variable: str(variable[0]).startswith("_"))
        for name, value in variables:
            if id(value) in wanted:
                found.setdefault(id(value), (name,))
        for name, value in variables if len(found) < len(wanted) else ():
            for attribute, part in getattr(value, "__dict__", {}).items() if isinstance(value, Node) else ():
                if id(part) in wanted:
                    found.setdefault(id(part), (name, attribute))
    return found


def find_names(
    function: Callable[..., Any],
    arguments: Mapping[str, Any] = _NONE,
    models: Mapping[int, tuple[str, ...]] = _NO_MODELS,
) -> tuple[dict[int, str], dict[int, str]]:
    """(names of States, names of arrays) reachable from a function and its arguments (by name), both by
    object id; ``models`` are paths of what is nameless in the function, likewise.
    """
    states: dict[int, str] = {}
    arrays: dict[int, str] = {}
    roots = [*(((name,), argument) for name, argument in arguments.items()), *function_roots(function)]
    roots.sort(key=lambda root: _choice(root[1]))
    for prefix, root in roots:
        prefix = prefix or models.get(id(root), ())
        if not isinstance(root, (Node, State, list, tuple, dict, jax.Array)):
            if hasattr(root, "shape") and prefix:
                arrays.setdefault(id(root), path_text(prefix))
            continue
        for path, obj in walk(root, prefix):
            if isinstance(obj, State):
                states.setdefault(id(obj), path_text(path))
            elif hasattr(obj, "shape") and hasattr(obj, "dtype") and path:
                arrays.setdefault(id(obj), path_text(path))
    return states, arrays


def _choice(root: Any) -> int:
    """A State's path leads through the model; through an optimiser, or a dict of the model's States (`params =
    model.states()`), where there is no other.
    """
    if not isinstance(root, (Node, State)):
        return 2
    return int(getattr(type(root), "_refers_to_states", False))


class StateNames:
    """A name for each State that a function touches, no two the same."""

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any] = _NONE) -> None:
        self.states, self.arrays = find_names(function, arguments)
        self.taken: set[str] = set()
        self._roots = [function, *arguments.values()]
        self._given: dict[int, str] = {}

    def of(self, state: State[Any]) -> str:
        """The State's name, the same each time."""
        found = self._given.get(id(state))
        if found is None:
            found = self._given[id(state)] = self.fresh(state)
        return found

    def fresh(self, state: State[Any], local: bool = False) -> str:
        """The State's name, another one each time: ``c``, then ``c_1``, ``c_2`` …; ``local`` for one that the
        function makes, which no module holds.
        """
        known = self.states.get(id(state)) or state.name or (not local and self._in_modules.get(id(state)))
        return unique(known or creation_name(state), self.taken)

    @functools.cached_property
    def _in_modules(self) -> dict[int, str]:
        """The States in global variables of the modules in which the function, and the classes of Nodes that it
        reaches, are defined. Few States are found nowhere else, and only then are these looked through.
        """
        names: dict[str | None, None] = {}
        for root in self._roots:
            names[getattr(root, "__module__", None)] = None
            for _, value in function_roots(root):
                parts = walk(value, ()) if isinstance(value, (Node, list, tuple, dict)) else [((), value)]
                names |= {getattr(part, "__module__", None): None for _, part in parts}
        states: dict[int, str] = {}
        for name in names:
            if name is None or name.partition(".")[0] == "stategraph" or name not in sys.modules:
                continue
            scope = vars(sys.modules[name]).items()
            for variable, value in sorted(
                scope, key=lambda item: (item[0].startswith("_"), _choice(item[1]))
            ):
                if isinstance(value, (Node, State, list, tuple, dict)) and not variable.startswith("__"):
                    for path, part in walk(value, (variable,)):
                        if isinstance(part, State):
                            states.setdefault(id(part), path_text(path))
        return states


def unique(name: str, taken: set[str]) -> str:
    """``name``, or ``name_1``, ``name_2`` … when it is taken; the result is taken from now on."""
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def creation_name(state: State[Any]) -> str:
    """A name from the line that created the State: ``c`` for ``c = State(0.)``; else its class and line."""
    code, line = state._source
    text = linecache.getline(code.co_filename, line)
    match = re.match(r"\s*(?:self\.)?([A-Za-z_]\w*)\s*(?::[^=]+)?=[^=]", text)
    if match:
        return match.group(1)
    return f"{type(state).__name__}_{line}"

"""Walking the object graph: Nodes, the lists, tuples and dicts they hold, and the States at its leaves.

Order is deterministic (attributes and keys sorted, lists in their order), each object is visited once
however many paths lead to it, at
the first of them in that order; cycles are fine, and nothing recurses. The *level* of a thing is the number
of Nodes between it and the
root on the shortest way: the root and its own States have level 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from stategraph.graph.kinds import (
    ARRAY,
    DICT,
    LEAF,
    LIST,
    NODE,
    NONE,
    REGISTERED,
    SHARED,
    STATE,
    TUPLE,
    check_root,
    children,
    children_of,
    kind_of,
)
from stategraph.graph.node import Node, saw_structure
from stategraph.recording import LOCAL
from stategraph.state import State
from stategraph.typing import Filter, PathParts
from stategraph.util.filter import to_predicates
from stategraph.util.mapping import FlattedDict

Path = tuple[Any, ...]

MAX_LEVEL = 2147483647
ALL_LEVELS = (0, MAX_LEVEL)
"""The levels that are meant when none are named."""

__all__ = [
    "ALL_LEVELS",
    "children",
    "iter_children",
    "iter_leaf",
    "iter_node",
    "nodes",
    "note_structure",
    "path_text",
    "seen_walk",
    "states",
    "walk",
]

_ONCE = SHARED | {TUPLE}


def walk(root: Any, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every (path, object) reachable from ``root``, itself included, shortest path first among equals."""
    seen: dict[int, Any] = {}  # holds what it has seen: the id of a temporary could come again
    stack: list[tuple[Path, Any]] = [(prefix, root)]
    while stack:
        path, obj = stack.pop()
        kind = kind_of(obj)
        if kind in _ONCE:
            if id(obj) in seen:
                continue
            seen[id(obj)] = obj
        yield path, obj
        stack.extend([((*path, key), child) for key, child in reversed(children_of(obj, kind))])


def seen_walk(root: Any) -> Iterator[tuple[Path, Any]]:
    """``walk`` by traced code: the program depends on everything there that can lead to a State."""
    recorder = LOCAL.recorder
    for path, obj in walk(root):
        if recorder is not None and isinstance(obj, Node):
            saw_structure(recorder, obj)
        yield path, obj


def note_structure(obj: Any) -> None:
    """Called for each Node that traced code looks at as a whole: the program depends on its structure."""
    recorder = LOCAL.recorder
    if recorder is not None and isinstance(obj, Node):
        saw_structure(recorder, obj)


# --------------------------------------------------------------------------------------------------- levels


def _levels(root: Any) -> dict[int, int]:
    """The level of every Node and State (and list and dict), by id."""
    levels = {id(root): 0}
    queue: deque[tuple[Any, int, int]] = deque([(root, kind_of(root), 0)])
    while queue:
        obj, kind, level = queue.popleft()
        if level > levels.get(id(obj), level):
            continue
        for _, child in children_of(obj, kind):
            child_kind = kind_of(child)
            if child_kind not in _INSIDE:
                continue
            enters = child_kind in (NODE, REGISTERED)
            below = level + enters
            if child_kind in SHARED:
                if below >= levels.get(id(child), MAX_LEVEL + 1):
                    continue
                levels[id(child)] = below
            if enters:
                queue.append((child, child_kind, below))
            elif child_kind != STATE:
                queue.appendleft((child, child_kind, below))
    return levels


def _check_hierarchy(allowed: tuple[int, int]) -> tuple[int, int]:
    try:
        low, high = allowed
        return int(low), int(high)
    except (TypeError, ValueError):
        raise TypeError(
            f"allowed_hierarchy is a pair (lowest level, highest level), not {allowed!r}"
        ) from None


# --------------------------------------------------------------------------------------------------- leaves


def iter_leaf(node: Any, allowed_hierarchy: tuple[int, int] = ALL_LEVELS) -> Iterator[tuple[PathParts, Any]]:
    """Every State, array and setting of a model, with its path; States that have several paths once.
    ``None`` is no leaf.

    Args:
      node: a model, or a container of models.
      allowed_hierarchy: the lowest and highest level wanted; the model's own leaves are at level 0.

    Example:

    >>> import stategraph as sg
    >>> class Layer(sg.graph.Node):
    ...     def __init__(self):
    ...         self.size = (2,)
    ...         self.weight = sg.ParamState(1.0)
    >>> [path for path, leaf in sg.graph.iter_leaf(Layer())]
    [('size', 0), ('weight',)]
    """
    check_root(node, "iter_leaf")
    low, high = _check_hierarchy(allowed_hierarchy)
    levels = None if (low, high) == ALL_LEVELS else _levels(node)
    seen: dict[int, Any] = {}  # holds what it has seen: the id of a temporary could come again
    stack: list[tuple[Path, Any, int]] = [((), node, id(node))]
    while stack:
        path, obj, holder = stack.pop()
        kind = kind_of(obj)
        if kind in SHARED:
            if id(obj) in seen:
                continue
            seen[id(obj)] = obj
        below = () if kind == STATE else children_of(obj, kind)
        if kind in (NODE, REGISTERED):
            note_structure(obj)
            holder = id(obj)
        if below:
            stack.extend([((*path, key), child, holder) for key, child in reversed(below)])
        elif kind not in (NODE, REGISTERED, LIST, DICT, TUPLE, NONE):
            if levels is None or low <= levels.get(id(obj) if kind == STATE else holder, 0) <= high:
                yield path, obj


def _found(root: Any) -> list[tuple[Path, State[Any]]]:
    """(path, State) in order."""
    found: list[tuple[Path, State[Any]]] = []
    seen: dict[int, Any] = {}  # holds what it has seen: the id of a temporary could come again
    recorder = LOCAL.recorder
    stack: list[tuple[Path, Any, int]] = [((), root, kind_of(root))]
    while stack:
        path, obj, kind = stack.pop()
        if kind in SHARED:
            if id(obj) in seen:
                continue
            seen[id(obj)] = obj
            if kind == STATE:
                found.append((path, obj))
                continue
            if recorder is not None and kind == NODE:
                saw_structure(recorder, obj)
        for key, child in reversed(children_of(obj, kind)):
            child_kind = kind_of(child)
            if child_kind in _INSIDE:
                stack.append(((*path, key), child, child_kind))
    return found


_INSIDE = frozenset(range(10)) - {LEAF, NONE, ARRAY}
"""Kinds that are States or may hold some."""


# ---------------------------------------------------------------------------------------------------- nodes


def iter_node(node: Any, allowed_hierarchy: tuple[int, int] = ALL_LEVELS) -> Iterator[tuple[PathParts, Any]]:
    """Every Node of a model with its path, each once: what a Node holds comes before it, and the model
    itself, at ``()``, last.

    Args:
      node: a model, or a container of models.
      allowed_hierarchy: the lowest and highest level wanted; the model itself is at level 0, ``(1, 1)`` are
        its children.
    """
    check_root(node, "iter_node")
    low, high = _check_hierarchy(allowed_hierarchy)
    levels = None if (low, high) == ALL_LEVELS else _levels(node)
    seen: dict[int, Any] = {}  # holds what it has seen: the id of a temporary could come again
    stack: list[tuple[Path, Any, int]] = [((), node, kind_of(node))]
    while stack:
        path, obj, kind = stack.pop()
        if kind < 0:
            if levels is None or low <= levels[id(obj)] <= high:
                yield path, obj
            continue
        if kind in SHARED:
            if id(obj) in seen:
                continue
            seen[id(obj)] = obj
        if kind in (NODE, REGISTERED):
            note_structure(obj)
            stack.append((path, obj, -1))  # after everything below it
        for key, child in reversed(children_of(obj, kind)):
            child_kind = kind_of(child)
            if child_kind in _INSIDE and child_kind != STATE:
                stack.append(((*path, key), child, child_kind))


def iter_children(node: Any) -> Iterator[tuple[PathParts, Any]]:
    """The Nodes that a Node holds directly or in its lists, tuples and dicts, with their paths, each once;
    not the Node itself.

    Example:

    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self):
    ...         self.layers = [sg.graph.Node(), sg.graph.Node()]
    >>> [path for path, child in sg.graph.iter_children(Net())]
    [('layers', 0), ('layers', 1)]
    """
    check_root(node, "iter_children")
    note_structure(node)
    seen: dict[int, Any] = {id(node): node}
    stack: list[tuple[Path, Any]] = [((key,), child) for key, child in reversed(children(node))]
    while stack:
        path, obj = stack.pop()
        kind = kind_of(obj)
        if kind in SHARED:
            if id(obj) in seen:
                continue
            seen[id(obj)] = obj
        if kind in (NODE, REGISTERED):
            yield path, obj
        elif kind != STATE:
            stack.extend([((*path, key), child) for key, child in reversed(children_of(obj, kind))])


# ---------------------------------------------------------------------------------------------- collections


def states(node: Any, *filters: Filter, allowed_hierarchy: tuple[int, int] = ALL_LEVELS) -> Any:
    """The States of a model by path, each once.

    Args:
      node: a model, or a container of models.
      *filters: which States. With several, each State goes to the first filter that matches; those that
        match none are left out.
      allowed_hierarchy: the lowest and highest level wanted; the model's own States are at level 0.

    Returns:
      A ``FlattedDict``; with several filters a tuple of them.

    Example:

    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self):
    ...         self.weight = sg.ParamState(2.0)
    ...         self.v = sg.HiddenState(0.0)
    >>> params, others = sg.graph.states(Net(), sg.ParamState, ...)
    >>> list(params), list(others)
    ([('weight',)], [('v',)])
    """
    check_root(node, "states")
    low, high = _check_hierarchy(allowed_hierarchy)
    found = _found(node)
    if (low, high) != ALL_LEVELS:
        levels = _levels(node)
        found = [(path, state) for path, state in found if low <= levels[id(state)] <= high]
    return _by_filter(found, filters)


def nodes(node: Any, *filters: Filter, allowed_hierarchy: tuple[int, int] = ALL_LEVELS) -> Any:
    """The Nodes of a model by path, each once, the model itself last, under ``()``.

    Args:
      node: a model, or a container of models.
      *filters: which Nodes. With several, each Node goes to the first filter that matches; those that match
        none are left out.
      allowed_hierarchy: the lowest and highest level wanted; the model itself is at level 0, ``(1, 1)`` are
        its children.

    Returns:
      A ``FlattedDict``; with several filters a tuple of them.
    """
    return _by_filter(list(iter_node(node, allowed_hierarchy)), filters)


def _by_filter(found: list[tuple[Path, Any]], filters: tuple[Filter, ...]) -> Any:
    if not filters:
        return FlattedDict(found)
    predicates = to_predicates(filters)
    groups = [FlattedDict() for _ in predicates]
    for path, obj in found:
        for predicate, group in zip(predicates, groups, strict=True):
            if predicate(path, obj):
                group[path] = obj
                break
    return groups[0] if len(groups) == 1 else tuple(groups)


def path_text(path: Path) -> str:
    """A path as people write it: ``net.layers[0].W``."""
    text = ""
    for step in path:
        if isinstance(step, str) and step.isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"[{step!r}]"
    return text

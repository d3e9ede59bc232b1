"""Walking the object graph: Nodes, the lists, tuples and dicts they hold, and the States at its leaves.

Order is deterministic (attributes alphabetically, containers in their order), each object is visited once however many paths lead to
it, cycles are fine, and nothing recurses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stategraph.graph.filters import Filter, to_predicate
from stategraph.graph.node import Node, saw_structure
from stategraph.recording import LOCAL
from stategraph.state import State

Path = tuple[Any, ...]


def children(obj: Any) -> list[tuple[Any, Any]]:
    """(key, child) of a Node or container; nothing for other objects."""
    if isinstance(obj, Node):
        return sorted(object.__getattribute__(obj, "__dict__").items())
    if isinstance(obj, dict):
        return list(obj.items())
    if isinstance(obj, (list, tuple)):
        return list(enumerate(obj))
    return []


def walk(root: Any, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every (path, object) reachable from ``root``, itself included, shortest path first among equals."""
    seen: set[int] = set()
    stack: list[tuple[Path, Any]] = [(prefix, root)]
    while stack:
        path, obj = stack.pop()
        if isinstance(obj, (Node, State, list, tuple, dict)):
            if id(obj) in seen:
                continue
            seen.add(id(obj))
        yield path, obj
        stack.extend([((*path, key), child) for key, child in reversed(children(obj))])


def seen_walk(root: Any) -> Iterator[tuple[Path, Any]]:
    """``walk`` by traced code: the program depends on everything there that can lead to a State."""
    recorder = LOCAL.recorder
    for path, obj in walk(root):
        if recorder is not None and isinstance(obj, Node):
            saw_structure(recorder, obj)
        yield path, obj


def states(node: Any, *filters: Filter) -> Any:
    """The States of a model by path. With several filters, a tuple with one dict each; the first match counts."""
    found = {path: obj for path, obj in seen_walk(node) if isinstance(obj, State)}
    if not filters:
        return found
    predicates = [to_predicate(one) for one in filters]
    groups: list[dict[Path, State[Any]]] = [{} for _ in filters]
    for path, state in found.items():
        for predicate, group in zip(predicates, groups, strict=True):
            if predicate(path, state):
                group[path] = state
                break
    return groups[0] if len(groups) == 1 else tuple(groups)


def nodes(node: Any, *filters: Filter) -> Any:
    """The Nodes of a model by path, the root under ``()``."""
    found = {path: obj for path, obj in seen_walk(node) if isinstance(obj, Node)}
    if not filters:
        return found
    predicates = [to_predicate(one) for one in filters]
    groups = [{path: obj for path, obj in found.items() if predicate(path, obj)} for predicate in predicates]
    return groups[0] if len(groups) == 1 else tuple(groups)


def path_text(path: Path) -> str:
    """A path as people write it: ``net.layers[0].W``."""
    text = ""
    for step in [part for step in path for part in (step if isinstance(step, tuple) else (step,))]:
        if isinstance(step, str) and step.isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"[{step!r}]"
    return text

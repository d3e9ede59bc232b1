"""Node: an object that holds States, other Nodes, and plain attributes.

Nodes report rebinding of their attributes: compiled functions notice that a State or a setting was
replaced, and a trace undoes what the traced code assigned (see ``recording``). Reading an attribute
costs nothing extra outside of a trace.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from stategraph import _jax
from stategraph.graph.construction import Construction
from stategraph.graph.copying import deepcopy_node
from stategraph.recording import EPOCHS, LOCAL, MISSING, Recorder
from stategraph.state import State


class Node:
    """Base of everything that may hold State. Works without ``super().__init__()``."""

    # What `_construction` holds is no attribute: it is neither walked, nor compared, nor copied.
    __slots__ = ("__dict__", "__weakref__", "_construction")

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = object.__new__(cls)
        object.__setattr__(self, "_construction", Construction.of(args, kwargs))
        recorder = LOCAL.recorder
        if recorder is not None:
            recorder.new_nodes[id(self)] = self
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        before = instance_dict(self).get(name, MISSING)
        object.__setattr__(self, name, value)
        _rebound(self, name, before, instance_dict(self).get(name, MISSING))

    def __delattr__(self, name: str) -> None:
        before = instance_dict(self).get(name, MISSING)
        recorder = LOCAL.recorder
        if recorder is not None:
            recorder.orders.setdefault(id(self), (self, list(instance_dict(self))))
        object.__delattr__(self, name)
        _rebound(self, name, before, MISSING)

    def __getstate__(self) -> Any:
        state = object.__getstate__(self)
        attributes, slots = state if isinstance(state, tuple) else (state, {})
        return attributes, {**slots, "_construction": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return deepcopy_node(self, memo)

    def __repr__(self) -> str:
        from stategraph.graph.show import node_repr

        return node_repr(self)


def instance_dict(node: Any) -> dict[str, Any]:
    """The attributes of a Node, as they are stored."""
    found: dict[str, Any] = object.__getattribute__(node, "__dict__")
    return found


def _rebound(node: Node, name: str, before: Any, after: Any) -> None:
    if before is after:
        return
    recorder = LOCAL.recorder
    if recorder is None:
        EPOCHS.moved()
        return
    if id(node) not in recorder.new_nodes:
        recorder.journal.append((node, name, before, after))
        recorder.assigned[(id(node), name)] = _jax.here()
    recorder.advance()


# -------------------------------------------------------------------------- which attributes a trace looks at

_WATCH_LOCK = threading.Lock()
_watchers = 0


def _watched_getattribute(self: Node, name: str) -> Any:
    recorder = LOCAL.recorder
    if recorder is not None and not name.startswith("__"):
        _saw(recorder, self, name)
    return object.__getattribute__(self, name)


def _saw(recorder: Recorder, node: Node, name: str) -> None:
    key = (id(node), name)
    if key in recorder.guards or key in recorder.assigned or id(node) in recorder.new_nodes:
        return
    value = instance_dict(node).get(name, MISSING)
    recorder.guards[key] = (node, name, value)
    _saw_value(recorder, value)


def _saw_value(recorder: Recorder, value: Any) -> None:
    if isinstance(value, (list, dict)):
        _saw_container(recorder, value)
    elif isinstance(value, tuple):
        for item in value:
            _saw_value(recorder, item)


def _saw_container(recorder: Recorder, container: Any) -> None:
    if id(container) in recorder.containers:
        return
    recorder.containers[id(container)] = (container, container.copy())
    for item in container.values() if isinstance(container, dict) else container:
        _saw_value(recorder, item)


class Structure:
    """In a guard, in place of an attribute's name: all attributes that can lead to States, but for the
    ``ignored`` ones.
    """

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        self.ignored = ignored

    def of(self, attributes: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
        return tuple(
            [
                (name, value)
                for name, value in sorted(attributes.items())
                if name not in self.ignored and _leads(value)
            ]
        )


def _leads(value: Any) -> bool:
    """Whether a State can be found through a value. A container counts when it is empty or one of its first
    items does.
    """
    if isinstance(value, (Node, State)):
        return True
    if isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        return not value or any(_leads(item) for item in itertools.islice(items, 16) if item is not value)
    return False


def attribute_of(node: Node, name: str | Structure) -> Any:
    """What a guard compares: the value of an attribute, ``MISSING`` for none."""
    attributes = instance_dict(node)
    return attributes.get(name, MISSING) if isinstance(name, str) else name.of(attributes)


def saw_structure(recorder: Recorder, node: Node) -> None:
    """The trace looked at all attributes of ``node``, as they were before it assigned any."""
    key = (id(node), "*")
    if key in recorder.guards or id(node) in recorder.new_nodes:
        return
    attributes = dict(instance_dict(node))
    for changed, name, before, _ in reversed(recorder.journal):
        if changed is node:
            attributes[name] = before
    found = Structure().of(attributes)
    recorder.guards[key] = (node, "*", found)
    for _, value in found:
        _saw_value(recorder, value)


class watching:
    """While active, a trace in progress learns which attributes of Nodes it reads. Nested and concurrent
    use is fine.
    """

    def __enter__(self) -> None:
        global _watchers
        with _WATCH_LOCK:
            _watchers += 1
            if _watchers == 1:
                Node.__getattribute__ = _watched_getattribute  # type: ignore[method-assign, assignment]

    def __exit__(self, *exc: Any) -> None:
        global _watchers
        with _WATCH_LOCK:
            _watchers -= 1
            if _watchers == 0:
                del Node.__getattribute__

"""What the object graph is made of: Nodes and other registered types, the containers they hold, States,
arrays, and the rest.

``children`` says what is one step below an object, in the one order that everything here uses: attributes
and keys sorted, lists and
tuples as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import jax
import numpy as np

from stategraph.errors import describe
from stategraph.graph.node import Node, instance_dict
from stategraph.state import State
from stategraph.util.mapping import path_part, sorted_keys

LEAF, NODE, STATE, LIST, DICT, TUPLE, NONE, ARRAY, PYTREE, REGISTERED = range(10)
"""Kinds of objects. LEAF: a setting, function or anything else that is not looked into."""

SHARED = frozenset((NODE, REGISTERED, STATE, LIST, DICT))
"""Kinds whose identity matters: met again, they are the same thing."""

_KINDS: dict[type, int] = {}


def kind_of(obj: Any) -> int:
    """The kind of an object."""
    kind = _KINDS.get(type(obj))
    return _learn(obj) if kind is None else kind


def _learn(obj: Any) -> int:
    kind = _classify(obj)
    _KINDS[type(obj)] = kind
    return kind


def _classify(obj: Any) -> int:
    if graph_type(type(obj)) is not None:
        return REGISTERED
    if isinstance(obj, Node):
        return NODE
    if isinstance(obj, State):
        return STATE
    if isinstance(obj, list):
        return LIST
    if isinstance(obj, dict):
        return DICT
    if type(obj) is tuple or (isinstance(obj, tuple) and hasattr(obj, "_fields")):
        return TUPLE
    if obj is None:
        return NONE
    if isinstance(obj, jax.Array) or (isinstance(obj, np.ndarray) and obj.dtype != object):
        return ARRAY
    if isinstance(obj, np.ndarray):
        return LEAF
    return LEAF if jax.tree_util.default_registry.flatten_one_level(obj) is None else PYTREE


# ----------------------------------------------------------------------------------------- registered types


@attrs.frozen
class GraphType:
    """How objects of a type that is no ``Node`` take part in the graph; see ``register_graph_node_type``."""

    flatten: Callable[[Any], tuple[Iterable[tuple[Any, Any]], Any]]
    set_key: Callable[[Any, Any, Any], None]
    pop_key: Callable[[Any, Any], Any]
    create_empty: Callable[[Any], Any]
    clear: Callable[[Any], None]


_REGISTERED: dict[type, GraphType] = {}


def register_graph_node_type(
    type: type,
    flatten: Callable[[Any], tuple[Iterable[tuple[Any, Any]], Any]],
    set_key: Callable[[Any, Any, Any], None],
    pop_key: Callable[[Any, Any], Any],
    create_empty: Callable[[Any], Any],
    clear: Callable[[Any], None],
) -> None:
    """Let objects of a type (and its subclasses) be Nodes of the graph, without ``stategraph.graph.Node``
    as a base.

    Args:
      type: the class.
      flatten: ``flatten(obj) -> ([(key, value), ...], metadata)``: what it holds, and the rest, hashable.
      set_key: ``set_key(obj, key, value)`` puts a value into it.
      pop_key: ``pop_key(obj, key) -> value`` takes a value out.
      create_empty: ``create_empty(metadata) -> obj`` makes one that holds nothing.
      clear: ``clear(obj)`` takes everything out.

    Example:

    >>> import stategraph as sg
    >>> class Bag:
    ...     pass
    >>> sg.graph.register_graph_node_type(
    ...     Bag,
    ...     flatten=lambda bag: (vars(bag).items(), None),
    ...     set_key=setattr,
    ...     pop_key=lambda bag, key: vars(bag).pop(key),
    ...     create_empty=lambda metadata: Bag(),
    ...     clear=lambda bag: vars(bag).clear(),
    ... )
    >>> bag = Bag()
    >>> bag.weight = sg.ParamState(1.0)
    >>> list(sg.graph.states(bag))
    [('weight',)]
    """
    _REGISTERED[type] = GraphType(flatten, set_key, pop_key, create_empty, clear)
    _KINDS.clear()


def graph_type(cls: type) -> GraphType | None:
    """How a class was registered, None when it was not."""
    if not _REGISTERED:
        return None
    return next((_REGISTERED[base] for base in cls.__mro__ if base in _REGISTERED), None)


def registered(cls: type) -> GraphType:
    """How a class was registered; for classes that are."""
    found = graph_type(cls)
    if found is None:
        raise TypeError(f"{cls.__name__} is not registered with register_graph_node_type")
    return found


def is_node(obj: Any) -> bool:
    """Whether an object is a Node of the graph."""
    return kind_of(obj) in (NODE, REGISTERED)


def check_root(obj: Any, purpose: str) -> None:
    """Refuse what cannot hold Nodes or States."""
    if kind_of(obj) in (LEAF, ARRAY, NONE):
        raise TypeError(
            describe(
                f"{purpose} needs a Node, not a {type(obj).__name__}.",
                fix="pass a model (a stategraph.graph.Node), or a list, tuple or dict of models",
            )
        )


# ------------------------------------------------------------------------------------------------- children


def children(obj: Any) -> list[tuple[Any, Any]]:
    """(key, child) of a Node or container; nothing for other objects."""
    return children_of(obj, kind_of(obj))


def children_of(obj: Any, kind: int) -> list[tuple[Any, Any]]:
    """``children`` of an object whose kind is known."""
    if kind == NODE:
        return sorted(instance_dict(obj).items())
    if kind == LIST:
        return list(enumerate(obj))
    if kind == TUPLE:
        fields = getattr(obj, "_fields", None)
        return list(enumerate(obj) if fields is None else zip(fields, obj, strict=True))
    if kind == DICT:
        return [(key, obj[key]) for key in sorted_keys(obj)]
    if kind == REGISTERED:
        found = dict(registered(type(obj)).flatten(obj)[0])
        return [(key, found[key]) for key in sorted_keys(found)]
    if kind == PYTREE:
        return pytree_children(obj)
    return []


def pytree_children(obj: Any) -> list[tuple[Any, Any]]:
    """(key, child) of an object of a type that is registered as a JAX pytree."""
    pairs = jax.tree_util.tree_flatten_with_path(obj, is_leaf=lambda x: x is not obj)[0]
    return [(path_part(path[0]), child) for path, child in pairs]

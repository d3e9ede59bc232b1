"""Changing a model in place: taking States out of it, and giving States new values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stategraph.errors import describe
from stategraph.graph.definition import as_mapping
from stategraph.graph.kinds import (
    DICT,
    LIST,
    NODE,
    REGISTERED,
    STATE,
    TUPLE,
    check_root,
    children,
    kind_of,
    registered,
)
from stategraph.graph.node import instance_dict
from stategraph.graph.walk import states, walk
from stategraph.state import State
from stategraph.typing import Filter, PathParts
from stategraph.util.filter import to_predicates
from stategraph.util.mapping import FlattedDict, NestedDict, iter_entries
from stategraph.util.treefy import TreefyState, treefy


def pop_states(node: Any, *filters: Filter) -> Any:
    """Take States out of a model: the attributes that hold them are deleted.

    Args:
      node: a model, or a list or dict of models.
      *filters: which States, at least one filter; every State goes to the first that matches.

    Returns:
      The values of these States as a ``NestedDict`` of ``TreefyState``; with several filters a tuple of
      them. ``update_states`` puts them back.

    Raises:
      ValueError: without a filter.

    Example:

    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self):
    ...         self.weight = sg.ParamState(1.0)
    ...         self.v = sg.HiddenState(0.0)
    >>> net = Net()
    >>> popped = sg.graph.pop_states(net, sg.HiddenState)
    >>> list(popped), hasattr(net, "v")
    (['v'], False)
    """
    if not filters:
        raise ValueError(
            describe(
                "pop_states needs to know which States.",
                fix="pop_states(model, HiddenState), or `...` for all",
            )
        )
    predicates = to_predicates(filters)
    groups = [FlattedDict() for _ in predicates]
    popped: dict[int, State[Any]] = {}
    for path, state in states(node).items():
        for predicate, group in zip(predicates, groups, strict=True):
            if predicate(path, state):
                group[path] = state
                popped[id(state)] = state
                break
    _remove(node, popped)
    values = tuple(
        NestedDict.from_flat({path: treefy(state) for path, state in group.items()}) for group in groups
    )
    return values[0] if len(values) == 1 else values


def _remove(root: Any, popped: Mapping[int, State[Any]]) -> None:
    """Take these States out of everything that holds them, wherever it is."""
    for _, obj in list(walk(root)):
        kind = kind_of(obj)
        if kind == NODE:
            for name, value in list(instance_dict(obj).items()):
                if id(value) in popped:
                    delattr(obj, name)
                elif (kept := _without(value, popped)) is not value:
                    setattr(obj, name, kept)
        elif kind == REGISTERED:
            for key, value in children(obj):
                if id(value) in popped:
                    registered(type(obj)).pop_key(obj, key)
        elif kind == LIST:
            kept = [_without(item, popped) for item in obj if id(item) not in popped]
            if len(kept) != len(obj) or any(new is not old for new, old in zip(kept, obj, strict=True)):
                obj[:] = kept
        elif kind == DICT:
            for key, item in list(obj.items()):
                if id(item) in popped:
                    del obj[key]
                elif (kept := _without(item, popped)) is not item:
                    obj[key] = kept


def _without(value: Any, popped: Mapping[int, State[Any]]) -> Any:
    """A tuple without these States; everything else as it is."""
    if kind_of(value) != TUPLE:
        return value
    items = [_without(item, popped) for item in value if id(item) not in popped]
    if len(items) == len(value) and all(new is old for new, old in zip(items, value, strict=True)):
        return value
    return tuple(items)


def update_states(node: Any, state_dict: Mapping[Any, Any], *state_dicts: Mapping[Any, Any]) -> None:
    """Give States of a model new values, in place. Also inside a traced function.

    Args:
      node: a model, or a container of models.
      state_dict: the values, nested or by path: ``TreefyState``, States, or plain values. A State that the
        model lacks is added to the Node
        that its path leads to, if given as a ``TreefyState`` or State.
      *state_dicts: more of them; the last one counts where several have a path.

    Raises:
      KeyError: for a path that leads nowhere. Nothing is changed then.

    Example:

    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self):
    ...         self.v = sg.HiddenState(0.0)
    >>> net = Net()
    >>> sg.graph.update_states(net, {"v": 2.0})
    >>> net.v.value
    Array(2., dtype=float32)
    """
    check_root(node, "update_states")
    mine = states(node)
    given = FlattedDict()
    for one in (state_dict, *state_dicts):
        given.update(iter_entries(as_mapping(one), stop=mine))
    added = {path: _place(node, path, value) for path, value in given.items() if path not in mine}
    for path, value in given.items():
        if path in mine:
            mine[path].value = value.value if isinstance(value, (TreefyState, State)) else value
    for path, holder in added.items():
        value = given[path]
        state = value.to_state() if isinstance(value, TreefyState) else value
        if kind_of(holder) == REGISTERED:
            registered(type(holder)).set_key(holder, path[-1], state)
        elif kind_of(holder) == DICT:
            holder[path[-1]] = state
        else:
            setattr(holder, path[-1], state)


def _place(node: Any, path: PathParts, value: Any) -> Any:
    """The Node or dict that a new State at ``path`` is added to."""
    holder = follow(node, path[:-1])
    free = path and kind_of(holder) in (NODE, REGISTERED, DICT) and path[-1] not in dict(children(holder))
    if free and isinstance(value, (TreefyState, State)):
        return holder
    known = ", ".join(repr(one) for one in list(states(node))[:8])
    raise KeyError(
        describe(
            f"There is no State at {path!r}.",
            why=f"the model has States at {known or 'no path'}",
            fix="use paths as `model.states()` shows them; a new State is given as a TreefyState",
        )
    )


def follow(root: Any, path: PathParts) -> Any:
    """What is at a path, by whichever of its names; None when the path leads nowhere."""
    obj = root
    for step in path:
        if kind_of(obj) == STATE:
            return None
        obj = dict(children(obj)).get(step)
    return obj

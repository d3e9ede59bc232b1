"""Drawing parameters again: a module is made a second time, with the arguments that it was made with, and
its parameters get the values of the new ones.

So every lane of an ensemble draws weights of its own, although they are made in ``__init__`` and not in
``init_state``, whatever way the module draws them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jax

from stategraph.errors import StateGraphError, describe
from stategraph.graph.construction import construction_of
from stategraph.graph.node import Node
from stategraph.graph.walk import iter_node, path_text, states
from stategraph.state import ParamState, State, type_text
from stategraph.typing import Filter, PathParts
from stategraph.util.filter import All, to_predicate


def parameters_to_draw(target: Any, which: Filter) -> dict[PathParts, State[Any]]:
    """The parameters that a filter selects (``True`` for all); raises for one that nobody can draw again."""
    wanted = dict(states(target, All(ParamState, to_predicate(which))))
    drawable = {id(state) for _, maker in _makers(target) for state in states(maker).values()}
    for path, state in wanted.items():
        if id(state) not in drawable:
            raise _undrawn(path, state, "no module with it was made by calling its class")
    return wanted


def redraw(target: Any, wanted: dict[PathParts, State[Any]]) -> None:
    """Give parameters of ``target`` newly drawn values."""
    if not wanted:
        return
    made: dict[int, Any] = {}
    fresh: dict[int, State[Any]] = {}
    for _, node in reversed(list(_makers(target))):  # what holds others first: making it makes them too
        missing = [state for state in wanted.values() if id(state) not in fresh]
        held = {id(state) for state in states(node).values()}
        if any(id(state) in held for state in missing):
            _pair(node, _again(node, made, fresh), fresh)
    for path, state in wanted.items():
        new = fresh.get(id(state))
        if new is None:
            raise _undrawn(path, state, "its module does not make it in __init__")
        state.value = new.value


def _makers(target: Any) -> Iterator[tuple[PathParts, Any]]:
    return (
        (path, node)
        for path, node in iter_node(target)
        if isinstance(node, Node) and construction_of(node) is not None
    )


def _again(node: Any, made: dict[int, Any], fresh: dict[int, State[Any]]) -> Any:
    """Another object like ``node``. Modules among the arguments are made again too, once each."""
    if id(node) in made:
        return made[id(node)]
    call = construction_of(node)
    if call is None:
        return node
    try:
        args, kwargs = call.arguments()
        inspect.signature(type(node)).bind(*args, **kwargs)
    except (ReferenceError, TypeError) as error:
        raise StateGraphError(
            describe(
                f"A {type(node).__name__} cannot be made again, to draw its parameters for every lane.",
                why=str(error),
                fix="make it with an initialiser instead of an array, or leave its parameters shared",
            )
        ) from error

    def other(arg: Any) -> Any:
        if isinstance(arg, Node):
            new = _again(arg, made, fresh)
            _pair(arg, new, fresh)
            return new
        return fresh.get(id(arg), arg) if isinstance(arg, State) else arg

    def all_in(arg: Any) -> Any:
        return jax.tree.map(other, arg, is_leaf=lambda x: isinstance(x, (Node, State)))

    made[id(node)] = type(node)(*map(all_in, args), **{name: all_in(arg) for name, arg in kwargs.items()})
    return made[id(node)]


def _pair(node: Any, new: Any, fresh: dict[int, State[Any]]) -> None:
    """Note which State of ``new`` stands where one of ``node`` does."""
    found = states(new)
    for path, state in states(node).items():
        other = found.get(path)
        if other is not None and other is not state:
            fresh.setdefault(id(state), other)


def _undrawn(path: PathParts, state: State[Any], why: str) -> StateGraphError:
    return StateGraphError(
        describe(
            f"The parameter {path_text(path)} cannot be drawn again for every lane.",
            state=type_text(state),
            created=state.source_location,
            why=why,
            fix="make it in __init__ of its module, or select others: parameters=lambda path, state: ...",
        )
    )

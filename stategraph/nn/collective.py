"""Collective operations: one method of every module of a model.

Every Node counts once, however many paths lead to it, and what a Node holds comes before it. A method gets
those of the keyword arguments
that it accepts. ``call_order`` moves a method behind others.

A module need not call ``init_state`` or ``reset_state`` on the modules that it holds: the collective
operation does.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph.augment.lanes import has_lanes, lanes_of
from stategraph.errors import describe
from stategraph.graph.kinds import check_root
from stategraph.graph.walk import iter_children, iter_node, path_text, states
from stategraph.typing import Filter, PathParts
from stategraph.util.filter import to_predicate

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N")

MISSING_METHOD = ("raise", "warn", "pass", "none")
"""What to do about a Node that has no such method; ``none`` is another word for ``pass``."""


# -------------------------------------------------------------------------------------------------- calling


def call_order(level: int = 0, check_order_boundary: bool = True) -> Callable[[F], F]:
    """Mark a method to be called late by collective operations: after methods without a mark, lower levels
    first.

    Args:
      level: 0 to 9.
      check_order_boundary: whether to insist on that range.

    Example:

    >>> import stategraph as sg
    >>> class Finishing(sg.nn.Module):
    ...     @sg.nn.call_order(1)
    ...     def init_state(self):
    ...         print("last")
    >>> _ = sg.nn.init_all_states(Finishing())
    last
    """
    if check_order_boundary and not 0 <= level < 10:
        raise ValueError(
            describe(
                f"The level {level} of call_order is not between 0 and 9.",
                fix="use one of these, or call_order(level, check_order_boundary=False)",
            )
        )

    def mark(function: F) -> F:
        function.call_order = level  # type: ignore[attr-defined]
        return function

    return mark


class OwnWay:
    """A Node that runs some collective operations itself on the module that it holds, such as ``Vmap``."""

    def runs(self, fn_name: str) -> Any:
        """The module on which it calls these methods itself, None when the operation goes into it as into
        any Node.
        """
        raise NotImplementedError

    def run(self, fn_name: str, args: Sequence[Any], kwargs: Mapping[str, Any], exclude: Filter) -> None:
        """Call the methods."""
        raise NotImplementedError


@attrs.frozen
class Call:
    """A method of one Node, and the keyword arguments that it accepts (None for all)."""

    path: PathParts
    node: Any
    method: Callable[..., Any]
    accepts: frozenset[str] | None

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return self.method(*args, **self.accepted(kwargs))

    def accepted(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in kwargs.items() if self.accepts is None or name in self.accepts}


def calls_of(target: Any, fn_name: str, node_to_exclude: Filter, fn_if_not_exist: str) -> list[Call]:
    """The methods to call, in order."""
    check_root(target, f"{fn_name} of all nodes")
    if fn_if_not_exist not in MISSING_METHOD:
        raise ValueError(f"fn_if_not_exist is one of {', '.join(MISSING_METHOD)}, not {fn_if_not_exist!r}")
    excluded = to_predicate(node_to_exclude)
    found = list(iter_node(target))
    elsewhere = {
        id(inner)
        for _, node in found
        if isinstance(node, OwnWay) and node.runs(fn_name) is not None
        for _, inner in iter_node(node.runs(fn_name))
        if inner is not node
    }
    calls = []
    for path, node in found:
        if excluded(path, node) or id(node) in elsewhere:
            continue
        if getattr(node, fn_name, None) is None:
            _missing(path, node, fn_name, fn_if_not_exist)
            continue
        calls.append(call_of(path, node, fn_name, node_to_exclude))
    return sorted(calls, key=lambda call: getattr(call.method, "call_order", float("-inf")))


def call_of(path: PathParts, node: Any, fn_name: str, node_to_exclude: Filter) -> Call:
    """The method of one Node that has it."""
    if isinstance(node, OwnWay) and node.runs(fn_name) is not None:
        return _own_call(path, node, fn_name, node_to_exclude)
    method = getattr(node, fn_name)
    if not callable(method):
        raise TypeError(f"{fn_name!r} of {_name(path, node)} is a {type(method).__name__}, not a method")
    return Call(path, node, method, _accepts(method))


def _own_call(path: PathParts, node: OwnWay, fn_name: str, node_to_exclude: Filter) -> Call:
    excluded = to_predicate(node_to_exclude)
    start = (*path, *next(p for p, inner in iter_children(node) if inner is node.runs(fn_name)))

    def exclude(below: PathParts, inner: Any) -> bool:
        return excluded((*start, *below), inner)

    def method(*args: Any, **kwargs: Any) -> None:
        node.run(fn_name, args, kwargs, None if node_to_exclude is None else exclude)

    inner = calls_of(node.runs(fn_name), fn_name, exclude, "pass")
    accepts = [call.accepts for call in inner]
    known = None if None in accepts else frozenset[str]().union(*(names or () for names in accepts))
    return Call(path, node, method, known)


def _name(path: PathParts, node: Any) -> str:
    return f"{type(node).__name__} at {path_text(path)!r}" if path else f"the {type(node).__name__} itself"


def _missing(path: PathParts, node: Any, fn_name: str, fn_if_not_exist: str) -> None:
    if fn_if_not_exist in ("pass", "none"):
        return
    message = describe(
        f"{_name(path, node)} has no method {fn_name!r}.",
        fix="write it, exclude the node (node_to_exclude=...), or say fn_if_not_exist='pass'",
    )
    if fn_if_not_exist == "raise":
        raise AttributeError(message)
    warnings.warn(message, stacklevel=4)


def _accepts(method: Callable[..., Any]) -> frozenset[str] | None:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def check_accepted(calls: Sequence[Call], fn_name: str, kwargs: Mapping[str, Any]) -> None:
    """Every keyword argument is accepted by some method."""
    if not calls:
        return
    for name in kwargs:
        if all(call.accepts is not None and name not in call.accepts for call in calls):
            known = sorted(set().union(*(call.accepts or () for call in calls)))
            raise TypeError(
                describe(
                    f"No {fn_name!r} of this model accepts the argument {name!r}.",
                    why=f"they accept {', '.join(known) or 'none'}",
                    fix="correct the name, or leave the argument out",
                )
            )


def call_all_fns(
    target: N,
    fn_name: str,
    args: Sequence[Any] | Any = (),
    kwargs: Mapping[str, Any] | None = None,
    node_to_exclude: Filter = None,
    fn_if_not_exist: str = "raise",
) -> N:
    """Call one method of every Node of a model.

    Args:
      target: the model.
      fn_name: the name of the method.
      args: positional arguments, for every method.
      kwargs: keyword arguments; a method gets those that it accepts.
      node_to_exclude: a filter: which Nodes to leave alone.
      fn_if_not_exist: what to do about a Node without that method: ``raise``, ``warn``, or ``pass`` (also
        ``none``).

    Returns:
      The model.

    Raises:
      AttributeError: when a Node lacks the method, unless ``fn_if_not_exist`` says otherwise. Nothing is
      called then.
      TypeError: for a keyword argument that no method accepts. Nothing is called then.

    Example:

    >>> import stategraph as sg
    >>> class Part(sg.nn.Module):
    ...     def report(self, indent=0):
    ...         print(" " * indent + "part")
    >>> _ = sg.nn.call_all_fns(Part(), "report", kwargs={"indent": 2})
      part
    """
    given = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    named = dict(kwargs or {})
    calls = calls_of(target, fn_name, node_to_exclude, fn_if_not_exist)
    check_accepted(calls, fn_name, named)
    for call in calls:
        call(given, named)
    return target


# ------------------------------------------------------------------------------------------- init and reset

_INIT_CALLS: dict[int, tuple[weakref.ref[Any], dict[str, Any]]] = {}
"""With what keyword arguments Nodes were initialised, by id: a reset uses them again."""


def _remember(node: Any, kwargs: dict[str, Any]) -> None:
    number = id(node)
    _INIT_CALLS[number] = (weakref.ref(node, lambda _: _INIT_CALLS.pop(number, None)), kwargs)


def _remembered(node: Any) -> dict[str, Any]:
    found = _INIT_CALLS.get(id(node))
    return found[1] if found is not None and found[0]() is node else {}


def init_all_states(
    target: N,
    *init_args: Any,
    node_to_exclude: Filter = None,
    fn_if_not_exist: str = "pass",
    **init_kwargs: Any,
) -> N:
    """Call ``init_state`` of every Node of a model.

    Args:
      target: the model.
      *init_args: positional arguments, for every ``init_state``.
      node_to_exclude: a filter: which Nodes to leave alone.
      fn_if_not_exist: what to do about a Node without ``init_state``: ``pass`` (also ``none``), ``warn`` or
        ``raise``.
      **init_kwargs: keyword arguments, such as ``batch_size``; each ``init_state`` gets those that it
        accepts.

    Returns:
      The model.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Cell(sg.nn.Module):
    ...     def init_state(self, batch_size=None):
    ...         self.h = sg.HiddenState(jnp.zeros((batch_size, 3) if batch_size else 3))
    >>> sg.nn.init_all_states(Cell(), batch_size=5).h.shape
    (5, 3)
    """
    calls = calls_of(target, "init_state", node_to_exclude, fn_if_not_exist)
    check_accepted(calls, "init_state", init_kwargs)
    for call in calls:
        init_one(call, init_args, init_kwargs)
    return target


def init_one(call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Call one ``init_state``, and remember how for a reset."""
    call(args, kwargs)
    _remember(call.node, call.accepted(kwargs))


def reset_all_states(
    target: N,
    *reset_args: Any,
    node_to_exclude: Filter = None,
    fn_if_not_exist: str = "pass",
    **reset_kwargs: Any,
) -> N:
    """Call ``reset_state`` of every Node of a model.

    A State keeps the axes that ``init_all_states`` or ``vmap_init_all_states`` gave it. Keyword arguments of
    the first call that are not given here are used again; where nothing is given, a State that comes back
    without its leading axes is repeated along them. States with lanes are reset once per lane.

    Args:
      target: the model.
      *reset_args: positional arguments, for every ``reset_state``.
      node_to_exclude: a filter: which Nodes to leave alone.
      fn_if_not_exist: what to do about a Node without ``reset_state``: ``pass`` (also ``none``), ``warn``
        or ``raise``.
      **reset_kwargs: keyword arguments; each ``reset_state`` gets those that it accepts.

    Returns:
      The model.
    """
    calls = calls_of(target, "reset_state", node_to_exclude, fn_if_not_exist)
    check_accepted(calls, "reset_state", reset_kwargs)
    for size, group in itertools.groupby(calls, _lanes):
        found = [(call.path, call.node) for call in group]
        if size is None:
            reset_nodes(found, reset_args, reset_kwargs, node_to_exclude)
        else:
            from stategraph.nn.collective_lanes import reset_lanes

            operation = "nn.reset_all_states"
            reset_lanes(operation, target, found, reset_args, reset_kwargs, node_to_exclude, axis_size=size)
    return target


def _lanes(call: Call) -> int | None:
    """How many lanes the States that a Node holds itself have."""
    own = states(call.node, has_lanes, allowed_hierarchy=(0, 0)).values()
    return next((lanes_of(state)[0] for state in own), None)


def reset_nodes(
    nodes: Sequence[tuple[PathParts, Any]],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    node_to_exclude: Filter,
) -> None:
    """Call ``reset_state`` of these Nodes (by path), and restore the axes that their States had."""
    for path, node in nodes:
        call = call_of(path, node, "reset_state", node_to_exclude)
        given = dict(kwargs) if args else {**_remembered(node), **kwargs}
        before = {} if args or call.accepted(given) else _shapes(node)
        call(args, given)
        _keep_axes(node, before)


def _shapes(node: Any) -> dict[PathParts, list[tuple[int, ...]]]:
    """The shapes of the States that a Node holds itself."""
    found = states(node, allowed_hierarchy=(0, 0))
    return {path: [np.shape(leaf) for leaf in state._peek()] for path, state in found.items()}


def _keep_axes(node: Any, before: Mapping[PathParts, list[tuple[int, ...]]]) -> None:
    """Repeat a State along the leading axes that it has lost."""
    if not before:
        return
    for path, state in states(node, allowed_hierarchy=(0, 0)).items():
        shapes, now = before.get(path), [np.shape(leaf) for leaf in state._peek()]
        if shapes is None or len(shapes) != len(now) or shapes == now:
            continue
        if all(
            len(new) <= len(old) and old[len(old) - len(new) :] == new
            for old, new in zip(shapes, now, strict=True)
        ):
            leaves, tree = jax.tree.flatten(state.value)
            state.value = jax.tree.unflatten(
                tree, [jnp.broadcast_to(x, s) for x, s in zip(leaves, shapes, strict=True)]
            )

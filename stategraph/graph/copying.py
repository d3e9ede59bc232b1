"""Deep copies of Nodes, whatever the depth of the graph.

``copy.deepcopy`` follows references by recursion, and Python's recursion ends some hundred Nodes down. Here the Nodes that
can be reached are found first, then made empty, and then filled, parts before what holds them: whatever looks at the
copy of a part while it is made sees what it would have seen under recursion. Nodes with a ``__deepcopy__`` of their own, or
that are made by more than their class, are left to ``copy.deepcopy``, with what only they lead to.
"""

from __future__ import annotations

import copy
import copyreg
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stategraph.graph.node import Node

_NEW = copyreg.__newobj__  # type: ignore[attr-defined]


def deepcopy_node(node: Node, memo: dict[int, Any]) -> Any:
    """The copy of a Node for ``copy.deepcopy``, whose ``memo`` holds what is copied already."""
    reduced = node.__reduce_ex__(4)
    if not _plain(node, reduced):
        return _rebuilt(node, reduced, memo)
    parts = list(_parts(node, reduced, memo))
    for part, _ in parts:
        memo[id(part)] = _NEW(type(part))
    memo.setdefault(id(memo), []).extend(
        parts
    )  # as copy.deepcopy does: ids in the memo are of living objects
    for part, state in parts:
        _fill(memo[id(part)], copy.deepcopy(state, memo))
    return memo[id(node)]


def _plain(node: Node, reduced: Any) -> bool:
    """Whether a Node is made by its class alone, and then filled."""
    if isinstance(reduced, str):
        return False
    function, args, _, *items = reduced
    return function is _NEW and args == (type(node),) and not any(item is not None for item in items)


def _parts(root: Node, reduced: Any, memo: dict[int, Any]) -> Iterator[tuple[Node, Any]]:
    """The Nodes to copy, each after the Nodes that it leads to unless these lead to it, with what fills them."""
    from stategraph.graph.node import Node

    seen: dict[int, Any] = {id(root): root}
    stack: list[tuple[Node | None, Any, Iterator[Any]]] = [(root, reduced[2], iter((reduced[2],)))]
    while stack:
        node, state, inside = stack[-1]
        for item in inside:
            if id(item) in seen or id(item) in memo:
                continue
            if type(item) in (list, tuple):
                held = iter(item)
            elif type(item) is dict:
                held = itertools.chain(item, item.values())
            elif isinstance(item, Node) and type(item).__deepcopy__ is Node.__deepcopy__:
                reduced = item.__reduce_ex__(4)
                if not _plain(item, reduced):
                    continue
                seen[id(item)] = item
                stack.append((item, reduced[2], iter((reduced[2],))))
                break
            else:
                continue
            seen[id(item)] = item
            stack.append((None, None, held))
            break
        else:
            stack.pop()
            if node is not None:
                yield node, state


def _rebuilt(node: Node, reduced: Any, memo: dict[int, Any]) -> Any:
    """A copy made as the Node says itself."""
    if isinstance(reduced, str):
        return node
    function, args, state, listed, named = (*reduced, None, None, None)[:5]
    made = memo[id(node)] = function(*copy.deepcopy(args, memo))
    _fill(made, copy.deepcopy(state, memo))
    for item in listed or ():
        made.append(copy.deepcopy(item, memo))
    for key, value in named or ():
        made[copy.deepcopy(key, memo)] = copy.deepcopy(value, memo)
    return made


def _fill(node: Any, state: Any) -> None:
    """Give a Node the state of another one, as unpickling does."""
    if state is None:
        return
    if hasattr(node, "__setstate__"):
        node.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    vars(node).update(attributes or {})
    for name, value in (slots or {}).items():
        setattr(node, name, value)

"""Models inside pytrees: turning every model of a pytree into values, and back.

What JAX's transformations take are pytrees; models are none. ``graph_to_tree`` puts a ``NodeStates`` in the
place of each model, ``tree_to_graph``
makes the models again. Nodes and States that several of the models share stay shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from stategraph.errors import describe
from stategraph.graph.contexts import MergeContext, SplitContext
from stategraph.graph.definition import NodeDef, NodeRef
from stategraph.graph.kinds import is_node
from stategraph.graph.walk import states
from stategraph.typing import PathParts
from stategraph.util.mapping import FlattedDict, NestedDict, path_part
from stategraph.util.static import static_key


class NodeStates:
    """A model as a pytree: its definition, and the values of its States in one group or several.

    Args:
      _graphdef: the definition.
      states: the groups of values.
      metadata: anything that belongs to it; part of the structure.
    """

    __slots__ = ("_graphdef", "metadata", "states")

    def __init__(
        self, _graphdef: NodeDef | NodeRef, states: tuple[NestedDict, ...], metadata: Any = None
    ) -> None:
        self._graphdef = _graphdef
        self.states = tuple(states)
        self.metadata = metadata

    @classmethod
    def from_split(
        cls, graphdef: NodeDef | NodeRef, state: NestedDict, /, *states: NestedDict, metadata: Any = None
    ) -> NodeStates:
        """What ``treefy_split`` gave, as one object."""
        return cls(graphdef, (state, *states), metadata)

    @property
    def graphdef(self) -> NodeDef | NodeRef:
        """The definition."""
        return self._graphdef

    @property
    def state(self) -> NestedDict:
        """The values, where there is one group of them."""
        if len(self.states) != 1:
            raise ValueError(f"there are {len(self.states)} groups of values; use `states`")
        return self.states[0]

    def __repr__(self) -> str:
        count = sum(len(group.to_flat()) for group in self.states)
        return f"NodeStates(type={self._graphdef.type.__name__}, groups={len(self.states)}, states={count})"


class _Metadata:
    __slots__ = ("key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.key = static_key(value)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Metadata) and bool(self.key == other.key)


jax.tree_util.register_pytree_node(
    NodeStates,
    lambda node: ((node._graphdef, node.states), _Metadata(node.metadata)),
    lambda metadata, parts: NodeStates(parts[0], parts[1], metadata.value),
)


class Static:
    """A pytree without leaves: a value that is part of the structure.

    Example:

    >>> import jax
    >>> import stategraph as sg
    >>> jax.tree.leaves(sg.graph.Static("relu")), sg.graph.Static(1) == sg.graph.Static(1)
    ([], True)
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return hash(static_key(self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and bool(static_key(self.value) == static_key(other.value))

    def __repr__(self) -> str:
        return f"Static({self.value!r})"


jax.tree_util.register_static(Static)


def default_split_fn(context: SplitContext, path: Any, prefix: Any, node: Any) -> Any:
    """How ``graph_to_tree`` takes a model apart unless told otherwise: values in one group."""
    return NodeStates.from_split(*context.treefy_split(node))


def default_merge_fn(context: MergeContext, path: Any, prefix: Any, leaf: Any) -> Any:
    """How ``tree_to_graph`` puts a model together unless told otherwise."""
    if not isinstance(leaf, NodeStates):
        raise TypeError(f"expected a NodeStates at {jax.tree_util.keystr(path)}, not a {type(leaf).__name__}")
    return context.treefy_merge(leaf.graphdef, *leaf.states)


def graph_to_tree(
    may_have_graph_nodes: Any,
    /,
    *,
    prefix: Any = None,
    split_fn: Callable[[SplitContext, Any, Any, Any], Any] = default_split_fn,
    map_non_graph_nodes: bool = False,
    check_aliasing: bool = True,
) -> tuple[Any, FlattedDict]:
    """Replace every model in a pytree by its values.

    Args:
      may_have_graph_nodes: a pytree whose leaves may be models.
      prefix: a pytree of which this one is an extension; ``split_fn`` gets the part of it that belongs to a
        model. It may hold ``None``.
      split_fn: ``split_fn(context, path, prefix, model)`` gives what stands for a model.
      map_non_graph_nodes: whether ``split_fn`` is asked for the other leaves as well.
      check_aliasing: whether to refuse a State that comes with two different prefixes.

    Returns:
      (the pytree, the States that were found, by path).

    Example:

    >>> import jax
    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self):
    ...         self.v = sg.HiddenState(1.0)
    >>> tree, found = sg.graph.graph_to_tree({"net": Net(), "x": 2.0})
    >>> jax.tree.leaves(tree), list(found)
    ([Array(1., dtype=float32), 2.0], [('net', 'v')])
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(may_have_graph_nodes, is_leaf=is_node)
    prefixes = _broadcast(prefix, may_have_graph_nodes)
    context = SplitContext()
    found = FlattedDict()
    met: dict[int, tuple[Any, PathParts]] = {}
    made = []
    for (path, leaf), part in zip(leaves, prefixes, strict=True):
        if not is_node(leaf):
            made.append(split_fn(context, path, part, leaf) if map_non_graph_nodes else leaf)
            continue
        for below, state in states(leaf).items():
            where = (*map(path_part, path), *below)
            if id(state) in met:
                if check_aliasing:
                    _check_same_prefix(state, met[id(state)], (part, where))
                continue
            met[id(state)] = (part, where)
            found[where] = state
        made.append(split_fn(context, path, part, leaf))
    return jax.tree.unflatten(structure, made), found


def tree_to_graph(
    tree: Any,
    /,
    *,
    prefix: Any = None,
    merge_fn: Callable[[MergeContext, Any, Any, Any], Any] = default_merge_fn,
    is_node_leaf: Callable[[Any], bool] = lambda x: isinstance(x, NodeStates),
    is_leaf: Callable[[Any], bool] = lambda x: isinstance(x, NodeStates),
    map_non_graph_nodes: bool = False,
) -> Any:
    """Make the models again that ``graph_to_tree`` replaced.

    Args:
      tree: the pytree.
      prefix: a pytree of which this one is an extension; ``merge_fn`` gets the part of it that belongs to a
        model.
      merge_fn: ``merge_fn(context, path, prefix, leaf)`` gives the model.
      is_node_leaf: which leaves stand for models.
      is_leaf: which parts of the pytree are leaves; what stands for a model has to be one.
      map_non_graph_nodes: whether ``merge_fn`` is asked for the other leaves as well.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    prefixes = _broadcast(prefix, tree, is_leaf)
    context = MergeContext()
    made = [
        merge_fn(context, path, part, leaf) if map_non_graph_nodes or is_node_leaf(leaf) else leaf
        for (path, leaf), part in zip(leaves, prefixes, strict=True)
    ]
    return jax.tree.unflatten(structure, made)


def _broadcast(prefix: Any, tree: Any, is_leaf: Callable[[Any], bool] = is_node) -> list[Any]:
    """The part of a prefix that belongs to each leaf of a pytree."""
    found: list[Any] = []

    def extend(part: Any, below: Any) -> None:
        found.extend([part] * len(jax.tree.leaves(below, is_leaf=is_leaf)))

    jax.tree.map(extend, prefix, tree, is_leaf=lambda x: x is None)
    return found


def _check_same_prefix(state: Any, before: tuple[Any, PathParts], now: tuple[Any, PathParts]) -> None:
    if static_key(before[0]) == static_key(now[0]):
        return
    raise ValueError(
        describe(
            f"One State is at {before[1]!r} with prefix {before[0]!r}, and at {now[1]!r} with {now[0]!r}.",
            state=state._describe(),
            created=state.source_location,
            why="one State cannot be treated in two ways",
            fix="give both the same prefix, or copy one of the models (stategraph.graph.clone)",
        )
    )

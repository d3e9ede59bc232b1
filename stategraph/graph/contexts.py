"""Taking apart and putting together several models that share Nodes or States."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from stategraph.graph.convert import flatten, grouped, merged, put_together, take_apart, unflatten
from stategraph.graph.definition import NodeDef, NodeRef
from stategraph.graph.references import RefMap
from stategraph.typing import Filter
from stategraph.util.mapping import NestedDict


class SplitContext:
    """Takes apart several models that may share Nodes and States; see ``split_context``."""

    def __init__(self) -> None:
        self.ref_index = RefMap()

    def treefy_split(self, node: Any, *filters: Filter) -> Any:
        """Like ``stategraph.graph.treefy_split``; what an earlier split of this context holds is referred
        to, not repeated.
        """
        definition, found = take_apart(node, self.ref_index)
        return (definition, *grouped(found, filters))

    def flatten(self, node: Any) -> tuple[NodeDef | NodeRef, NestedDict]:
        """Like ``stategraph.graph.flatten``; what an earlier one of this context holds is referred to, not
        repeated.
        """
        return flatten(node, self.ref_index)


class MergeContext:
    """Puts together several models that may share Nodes and States; see ``merge_context``."""

    def __init__(self) -> None:
        self.index_ref: dict[int, Any] = {}

    def treefy_merge(self, graphdef: NodeDef | NodeRef, *state_mappings: Mapping[Any, Any]) -> Any:
        """Like ``stategraph.graph.treefy_merge``; what was made before in this context is used again."""
        return put_together(graphdef, merged(graphdef, state_mappings), self.index_ref, {})

    def unflatten(self, graphdef: NodeDef | NodeRef, state_mapping: Mapping[Any, Any]) -> Any:
        """Like ``stategraph.graph.unflatten``; what was made before in this context is used again."""
        return unflatten(graphdef, state_mapping, self.index_ref)


@contextlib.contextmanager
def split_context() -> Iterator[SplitContext]:
    """Take apart several models, such that what they share stays shared.

    Example:

    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self, weight):
    ...         self.weight = weight
    >>> shared = sg.ParamState(1.0)
    >>> with sg.graph.split_context() as context:
    ...     first, second = context.treefy_split(Net(shared)), context.treefy_split(Net(shared))
    >>> with sg.graph.merge_context() as context:
    ...     one, two = context.treefy_merge(*first), context.treefy_merge(*second)
    >>> one.weight is two.weight
    True
    """
    context = SplitContext()
    try:
        yield context
    finally:
        context.ref_index.clear()


@contextlib.contextmanager
def merge_context() -> Iterator[MergeContext]:
    """Put together several models that were taken apart in one ``split_context``, in the same order."""
    context = MergeContext()
    try:
        yield context
    finally:
        context.index_ref.clear()

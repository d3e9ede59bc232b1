"""Models inside pytrees."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph import graph
from tests.graph.models import MLP, Count, Linear, Regressor


@pytest.mark.core
def test_round_trip_with_sharing_through_jit() -> None:
    model = Regressor()
    pair = MLP()
    pair.l1 = model.linear1
    tree, found = graph.graph_to_tree({"model": model, "others": [pair, 2.0]})
    assert isinstance(tree["model"], graph.NodeStates) and tree["others"][1] == 2.0
    assert ("model", "linear1", "weight") in found and ("others", 0, "l1", "weight") not in found
    assert all(isinstance(state, sg.State) for state in found.values())

    @jax.jit
    def call(tree: Any) -> Any:
        made = graph.tree_to_graph(tree)
        made["model"](jnp.ones((1, 1)))
        assert made["others"][0].l1 is made["model"].linear1
        return graph.graph_to_tree(made)[0]

    after = graph.tree_to_graph(call(call(tree)))
    assert after["model"].count.value == 2 and after["others"][0].l1 is after["model"].linear1


def test_prefixes_reach_the_split_and_merge_functions() -> None:
    seen: list[Any] = []

    def split(context: Any, path: Any, prefix: Any, node: Any) -> Any:
        seen.append(prefix)
        return graph.NodeStates.from_split(*context.treefy_split(node, Count, ...), metadata=prefix)

    tree, _ = graph.graph_to_tree(
        ([Regressor(), Regressor()], {"x": 1.0}), prefix=("a", None), split_fn=split
    )
    assert seen == ["a", "a"] and tree[0][0].metadata == "a" and len(tree[0][0].states) == 2
    with pytest.raises(ValueError, match="2 groups"):
        _ = tree[0][0].state
    again = jax.tree.map(lambda x: x, tree)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    made = graph.tree_to_graph(tree)
    assert made[0][1].count.value == 0 and made[1] == {"x": 1.0}
    assert "groups=2, states=3" in repr(tree[0][0])


def test_other_leaves_are_mapped_when_asked() -> None:
    def split(context: Any, path: Any, prefix: Any, leaf: Any) -> Any:
        return leaf if isinstance(leaf, sg.Node) else leaf + 1

    assert graph.graph_to_tree([1, 2], split_fn=split, map_non_graph_nodes=True)[0] == [2, 3]


def test_one_state_with_two_prefixes_is_refused() -> None:
    layer = Linear(1, 1)
    assert graph.graph_to_tree([layer, layer], prefix=[0, 0])[0][1].graphdef == graph.NodeRef(Linear, 0)
    with pytest.raises(ValueError, match="treated in two ways"):
        graph.graph_to_tree([layer, layer], prefix=[0, 1])
    graph.graph_to_tree([layer, layer], prefix=[0, 1], check_aliasing=False)


def test_what_stands_for_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a NodeStates"):
        graph.tree_to_graph([1.0], map_non_graph_nodes=True)


def test_static_values_are_structure() -> None:
    assert jax.tree.leaves(graph.Static([1])) == [] and hash(graph.Static([1])) == hash(graph.Static([1]))
    assert graph.Static(1) != graph.Static(1.0) and repr(graph.Static("a")) == "Static('a')"
    assert jax.jit(lambda s: s.value + 1)(graph.Static(1)) == 2

"""Finding leaves, Nodes and States: order, paths, levels, sharing and cycles."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph import graph
from stategraph.graph.walk import walk
from tests.graph.models import MLP, Chain, Linear, ResNet, chain, kinds

Pair = namedtuple("Pair", ["left", "right"])


@pytest.mark.core
def test_leaves_of_the_documents_mlp() -> None:
    found = [
        (path, leaf if isinstance(leaf, int) else type(leaf).__name__)
        for path, leaf in graph.iter_leaf(MLP())
    ]
    assert found == [
        (("l1", "_in_size", 0), 2),
        (("l1", "_out_size", 0), 3),
        (("l1", "weight"), "ParamState"),
        (("l2", "_in_size", 0), 3),
        (("l2", "_out_size", 0), 4),
        (("l2", "weight"), "ParamState"),
        (("l3", "_in_size", 0), 4),
        (("l3", "_out_size", 0), 5),
        (("l3", "weight"), "ParamState"),
        (("st",), "ShortTermState"),
    ]


@pytest.mark.core
def test_nodes_come_after_what_they_hold() -> None:
    assert list(kinds(graph.iter_node(MLP()))) == [
        (("l1",), "Linear"),
        (("l2",), "Linear"),
        (("l3",), "Linear"),
        ((), "MLP"),
    ]
    resnet = ResNet(2, 2)
    paths = [path for path, _ in graph.iter_node(resnet)]
    assert paths == [
        ("block_0", "linear1"), ("block_0", "linear2"), ("block_0",),
        ("block_1", "linear1"), ("block_1", "linear2"), ("block_1",), (),
    ]  # fmt: skip
    assert list(graph.nodes(resnet)) == paths and graph.nodes(resnet)[()] is resnet


def test_children_are_direct_and_without_duplicates() -> None:
    resnet = ResNet(2, 3)
    assert [path for path, _ in graph.iter_children(resnet)] == [("block_0",), ("block_1",), ("block_2",)]
    resnet.me = resnet  # type: ignore[attr-defined]
    assert len(list(graph.iter_children(resnet))) == 3


@pytest.mark.core
def test_levels_count_nodes_on_the_shortest_way() -> None:
    resnet = ResNet(2, 2)
    resnet.s = sg.State(1.0)  # type: ignore[attr-defined]
    assert list(graph.states(resnet, allowed_hierarchy=(0, 0))) == [("s",)]
    assert len(graph.states(resnet, allowed_hierarchy=(1, 1))) == 0
    assert len(graph.states(resnet, allowed_hierarchy=(2, 9))) == 4
    assert list(graph.nodes(resnet, allowed_hierarchy=(1, 1))) == [("block_0",), ("block_1",)]
    assert list(graph.nodes(resnet, allowed_hierarchy=(0, 0))) == [()]
    assert [path for path, _ in graph.iter_leaf(resnet, (0, 0))] == [("s",)]
    resnet.z = resnet.blocks[0].linear1  # type: ignore[attr-defined]
    assert list(graph.nodes(resnet, allowed_hierarchy=(1, 1))) == [
        ("block_0", "linear1"),
        ("block_0",),
        ("block_1",),
    ]
    with pytest.raises(TypeError, match="a pair"):
        graph.states(resnet, allowed_hierarchy=3)  # type: ignore[arg-type]


def test_several_filters_and_the_first_match_counts() -> None:
    mlp = MLP()
    params, others = graph.states(mlp, sg.ParamState, ...)
    assert isinstance(params, sg.util.FlattedDict) and len(params) == 3 and list(others) == [("st",)]
    assert list(graph.states(mlp, sg.ShortTermState)) == [("st",)]
    with pytest.raises(ValueError, match="last"):
        graph.states(mlp, ..., sg.ParamState)
    assert list(graph.nodes(mlp, Linear, lambda node: True)[1]) == [()]


def test_containers_of_any_kind_are_looked_into() -> None:
    class Holder(sg.graph.Node):
        def __init__(self) -> None:
            self.mixed = {1: sg.State(1), "a": sg.State(2), ("E", "I"): [sg.State(3)]}
            self.pair = Pair(sg.State(4), None)
            self.partial = jax.tree_util.Partial(max, sg.State(5))

    found = graph.states(Holder())
    assert list(found) == [
        ("mixed", 1), ("mixed", "a"), ("mixed", ("E", "I"), 0), ("pair", "left"), ("partial", 0, 0),
    ]  # fmt: skip
    assert [int(state.value) for state in found.values()] == [1, 2, 3, 4, 5]
    assert graph.states([Holder(), Holder()]).keys() >= {(0, "mixed", 1), (1, "pair", "left")}


def test_containers_that_hold_themselves_are_fine() -> None:
    class Holder(sg.graph.Node):
        def __init__(self) -> None:
            self.items: list[Any] = [sg.State(1.0)]
            self.items.append(self.items)
            self.items.append((self.items, self))

    holder = Holder()
    assert len(graph.states(holder)) == 1 and len(list(graph.iter_leaf(holder))) == 1
    twin = graph.clone(holder)
    assert twin.items[1] is twin.items and twin.items[2] == (twin.items, twin) and "[...]" in repr(holder)


@pytest.mark.core
def test_a_chain_of_five_thousand_nodes() -> None:
    root = chain(5000)
    assert len(graph.states(root)) == 5000 == len(graph.nodes(root)) == len(list(graph.iter_leaf(root)))
    assert len(graph.states(root, allowed_hierarchy=(0, 9))) == 10
    definition, values = graph.treefy_split(root)
    twin = graph.treefy_merge(definition, jax.tree.map(lambda x: x + 1, values))
    assert graph.graphdef(twin) == definition and hash(graph.graphdef(graph.clone(root))) == hash(definition)
    assert len(repr(definition)) < 100_000 and len(repr(root)) < 100_000
    node = twin
    for _ in range(5000):
        assert node.s.value == 1.0
        node = node.next
    assert node is twin


def test_what_is_no_model_is_refused() -> None:
    for wrong in (None, 3, jnp.ones(2), "model"):
        with pytest.raises(TypeError, match="needs a Node"):
            graph.states(wrong)


def test_traced_code_depends_on_what_it_looked_through() -> None:
    model = Chain()
    traces = []

    @sg.compile.jit
    def total() -> Any:
        traces.append(1)
        return sum(state.value for state in graph.states(model).values())

    assert total() == 0.0 and total() == 0.0 and len(traces) == 1
    model.other = sg.State(2.0)  # type: ignore[attr-defined]
    assert total() == 2.0 and len(traces) == 2


def test_walk_visits_everything_once() -> None:
    mlp = MLP()
    assert len([obj for _, obj in walk(mlp) if isinstance(obj, sg.State)]) == 4

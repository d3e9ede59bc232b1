"""Nodes and the object graph."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph.graph import nodes, states, to_predicate


class Leaf(sg.Node):
    def __init__(self, v: float) -> None:
        self.s = sg.ParamState(v, tag="leaf")
        self.t = sg.State(v)


class Tree(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = Leaf(1.0)
        self.a = [Leaf(2.0), {"k": Leaf(3.0)}, (sg.State(4.0),)]
        self.alias = self.b
        self.loop = self


@pytest.mark.core
def test_states_are_found_once_by_their_first_path_in_a_stable_order() -> None:
    tree = Tree()
    assert list(states(tree)) == [
        ("a", 0, "s"), ("a", 0, "t"), ("a", 1, "k", "s"), ("a", 1, "k", "t"), ("a", 2, 0), ("alias", "s"), ("alias", "t"),
    ]  # fmt: skip
    assert len({id(s) for s in states(tree).values()}) == 7


def test_nodes_are_found_with_the_root_under_the_empty_path() -> None:
    tree = Tree()
    assert nodes(tree)[()] is tree
    assert set(nodes(tree)) == {(), ("a", 0), ("a", 1, "k"), ("alias",)}
    assert list(nodes(tree, Leaf).values()) == [tree.a[0], tree.a[1]["k"], tree.b]


@pytest.mark.core
def test_filters_by_type_tag_function_tuple_and_ellipsis() -> None:
    tree = Tree()
    assert len(states(tree, sg.ParamState)) == 3 and len(states(tree, "leaf")) == 3
    assert (
        len(states(tree, lambda path, s: "k" in path)) == 2
        and len(states(tree, lambda s: float(s.value) == 1)) == 2
    )
    params, rest = states(tree, sg.ParamState, ...)
    assert len(params) == 3 and len(rest) == 4
    assert len(states(tree, (sg.ParamState, lambda path, s: path[-1] == "t"))) == 6
    assert states(tree, None) == {} and len(states(tree, True)) == 7
    with pytest.raises(TypeError, match="no filter"):
        to_predicate(3)


def test_deep_graphs_do_not_recurse() -> None:
    root = node = Leaf(0.0)
    for _ in range(3000):
        node.next = Leaf(0.0)  # type: ignore[attr-defined]
        node = node.next  # type: ignore[attr-defined]
    assert len(states(root)) == 6002


def test_nodes_print_stably_and_without_addresses() -> None:
    text = repr(Tree())
    assert "0x" not in text and "loop=Tree(...)" in text and "ParamState(" in text
    assert repr(sg.Node()) == "Node()"


@pytest.mark.core
def test_a_node_works_without_calling_super_init() -> None:
    class Bare(sg.Node):
        def __init__(self) -> None:
            self.s = sg.State(1.0)

    bare = Bare()
    step = sg.compile.jit(lambda: setattr(bare.s, "value", bare.s.value + 1))
    step()
    bare.s = sg.State(10.0)
    step()
    assert float(bare.s.value) == 11


def test_modules_call_update_and_have_a_read_only_name() -> None:
    class Double(sg.nn.Module):
        def update(self, x: Any) -> Any:
            return 2 * x

    double = Double("d")
    assert (
        double(3) == 6 and double.name == "d" and 3 >> double == 6 and (jnp.ones(2) >> double).shape == (2,)
    )
    with pytest.raises(AttributeError):
        double.name = "e"  # type: ignore[misc]
    with pytest.raises(NotImplementedError, match="update"):
        sg.nn.Module()(1)


def test_properties_and_descriptors_of_nodes_work_while_tracing() -> None:
    class Model(sg.Node):
        def __init__(self) -> None:
            self._rate = 2.0
            self.s = sg.State(1.0)

        @property
        def rate(self) -> float:
            return self._rate

        @rate.setter
        def rate(self, value: float) -> None:
            self._rate = value

        def __getattr__(self, name: str) -> Any:
            if name == "virtual":
                return self.rate * 10
            raise AttributeError(name)

    model = Model()
    step = sg.compile.jit(lambda: model.s.value * model.rate + model.virtual)
    assert float(step()) == 22
    model.rate = 3.0
    assert float(step()) == 33
    with pytest.raises(AttributeError):
        sg.trace(lambda: model.nothing)

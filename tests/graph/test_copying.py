"""Deep copies of Nodes: those of ``copy.deepcopy`` on plain objects, without its limit."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.graph import Node
from tests.graph.models import chain


class Plain:
    """What ``copy.deepcopy`` copies by itself."""


class Link(Node):
    def __init__(self, next: Any = None) -> None:
        self.value = sg.State(jnp.zeros(2))
        self.next = next


@pytest.mark.parametrize(
    "hold, held",
    [
        (lambda x: x, lambda x: x),
        (lambda x: [(x,)], lambda x: x[0][0]),
        (lambda x: {"next": {0: x}}, lambda x: x["next"][0]),
    ],
)
def test_a_chain_of_any_length(hold: Any, held: Any) -> None:
    ours = None
    for _ in range(5000):
        ours = Link(hold(ours))
    theirs, count = copy.deepcopy(ours), 0
    while ours is not None:
        assert theirs is not ours and theirs.value is not ours.value and type(theirs) is Link
        ours, theirs, count = held(ours.next), held(theirs.next), count + 1
    assert theirs is None and count == 5000


def built(kind: type) -> Any:
    """A graph with cycles, shared parts, parts in containers and parts behind an object."""
    root, left, right, low = (kind() for _ in range(4))
    root.left, root.right, root.parts = left, right, [left, {"low": low}, (right, [low])]
    left.up, right.up, left.low, right.low = root, root, low, low
    low.loop, low.array = low, np.arange(3)
    left.array = low.array
    root.other = Plain()
    root.other.inside = right  # type: ignore[attr-defined]
    root.itself = root.parts
    root.parts.append(root.parts)
    return root


def shape(root: Any) -> Any:
    """What refers to what: each object by its number in the order of meeting."""
    numbers: dict[int, int] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, (int, str)):
            return value
        if id(value) in numbers:
            return f"#{numbers[id(value)]}"
        numbers[id(value)] = len(numbers)
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, (list, tuple)):
            return type(value)(map(visit, value))
        entries = value if isinstance(value, dict) else vars(value)
        return {key: visit(item) for key, item in entries.items()}

    return visit(root)


def test_references_are_those_of_a_copy_of_plain_objects() -> None:
    root = built(Node)
    twin = copy.deepcopy(root)
    assert shape(twin) == shape(root) == shape(copy.deepcopy(built(Plain)))
    assert twin.parts[1]["low"] is not root.parts[1]["low"]
    first, again, both = copy.deepcopy((root, root.left, [root]))
    assert first.left is again and both[0] is first


class Counted(Node):
    """Leaves out its cache, and counts what it is asked."""

    calls: list[str]

    def __init__(self) -> None:
        self.calls, self.cache = [], object()

    def __getstate__(self) -> Any:
        self.calls.append("get")
        attributes, slots = super().__getstate__()
        return {name: value for name, value in attributes.items() if name != "cache"}, slots

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state[0])
        self.inner_was = vars(self.inner).copy() if hasattr(self, "inner") else {}
        self.cache = "made again"


class Own(Node):
    """Copies itself, and looks at the copy of its part."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = Own()
        memo[id(self)] = made
        made.inner = copy.deepcopy(self.inner, memo)
        made.size = made.inner.size
        return made


class Sized(Node):
    """Is made with an argument."""

    def __new__(cls, size: int) -> Any:
        self = super().__new__(cls, size)
        self.size = size
        return self

    def __getnewargs__(self) -> Any:
        return (self.size,)


class Listed(Node):
    """Says itself how it is made."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Listed, (), {"parts": self.parts}


def test_classes_that_have_a_say_in_it_are_asked() -> None:
    root = Node()
    inner = Counted()
    inner.inner = Node()
    inner.inner.size = 3
    root.counted, root.own = inner, Own()
    root.own.inner = inner.inner
    root.sized = Sized(4)
    root.sized.up = root
    root.listed = Listed()
    root.listed.parts = [root.sized, root]
    twin = copy.deepcopy(root)
    assert inner.calls == ["get"] and twin.counted.cache == "made again"
    assert twin.counted.inner_was == {"size": 3}  # parts are filled before what holds them
    assert twin.own.inner is twin.counted.inner and twin.own.size == 3
    assert twin.sized.size == 4 and twin.sized.up is twin and twin.sized is not root.sized
    assert twin.listed.parts[0] is twin.sized and twin.listed.parts[1] is twin


def test_what_cannot_be_copied_says_so() -> None:
    root = Link(Link())
    root.next.lines = (line for line in "ab")
    with pytest.raises(TypeError, match="generator"):
        copy.deepcopy(root)


def test_a_model_taken_apart_is_pickled_at_any_depth() -> None:
    definition, states = sg.graph.flatten(chain(1000))
    definition, flat = pickle.loads(pickle.dumps((definition, states.to_flat())))
    again = sg.graph.unflatten(definition, flat.to_nest())
    assert len(sg.graph.states(again)) == len(sg.graph.nodes(again)) == 1000

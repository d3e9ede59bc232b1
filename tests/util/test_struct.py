"""Dataclasses and dicts as pytrees."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph.util import FrozenDict, struct

pytestmark = pytest.mark.core


@struct.dataclass
class Neuron:
    """Data and settings."""

    v: Any
    gate: Any = struct.field(default_factory=lambda: {"m": 0.0})
    name: str = struct.field(pytree_node=False, default="a")


class Spiking(struct.PyTreeNode):
    """A subclass of PyTreeNode, and of that."""

    v: Any
    mode: str = struct.field(pytree_node=False, default="soft")


class Delayed(Spiking):
    delay: Any = 0.0


@dataclasses.dataclass
class Outer:
    inner: Any


def test_fields_are_data_or_settings() -> None:
    neuron = Neuron(jnp.ones(2), {"m": 1.0})
    assert len(jax.tree.leaves(neuron)) == 2
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(neuron)[0]]
    assert paths == [".v", ".gate['m']"]
    doubled = jax.jit(lambda n: jax.tree.map(lambda x: 2 * x, n))(neuron)
    assert type(doubled) is Neuron and doubled.name == "a" and float(doubled.v[0]) == 2
    assert jax.tree.structure(neuron) != jax.tree.structure(neuron.replace(name="b"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        neuron.v = 0.0
    assert struct.dataclass(kw_only=True)(type("K", (), {"__annotations__": {"x": float}}))(x=1.0).x == 1.0


def test_subclasses_are_dataclasses_too() -> None:
    found = Delayed(1.0, "hard", 2.0)
    assert jax.tree.leaves(found) == [1.0, 2.0] and found.replace(v=3.0) == Delayed(3.0, "hard", 2.0)
    assert jax.tree.map(lambda x: x + 1, found).mode == "hard"


def test_they_are_values_of_states_in_programs() -> None:
    state = sg.State(Spiking(jnp.zeros(2)))

    @sg.compile.jit
    def step() -> None:
        state.value = state.value.replace(v=state.value.v + 1)

    step()
    step()
    assert isinstance(state.value, Spiking) and float(state.value.v[1]) == 2


def test_frozen_dicts() -> None:
    frozen: FrozenDict[Any, Any] = FrozenDict({"b": 1, "a": {"c": 2}}, d=3)
    assert frozen["a"]["c"] == 2 and isinstance(frozen["a"], FrozenDict) and len(frozen) == 3
    assert frozen == FrozenDict(frozen) and hash(frozen) == hash(FrozenDict({"d": 3, "a": {"c": 2}, "b": 1}))
    assert frozen.unfreeze() == {"b": 1, "a": {"c": 2}, "d": 3} and type(frozen.unfreeze()["a"]) is dict
    assert frozen.copy({"b": 5})["b"] == 5 and frozen["b"] == 1
    assert frozen.pop("b") == (FrozenDict({"a": {"c": 2}, "d": 3}), 1) and frozen.get("x", 9) == 9
    with pytest.raises(TypeError):
        frozen["b"] = 2  # type: ignore[index]
    assert jax.tree.leaves(frozen) == [2, 1, 3]
    mapped = jax.tree.map(lambda x: x * 10, frozen)
    assert isinstance(mapped["a"], FrozenDict) and mapped["a"]["c"] == 20
    assert jax.tree.structure(frozen) == jax.tree.structure(FrozenDict({"d": 0, "a": {"c": 0}, "b": 0}))
    assert pickle.loads(pickle.dumps(frozen)) == frozen
    assert frozen.pretty_repr().splitlines()[2:5] == ["  'a': FrozenDict({", "    'c': 2,", "  }),"]
    with pytest.raises(TypeError):
        hash(FrozenDict({"a": []}))

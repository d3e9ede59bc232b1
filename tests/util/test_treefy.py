"""TreefyState: the value of a State as a pytree whose structure says what State it was."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph.util.static import same_value, static_key
from stategraph.util.treefy import treefy


class Noisy(sg.State[jax.Array]):
    """A kind with an attribute of its own and another constructor."""

    def __init__(self, size: int) -> None:
        super().__init__(jnp.zeros(size), tag="noise", unit="mV")
        self.level = 0.5


@pytest.mark.core
def test_a_state_comes_back_as_it_was() -> None:
    state = Noisy(3)
    again = jax.tree.map(lambda x: x + 1, treefy(state)).to_state()
    assert (
        type(again) is Noisy
        and again.level == 0.5
        and again.tag == {"noise"}
        and again.metadata == {"unit": "mV"}
    )
    assert again.value.tolist() == [1.0, 1.0, 1.0] and state.value.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.core
def test_writing_a_state_does_not_change_its_tree_structure() -> None:
    state = Noisy(3)
    before = treefy(state)
    state.value = state.value + 1
    after = treefy(state)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert hash(jax.tree.structure(before)) == hash(jax.tree.structure(after))
    assert jax.tree.map(lambda a, b: b - a, before, after).value.tolist() == [1.0, 1.0, 1.0]


def test_what_a_state_is_belongs_to_the_structure() -> None:
    def structure(**about: object) -> object:
        return jax.tree.structure(sg.TreefyState(sg.State, 1.0, **about))

    assert structure() == structure() and structure(tag="a") == structure(tag={"a"})
    assert structure(tag="a") != structure() and structure(name="a") != structure()
    assert structure(unit=[1, 2]) == structure(unit=[1, 2]) != structure(unit=[1, 3])
    assert jax.tree.structure(sg.TreefyState(sg.ParamState, 1.0)) != structure()


def test_a_reference_prints_copies_and_pickles() -> None:
    reference = sg.TreefyState(sg.ParamState, {"b": jnp.ones(1), "a": jnp.zeros(1)}, tag="x", name="n")
    assert repr(reference) == (
        "TreefyState(\n  type=<class 'stategraph.state.kinds.ParamState'>,\n  value={\n"
        "    'a': Array([0.], dtype=float32),\n    'b': Array([1.], dtype=float32)\n  },\n"
        "  name='n',\n  tag=['x']\n)"
    )
    for other in (copy.deepcopy(reference), pickle.loads(pickle.dumps(reference)), reference.copy()):
        assert jax.tree.structure(other) == jax.tree.structure(reference)
    assert reference.replace(1.0).value == 1.0 and reference.value["b"] == 1.0


def test_settings_compare_by_type_and_value_and_never_fail() -> None:
    assert static_key(1) != static_key(1.0) != static_key(True) and static_key(0.0) != static_key(-0.0)
    assert static_key(float("nan")) == static_key(float("nan"))
    assert static_key({"a": [1]}) == static_key({"a": [1]}) != static_key({"a": [1.0]})
    array = jnp.ones(2)
    assert static_key(array) == static_key(array) and hash(static_key(array)) is not None
    assert static_key(array) != static_key(jnp.ones(2)) and not same_value(array, jnp.ones(2))
    assert static_key({1}) == static_key({1}) != static_key({2})
    assert hash(static_key(bytearray(b"x"))) == hash(static_key(bytearray(b"y")))

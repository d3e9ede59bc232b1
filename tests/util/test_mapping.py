"""FlattedDict and NestedDict: dicts by path, and pytrees whose structure depends on the paths alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph.util import FlattedDict, NestedDict, flat_mapping, nest_mapping

PATHS = {("a", 0, "w"): 1.0, ("a", 1, "w"): 2.0, ("a", "x"): 3.0, ("b",): 4.0, ("c", ("E", "I"), "w"): 5.0}


@pytest.mark.core
def test_flat_and_nested_forms_give_each_other() -> None:
    flat = FlattedDict(PATHS)
    nested = flat.to_nest()
    assert isinstance(nested["a"][0], NestedDict) and nested["a"][0]["w"] == 1.0
    assert nested["c"][("E", "I")]["w"] == 5.0
    assert nested.to_flat() == flat and FlattedDict.from_nest(nested) == flat
    assert FlattedDict.from_nest({"a": {0: {"w": 1.0}}}) == {("a", 0, "w"): 1.0}
    assert NestedDict({"a": {0: {"w": 1.0}}}).to_flat() == {("a", 0, "w"): 1.0}
    assert type(nested.to_dict()["a"][0]) is dict and type(flat.to_dict()) is dict


@pytest.mark.core
@pytest.mark.parametrize("cls", [FlattedDict, lambda flat: FlattedDict(flat).to_nest()])
def test_the_tree_structure_depends_on_the_paths_alone(cls: Any) -> None:
    first, second = cls(PATHS), cls(dict(reversed(PATHS.items())))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert hash(jax.tree.structure(first)) == hash(jax.tree.structure(second))
    total = jax.tree.map(lambda a, b: a + b, first, second)
    assert type(total) is type(first) and jax.tree.leaves(total) == [2 * x for x in jax.tree.leaves(first)]
    assert "'w'" in jax.tree_util.keystr(jax.tree_util.tree_flatten_with_path(first)[0][0][0])


def test_plain_dicts_can_be_entries() -> None:
    grads = FlattedDict({("l", "weight"): {"w": 1.0, "b": 2.0}})
    nested = grads.to_nest()
    assert nested.to_flat() == grads and jax.tree.leaves(nested) == [2.0, 1.0]
    assert jax.tree.map(lambda x: x + 1, nested).to_flat() == {("l", "weight"): {"w": 2.0, "b": 3.0}}


def test_a_plain_dict_that_is_assigned_becomes_a_level() -> None:
    nested = NestedDict(a=1)
    nested["b"] = {"c": {"d": 2}}
    nested.update({"e": {"f": 3}})
    assert nested.setdefault("g", {"h": 4})["h"] == 4 and nested.setdefault("a", 0) == 1
    assert nested.to_flat() == {("a",): 1, ("b", "c", "d"): 2, ("e", "f"): 3, ("g", "h"): 4}


def test_paths_that_contradict_each_other_are_refused() -> None:
    for paths in ([("a",), ("a", "b")], [("a", "b"), ("a",)], [()]):
        with pytest.raises(ValueError):
            NestedDict.from_flat(dict.fromkeys(paths, 1))


@pytest.fixture
def states() -> FlattedDict:
    return FlattedDict(
        {("l", "w"): sg.ParamState(jnp.ones(2)), ("l", "v"): sg.HiddenState(0.0), ("n",): sg.State(3)}
    )


@pytest.mark.parametrize("nested", [False, True])
def test_split_filter_and_merge(states: FlattedDict, nested: bool) -> None:
    whole: Any = states.to_nest() if nested else states
    params, rest = whole.split(sg.ParamState, ...)
    assert type(params) is type(rest) is type(whole)
    assert type(whole).merge(params, rest) == whole and (params | rest) == whole and (whole - params) == rest
    assert len(jax.tree.leaves(whole.filter(sg.ParamState))) == 1 and whole.subset(...) == whole
    assert len(whole.filter(sg.ParamState, sg.HiddenState)) == 2
    with pytest.raises(ValueError, match=r"1 of 3 entries match no filter: \('n',\) \(State\)") as error:
        whole.split(sg.ParamState, sg.HiddenState)
    assert "add `...`" in str(error.value)


def test_values_out_and_in(states: FlattedDict) -> None:
    values = states.to_dict_values()
    assert type(values) is dict and values[("n",)] == 3
    states.assign_dict_values({("n",): jnp.int32(4)})
    assert states[("n",)].value == 4
    with pytest.raises(KeyError, match="no State at"):
        states.assign_dict_values({("n",): 5, ("q",): 1})
    assert states[("n",)].value == 4
    pure = states.to_nest().to_pure_dict()
    assert type(pure["l"]) is dict and pure["n"] == 4
    pure["l"]["v"] = 7.0
    states.to_nest().replace_by_pure_dict(pure)
    assert states[("l", "v")].value == 7.0
    reference = states.to_nest().treefy_state()
    reference.replace_by_pure_dict({"n": 9})
    assert reference["n"].value == 9 and states[("n",)].value == 4
    with pytest.raises(KeyError, match="no entry at"):
        reference.replace_by_pure_dict({"n": 1, "q": 1})
    assert reference["n"].value == 9
    nested = states.to_nest()
    nested.replace_by_pure_dict({"n": 2}, replace_fn=lambda old, new: old.value * new)
    assert nested["n"] == 8 and states[("n",)].value == 4


def test_states_become_references(states: FlattedDict) -> None:
    for made in (states.treefy_state(), states.to_nest().treefy_state()):
        assert [x.shape for x in jax.tree.leaves(made)] == [(), (2,), ()]
    assert all(
        leaf is state for leaf, state in zip(jax.tree.leaves(states), [states[("l", "v")]], strict=False)
    )


@pytest.mark.core
def test_depth_costs_nothing() -> None:
    path = tuple("x" * 5000)
    nested = NestedDict.from_flat({path: 1.0})
    assert jax.tree.leaves(jax.tree.map(lambda x: x + 1, nested)) == [2.0]
    assert nested.to_flat()[path] == 1.0 and nested.copy().to_flat() == {path: 1.0}
    assert "{...}" in repr(nested) and len(repr(nested)) < 2000
    assert NestedDict(nested.to_dict()).to_flat() == {path: 1.0}


def test_plain_dicts_flat_and_nested() -> None:
    nested = {"a": {"b": {}, "c": 1}, "d": 2}
    assert flat_mapping(nested) == {("a", "c"): 1, ("d",): 2}
    assert flat_mapping(nested, keep_empty_nodes=True) == {("a", "b"): {}, ("a", "c"): 1, ("d",): 2}
    assert flat_mapping(nested, is_leaf=lambda path, x: path == ("a",)) == {("a",): nested["a"], ("d",): 2}
    assert nest_mapping(flat_mapping(nested, keep_empty_nodes=True)) == nested
    assert nest_mapping(flat_mapping({"a": {"b": 1}}, sep="/"), sep="/") == {"a": {"b": 1}}
    assert flat_mapping({}) == {} and nest_mapping({}) == {}

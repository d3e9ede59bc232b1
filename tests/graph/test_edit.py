"""Taking States out of a model, and giving them new values."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph import graph
from tests.graph.models import MLP, Count, Regressor


@pytest.mark.core
def test_popped_states_are_gone_and_can_be_put_back() -> None:
    model = Regressor()
    popped = graph.pop_states(model, Count)
    assert (
        isinstance(popped, sg.util.NestedDict) and popped["count"].value == 0 and not hasattr(model, "count")
    )
    assert len(graph.states(model)) == 2
    graph.update_states(model, popped)
    assert type(model.count) is Count
    params, rest = graph.pop_states(model, sg.ParamState, ...)
    assert len(params) == 2 and list(rest) == ["count"] and len(graph.states(model)) == 0


def test_states_leave_containers_and_all_their_paths() -> None:
    class Holder(sg.graph.Node):
        def __init__(self) -> None:
            state = sg.HiddenState(1.0)
            self.items = [state, 1, (state, sg.ParamState(2.0))]
            self.table = {"a": state, "b": (state,)}
            self.pair = (state, 2)
            self.alias = state

    holder = Holder()
    assert list(graph.pop_states(holder, sg.HiddenState).to_flat()) == [("alias",)]
    assert (
        holder.items[0] == 1
        and len(holder.items[1]) == 1
        and holder.table == {"b": ()}
        and holder.pair == (2,)
    )
    assert not hasattr(holder, "alias") and list(graph.states(holder)) == [("items", 1, 0)]


def test_pop_states_needs_a_filter() -> None:
    with pytest.raises(ValueError, match="which States"):
        graph.pop_states(MLP())


@pytest.mark.core
def test_update_takes_any_form_of_mapping() -> None:
    model = MLP()
    graph.update_states(
        model, {"st": jnp.ones(5)}, {("l1", "weight"): {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
    )
    assert model.st.value.sum() == 5 and model.l1.weight.value["weight"].sum() == 6
    graph.update_states(model, graph.treefy_states(MLP()), graph.states(MLP(), sg.ShortTermState))
    assert model.st.value.sum() == 0 and model.l1.weight.value["bias"].sum() == 0


def test_update_changes_nothing_when_a_path_leads_nowhere() -> None:
    model = MLP()
    for wrong in ({"nowhere": 1.0}, {"l1": {"more": {"deep": 1.0}}}, {"l1": sg.State(1.0)}):
        with pytest.raises(KeyError, match="no State at"):
            graph.update_states(model, {"st": jnp.ones(5)}, wrong)
    assert model.st.value.sum() == 0


@pytest.mark.core
def test_update_inside_of_jit_writes_the_states() -> None:
    model = MLP()

    @sg.compile.jit
    def set_all(x: Any) -> None:
        graph.update_states(model, {"st": x * jnp.ones(5)})

    set_all(2.0)
    assert model.st.value.tolist() == [2.0] * 5
    set_all(3.0)
    assert model.st.value.tolist() == [3.0] * 5

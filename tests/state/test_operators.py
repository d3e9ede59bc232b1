"""A State used like an array: an error that names it and says what to write."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import StateTypeError
from stategraph.state.operators import BINARY, COMPARISONS, UNARY

pytestmark = pytest.mark.core

BY_NAME = {"and": operator.and_, "or": operator.or_}


def function(name: str) -> Callable[..., Any]:
    return BY_NAME.get(name) or getattr(operator, name)


def refused(use: Callable[[sg.State[Any]], Any]) -> str:
    state = sg.HiddenState(jnp.ones((2, 2)), name="v")
    with pytest.raises(StateTypeError, match=r"state\.value = \.\.\.") as error:
        use(state)
    assert (state.value == 1).all()
    return str(error.value)


@pytest.mark.parametrize("name", [*BINARY, *COMPARISONS])
@pytest.mark.parametrize("other", [2, np.ones((2, 2)), jnp.ones((2, 2))], ids=["number", "numpy", "jax"])
def test_operators_of_two_operands_are_refused_on_either_side(name: str, other: Any) -> None:
    assert "HiddenState 'v' is used like an array" in refused(lambda state: function(name)(state, other))
    refused(lambda state: function(name)(other, state))


@pytest.mark.parametrize("name", UNARY)
def test_operators_of_one_operand_are_refused(name: str) -> None:
    refused(function(name))


def test_assignment_to_items_is_refused() -> None:
    refused(lambda state: operator.setitem(state, 0, 1.0))  # type: ignore[call-overload]


def test_the_error_names_the_line_also_in_a_trace() -> None:
    state = sg.State(0)

    def count() -> None:
        nonlocal state
        state += 1  # type: ignore[operator, assignment]

    with pytest.raises(StateTypeError, match=r"state \+= 1"):
        sg.compile.jit(count)()


def test_equality_and_hash_are_those_of_the_object() -> None:
    one, other = sg.State(1), sg.State(1)
    assert one == one and one != other and len({one, other}) == 2

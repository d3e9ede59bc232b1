"""Names of States that a function reaches by no path of its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import stategraph as sg

layer = sg.nn.Linear(2, 3)
scales = {"gain": sg.ParamState(2.0)}


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = sg.ParamState(jnp.ones(3))

    def hidden(self, x: Any) -> Any:
        return layer(x) * scales["gain"].value

    def update(self, x: Any) -> Any:
        return self.hidden(x) + self.bias.value


X = jnp.ones(2)
NAMES = {"bias", "layer.weight", "scales.gain"}


def test_globals_that_only_a_method_mentions_have_their_names() -> None:
    assert set(sg.trace(Net(), X).program.states) == NAMES


def test_gradients_know_them_by_these_names_too() -> None:
    net = Net()
    gradient = sg.augment.grad(lambda x: net(x).sum(), ...)
    assert set(gradient(X)) == {"net.bias", "layer.weight", "scales.gain"} == set(sg.compile.jit(gradient)(X))
    with jax.disable_jit():
        assert set(gradient(X)) == {"net.bias", "layer.weight", "scales.gain"}


def test_two_states_of_one_name_are_told_apart() -> None:
    def made() -> Any:
        states = [sg.ParamState(2.0, name="w"), sg.ParamState(3.0, name="w")]

        class Product:
            def __call__(self) -> Any:
                return states[0].value * states[1].value

        return Product()

    gradient = sg.augment.grad(made(), ...)
    expected = {"w": 3.0, "w_1": 2.0}
    assert gradient() == sg.compile.jit(gradient)() == expected
    with jax.disable_jit():
        assert gradient() == expected


def test_a_state_that_nothing_holds_is_named_after_the_line_that_made_it() -> None:
    kept = {}

    class Counter:
        def __call__(self) -> Any:
            return kept["a"].value + kept["b"].value

    def make() -> None:
        count = sg.State(1)
        kept.update(a=count, b=sg.State(2))

    make()
    names = list(sg.trace(Counter()).program.states)
    assert names[0] == "count" and names[1].startswith("State_")

"""State, loops over it, gradients and events, written for BrainState: only the import is another.

Shortened forms of what its page of key concepts shows, with the values that it prints.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as bst


class Counter(bst.State[Any]):
    pass


class Dense(bst.graph.Node):
    """A Node that calls no constructor of its base class."""

    def __init__(self, size: int, out: int) -> None:
        self.size, self.out = size, out
        self.w = bst.ParamState(bst.random.rand(size, out))
        self.b = bst.ParamState(jnp.zeros((out,)))

    def __call__(self, x: Any) -> Any:
        return x @ self.w.value + self.b.value


class Deep(bst.graph.Node):
    def __init__(self, size: int, hidden: int, out: int, count: int = 3) -> None:
        self.input = bst.nn.Linear(size, hidden)
        self.layers = [bst.nn.Linear(hidden, hidden) for _ in range(count)]
        self.output = bst.nn.Linear(hidden, out)

    def __call__(self, x: Any) -> Any:
        x = bst.functional.relu(self.input(x))
        for layer in self.layers:
            x = bst.functional.relu(layer(x))
        return self.output(x)


def test_a_state_holds_anything_and_prints_it() -> None:
    example = bst.State(jnp.ones(3))
    assert repr(example) == "State(\n  value=Array([1., 1., 1.], dtype=float32)\n)"
    example.value = bst.random.random(3)
    assert example.value.shape == (3,)
    assert repr(bst.State({"a": jnp.ones(3), "b": jnp.zeros(4)})) == (
        "State(\n  value={'a': Array([1., 1., 1.], dtype=float32), 'b': Array([0., 0., 0., 0.], dtype=float32)}\n)"
    )
    count = Counter(0)
    count.value += 1
    assert count.value == 1 and type(count).__name__ in repr(count)


def test_a_model_may_contain_itself() -> None:
    model: Any = Dense(2, 5)
    assert model(jnp.ones((1, 2))).shape == (1, 5)
    model.self = model
    assert repr(model).rstrip(")\n").endswith("self=Dense(...")
    assert len(bst.graph.states(model)) == 2


def test_states_and_nodes_of_lists() -> None:
    model = Deep(2, 1, 3)
    paths = [("input",), ("layers", 0), ("layers", 1), ("layers", 2), ("output",)]
    states = bst.graph.states(model)
    assert type(states).__name__ == "FlattedDict" and list(states) == [(*path, "weight") for path in paths]
    nest = states.to_nest()
    assert type(nest).__name__ == "NestedDict" and list(nest["layers"]) == [0, 1, 2]
    assert nest["layers"][1]["weight"] is model.layers[1].weight
    assert list(bst.graph.nodes(model)) == [*paths, ()]
    assert model(jnp.ones((1, 2))).shape == (1, 3)


def test_loops_over_state(capfd: pytest.CaptureFixture[str]) -> None:
    a = bst.State(1.0)

    def add(i: Any) -> None:
        a.value += 1.0

    bst.compile.for_loop(add, jnp.arange(10))
    assert f"{a.value}" == "11.0"
    b = bst.State(0.0)

    def add_up(i: Any) -> None:
        c = bst.State(0.0)

        def body(j: Any) -> Any:
            c.value += 1.0
            return j + 1

        bst.compile.while_loop(lambda j: j <= i, body, 0.0)
        b.value += c.value
        jax.debug.print("b = {b}, c = {c}", b=b.value, c=c.value)

    bst.compile.for_loop(add_up, jnp.arange(10))
    jax.effects_barrier()
    assert f"{b.value}" == "55.0"
    totals = np.cumsum(np.arange(1, 11))
    expected = [f"b = {total:.1f}, c = {i:.1f}" for i, total in enumerate(totals, 1)]
    assert capfd.readouterr().out.splitlines() == expected


def test_a_step_against_the_gradient() -> None:
    x, y = jnp.ones((1, 2)), jnp.ones((1, 3))
    model = bst.nn.Linear(2, 3)

    def loss(x: Any, y: Any) -> Any:
        return jnp.mean((y - model(x)) ** 2)

    before = loss(x, y)
    weights = model.states()
    gradients = bst.augment.grad(loss, weights)(x, y)
    assert gradients.keys() == weights.keys()
    for key, gradient in gradients.items():
        weights[key].value = jax.tree.map(lambda p, g: p - 0.1 * g, weights[key].value, gradient)
    assert loss(x, y) < before


def test_gradients_pass_over_states_that_have_none() -> None:
    class Counted(bst.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.calls = bst.nn.Linear(2, 3), Counter(0)

        def update(self, x: Any) -> Any:
            self.calls.value += 1
            return self.linear(x)

    model = Counted()
    gradients = bst.augment.grad(lambda: model(jnp.ones((1, 2))).sum(), model.states())()
    assert ("linear", "weight") in gradients and model.calls.value == 1


def test_events_reach_what_they_are_connected_with() -> None:
    bst.random.seed(0)
    spikes = bst.random.rand(1000) < 0.01
    connected = bst.event.FixedProb(1000, 100, 0.01, 1.0)
    arrived = jax.jit(connected)(spikes)
    np.testing.assert_array_equal(arrived, jnp.dot(spikes, connected.todense()))
    per_neuron = np.asarray(connected.todense().sum(1))
    assert per_neuron.min() == 0 < per_neuron.max() and abs(per_neuron.mean() - 1) < 0.2
    fixed = np.asarray(bst.nn.EventFixedProb(1000, 100, 0.01, 1.0).todense().sum(1))
    assert (fixed == 1).all()


def test_a_platform_that_is_not_there_is_refused() -> None:
    bst.environ.set(platform="cpu")
    with pytest.raises(Exception, match="tpu"):
        bst.environ.set(platform="tpu")

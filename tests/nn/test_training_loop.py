"""Training in the functional style: a model split into its structure and the values of its States, plain ``jax.jit`` and
``jax.grad``. The random numbers are drawn in the order of the reference document, and so the losses are the ones that
it prints."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import graph, nn


class Three(graph.Node):
    """Three layers and a State of its own."""

    def __init__(self) -> None:
        self.l1, self.l2, self.l3 = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5)
        self.st = sg.ShortTermState(sg.random.rand(5))


class Affine(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.w = sg.ParamState(sg.random.randn(inputs, outputs) * 0.1)
        self.b = sg.ParamState(jnp.zeros((outputs,)))

    def __call__(self, x: Any) -> Any:
        return x @ self.w.value + self.b.value


class Count(sg.State[Any]):
    pass


class Counting(graph.Node):
    """A perceptron with one hidden layer that counts its calls."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        self.count = Count(jnp.array(0))
        self.linear1 = Affine(inputs, hidden)
        self.linear2 = Affine(hidden, outputs)

    def __call__(self, x: Any) -> Any:
        self.count.value += 1
        return self.linear2(jax.nn.relu(self.linear1(x)))


PRINTED = {0: "0.168351", 1000: "0.011733", 2000: "0.011768", 3000: "0.011872", 4000: "0.011736", 5000: "0.011749",
           6000: "0.011963", 7000: "0.011719", 8000: "0.011735", 9000: "0.011739"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.no_program_checks
def test_the_losses_are_the_printed_ones() -> None:
    sg.random.seed(42)
    sg.random.rand(2, 3)
    sg.random.rand(3)
    Three()
    model = Counting(1, 32, 1)
    graphdef, params, counts = graph.treefy_split(model, sg.ParamState, Count)
    xs = jnp.linspace(0, 1, 100)[:, None]
    ys = 0.8 * xs**2 + 0.1 + sg.random.normal(0, 0.1, size=xs.shape)
    traces = []

    def choose() -> Any:
        return sg.random.choice(len(xs), size=32)

    @jax.jit
    def train_step(params: Any, counts: Any, batch: Any) -> Any:
        traces.append(1)
        x, y = batch

        def loss_fn(params: Any) -> Any:
            model = graph.treefy_merge(graphdef, params, counts)
            return jnp.mean((y - model(x)) ** 2), graph.treefy_states(model, Count)

        grads, counts = jax.grad(loss_fn, has_aux=True)(params)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, grads), counts

    @jax.jit
    def test_step(params: Any, counts: Any) -> Any:
        return jnp.mean((ys - graph.treefy_merge(graphdef, params, counts)(xs)) ** 2)

    choices = sg.compile.jit(lambda: sg.compile.for_loop(choose, length=1000))  # drawn as one after the other

    @jax.jit
    def train(params: Any, counts: Any, chosen: Any) -> Any:
        def step(carry: Any, chosen: Any) -> Any:
            return train_step(*carry, (xs[chosen], ys[chosen])), None

        return jax.lax.scan(step, (params, counts), chosen)[0]

    chosen = choose()
    params, counts = train_step(params, counts, (xs[chosen], ys[chosen]))
    found = [test_step(params, counts)]
    while len(found) < len(PRINTED):
        params, counts = train(params, counts, choices())
        found.append(test_step(params, counts))
    params, counts = train(params, counts, choices()[:-1])
    np.testing.assert_allclose(found, [float(text) for text in PRINTED.values()], atol=2e-6)
    trained = graph.treefy_merge(graphdef, params, counts)
    assert trained.count.value == 10_000 and len(traces) == 1
    np.testing.assert_allclose(jnp.mean((ys - trained(xs)) ** 2), 0.011899, atol=2e-6)

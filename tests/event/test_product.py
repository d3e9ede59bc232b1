"""Products of events with sparse connectivity against dense matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event

pytestmark = pytest.mark.core


def random_csr(rng: np.random.Generator, pre: int, post: int, synapses: int) -> event.CSR:
    """Rows of very different lengths, some empty, some with synapses twice."""
    rows = np.sort(rng.integers(0, max(pre // 2, 1), synapses))
    return event.CSR(
        np.append(0, np.cumsum(np.bincount(rows, minlength=pre))),
        rng.integers(0, post, synapses),
        (pre, post),
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["bool", "float32", "int32"])
@pytest.mark.parametrize("each", [False, True], ids=["one weight", "a weight each"])
def test_products_are_those_of_the_dense_matrix(seed: int, kind: str, each: bool) -> None:
    rng = np.random.default_rng(seed)
    pre, post, synapses = (int(rng.integers(1, 70)) for _ in range(3))
    csr = random_csr(rng, pre, post, synapses)
    weight = rng.normal(size=csr.size if each else ()).astype(np.float32)
    for rate in (0.0, 0.1, 1.0):
        events = ((rng.random((2, pre)) < rate) * rng.integers(1, 4, (2, pre))).astype(kind)
        expected = events.astype(np.float64) @ np.asarray(csr.todense(weight), np.float64)
        for given in (events[0], events):
            found = event.product(given, weight, csr)
            np.testing.assert_allclose(
                found, expected[0] if given.ndim == 1 else expected, rtol=1e-5, atol=1e-5
            )


def test_a_connectivity_without_synapses_sends_nothing() -> None:
    csr = event.CSR(np.zeros(4, int), np.zeros(0, int), (3, 2))
    np.testing.assert_array_equal(event.product(jnp.ones(3, bool), 2.0, csr), [0, 0])


def dense(events: Any, weight: Any, csr: event.CSR) -> Any:
    return events @ jnp.zeros(csr.shape).at[csr.rows, csr.indices].add(weight)


@pytest.mark.parametrize("each", [False, True], ids=["one weight", "a weight each"])
def test_gradients_are_those_of_the_dense_product(each: bool) -> None:
    rng = np.random.default_rng(0)
    csr = random_csr(rng, 20, 13, 50)
    events = jnp.asarray((rng.random(20) < 0.4) * rng.normal(size=20), jnp.float32)
    weight = jnp.asarray(rng.normal(size=csr.size if each else ()), jnp.float32)

    def loss(product: Any) -> Any:
        return lambda events, weight: (jnp.sin(product(events, weight, csr)) ** 2).sum()

    for take in (jax.grad, sg.augment.grad):
        ours = sg.compile.jit(take(loss(event.product), argnums=(0, 1)))(events, weight)
        for found, expected in zip(ours, jax.grad(loss(dense), argnums=(0, 1))(events, weight), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def second(product: Any) -> Any:
        return jax.grad(lambda e: (jax.grad(loss(product))(e, weight) ** 2).sum())(events)

    np.testing.assert_allclose(second(event.product), second(dense), rtol=1e-4, atol=1e-4)


def test_from_post_to_pre_few_events_have_the_gradients_and_lanes_of_the_dense_product() -> None:
    """With as many synapses as are worth a list by post neuron."""
    rng = np.random.default_rng(4)
    csr = random_csr(rng, 40, 50, 1200)
    matrix = csr.todense
    weight = jnp.asarray(rng.normal(size=csr.size), jnp.float32)
    events = jnp.asarray(
        rng.normal(size=(3, 50)) * (rng.random((3, 50)) < [[0.04], [0.1], [0.9]]), jnp.float32
    )

    def ours(events: Any, weight: Any) -> Any:
        return jnp.sin(event.product(events, weight, csr, transpose=True)).sum()

    def theirs(events: Any, weight: Any) -> Any:
        return jnp.sin(matrix(weight) @ events).sum()

    found = jax.jit(jax.vmap(jax.value_and_grad(ours, (0, 1)), (0, None)))(events, weight)
    expected = jax.vmap(jax.value_and_grad(theirs, (0, 1)), (0, None))(events, weight)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    program = sg.trace(lambda e: event.product(e, 0.5, csr, transpose=True), events[0]).program
    assert [len(op.operands) for op in program.walk("event.csr")] == [7]


def test_gradients_to_weights_of_boolean_events() -> None:
    rng = np.random.default_rng(1)
    csr = random_csr(rng, 20, 13, 50)
    events = jnp.asarray(rng.random(20) < 0.4)
    ours = jax.grad(lambda w: (event.product(events, w, csr) ** 2).sum())(jnp.float32(0.5))
    theirs = jax.grad(lambda w: (dense(events, w, csr) ** 2).sum())(jnp.float32(0.5))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_lanes_of_events_and_weights(axes: tuple[Any, Any]) -> None:
    rng = np.random.default_rng(2)
    csr = random_csr(rng, 20, 13, 50)
    events = jnp.asarray(rng.random((3, 20)) < 0.3)
    weight = jnp.asarray(rng.normal(size=3), jnp.float32)
    given = (events if axes[0] == 0 else events[0], weight if axes[1] == 0 else weight[0])
    found = jax.vmap(lambda e, w: event.product(e, w, csr), in_axes=axes)(*given)
    expected = jax.vmap(lambda e, w: dense(e, w, csr), in_axes=axes)(*given)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_inside_a_compiled_loop_with_state() -> None:
    layer = event.FixedProb(50, 30, 0.2, 0.5, seed=3)
    g = sg.ShortTermState(jnp.zeros(30))
    spikes = np.random.default_rng(3).random((7, 50)) < 0.2

    @sg.compile.jit
    def run(spikes: Any) -> None:
        def step(spike: Any) -> None:
            g.value = g.value * 0.9 + layer(spike)

        sg.compile.for_loop(step, spikes)

    run(spikes)
    expected = np.zeros(30, np.float32)
    matrix = np.asarray(layer.connections.todense(0.5))
    for spike in spikes:
        expected = expected * np.float32(0.9) + spike @ matrix
    np.testing.assert_allclose(g.value, expected, rtol=1e-5)


def test_a_layer_runs_under_plain_jit() -> None:
    layer = event.FixedProb(100, 10, 0.1, 1.0, seed=0)
    spikes = jnp.arange(100) % 7 == 0
    np.testing.assert_allclose(jax.jit(layer)(spikes), spikes @ np.asarray(layer.connections.todense()))


def test_a_dense_layer_for_events() -> None:
    matrix = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    events = np.array([True, False, True, True, False])
    np.testing.assert_allclose(event.Linear(5, 3, matrix)(events), events @ matrix, rtol=1e-6)
    np.testing.assert_allclose(event.Linear(5, 3, 2.0)(events), [6.0, 6.0, 6.0])


@pytest.mark.parametrize(
    ("events", "weight", "message"),
    [
        (np.zeros(3, bool), 1.0, "Events of the shape"),
        (np.zeros((), bool), 1.0, "Events of the shape"),
        (np.zeros(4, bool), np.ones(7), "Weights of the shape"),
    ],
)
def test_shapes_that_do_not_fit_are_errors(events: Any, weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        event.product(events, weight, random_csr(np.random.default_rng(0), 4, 3, 5))

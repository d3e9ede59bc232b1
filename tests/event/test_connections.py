"""Connections as modules: products in both directions against dense matrices, masks, names, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, nn
from tests.oracle import agree

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(7, 5)).astype(np.float32)
SQUARE = RNG.normal(size=(6, 6)).astype(np.float32)

CONNECTIONS: dict[str, Callable[[], event.Connections]] = {
    "FixedProb": lambda: event.FixedProb(7, 5, 0.4, 0.5, seed=0),
    "FixedProb, a weight each": lambda: event.FixedProb(7, 5, 0.4, nn.init.Normal(seed=0), seed=0),
    "FixedNumConn, post": lambda: event.FixedNumConn(7, 5, 3, 0.5, seed=0),
    "FixedNumConn, pre": lambda: event.FixedNumConn(7, 5, 3, nn.init.Normal(seed=0), "pre", seed=0),
    "Sparse": lambda: event.Sparse(event.CSR.from_dense(np.abs(MATRIX) > 0.5), 2.0),
    "Linear": lambda: event.Linear(7, 5, MATRIX),
    "Dense, one weight": lambda: event.Dense(7, 5, 0.5),
    "AllToAll": lambda: event.AllToAll(6, 6, SQUARE, include_self=False),
    "AllToAll, one weight": lambda: event.AllToAll(6, 6, 0.5, include_self=False),
    "AllToAll, more post": lambda: event.AllToAll(4, 6, 0.5, include_self=False),
    "AllToAll, more pre": lambda: event.AllToAll(6, 4, SQUARE[:, :4], include_self=False),
    "OneToOne": lambda: event.OneToOne(6, SQUARE[0]),
    "OneToOne, one weight": lambda: event.OneToOne(6, 0.5),
}


@pytest.mark.core
@pytest.mark.parametrize("kind", CONNECTIONS)
def test_products_in_both_directions_are_those_of_the_matrix(kind: str) -> None:
    connections = CONNECTIONS[kind]()
    matrix = np.asarray(connections.todense())
    assert matrix.shape == connections.shape == (*connections.in_size, *connections.out_size)  # type: ignore[misc]
    rng = np.random.default_rng(1)
    spikes, arrivals = rng.random((3, matrix.shape[0])) < 0.4, rng.random((matrix.shape[1], 3)) < 0.4
    values = spikes * np.float32(0.5)

    @jax.jit
    def products(spikes: Any, values: Any, arrivals: Any) -> Any:
        there = spikes @ connections, spikes[0] @ connections, connections(values)
        return there, (
            connections @ arrivals,
            connections @ arrivals[:, 0],
            connections @ arrivals[None] * 0.5,
        )

    there, back = products(spikes, values, arrivals)
    for found, events in zip(there, (spikes, spikes[0], values), strict=True):
        np.testing.assert_allclose(found, events @ matrix, rtol=1e-5, atol=1e-6)
    for found, events in zip(back, (arrivals, arrivals[:, 0], arrivals[None] * 0.5), strict=True):
        np.testing.assert_allclose(found, matrix @ events, rtol=1e-5, atol=1e-6)


@pytest.mark.core
def test_operands_of_numpy_go_to_the_connections() -> None:
    connections, weights = CONNECTIONS["Linear"](), MATRIX
    for x in (np.eye(7), jnp.eye(7), np.eye(7, dtype=int), np.eye(7, dtype=bool)):
        np.testing.assert_allclose(x @ connections, weights)
    np.testing.assert_allclose(connections @ np.eye(5), weights)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["FixedProb, a weight each", "AllToAll", "AllToAll, one weight", "OneToOne"])
def test_gradients_are_those_of_the_matrix(kind: str) -> None:
    connections = CONNECTIONS[kind]()
    size, post = connections.shape
    x, y = (np.linspace(0.5, 2.0, n, dtype=np.float32) for n in (size, post))
    matrix = connections.todense()

    def loss(connections: Any) -> Any:
        return lambda x, y: jnp.sin(x @ connections).sum() + jnp.sin(connections @ y).sum()

    found = sg.compile.jit(sg.augment.grad(loss(connections), argnums=(0, 1)))(x, y)
    for ours, theirs in zip(found, jax.grad(loss(matrix), argnums=(0, 1))(x, y), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    weights = next(iter(connections.states().values()))
    gradient = sg.augment.grad(lambda: jnp.sin(x @ connections).sum(), weights)()
    assert gradient.shape == weights.value.shape and bool(jnp.isfinite(gradient).all())


@pytest.mark.core
def test_compiled_products_are_those_of_plain_python() -> None:
    def make() -> Any:
        connections = CONNECTIONS["FixedProb, a weight each"]()
        g = sg.ShortTermState(jnp.zeros(5))

        def step(spikes: Any) -> Any:
            g.value = g.value * 0.5 + spikes @ connections
            return connections @ g.value

        return step, [g]

    agree(make, (np.arange(7) % 2 == 0,), (np.arange(7) % 3 == 0,))


@pytest.mark.core
def test_the_documents_layer_under_plain_jit() -> None:
    layer = event.FixedProb(10000, 1000, 0.01, 1.0)
    spikes = RNG.random(10000) < 0.01
    found = jax.jit(layer)(spikes)
    np.testing.assert_allclose(found, spikes @ np.asarray(layer.todense()))
    np.testing.assert_array_equal(jax.jit(lambda s: s @ layer)(spikes), found)


def test_synapses_without_a_module() -> None:
    csr = event.CSR.from_dense(np.abs(MATRIX) > 0.5)
    spikes, arrivals = np.arange(7) % 2 == 0, np.arange(5) % 2 == 0
    for weight in (2.0, jnp.arange(csr.size, dtype=jnp.float32)):
        matrix = np.asarray(csr.todense(weight))
        for weighted in (csr * weight, weight * csr):
            np.testing.assert_allclose(weighted @ arrivals, matrix @ arrivals)
        np.testing.assert_allclose(spikes @ (csr * weight), spikes @ matrix)
        np.testing.assert_array_equal((csr * weight).todense(), matrix)
    np.testing.assert_array_equal(spikes @ csr, spikes @ np.asarray(csr.todense()))
    np.testing.assert_array_equal(csr @ arrivals, np.asarray(csr.todense()) @ arrivals)
    assert repr(csr * 2.0) == f"CSR(7 -> 5, {csr.size} synapses) * one weight"


@pytest.mark.parametrize(
    ("product", "message"),
    [
        (lambda c: np.zeros(6) @ c, r"shape \(6,\) do not fit.*7"),
        (lambda c: jnp.zeros((7, 2)) @ c, r"shape \(7, 2\) do not fit"),
        (lambda c: c @ np.zeros(7), r"shape \(7,\) do not fit 5 post neurons"),
        (lambda c: c @ np.zeros((2, 5)), r"shape \(2, 5\) do not fit 5 post neurons"),
        (lambda c: c @ 1.0, r"shape \(\) do not fit"),
    ],
)
@pytest.mark.parametrize("kind", ["FixedProb", "Linear", "CSR"])
def test_events_that_do_not_fit_are_errors(kind: str, product: Any, message: str) -> None:
    connections = event.FixedProb(7, 5, 0.4, seed=0).connections if kind == "CSR" else CONNECTIONS[kind]()
    with pytest.raises(ValueError, match=message):
        product(connections)


def test_synapses_listed_by_post_neuron() -> None:
    layer = CONNECTIONS["FixedProb, a weight each"]()
    csr, weight = layer.connections, layer.weight.value  # type: ignore[attr-defined]

    @jax.jit  # what is made within a trace can be used after it
    def transposed() -> Any:
        other, order = csr.by_post
        return other.todense(weight[order])

    np.testing.assert_array_equal(transposed(), np.asarray(csr.todense(weight)).T)
    np.testing.assert_array_equal(csr.by_post[0].todense(), np.asarray(csr.todense()).T)


@pytest.mark.parametrize("name", ["FixedNumConn", "EventFixedNumConn", "EventFixedProb"])
def test_names_of_other_libraries(name: str) -> None:
    layer = getattr(nn, name)((2, 40), (2, 30), 0.1, 2.0, afferent_ratio=0.5, seed=1)
    matrix = np.asarray(layer.todense())
    assert layer.in_size == (2, 40) and layer.out_size == (2, 30)
    per_neuron = matrix.sum(axis=1)
    assert set(per_neuron) == {0.0, 6.0} and 8 < (per_neuron > 0).sum() < 32
    assert layer(np.ones((2, 40), bool)).shape == (2, 30)


def test_more_names_of_other_libraries() -> None:
    x = np.array([0.0, 2.0, 0.0, 0.5, -1.0, 0.0, 1.0], np.float32)
    np.testing.assert_allclose(nn.EventLinear(7, 5, MATRIX)(x), (x != 0) @ MATRIX, rtol=1e-5)
    np.testing.assert_allclose(nn.EventLinear(7, 5, MATRIX, False, 32, "name")(x), x @ MATRIX, rtol=1e-5)
    np.testing.assert_allclose(nn.EventAllToAll(3, 3)(np.eye(3)), np.ones((3, 3)))
    np.testing.assert_allclose(nn.EventOneToOne(3)(np.eye(3)), np.eye(3))
    assert "EventLinear" in nn.__all__ and issubclass(nn.EventLinear, event.Linear)
    with pytest.raises(AttributeError, match="no attribute 'EventNothing'"):
        nn.EventNothing  # type: ignore[attr-defined]


def test_numbers_that_count_as_events() -> None:
    layer = event.Linear(7, 5, MATRIX, float_as_event=True)
    x = np.array([0.0, 2.0, 0.0, 0.5, -1.0, 0.0, 1.0], np.float32)
    np.testing.assert_allclose(layer(x), (x != 0) @ MATRIX, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: layer(x).sum())(x), MATRIX.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("target", ["pre", "post"])
def test_a_matrix_of_weights_has_a_row_for_each_neuron_with_that_number(target: str) -> None:
    weights = np.arange(1.0, 13.0, dtype=np.float32).reshape(4, 3)
    sizes = (4, 9) if target == "post" else (9, 4)
    layer = event.FixedNumConn(*sizes, 3, weights, target, allow_multi_conn=False, seed=0)
    matrix = np.asarray(layer.todense())
    for i, row in enumerate(matrix if target == "post" else matrix.T):
        np.testing.assert_array_equal(row[row != 0], weights[i])


def test_a_weight_is_a_state_that_several_connections_share() -> None:
    weight = sg.LongTermState(jnp.array(2.0))
    layers = [event.FixedProb(7, 5, 0.4, weight, seed=seed) for seed in range(2)]
    assert all(layer.weight is weight for layer in layers)
    before = np.ones(7, bool) @ layers[1]
    weight.value = weight.value * 2
    np.testing.assert_allclose(np.ones(7, bool) @ layers[1], 2 * before)
    assert isinstance(event.FixedProb(7, 5, 0.4, 1.0, param_type=sg.FakeState).weight, sg.FakeState)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: event.FixedProb((2, 7), 5, 0.1), "change the last axis"),
        (lambda: event.FixedNumConn(7, 5, 3, efferent_target="both"), "'pre' or 'post'"),
        (lambda: event.FixedNumConn(7, 5, 1.5), "fraction of the partners is between 0 and 1"),
        (lambda: event.FixedNumConn(7, 5, 3, afferent_ratio=2.0), "share of neurons"),
        (lambda: event.FixedProb(7, 5, 0.1, np.ones(1000)), r"shape \(1000,\) does not fit"),
        (lambda: event.Linear(7, 5, np.ones((5, 7))), r"shape \(5, 7\) does not fit"),
        (lambda: event.OneToOne((2, 3), np.ones((2, 3))).todense(), r"weights of this OneToOne"),
    ],
)
def test_what_does_not_fit_is_an_error_at_construction(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


LAYERS = {
    "fixed probability": lambda pre, post: event.FixedProb(pre, post, 0.5, 2.0, seed=0),
    "linear": lambda pre, post: event.Linear(pre, post, nn.init.Constant(2.0)),
    "made of a seed": lambda pre, post: event.JITConn(pre, post, 0.5, 2.0, seed=0),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("pre", "post", "batch"), [(0, 3, (2,)), (3, 0, (2, 2)), (3, 4, (0,)), (0, 3, (2, 2)), (0, 0, ())]
)
def test_nobody_sends_nothing(kind: str, pre: int, post: int, batch: tuple[int, ...]) -> None:
    layer = LAYERS[kind](pre, post)
    for dtype in (bool, "float32"):
        events = np.ones((*batch, pre), dtype)
        for arrived in (
            layer(events),
            jax.jit(lambda e: layer(e))(events),
            jax.vmap(layer)(events) if batch else layer(events),
        ):
            assert arrived.shape == (*batch, post) and arrived.dtype == jnp.float32
            if not pre:
                np.testing.assert_array_equal(arrived, 0)


@pytest.mark.parametrize("kind", [*LAYERS, "one to one", "delayed"])
def test_complex_events_do_not_lose_their_imaginary_part(kind: str) -> None:
    with sg.environ.context(dt=0.1):
        layer = {
            **LAYERS,
            "one to one": lambda pre, post: event.OneToOne(3, 2.0),
            "delayed": lambda pre, post: nn.init_all_states(
                event.Delayed(event.FixedProb(3, 3, 0.5, 2.0, seed=0), 0.1)
            ),
        }[kind](3, 3)
    with pytest.raises(
        TypeError, match=r"Events are complex64, and the weights float32[\s\S]*fix:   give complex weights"
    ):
        layer(jnp.ones(3) * 1j)


def test_complex_weights_take_events_of_any_kind() -> None:
    layer = event.FixedProb(4, 3, 0.7, 2j, seed=0)
    dense = np.asarray(layer.todense())
    for events in (np.array([1, 0, 1, 1], bool), np.array([1.0, 0, 2, 3], "f"), np.array([1j, 0, 2, 3], "F")):
        np.testing.assert_allclose(layer(events), events @ dense, rtol=1e-6)


def test_either_way_of_drawing_partners_draws_the_same() -> None:
    def drawn(**said: Any) -> Any:
        return sg.nn.EventFixedNumConn(5, 7, 3, 1.0, allow_multi_conn=False, seed=1, **said).todense()

    np.testing.assert_array_equal(drawn(conn_init="for_loop"), drawn(conn_init="vmap"))
    np.testing.assert_array_equal(drawn(), drawn(conn_init="vmap"))
    with pytest.raises(ValueError, match="conn_init is 'vmap' or 'for_loop', not 'loop'"):
        drawn(conn_init="loop")

"""Delays of synapses against a loop over all spikes and synapses."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, init, nn
from stategraph.backends.events import loops, pallas, ring
from tests.oracle import agree
from tests.support import check_kernels_for_gpus

PRE, POST, STEPS, DT = 11, 7, 15, 0.1
EVENTS = np.random.default_rng(0).random((STEPS, PRE)) < 0.3


def delayed(delay: Any = None, **options: Any) -> event.Delayed:
    layer = event.FixedProb(PRE, POST, 0.5, init.Normal(seed=1), seed=0)
    if delay is None:
        delay = np.random.default_rng(1).integers(0, 6, layer.connections.size) * DT
    with sg.environ.context(dt=DT):
        return nn.init_all_states(event.Delayed(layer, delay), **options)


def one_by_one(connections: event.Delayed, events: Any) -> np.ndarray:
    """What arrives in each step: every event on its own."""
    layer = connections.connections
    csr, weight = layer.connections, np.broadcast_to(layer.weight.value, layer.connections.size)
    arrived = np.zeros((len(events) + connections.slots, POST))
    for t, sent in enumerate(np.asarray(events, float)):
        for i, j, w, d in zip(
            np.asarray(csr.rows), np.asarray(csr.indices), weight, connections.steps, strict=True
        ):
            arrived[t + d, j] += sent[i] * w
    return arrived[: len(events)]


@pytest.mark.parametrize("kind", ["bool", "float32"])
def test_events_arrive_after_the_delays_of_their_synapses(kind: str) -> None:
    connections = delayed()
    events = (EVENTS * np.linspace(1, 2, PRE)).astype(kind)
    found = sg.compile.jit(lambda e: sg.compile.for_loop(lambda own: own @ connections, e))(events)
    np.testing.assert_allclose(found, one_by_one(connections, events), rtol=1e-5, atol=1e-5)


def test_batches_and_runs_after_runs() -> None:
    connections = delayed(batch_size=2)
    events = np.stack([EVENTS, EVENTS[::-1]], axis=1)
    run = sg.compile.jit(lambda e: sg.compile.for_loop(connections, e))
    found = np.concatenate([run(events[:5]), run(events[5:10])])
    for lane in range(2):
        np.testing.assert_allclose(
            found[:, lane], one_by_one(connections, events[:10, lane]), rtol=1e-5, atol=1e-5
        )
    nn.reset_all_states(connections)
    np.testing.assert_allclose(run(events[:5]), found[:5], rtol=1e-6)


@pytest.mark.parametrize(
    ("delay", "slots"), [(0.0, 1), (0.3, 4), (0.25, 4), (init.Uniform(0.1, 0.5, seed=0), 6)]
)
def test_delays_are_rounded_up_to_steps(delay: Any, slots: int) -> None:
    connections = delayed(delay)
    assert connections.slots == slots
    found = [connections(e) for e in EVENTS[:6]]
    np.testing.assert_allclose(found, one_by_one(connections, EVENTS[:6]), rtol=1e-5, atol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize("several", [False, True])
def test_every_kernel_adds_to_the_ring(several: bool) -> None:
    connections = delayed()
    csr, weight = connections.targets, connections.connections.weight.value
    size, rng = csr.shape[1], np.random.default_rng(2)
    events = rng.random((3, PRE)) < 0.4
    total = rng.normal(size=(3, size + POST)).astype(np.float32)
    if not several:
        events, total = events[0], total[0]
    given = (weight, csr.indptr, csr.indices)
    kernel = functools.partial(pallas.csr_ring, shape=csr.shape)
    check_kernels_for_gpus(kernel, total, events, *given, np.int32(0))
    on_gpu = functools.partial(pallas.csr_ring, interpret=jax.default_backend() != "gpu")
    kernels = [loops.csr_ring, ring.ring_by_rows, ring.ring_by_synapses, on_gpu]
    native = ring.ring_native(
        [jax.typeof(jnp.asarray(x)) for x in (total, events, *given, np.int32(0))], shape=csr.shape
    )
    kernels += [] if native is None or jax.default_backend() != "cpu" else [native]
    for base in (0, POST, size - POST):
        expected = total.copy()
        expected[..., :size] += np.roll(events @ np.asarray(csr.todense(weight)), base, -1)
        expected[..., size:] = expected[..., base : base + POST]
        expected[..., base : base + POST] = 0
        for kernel in kernels:
            send = jax.jit(lambda t, e, b, k=kernel: k(t, e, *given, b, shape=csr.shape))
            np.testing.assert_allclose(send(total, events, jnp.int32(base)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.core
def test_compiled_steps_are_those_of_plain_python() -> None:
    def make() -> Any:
        connections = delayed()
        connections.buffer.value = jnp.arange(float(connections.buffer.value.size))
        connections.slot.value = jnp.int32(4)
        return connections, [connections.buffer, connections.slot]

    agree(make, (EVENTS[0],), (EVENTS[1],))


@pytest.mark.core
def test_gradients_go_back_through_the_delays() -> None:
    connections = delayed()
    layer = connections.connections
    csr, steps = layer.connections, connections.steps

    def ours(weight: Any, events: Any) -> Any:
        layer.weight.value = weight
        nn.reset_all_states(connections)
        return jnp.sin(sg.compile.for_loop(connections, events)).sum()

    def dense(weight: Any, events: Any) -> Any:
        arrived = jnp.zeros((STEPS + connections.slots, POST))
        for t in range(STEPS):
            arrived = arrived.at[t + steps, csr.indices].add(events[t, csr.rows] * weight)
        return jnp.sin(arrived[:STEPS]).sum()

    weight, events = layer.weight.value, jnp.asarray(EVENTS, jnp.float32)
    found = sg.compile.jit(sg.augment.grad(ours, argnums=(0, 1)))(weight, events)
    for one, other in zip(found, jax.jit(jax.grad(dense, (0, 1)))(weight, events), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: delayed(-1.0), ValueError, "not negative"),
        (lambda: delayed(np.ones(3)), ValueError, "does not fit"),
        (lambda: delayed(1e9), ValueError, "too large"),
        (lambda: delayed()(np.ones((2, PRE), bool)), ValueError, "do not fit a buffer"),
        (lambda: delayed()(np.ones(PRE + 1, bool)), ValueError, "do not fit 11 pre neurons"),
        (lambda: event.Delayed(event.Linear(3, 3, 1.0), 1.0), TypeError, "no delays of their own"),  # type: ignore[arg-type]
        (lambda: delayed() @ np.ones(POST), NotImplementedError, "from pre to post"),
    ],
)
def test_what_does_not_fit_is_an_error(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_buffer_is_made_before_the_first_step() -> None:
    with sg.environ.context(dt=DT):
        connections = event.Delayed(event.FixedProb(PRE, POST, 0.5, seed=0), 0.1)
    with pytest.raises(sg.errors.StateAccessError, match="no buffer yet"):
        connections(EVENTS[0])


def test_what_arrives_is_in_the_unit_of_the_weight() -> None:
    u = pytest.importorskip("saiunit")
    with sg.environ.context(dt=DT):
        layer = event.FixedProb(PRE, POST, 0.5, 2.0 * u.mS, seed=0)
        connections = nn.init_all_states(event.Delayed(layer, 0.0 * u.ms))
    arrived = connections(EVENTS[0])
    assert arrived.unit == u.mS
    np.testing.assert_allclose(arrived.mantissa, EVENTS[0] @ np.asarray(layer.todense()), rtol=1e-6)


def test_delays_of_an_initialiser_have_its_unit() -> None:
    u = pytest.importorskip("saiunit")
    layer = event.FixedProb(PRE, POST, 0.5, 2.0, seed=0)
    with sg.environ.context(dt=DT):
        plain = event.Delayed(layer, init.Uniform(0.1, 3.0, seed=1))
        measured = event.Delayed(layer, init.Uniform(100.0, 3000.0, seed=1, unit=u.us))
        with pytest.raises(sg.errors.UnitError, match=r"Delayed\(delay=...\) is given a quantity in mV"):
            event.Delayed(layer, init.Uniform(0.1, 1.0, unit=u.mV))
    np.testing.assert_array_equal(measured.steps, plain.steps)

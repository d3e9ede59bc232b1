"""Spike-timing-dependent plasticity against a loop over all pairs of spikes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, init, nn
from tests.oracle import agree

PRE, POST, STEPS, DT = 12, 9, 40, 0.5
RNG = np.random.default_rng(0)
SENT, RECEIVED = RNG.random((STEPS, PRE)) < 0.15, RNG.random((STEPS, POST)) < 0.15


def learning(**options: Any) -> event.STDP:
    layer = event.FixedProb(PRE, POST, 0.4, init.Uniform(0.2, 0.8, seed=1), seed=0)
    given = {"tau_plus": 5.0, "tau_minus": 7.0, "A_plus": 0.08, "A_minus": 0.06}
    return nn.init_all_states(event.STDP(layer, **{**given, **options}))


def pair_by_pair(stdp: event.STDP, sent: Any, received: Any) -> np.ndarray:
    """The weights after all pairs of spikes of each synapse, in double precision."""
    csr = stdp.connections.connections
    weights = np.asarray(stdp.connections.weight.value, np.float64)
    span = stdp.w_max - stdp.w_min
    for s, (i, j) in enumerate(zip(np.asarray(csr.rows), np.asarray(csr.indices), strict=True)):
        before, after = np.flatnonzero(sent[:, i]), np.flatnonzero(received[:, j])
        w = weights[s]
        for t in range(len(sent)):
            if t in before:
                pairs = sum(np.exp(-(t - u) * DT / stdp.tau_minus) for u in after if u < t)
                w -= stdp.A_minus * span * ((w - stdp.w_min) / span) ** stdp.mu * pairs
                w = np.clip(w, stdp.w_min, stdp.w_max)
            if t in after:
                pairs = sum(np.exp(-(t - u) * DT / stdp.tau_plus) for u in before if u < t)
                w += stdp.A_plus * span * ((stdp.w_max - w) / span) ** stdp.mu * pairs
                w = np.clip(w, stdp.w_min, stdp.w_max)
        weights[s] = w
    return weights


def simulate(stdp: event.STDP, sent: Any, received: Any) -> None:
    @sg.compile.jit
    def run(sent: Any, received: Any) -> None:
        sg.compile.for_loop(stdp, sent, received)

    with sg.environ.context(dt=DT):
        run(sent, received)


@pytest.mark.parametrize(
    "options",
    [{"w_min": -9.0, "w_max": 9.0, "A_plus": 0.004, "A_minus": 0.003}, {}, {"mu": 1.0}, {"mu": 0.4}],
    ids=["additive, far from the bounds", "additive", "multiplicative", "between"],
)
def test_weights_are_those_of_a_loop_over_all_pairs(options: Any) -> None:
    stdp = learning(**options)
    expected = pair_by_pair(stdp, SENT, RECEIVED)
    simulate(stdp, SENT, RECEIVED)
    np.testing.assert_allclose(stdp.connections.weight.value, expected, rtol=2e-5, atol=2e-6)
    if not options:  # the bounds matter
        assert {0.0, 1.0} & set(np.asarray(stdp.connections.weight.value).tolist())


def test_without_bounds_in_the_way_a_synapse_sums_its_pairs() -> None:
    """Song, Miller and Abbott 2000: the sum of F(t_post - t_pre)."""
    stdp = learning(w_min=-9.0, w_max=9.0)
    first = np.asarray(stdp.connections.weight.value, np.float64)
    times = np.arange(STEPS) * DT
    lag = times[None, :] - times[:, None]  # (pre, post)
    window = np.where(lag > 0, 0.08 * 18 * np.exp(-np.abs(lag) / 5), 0) - np.where(
        lag < 0, 0.06 * 18 * np.exp(-np.abs(lag) / 7), 0
    )
    csr = stdp.connections.connections
    total = (SENT.T.astype(float) @ window @ RECEIVED)[np.asarray(csr.rows), np.asarray(csr.indices)]
    few = np.abs(total).max() > 9  # scaled so that no bound is met
    stdp.A_plus, stdp.A_minus = (a / 100 if few else a for a in (stdp.A_plus, stdp.A_minus))
    simulate(stdp, SENT, RECEIVED)
    np.testing.assert_allclose(
        stdp.connections.weight.value, first + total / (100 if few else 1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.core
def test_compiled_steps_are_those_of_plain_python() -> None:
    def make() -> Any:
        stdp = learning(mu=1.0)
        stdp.x.value, stdp.y.value = jnp.linspace(0, 1, PRE), jnp.linspace(1, 0, POST)

        def step(sent: Any, received: Any) -> Any:
            with sg.environ.context(dt=DT):
                stdp(sent, received)
            return sent @ stdp.connections

        return step, [stdp.connections.weight, stdp.x, stdp.y]

    agree(make, (np.arange(PRE) == 3, np.arange(POST) == 5), reference=False)  # slow at loops


@pytest.mark.core
def test_gradients_go_through_the_changes() -> None:
    stdp = learning(mu=1.0)
    csr = stdp.connections.connections
    first = stdp.connections.weight.value

    def ours(w: Any, sent: Any) -> Any:
        stdp.connections.weight.value = w
        nn.reset_all_states(stdp)
        with sg.environ.context(dt=DT):
            for own, received in zip(sent, RECEIVED[7:10].astype(np.float32), strict=True):
                stdp(own, received)
        return jnp.sin(stdp.connections.weight.value).sum()

    def dense(w: Any, sent: Any) -> Any:
        x, y = jnp.zeros(PRE), jnp.zeros(POST)
        for own, received in zip(sent, RECEIVED[7:10].astype(np.float32), strict=True):
            x, y = x * np.exp(-DT / 5), y * np.exp(-DT / 7)
            w = jnp.clip(w - own[csr.rows] * 0.06 * w * y[csr.indices], 0, 1)
            w = jnp.clip(w + received[csr.indices] * 0.08 * (1 - w) * x[csr.rows], 0, 1)
            x, y = x + own, y + received
        return jnp.sin(w).sum()

    sent = jnp.asarray(SENT[7:10], jnp.float32)
    found = sg.compile.jit(sg.augment.grad(ours, argnums=(0, 1)))(first, sent)
    for one, other in zip(found, jax.grad(dense, (0, 1))(first, sent), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: event.STDP(event.FixedProb(5, 5, 0.5, 0.5, seed=0)), "cannot change one by one"),
        (lambda: event.STDP(event.Linear(5, 5, 0.5)), "cannot change one by one"),
        (lambda: learning(w_max=0.5), "not between 0.0 and 0.5"),
        (lambda: learning(tau_plus=0.0), "tau_plus has to be positive"),
        (lambda: learning(w_max=0.0), "w_max - w_min has to be positive"),
        (lambda: learning()(np.ones(3, bool), np.ones(POST, bool)), "Pre spikes of the shape"),
        (lambda: learning()(np.ones(PRE, bool), np.ones((2, POST), bool)), "Post spikes of the shape"),
    ],
)
def test_what_cannot_learn_is_an_error(make: Any, message: str) -> None:
    with sg.environ.context(dt=DT), pytest.raises(ValueError, match=message):
        make()


def test_traces_are_made_before_the_first_step() -> None:
    layer = event.FixedProb(PRE, POST, 0.4, init.Constant(0.5), seed=0)
    with pytest.raises(sg.errors.StateAccessError, match="no traces yet"):
        event.STDP(layer)(SENT[0], RECEIVED[0])


def test_times_and_bounds_can_be_quantities() -> None:
    u = pytest.importorskip("saiunit")

    def learned(layer: Any, dt: Any, **options: Any) -> Any:
        stdp = event.STDP(layer, **options)
        nn.init_all_states(stdp)
        with sg.environ.context(dt=dt):
            sg.compile.for_loop(stdp, SENT, RECEIVED)
        return layer.weight.value

    options = {"A_plus": 0.1, "A_minus": 0.08}
    plain = event.FixedProb(PRE, POST, 0.4, init.Constant(0.5), seed=0)
    expected = learned(plain, DT, tau_plus=5.0, tau_minus=7.0, w_max=0.75, **options)
    assert len(np.unique(expected)) > 5
    for dt in (DT, DT * u.ms):
        layer = event.FixedProb(PRE, POST, 0.4, init.Constant(0.5 * u.nS), seed=0)
        bounds = {"w_min": 0.0 * u.nS, "w_max": 0.75e-3 * u.uS}
        found = learned(layer, dt, tau_plus=5000.0 * u.us, tau_minus=7.0 * u.ms, **bounds, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(sg.errors.UnitError, match=r"STDP\(tau_plus=...\) is given a quantity in mV"):
        event.STDP(plain, tau_plus=5.0 * u.mV)
    with pytest.raises(sg.errors.UnitError, match="w_max of STDP is given a quantity in mV"):
        event.STDP(layer, w_max=1.0 * u.mV)

"""Synapses and their outputs, against exact solutions and formulas."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.oracle import agree

DT = 0.1


def response(synapse: Any, steps: int = 300, arrives: float = 1.0) -> np.ndarray:
    """The conductance of the first element, when something arrives in step 0."""
    nn.init_all_states(synapse)

    def step(i: Any) -> Any:
        with sg.environ.context(dt=DT, t=i * DT):
            return synapse(jnp.where(i == 0, arrives, 0.0) * jnp.ones(synapse.varshape))

    return np.asarray(sg.compile.for_loop(step, jnp.arange(steps)))[:, 0]


T = DT * np.arange(300)
"""The time since what arrives at the end of step 0."""


def test_exponential_decay_is_exact() -> None:
    np.testing.assert_allclose(response(nn.Expon(1, tau=4.0), arrives=2.5), 2.5 * np.exp(-T / 4), rtol=2e-5)


def test_alpha_function_is_exact() -> None:
    np.testing.assert_allclose(response(nn.Alpha(1, tau=3.0)), T / 3 * np.exp(-T / 3), rtol=5e-5, atol=1e-6)


def test_two_exponentials_are_exact_and_have_the_peak_asked_for() -> None:
    plain = response(nn.DualExpon(1, tau_decay=6.0, tau_rise=2.0, amplitude=3.0, normalize=False))
    shape = np.exp(-T / 6) - np.exp(-T / 2)
    np.testing.assert_allclose(plain, 3 * shape, rtol=1e-4, atol=1e-6)
    found = response(nn.DualExpon(2, tau_decay=np.array([6.0, 9.0]), tau_rise=2.0, amplitude=3.0))
    np.testing.assert_allclose(found.max(), 3, rtol=1e-3)
    np.testing.assert_allclose(T[found.argmax()], math.log(3) * 6 * 2 / (6 - 2), atol=DT)
    with pytest.raises(ValueError, match=r"(?s)normalised.*Alpha"):
        nn.DualExpon(1, tau_decay=2.0, tau_rise=2.0)


@pytest.mark.parametrize(
    ("kind", "alpha", "T_mM", "duration"), [(nn.AMPA, 0.98, 0.5, 0.5), (nn.GABAa, 0.53, 1.0, 1.0)]
)
def test_receptors_open_while_there_is_transmitter(
    kind: Any, alpha: float, T_mM: float, duration: float
) -> None:
    found = response(kind(1))
    t = T + DT  # at the end of each step
    rate = alpha * T_mM + 0.18
    rising = alpha * T_mM / rate * (1 - np.exp(-rate * t))
    peak = alpha * T_mM / rate * (1 - math.exp(-rate * duration))
    exact = np.where(t < duration + 1e-6, rising, peak * np.exp(-0.18 * (t - duration)))
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_short_term_plasticity_of_a_regular_train() -> None:
    """The recursion of Tsodyks, Pawelzik and Markram (1998) from spike to spike."""
    U, tau_f, tau_d, every = 0.2, 300.0, 150.0, 50
    synapse = nn.init_all_states(nn.STP(1, U=U, tau_f=tau_f, tau_d=tau_d))

    def step(i: Any) -> Any:
        with sg.environ.context(dt=1.0):
            return synapse(i % every == 0)

    released = np.asarray(sg.compile.for_loop(step, jnp.arange(1, 501)))[:, 0]
    decay_u, decay_x = math.exp(-every / tau_f), math.exp(-every / tau_d)
    u, x, expected = U, 1.0, []
    for _ in range(10):
        u = u * decay_u
        u += U * (1 - u)
        x = 1 + (x - 1) * decay_x
        expected.append(u * x)
        x -= u * x
    np.testing.assert_allclose(released[every - 1 :: every], expected, rtol=1e-4)
    assert np.count_nonzero(released) == 10


def test_short_term_depression_of_a_regular_train() -> None:
    synapse = nn.init_all_states(nn.STD(1, tau=100.0, U=0.3))
    with sg.environ.context(dt=20.0):
        released = [float(synapse(True)[0]) for _ in range(5)]
    x, expected = 1.0, []
    for _ in range(5):
        x = 1 + (x - 1) * math.exp(-0.2)
        expected.append(x)
        x *= 0.7
    np.testing.assert_allclose(released, expected, rtol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize("kind", [nn.Expon, nn.DualExpon, nn.Alpha, nn.AMPA, nn.STP, nn.STD])
def test_compiled_loops_do_what_python_does(kind: Any) -> None:
    spikes = jnp.asarray(np.random.default_rng(0).random((8, 2, 3)) < 0.4)

    def make() -> Any:
        synapse = nn.init_all_states(kind(3), batch_size=2)

        def run(spikes: Any) -> Any:
            def step(i: Any, spike: Any) -> Any:
                with sg.environ.context(dt=0.5, t=i * 0.5):
                    return synapse(spike)

            return sg.compile.for_loop(step, jnp.arange(8), spikes)

        return run, list(sg.graph.states(synapse).values())

    agree(make, (spikes,), (spikes,), reference=False)
    assert make()[0](spikes).shape == (8, 2, 3)


@pytest.mark.core
def test_delta_inputs_arrive_like_the_argument() -> None:
    for kind in (nn.Expon, nn.DualExpon, nn.Alpha):
        one, other = nn.init_all_states(kind(2)), nn.init_all_states(kind(2))
        with sg.environ.context(dt=DT):
            for x in (1.0, 0.0, 2.0):
                other.add_delta_input("a", jnp.full(2, x))
                np.testing.assert_array_equal(one(jnp.full(2, x)), other())


@pytest.mark.core
def test_outputs() -> None:
    def current(out: Any, V: float) -> float:
        out.bind_cond(jnp.asarray(2.0))
        return float(out(jnp.asarray(V)))

    assert math.isclose(current(nn.COBA(E=-80.0), -60.0), -0.04, rel_tol=1e-6)  # 2 nS, 20 mV: 40 pA
    assert math.isclose(current(nn.CUBA(scale=0.5), -60.0), 1.0)
    # Jahr and Stevens: at -60 mV with 1 mM magnesium 1 / (1 + exp(3.72) / 3.57) of the receptors conduct
    found = current(nn.MgBlock(cc_Mg=1.0), -60.0)
    assert math.isclose(found, 2e-3 * 60 / (1 + math.exp(3.72) / 3.57), rel_tol=1e-5)
    with pytest.raises(ValueError, match=r"(?s)no conductance.*projection"):
        nn.COBA(E=0.0)(-60.0)

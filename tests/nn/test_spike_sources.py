"""Sources of spikes: rates against the law, times against the list."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.oracle import agree


def test_poisson_spikes_have_their_rates() -> None:
    sg.random.seed(0)
    rates = np.array([0.0, 20.0, 200.0, 1e6])
    source = nn.PoissonSpike(4, freqs=rates, spk_type=jnp.float32)
    with sg.environ.context(dt=0.5):
        spikes = np.asarray(sg.compile.for_loop(lambda i: source(), jnp.arange(20000)))
    assert spikes.dtype == np.float32
    p = 1 - np.exp(-rates * 0.5e-3)
    np.testing.assert_allclose(spikes.mean(0), p, atol=5 * math.sqrt(0.1 / 20000))
    count = spikes[:, 2].reshape(-1, 100).sum(1)
    assert 0.7 < count.var() / (100 * p[2] * (1 - p[2])) < 1.4  # of independent steps


@pytest.mark.core
def test_an_encoder_takes_batches() -> None:
    with sg.environ.context(dt=1.0):
        assert nn.PoissonEncoder(3)(jnp.ones((5, 3))).shape == (5, 3)
        assert (nn.PoissonEncoder((2, 2))(1e9)).shape == (2, 2)


def test_poisson_input_is_binomial() -> None:
    sg.random.seed(0)
    neurons = nn.init_all_states(nn.LIF(3))
    noise = nn.PoissonInput(neurons.prefetch("V"), [0, 2], num_input=50, freq=100.0, weight=0.5)

    def step(i: Any) -> Any:
        neurons.V.value = jnp.zeros(3)
        noise()
        return neurons.V.value

    with sg.environ.context(dt=1.0):
        counts = np.asarray(sg.compile.for_loop(step, jnp.arange(2000))) / 0.5
    p = 1 - math.exp(-0.1)
    assert (counts[:, 1] == 0).all() and (counts == counts.round()).all()
    np.testing.assert_allclose(counts[:, [0, 2]].mean(0), 50 * p, rtol=0.03)
    np.testing.assert_allclose(counts[:, [0, 2]].var(0), 50 * p * (1 - p), rtol=0.15)
    with pytest.raises(TypeError, match="prefetch"):
        nn.PoissonInput(neurons.V, None, 1, 1.0, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "rate"), [(1, 300.0), (5, 2e3), (1000, 2.0), (30, 600.0), (50, 600.0)])
def test_counts_have_the_binomial_distribution(number: int, rate: float) -> None:
    sg.random.seed(1)
    synapse = nn.init_all_states(nn.Expon(20000))
    with sg.environ.context(dt=1.0):
        nn.PoissonInput(synapse.prefetch("g"), None, number, rate, 1.0)()
    p = -math.expm1(-rate * 1e-3)
    expected = np.array([math.comb(number, k) * p**k * (1 - p) ** (number - k) for k in range(number + 1)])
    found = np.bincount(np.asarray(synapse.g.value, int), minlength=number + 1)
    often = 20000 * expected > 5
    chi2 = ((found - 20000 * expected)[often] ** 2 / (20000 * expected[often])).sum()
    assert chi2 < often.sum() + 5 * math.sqrt(2 * often.sum())
    assert found[~often].sum() < 60


@pytest.mark.core
def test_input_to_a_population_arrives_like_that_of_a_projection() -> None:
    """What brings a neuron to its threshold makes it spike."""
    sg.random.seed(0)
    neurons = nn.init_all_states(nn.LIF(3, V_th=5.0), batch_size=2)
    noise = nn.PoissonInput(neurons, [0, 2], num_input=20, freq=1e6, weight=0.25)
    with sg.environ.context(dt=1.0):
        noise()
        np.testing.assert_array_equal(neurons(), [[1, 0, 1]] * 2)


@pytest.mark.parametrize("rounding", ["round", "floor", "ceil", lambda ratio: np.floor(ratio) + 1])
@pytest.mark.parametrize("by_time", [False, True])
def test_spikes_come_at_their_times(rounding: Any, by_time: bool) -> None:
    generator = np.random.default_rng(0)
    indices, weights = generator.integers(0, 4, 30), generator.normal(size=30).astype(np.float32)
    times = np.concatenate([generator.uniform(0, 2, 25), [0.3, 0.6, 0.6, 0.9, 1.2]])
    function: Any = {"round": np.round, "floor": np.floor, "ceil": np.ceil}.get(rounding, rounding)
    expected = np.zeros((12, 4))
    for index, time, weight in zip(indices, times, weights, strict=True):
        step = int(function(round(time / 0.3, 6)))
        expected[step, index] += weight

    def make() -> Any:
        source = nn.SpikeTime(4, indices, times, weights, time_as_step=rounding)

        def run(steps: Any) -> Any:
            def step(i: Any) -> Any:
                with sg.environ.context(dt=0.3, **({"t": i * 0.3} if by_time else {"i": i})):
                    return source()

            return sg.compile.for_loop(step, steps)

        return run, []

    agree(make, (jnp.arange(12),), reference=False)
    np.testing.assert_allclose(make()[0](jnp.arange(12)), expected, rtol=1e-5, atol=1e-6)


def test_no_spikes_and_bad_arguments() -> None:
    with sg.environ.context(dt=0.1, i=0):
        np.testing.assert_array_equal(nn.SpikeTime(2, [], [])(), [0, 0])
    with pytest.raises(ValueError, match="one of each"):
        nn.SpikeTime(2, [0], [1.0, 2.0])
    with pytest.raises(ValueError, match="from 0 to 1"):
        nn.SpikeTime(2, [2], [1.0])
    with pytest.raises(ValueError, match="time_as_step"):
        nn.SpikeTime(2, [0], [1.0], time_as_step="up")
    with pytest.raises(ValueError, match="not the shape"):
        nn.SpikeTime((2, 2), [0], [1.0])


@pytest.mark.parametrize("number", [0, 1, 20])
def test_processes_that_spike_in_every_step_and_those_that_never_do(number: int) -> None:
    for rate, expected in ((1e6, number), (0.0, 0)):
        neurons = nn.init_all_states(nn.LIF(3, V_th=100.0))
        noise = nn.PoissonInput(neurons, None, number, rate, 1.0)
        with sg.environ.context(dt=0.1):
            noise()
            neurons()
        np.testing.assert_array_equal(neurons.V.value, np.full(3, expected))

"""Readouts, against the recursion in NumPy and integrate-and-fire neurons behind a matrix."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn

INPUTS = np.random.default_rng(0).normal(size=(12, 4, 5)).astype(np.float32)


def responses(readout: Any, inputs: np.ndarray) -> np.ndarray:
    with sg.environ.context(dt=0.5):
        return np.asarray(sg.compile.for_loop(readout, jnp.asarray(inputs)))


@pytest.mark.core
def test_rates_follow_the_recursion() -> None:
    sg.random.seed(0)
    readout = nn.LeakyRateReadout(5, 3, tau=np.array([2.0, 4.0, 8.0]))
    nn.init_all_states(readout, batch_size=4)
    found = responses(readout, INPUTS)
    r, weight = np.zeros((4, 3)), np.asarray(readout.weight.value)
    for x, now in zip(INPUTS, found, strict=True):
        r = np.exp(-0.5 / np.array([2.0, 4.0, 8.0])) * r + x @ weight
        np.testing.assert_allclose(now, r, rtol=1e-4, atol=1e-5)
    nn.reset_all_states(readout)
    assert readout.r.shape == (4, 3) and not readout.r.value.any()


@pytest.mark.core
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_spikes_are_those_of_neurons_behind_the_weights(reset: str) -> None:
    sg.random.seed(0)
    readout = nn.LeakySpikeReadout(5, 3, tau=4.0, V_th=0.3, spk_reset=reset)
    neurons = nn.IF(3, tau=4.0, V_th=0.3, spk_reset=reset)
    nn.init_all_states([readout, neurons])
    found = responses(readout, 5 * INPUTS[:, 0])
    expected = responses(neurons, 5 * INPUTS[:, 0] @ np.asarray(readout.weight.value))
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.mean() < 1


def test_sizes() -> None:
    readout = nn.LeakySpikeReadout(5, 3)
    assert (readout.in_size, readout.out_size) == ((5,), (3,))
    assert readout.weight.shape == (5, 3)
    with pytest.raises(ValueError, match="tau"):
        nn.LeakyRateReadout(5, 3, tau=0.0)


@pytest.mark.parametrize("kind", [nn.LeakyRateReadout, nn.LeakySpikeReadout])
def test_gradients_reach_the_weights(kind: Any) -> None:
    readout = kind(5, 3)
    nn.init_all_states(readout, batch_size=4)

    def loss() -> Any:
        with sg.environ.context(dt=0.5):
            return sg.compile.for_loop(readout, jnp.asarray(INPUTS)).mean()

    assert np.abs(sg.augment.grad(loss, readout.weight)()).max() > 0

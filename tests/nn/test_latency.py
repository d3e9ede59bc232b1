"""Latency coding against a leaky integrator, and against the line."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn

VALUES = jnp.array([0.0, 0.19, 0.3, 0.5, 1.0, 3.0])


def spikes(encoder: nn.LatencyEncoder, x: Any, steps: int, dt: float = 1.0, by: str = "i") -> np.ndarray:
    def at(i: Any) -> Any:
        with sg.environ.context(**{by: i if by == "i" else i * dt}):
            return encoder(x)

    with sg.environ.context(dt=dt):
        return np.asarray(sg.compile.for_loop(at, jnp.arange(steps)))


def test_the_logarithmic_code_is_when_a_leaky_integrator_reaches_the_threshold() -> None:
    encoder = nn.LatencyEncoder(6, duration=30.0, tau=10.0, threshold=0.2)
    found = spikes(encoder, VALUES, 300, dt=0.1)
    potential, expected = np.zeros(6), np.full(6, np.inf)
    for i in range(1, 301):
        potential = VALUES + (potential - VALUES) * np.exp(-0.01)
        expected = np.where((potential >= 0.2) & np.isinf(expected), i, expected)
    assert (found.sum(0) == [0, 0, 1, 1, 1, 1]).all()
    np.testing.assert_allclose(
        found.argmax(0)[2:] + 1, expected[2:], atol=1
    )  # within the step that ends there
    assert np.isinf(encoder.times(VALUES)[:2]).all()


def test_the_linear_code_spreads_values_over_the_duration() -> None:
    encoder = nn.LatencyEncoder(5, duration=8.0, method="linear", threshold=0.0, spk_type=jnp.float32)
    x = jnp.array([0.0, 0.25, 0.5, 1.0, 2.0])
    found = spikes(encoder, x, 8)
    assert found.dtype == np.float32
    assert [np.flatnonzero(train).tolist() for train in found.T] == [[], [6], [4], [0], [0]]
    np.testing.assert_array_equal(found, spikes(encoder, x, 8, by="t"))


def test_steps_begin_where_rounding_says_almost() -> None:
    encoder = nn.LatencyEncoder(1, duration=1.0, method="linear")
    for k in range(1, 10):  # 1 - k / 10 is not exact
        assert np.flatnonzero(spikes(encoder, jnp.array([k / 10]), 10, dt=0.1)).tolist() == [10 - k]


@pytest.mark.core
def test_a_batch_is_encoded_at_once_and_one_value_serves_all() -> None:
    encoder = nn.LatencyEncoder(3, duration=4.0)
    with sg.environ.context(dt=1.0, i=0):
        assert encoder(jnp.ones((5, 3))).shape == (5, 3)
        assert encoder(1.0).shape == (3,)


def test_what_is_not_possible_is_refused() -> None:
    with pytest.raises(ValueError, match="method is one of log, linear, not 'sqrt'"):
        nn.LatencyEncoder(1, 1.0, method="sqrt")
    for wrong in ({"duration": 0.0}, {"duration": 1.0, "tau": -1.0}, {"duration": 1.0, "threshold": -0.1}):
        with pytest.raises(ValueError, match="LatencyEncoder"):
            nn.LatencyEncoder(1, **wrong)  # type: ignore[arg-type]

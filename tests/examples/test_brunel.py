"""The states of Brunel's network, against the mean-field theory of the paper."""

from collections.abc import Callable
from math import pi, sqrt

import pytest
from scipy.integrate import quad
from scipy.special import erfcx


def stationary_rate(synapses: int, strength: float, g: float, outside: float) -> float:
    """The rate (Hz) at which input and output agree: equations 4 and 5, by bisection (Siegert's formula)."""
    tau, threshold, reset, refractory = 0.02, 20.0, 10.0, 0.002
    low, high = 0.0, 500.0
    for _ in range(50):
        rate = (low + high) / 2
        sent = outside * threshold / (strength * synapses * tau)
        mean = synapses * strength * tau * (sent + rate * (1 - g / 4))
        spread = strength * sqrt(synapses * tau * (sent + rate * (1 + g * g / 4)))
        integral = quad(lambda u: erfcx(-u), (reset - mean) / spread, (threshold - mean) / spread)[0]
        low, high = (rate, high) if 1 / (refractory + tau * sqrt(pi) * integral) > rate else (low, rate)
    return rate


def test_regular_and_irregular_states(run_example: Callable[[str], dict[str, dict[str, float]]]) -> None:
    numbers = run_example("brunel")
    assert stationary_rate(1000, 0.1, 5.0, 2.0) == pytest.approx(37.9, abs=0.1), (
        "the paper's 37.8 Hz of panel C"
    )
    irregular, regular = numbers["AI"], numbers["SR"]
    assert irregular["rate"] == pytest.approx(stationary_rate(200, 0.5, 5.0, 2.0), rel=0.15)
    assert 0.7 < irregular["cv"] < 1.2
    assert regular["cv"] < 0.1
    assert regular["synchrony"] > 2 * irregular["synchrony"]

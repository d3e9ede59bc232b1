"""The balanced networks: the rates that the review of simulators (Brette et al. 2007) gives, and irregular spikes."""

from collections.abc import Callable

import numpy as np
import pytest


def test_coba_keeps_itself_active(run_example: Callable[[str], dict[str, float]]) -> None:
    numbers = run_example("coba")
    assert 15 < numbers["rate"] < 25
    assert numbers["cv"] > 0.8, "irregular"


def test_cuba_is_irregular_though_each_neuron_alone_is_a_clock(
    run_example: Callable[[str], dict[str, float]],
) -> None:
    numbers = run_example("cuba")
    assert 4.5 < numbers["rate"] < 7
    assert numbers["cv"] > 0.2


def test_the_statistics_of_spikes(load_example: Callable[[str], object]) -> None:
    spiking = load_example("spiking")
    generator = np.random.default_rng(0)
    raster = generator.random((20000, 20)) < 0.01  # 10 Hz in steps of 1 ms
    raster[:, 0] = np.arange(20000) % 100 == 0
    spikes = spiking.Spikes.of(raster, 1.0)
    assert spikes.rate == pytest.approx(10, rel=0.05)
    assert spikes.within(0, 1).cv == 0
    assert spikes.within(1, 20).cv == pytest.approx(1, abs=0.1), "geometric intervals"
    assert spikes.after(10000.0).rate == pytest.approx(10, rel=0.1)
    middles, rates = spikes.rates(1000.0)
    assert middles[0] == 500 and rates.mean() == pytest.approx(spikes.rate)

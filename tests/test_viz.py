"""Plots: what the axes show are the numbers."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import stategraph as sg
from stategraph import nn, spikes, viz

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")

TRAINS = np.arange(100)[:, None] % np.array([10, 20, 50, 7]) == 0


@pytest.fixture(autouse=True)
def closed() -> None:
    import matplotlib.pyplot as plt

    plt.close("all")


def test_a_raster_has_a_dot_for_each_spike() -> None:
    axes = viz.raster(TRAINS, dt=0.5, color="red")
    times, ids = spikes.raster(TRAINS, 0.5)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), times)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), ids)
    assert axes.get_xlim() == (0.0, 50.0) and axes.lines[0].get_color() == "red"
    stacked = viz.raster(TRAINS, axes, dt=0.5, every=2, above=4)
    assert stacked is axes and set(axes.lines[1].get_ydata()) == {4, 5}


def test_a_rate_and_intervals_are_those_of_spikes() -> None:
    axes = viz.rate(TRAINS, bin=5.0, sigma=10.0, dt=0.5)
    t, hertz = spikes.rate(TRAINS, 5.0, 10.0, 0.5)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), t)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), hertz)
    histogram = viz.isi(TRAINS, dt=0.5, bins=[0, 4, 6, 11, 30])
    assert [patch.get_height() for patch in histogram.patches] == [14, 9, 4, 1]


def test_traces_are_what_was_recorded() -> None:
    neurons = nn.init_all_states(nn.LIF(3, tau=20.0))
    rec = nn.run(neurons, 20.0, 1.5, {"V": (neurons.V, slice(0, 2), 4), "spk": neurons.spike}, dt=0.5)
    axes = viz.traces(rec, "V", apart=1.0)
    assert len(axes.lines) == 2 and axes.get_ylabel() == "V"
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), rec.times("V"))
    np.testing.assert_allclose(axes.lines[1].get_ydata(), rec["V"][:, 1] + 1.0)
    with pytest.raises(TypeError, match="raster"):
        viz.traces(rec, "spk")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"stategraph\[viz\]"):
        sg.viz.raster(TRAINS, dt=0.5)

"""What the spiking examples share: a progress bar, the statistics of spikes, rasters."""

import numpy as np
from matplotlib.axes import Axes

import stategraph as sg
from stategraph import spikes as statistics
from stategraph.spikes import Spikes


def bar(title: str) -> sg.compile.ProgressBar:
    """A progress bar over the steps of a run."""
    layout = "{desc} {bar} {n_fmt}/{total_fmt} steps, {elapsed}{postfix}"
    return sg.compile.ProgressBar(desc=title, ncols=100, bar_format=layout)


def mean_rate(spikes: Spikes) -> float:
    """Spikes per neuron and second (Hz)."""
    return float(statistics.rates(spikes).mean())


def mean_cv(spikes: Spikes) -> float:
    """The coefficient of variation of the inter-spike intervals, the mean of neurons with five of them or more."""
    found = statistics.cv(spikes, least=5)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def draw_raster(
    axes: Axes, spikes: Spikes, colour: str, every: int = 1, above: int = 0, size: float = 2.0
) -> int:
    """Dots for the spikes of every ``every``-th neuron, from row ``above`` on; returns the next free row."""
    shown = spikes.ids % every == 0
    rows = spikes.ids[shown] // every + above
    axes.plot(spikes.times[shown], rows, ".", color=colour, markersize=size, markeredgewidth=0)
    axes.set(xlabel="time (ms)", yticks=[], xlim=(spikes.start, spikes.start + spikes.duration))
    return above + -(-spikes.size // every)

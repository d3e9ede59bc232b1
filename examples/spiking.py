"""What the spiking examples share: a simulation under a progress bar, the statistics of spikes, rasters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from tqdm import tqdm

import stategraph as sg

CHUNK = 1000
"""Steps between two movements of the progress bar: one compiled loop makes them all."""


class Spikes(NamedTuple):
    """Who of ``size`` neurons spiked when: ``times`` (ms) and ``ids``, over ``duration`` ms."""

    times: np.ndarray
    ids: np.ndarray
    size: int
    duration: float

    @classmethod
    def of(cls, raster: np.ndarray, dt: float) -> "Spikes":
        """The spikes in an array ``(steps, neurons)``."""
        when, who = np.nonzero(raster)
        return cls(when * dt, who, raster.shape[1], len(raster) * dt)

    def within(self, first: int, last: int) -> "Spikes":
        """Those of the neurons from ``first`` to before ``last``."""
        chosen = (self.ids >= first) & (self.ids < last)
        return Spikes(self.times[chosen], self.ids[chosen] - first, last - first, self.duration)

    def after(self, time: float) -> "Spikes":
        """Those from a time (ms) on; that is time 0 then."""
        chosen = self.times >= time
        return Spikes(self.times[chosen] - time, self.ids[chosen], self.size, self.duration - time)

    @property
    def rate(self) -> float:
        """Spikes per neuron and second (Hz)."""
        return 1000 * len(self.ids) / (self.size * self.duration)

    @property
    def cv(self) -> float:
        """The coefficient of variation of the inter-spike intervals, the mean of neurons with five or more: 1 for a
        Poisson process, 0 for a clock.
        """
        order = np.lexsort((self.times, self.ids))
        trains = np.split(self.times[order], np.flatnonzero(np.diff(self.ids[order])) + 1)
        intervals = [np.diff(train) for train in trains if len(train) > 5]
        return float(np.mean([one.std() / one.mean() for one in intervals])) if intervals else float("nan")

    def rates(self, bin: float) -> tuple[np.ndarray, np.ndarray]:
        """The middle of each bin of ``bin`` ms, and the rate in it (Hz)."""
        edges = np.arange(0, self.duration + bin / 2, bin)
        counts = np.histogram(self.times, edges)[0]
        return (edges[:-1] + edges[1:]) / 2, 1000 * counts / (bin * self.size)


def simulate(step: Callable[[Any], Any], duration: float, title: str = "simulating") -> np.ndarray:
    """Call ``step(i)`` for ``duration`` ms under a progress bar; what it returns, ``(steps, ...)``.

    While a step runs, the settings ``i`` and ``t`` of ``stategraph.environ`` are its number and the time (ms).
    """
    dt = sg.environ.get_dt()

    def timed(i: Any) -> Any:
        with sg.environ.context(i=i, t=i * dt):
            return step(i)

    found = []
    steps = round(duration / dt)
    layout = "{desc} {bar} {n:.0f}/{total:.0f} ms, {elapsed}{postfix}"
    with tqdm(total=duration, desc=title, ncols=100, bar_format=layout) as bar:
        for first in range(0, steps, CHUNK):
            numbers = jnp.arange(first, min(first + CHUNK, steps))
            found.append(np.asarray(sg.compile.for_loop(timed, numbers)))
            bar.update(len(numbers) * dt)
    return np.concatenate(found)


def draw_raster(
    axes: Axes, spikes: Spikes, colour: str, every: int = 1, above: int = 0, size: float = 2.0
) -> int:
    """Dots for the spikes of every ``every``-th neuron, from row ``above`` on; returns the next free row."""
    shown = spikes.ids % every == 0
    axes.plot(
        spikes.times[shown],
        spikes.ids[shown] // every + above,
        ".",
        color=colour,
        markersize=size,
        markeredgewidth=0,
    )
    axes.set(xlabel="time (ms)", yticks=[], xlim=(0, spikes.duration))
    return above + -(-spikes.size // every)

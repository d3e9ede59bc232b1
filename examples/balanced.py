"""What is done with a network of excitatory and inhibitory neurons: for ``coba.py``, ``cuba.py`` and others."""

import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from shared import COLOURS, save_picture
from spiking import bar, draw_raster, mean_cv, mean_rate

from stategraph import nn, spikes
from stategraph.spikes import Spikes

SETTLED = 100.0
"""What is measured begins after so many ms."""


def observe(name: str, network: Any, duration: float, picture: Path, dt: float = 0.1) -> dict[str, float]:
    """Run a network that has ``neurons``, of which the first are ``excitatory``; print and draw what they do.

    Returns rates (Hz), the CV of the inter-spike intervals, and the seconds that it took, with compiling.
    """
    began = time.perf_counter()
    recorded = nn.run(network, duration, monitor={"spikes": network.neurons.spike}, dt=dt, progress=bar(name))
    seconds = time.perf_counter() - began
    every: Spikes = recorded["spikes"]
    populations = {
        "excitatory": every.of(0, network.excitatory),
        "inhibitory": every.of(network.excitatory, every.size),
    }
    save_picture(draw(name, populations), picture)
    numbers = {title: mean_rate(those.between(SETTLED)) for title, those in populations.items()}
    numbers |= {"rate": mean_rate(every.between(SETTLED)), "cv": mean_cv(every.between(SETTLED))}
    numbers |= {"seconds": seconds, "steps per second": len(recorded.t) / seconds}
    print(f"{every.size} neurons, {duration:.0f} ms in {seconds:.2f} s with compiling")
    print("{excitatory:.1f} Hz excitatory, {inhibitory:.1f} Hz inhibitory".format(**numbers), end=", ")
    print("CV of the inter-spike intervals {cv:.2f}".format(**numbers))
    return numbers


def draw(name: str, populations: dict[str, Spikes]) -> Figure:
    """Every eighth neuron's spikes, and the rates below."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    row = 0
    for colour, (title, those) in zip(COLOURS, populations.items(), strict=False):
        row = draw_raster(above, those, colour, every=8, above=row)
        below.plot(*spikes.rate(those, 5.0), color=colour, linewidth=1, label=title)
    above.set(title=f"{name}: spikes of every eighth neuron", xlabel="", ylim=(0, row))
    below.set(xlabel="time (ms)", ylabel="rate (Hz)", ylim=(0, None))
    return figure

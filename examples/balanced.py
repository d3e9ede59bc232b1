"""What is looked at in a network of excitatory and inhibitory neurons: for ``coba.py`` and ``cuba.py``."""

from pathlib import Path

from matplotlib.figure import Figure
from shared import COLOURS, save_picture
from spiking import Spikes, draw_raster

SETTLED = 100.0
"""What is measured begins after so many ms."""


def report(name: str, spikes: Spikes, excitatory: int, seconds: float, picture: Path) -> dict[str, float]:
    """Print rates and irregularity, draw them, and return them."""
    populations = {
        "excitatory": spikes.within(0, excitatory),
        "inhibitory": spikes.within(excitatory, spikes.size),
    }
    save_picture(draw(name, populations), picture)
    steady = spikes.after(SETTLED)
    numbers = {title: those.after(SETTLED).rate for title, those in populations.items()}
    numbers |= {"rate": steady.rate, "cv": steady.cv, "seconds": seconds}
    print(f"{spikes.size} neurons, {spikes.duration:.0f} ms in {seconds:.2f} s with compiling")
    print("{excitatory:.1f} Hz excitatory, {inhibitory:.1f} Hz inhibitory".format(**numbers), end=", ")
    print("CV of the inter-spike intervals {cv:.2f}".format(**numbers))
    return numbers


def draw(name: str, populations: dict[str, Spikes]) -> Figure:
    """Every eighth neuron's spikes, and the rates below."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    row = 0
    for colour, (title, spikes) in zip(COLOURS, populations.items(), strict=False):
        row = draw_raster(above, spikes, colour, every=8, above=row)
        below.plot(*spikes.rates(5.0), color=colour, linewidth=1, label=title)
    above.set(title=f"{name}: spikes of every eighth neuron", xlabel="", ylim=(0, row))
    below.set(xlabel="time (ms)", ylabel="rate (Hz)", ylim=(0, None))
    return figure

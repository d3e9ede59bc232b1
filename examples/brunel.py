"""States of a sparsely connected network with delays: Brunel (2000).

    python examples/brunel.py [--short] [--output DIR]

10,000 excitatory and 2,500 inhibitory integrate-and-fire neurons, each with synapses from a tenth of both, which
act after 1.5 ms. How strong inhibition is (g) and how much comes from outside (the rate, in units of the one that
suffices to reach the threshold) decide what they do: spike together like clocks, each on its own and irregularly,
or irregularly in a rhythm. These are panels A to D of the paper's figure 8.

Irregular is not Poisson: with the paper's weak synapses the intervals of panel C have a CV of 0.4, less than the 0.7
that its theory gives for input of independent Poisson processes, since the neurons' own input is more regular than that.
With a fifth of the synapses, five times as strong (``--short``), it is 0.9.
"""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from shared import COLOURS, options, save_picture
from spiking import bar, draw_raster, mean_cv, mean_rate

import stategraph as sg
from stategraph import nn, spikes
from stategraph.spikes import Spikes

DT = 0.1  # ms
DELAY, TAU, THRESHOLD, RESET, REFRACTORY = 1.5, 20.0, 20.0, 10.0, 2.0  # ms and mV


class Regime(NamedTuple):
    """A state, with inhibition ``g`` times as strong as excitation and ``outside`` times the input that is enough."""

    title: str
    g: float
    outside: float


REGIMES = {
    "SR": Regime("synchronous regular", 3.0, 2.0),
    "SI fast": Regime("synchronous irregular, fast", 6.0, 4.0),
    "AI": Regime("asynchronous irregular", 5.0, 2.0),
    "SI slow": Regime("synchronous irregular, slow", 4.5, 0.9),
}


class Brunel(nn.Module):
    """``synapses`` excitatory ones a neuron, of ``strength`` mV, and a quarter as many inhibitory ones."""

    def __init__(
        self, regime: Regime, excitatory: int = 10000, synapses: int = 1000, strength: float = 0.1
    ) -> None:
        super().__init__()
        self.excitatory = excitatory
        inhibitory = excitatory // 4
        size = excitatory + inhibitory
        self.neurons = nn.LIFRef(
            size, tau=TAU, tau_ref=REFRACTORY, V_th=THRESHOLD, V_reset=RESET, V_rest=0.0,
            V_initializer=nn.init.Uniform(0.0, THRESHOLD), spk_reset="hard",
        )  # fmt: skip
        self.late = self.neurons.output_delay(
            DELAY - DT
        )  # asked for before a step, it counts from the last one
        connect = sg.event.FixedNumConn
        self.excite = nn.DeltaProj(
            comm=connect(excitatory, size, synapses, strength, efferent_target="pre"), post=self.neurons
        )
        self.inhibit = nn.DeltaProj(
            comm=connect(inhibitory, size, synapses // 4, -regime.g * strength, efferent_target="pre"),
            post=self.neurons,
        )
        enough = (
            1000 * THRESHOLD / (strength * synapses * TAU)
        )  # Hz for each of as many synapses from outside
        self.outside = nn.PoissonInput(self.neurons, None, synapses, regime.outside * enough, strength)

    def update(self) -> Any:
        sent = self.late()
        self.excite(sent[: self.excitatory])
        self.inhibit(sent[self.excitatory :])
        self.outside()
        return self.neurons()


def synchrony(those: Spikes) -> float:
    """The standard deviation of the population's rate in bins of 1 ms, in units of that of independent neurons."""
    rates = spikes.rate(those, 1.0)[1]
    return float(rates.std() / np.sqrt(1000 * rates.mean() / those.size))


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Rate (Hz), CV of the inter-spike intervals and synchrony of each state."""
    chosen = options(__doc__, arguments)
    names, scale, duration, settling = list(REGIMES), 1, 1000.0, 200.0  # ms
    if chosen.short:  # a fifth of the neurons and synapses, which are five times as strong
        names, scale, duration, settling = ["SR", "AI"], 5, 250.0, 50.0
    numbers, pictures = {}, {}
    for name in names:
        sg.random.seed(1)
        with sg.environ.context(dt=DT):
            network = nn.init_all_states(Brunel(REGIMES[name], 10000 // scale, 1000 // scale, 0.1 * scale))
            monitor = {"spikes": network.neurons.spike}
            those = nn.run(network, duration, monitor=monitor, progress=bar(f"{name:8}"))["spikes"]
        those = those.between(settling)
        numbers[name] = {"rate": mean_rate(those), "cv": mean_cv(those), "synchrony": synchrony(those)}
        pictures[name] = those
        print(
            "{rate:6.1f} Hz, CV {cv:.2f}, synchrony {synchrony:.1f}".format(**numbers[name]),
            "in",
            REGIMES[name].title,
        )
    save_picture(draw(pictures), chosen.output / "brunel.png")
    return numbers


def draw(pictures: dict[str, Spikes]) -> Figure:
    """For each state the spikes of 50 neurons and the rate of all, for 200 ms."""
    figure = Figure(figsize=(4.8 * len(pictures) / 2, 7.2), layout="constrained")
    cells = figure.subplots(4, len(pictures) // 2, height_ratios=[2, 1, 2, 1], squeeze=False)
    for i, (name, those) in enumerate(pictures.items()):
        row, column = 2 * (i // (len(pictures) // 2)), i % (len(pictures) // 2)
        above, below = cells[row, column], cells[row + 1, column]
        draw_raster(above, those.of(0, 50), COLOURS[i], size=4)
        regime, shown = REGIMES[name], (those.start, those.start + 200)
        above.set(
            title=f"{regime.title}: g = {regime.g:g}, {regime.outside:g} times the input that is enough",
            xlabel="",
            xlim=shown,
        )
        below.plot(*spikes.rate(those, 1.0), color=COLOURS[i], linewidth=0.8)
        below.set(xlabel="time (ms)", ylabel="rate (Hz)", xlim=shown, ylim=(0, None))
    return figure


if __name__ == "__main__":
    main()

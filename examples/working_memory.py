"""Working memory in synapses: Mongillo, Barak and Tsodyks (2008).

    python examples/working_memory.py [--short] [--output DIR]

8,000 excitatory and 2,000 inhibitory neurons have learnt five items: synapses within the population of an item are
strong. Their facilitation outlasts activity: shown for 350 ms, an item is held for seconds by the synapses of a
silent population. A weak input to all neurons alike then brings back the population of this item, and no other.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from shared import COLOURS, options, save_picture
from spiking import bar, draw_raster, mean_rate

import stategraph as sg
from stategraph import nn
from stategraph.spikes import Spikes

DT = 0.1  # ms
ITEMS, CODING, CONNECTED = 5, 0.1, 0.2  # an item is a tenth of the excitatory neurons
BACKGROUND, NOISE = 23.1, 1.0  # mV: mean and standard deviation of the input from outside
CUE, READOUT = 1.15, 1.05  # how many times the background an item's neurons, or all, get meanwhile
SHOWN = 2
"""Which item."""


class Memory(nn.Module):
    """With fewer neurons there are more synapses between two of them: as many for each neuron. Currents in mV."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        excitatory, inhibitory, connected = 8000 // scale, 2000 // scale, CONNECTED * scale
        self.item = round(CODING * excitatory)
        cell: dict[str, Any] = {"tau_ref": 2.0, "V_th": 20.0, "V_rest": 0.0, "spk_reset": "hard"}
        first = nn.init.Uniform(13.0, 20.0)
        self.E = nn.LIFRef(excitatory, tau=15.0, V_reset=16.0, V_initializer=first, **cell)
        self.I = nn.LIFRef(inhibitory, tau=10.0, V_reset=13.0, V_initializer=first, **cell)
        delays = np.random.default_rng(0).uniform(0.1, 1.0, excitatory)  # ms, one for each sending neuron
        self.from_E = self.E.output_delay(delays, np.arange(excitatory))
        self.from_I = self.I.output_delay(0.5)
        self.plasticity = nn.STP(excitatory, U=0.2, tau_f=1500.0, tau_d=200.0)
        connect = sg.event.FixedProb
        self.among_E = connect(excitatory, excitatory, connected, 0.0)
        self.among_E = sg.event.Sparse(self.among_E.connections, self.learnt(self.among_E.connections))
        self.E_to_I = connect(excitatory, inhibitory, connected, 0.135)
        self.I_to_E = connect(inhibitory, excitatory, connected, -0.25)
        self.among_I = connect(inhibitory, inhibitory, connected, -0.20)

    def learnt(self, csr: sg.event.CSR) -> np.ndarray:
        """0.45 mV within the population of an item and for a tenth of the other synapses, 0.1 mV for the rest."""
        pre, post = np.asarray(csr.rows) // self.item, np.asarray(csr.indices) // self.item
        potentiated = (pre == post) & (pre < ITEMS) | (np.random.default_rng(1).random(csr.size) < 0.1)
        return np.where(potentiated, np.float32(0.45), np.float32(0.1))

    def update(self, factors: Any) -> Any:
        """One step in which the excitatory neurons get ``factors`` times the background; returns their spikes."""
        from_E, from_I = self.from_E(), self.from_I()
        self.E.add_delta_input("E", self.plasticity(from_E) @ self.among_E)
        self.E.add_delta_input("I", from_I @ self.I_to_E)
        self.I.add_delta_input("E", from_E @ self.E_to_I)
        self.I.add_delta_input("I", from_I @ self.among_I)
        for neurons in (self.E, self.I):
            spread = NOISE * (DT / neurons.tau) ** 0.5
            neurons.add_delta_input("noise", spread * sg.random.randn(*neurons.varshape))
        self.I(21.0)
        return self.E(BACKGROUND * factors)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """The rate (Hz) of each item's population: before, while silent, and during the readout; u of the shown one."""
    chosen = options(__doc__, arguments)
    scale, pause = (4, 300.0) if chosen.short else (1, 1000.0)
    cue = (300.0, 650.0)  # ms
    readout = (cue[1] + pause, cue[1] + pause + 250.0)
    sg.random.seed(0)

    def factors(t: Any) -> Any:
        item = jnp.arange(network.E.varshape[0]) // network.item
        shown = (t >= cue[0]) & (t < cue[1]) & (item == SHOWN)
        read = (t >= readout[0]) & (t < readout[1])
        return jnp.where(shown, CUE, jnp.where(read, READOUT, 1.0))

    with sg.environ.context(dt=DT):
        network = nn.init_all_states(Memory(scale))
        monitor = {"spikes": network.E.spike}
        spikes = nn.run(network, readout[1] + 150.0, factors, monitor, progress=bar("remembering"))["spikes"]

    def rates(begin: float, end: float) -> list[float]:
        within = spikes.between(begin, end)
        return [mean_rate(within.of(k * network.item, (k + 1) * network.item)) for k in range(ITEMS)]

    times = {
        "before": (100.0, cue[0]),
        "shown": cue,
        "silent": (cue[1] + 100, readout[0]),
        "readout": readout,
    }
    numbers = {name: rates(*when) for name, when in times.items()}
    for name, values in numbers.items():
        print(f"{name:8}", "  ".join(f"item {k}: {rate:5.1f} Hz" for k, rate in enumerate(values)))
    save_picture(draw(spikes, network.item, cue, readout), chosen.output / "working_memory.png")
    return numbers


def draw(spikes: Spikes, item: int, cue: tuple[float, float], readout: tuple[float, float]) -> Figure:
    """The spikes of the populations of the items; grey while one is shown and while all get more input."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes = figure.subplots()
    row, every, middles = 0, max(1, item // 80), []
    for k in range(ITEMS):
        colour = COLOURS[1] if k == SHOWN else COLOURS[0]
        top = draw_raster(axes, spikes.of(k * item, (k + 1) * item), colour, every=every, above=row)
        middles.append((row + top) / 2)
        row = top
    for begin, end in (cue, readout):
        axes.axvspan(begin, end, color="#eeeeee", zorder=0)
    axes.set(title=f"item {SHOWN} is shown, then all populations get a little more", ylim=(0, row))
    axes.set_yticks(middles, [f"item {k}" for k in range(ITEMS)])
    axes.tick_params(axis="y", length=0)
    return figure


if __name__ == "__main__":
    main()

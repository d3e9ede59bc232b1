"""A balanced network of spiking neurons that keeps itself active, with synapses that are conductances (COBA).

    python examples/coba.py [--short] [--output DIR]

4,000 integrate-and-fire neurons, four of five of them excitatory, each pair connected with a probability of 2 %:
Vogels and Abbott (2005), with the parameters of the review of simulators by Brette et al. (2007), benchmark 1.
Nothing drives it: the conductances it starts with set it off, and excitation and inhibition keep each other in
balance at some 20 irregular spikes per neuron and second.
"""

import time
from typing import Any

from balanced import report
from shared import options
from spiking import Spikes, simulate

import stategraph as sg
from stategraph import nn

DT = 0.1  # ms
DURATION, SHORT_DURATION = 1000.0, 300.0  # ms


class COBA(nn.Module):
    """80 synapses a neuron on average, whatever the size: excitatory of 6 nS, inhibitory of 67 nS, 10 nS of leak."""

    def __init__(self, size: int = 4000) -> None:
        super().__init__()
        self.excitatory = size * 4 // 5
        probability = 80 / size
        self.neurons = nn.LIFRef(
            size,
            R=100.0,
            tau=20.0,
            tau_ref=5.0,
            V_th=-50.0,
            V_reset=-60.0,
            V_rest=-60.0,
            V_initializer=nn.init.Normal(mean=-65.0, scale=5.0),
            spk_reset="hard",
        )
        self.excite = nn.AlignPostProj(
            comm=sg.event.FixedProb(self.excitatory, size, probability, 6.0),
            syn=nn.Expon.desc(tau=5.0, g_initializer=nn.init.Normal(mean=40.0, scale=15.0)),
            out=nn.COBA.desc(E=0.0),
            post=self.neurons,
        )
        self.inhibit = nn.AlignPostProj(
            comm=sg.event.FixedProb(size - self.excitatory, size, probability, 67.0),
            syn=nn.Expon.desc(tau=10.0, g_initializer=nn.init.Normal(mean=200.0, scale=120.0)),
            out=nn.COBA.desc(E=-80.0),
            post=self.neurons,
        )

    def update(self, _: Any) -> Any:
        spikes = self.neurons.get_spike()  # of the last step
        self.excite(spikes[: self.excitatory])
        self.inhibit(spikes[self.excitatory :])
        return self.neurons() > 0


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Rates of the excitatory and inhibitory neurons (Hz), CV of the inter-spike intervals, steps per second."""
    chosen = options(__doc__, arguments)
    duration = SHORT_DURATION if chosen.short else DURATION
    sg.random.seed(0)
    network = nn.init_all_states(COBA())
    with sg.environ.context(dt=DT):
        began = time.perf_counter()
        spikes = Spikes.of(simulate(network, duration, "COBA"), DT)
        seconds = time.perf_counter() - began
    return report("COBA", spikes, network.excitatory, seconds, chosen.output / "coba.png")


if __name__ == "__main__":
    main()

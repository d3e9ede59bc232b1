"""A balanced network of spiking neurons that keeps itself active, with synapses that are conductances (COBA).

    python examples/coba.py [--short] [--output DIR]

4,000 integrate-and-fire neurons, four of five of them excitatory, each pair connected with a probability of 2 %:
Vogels and Abbott (2005), with the parameters of the review of simulators by Brette et al. (2007), benchmark 1.
Nothing drives it: the conductances it starts with set it off, and excitation and inhibition keep each other in
balance at some 20 irregular spikes per neuron and second.
"""

from typing import Any

from balanced import observe
from shared import options

import stategraph as sg
from stategraph import nn

DURATION, SHORT_DURATION = 1000.0, 500.0  # ms


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

    def update(self) -> Any:
        spikes = self.neurons.get_spike()  # of the last step
        self.excite(spikes[: self.excitatory])
        self.inhibit(spikes[self.excitatory :])
        return self.neurons()


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Rates (Hz), the CV of the inter-spike intervals, and how long it took."""
    chosen = options(__doc__, arguments)
    sg.random.seed(0)
    network = nn.init_all_states(COBA())
    duration = SHORT_DURATION if chosen.short else DURATION
    return observe("COBA", network, duration, chosen.output / "coba.png")


if __name__ == "__main__":
    main()

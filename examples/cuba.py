"""A balanced network of spiking neurons that keeps itself active, with synapses that are currents (CUBA).

    python examples/cuba.py [--short] [--output DIR]

4,000 integrate-and-fire neurons, four of five of them excitatory, each pair connected with a probability of 2 %:
Vogels and Abbott (2005), with the parameters of the review of simulators by Brette et al. (2007), benchmark 2. At
rest, -49 mV, a neuron is above its threshold: it would spike regularly, and some 6 irregular spikes per second
are what the inhibition leaves of that.
"""

from typing import Any

from balanced import observe
from shared import options

import stategraph as sg
from stategraph import nn

DURATION, SHORT_DURATION = 1000.0, 500.0  # ms


class CUBA(nn.Module):
    """80 synapses a neuron on average, whatever the size: excitatory of 1.62 mV, inhibitory of -9 mV."""

    def __init__(self, size: int = 4000) -> None:
        super().__init__()
        self.excitatory = size * 4 // 5
        probability = 80 / size
        self.neurons = nn.LIFRef(
            size,
            R=1.0,
            tau=20.0,
            tau_ref=5.0,
            V_th=-50.0,
            V_reset=-60.0,
            V_rest=-49.0,
            V_initializer=nn.init.Uniform(-60.0, -50.0),
            spk_reset="hard",
        )
        self.excite = sg.event.FixedProb(self.excitatory, size, probability, 1.62)
        self.inhibit = sg.event.FixedProb(size - self.excitatory, size, probability, -9.0)
        self.fast, self.slow = nn.Expon(size, tau=5.0), nn.Expon(size, tau=10.0)

    def update(self) -> Any:
        spikes = self.neurons.get_spike()  # of the last step
        excitation = self.fast(spikes[: self.excitatory] @ self.excite)
        inhibition = self.slow(spikes[self.excitatory :] @ self.inhibit)
        return self.neurons(excitation + inhibition)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Rates (Hz), the CV of the inter-spike intervals, and how long it took."""
    chosen = options(__doc__, arguments)
    sg.random.seed(0)
    network = nn.init_all_states(CUBA())
    duration = SHORT_DURATION if chosen.short else DURATION
    return observe("CUBA", network, duration, chosen.output / "cuba.png")


if __name__ == "__main__":
    main()

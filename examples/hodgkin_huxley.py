"""A balanced network of Hodgkin-Huxley neurons with synapses that are conductances (COBAHH).

    python examples/hodgkin_huxley.py [--short] [--output DIR]

The third benchmark of the review of simulators by Brette et al. (2007): the network of ``coba.py`` with neurons
whose spikes are made by sodium and potassium channels (Traub and Miles 1991). The neuron is a class of one's own:
``nn.HH`` with other rates of the gates. Excitation and inhibition keep each other in balance.
"""

from typing import Any

import jax.numpy as jnp
from balanced import observe
from shared import options

import stategraph as sg
from stategraph import nn

DURATION, SHORT_DURATION = 1000.0, 200.0  # ms
AREA = 20000e-8
"""The membrane of a neuron (cm²): 1 nS is 1/AREA nS/cm², which are 1e-3/AREA µS/cm²."""


class TraubMiles(nn.HH):
    """``nn.HH`` with the rates (1/ms) of Traub and Miles; they count from ``VT`` (mV). Per cm²: mS, µF, µA."""

    VT = -63.0

    def __init__(self, size: int, **options: Any) -> None:
        channels = {"ENa": 50.0, "gNa": 100.0, "EK": -90.0, "gK": 30.0, "EL": -60.0, "gL": 0.05}
        super().__init__(size, C=1.0, V_th=-20.0, **channels, **options)

    def m_alpha(self, V: Any) -> Any:
        return 1.28 * linoid((V - self.VT - 13) / 4)

    def m_beta(self, V: Any) -> Any:
        return 1.4 * linoid((self.VT + 40 - V) / 5)

    def h_alpha(self, V: Any) -> Any:
        return 0.128 * jnp.exp((17 + self.VT - V) / 18)

    def h_beta(self, V: Any) -> Any:
        return 4 / (1 + jnp.exp((40 + self.VT - V) / 5))

    def n_alpha(self, V: Any) -> Any:
        return 0.16 * linoid((V - self.VT - 15) / 5)

    def n_beta(self, V: Any) -> Any:
        return 0.5 * jnp.exp((10 + self.VT - V) / 40)


def linoid(z: Any) -> Any:
    """``z / (1 - exp(-z))``"""
    safe = jnp.where(jnp.abs(z) < 1e-4, 1e-4, z)
    return safe / -jnp.expm1(-safe)


class COBAHH(nn.Module):
    """80 synapses a neuron on average: excitatory of 6 nS, inhibitory of 67 nS."""

    def __init__(self, size: int = 4000) -> None:
        super().__init__()
        self.excitatory = size * 4 // 5
        nS = 1e-3 / AREA  # µS/cm²; COBA makes µA/cm² of it
        self.neurons = TraubMiles(size, V_initializer=nn.init.Normal(mean=-65.0, scale=5.0))
        self.spikes = sg.ShortTermState(jnp.zeros(size))
        self.excite = nn.AlignPostProj(
            comm=sg.event.FixedProb(self.excitatory, size, 80 / size, 6.0 * nS),
            syn=nn.Expon.desc(tau=5.0, g_initializer=nn.init.Normal(mean=40.0 * nS, scale=15.0 * nS)),
            out=nn.COBA.desc(E=0.0),
            post=self.neurons,
        )
        self.inhibit = nn.AlignPostProj(
            comm=sg.event.FixedProb(size - self.excitatory, size, 80 / size, 67.0 * nS),
            syn=nn.Expon.desc(tau=10.0, g_initializer=nn.init.Normal(mean=200.0 * nS, scale=120.0 * nS)),
            out=nn.COBA.desc(E=-80.0),
            post=self.neurons,
        )

    def update(self) -> Any:
        spikes = self.spikes.value  # of the last step
        self.excite(spikes[: self.excitatory])
        self.inhibit(spikes[self.excitatory :])
        self.spikes.value = self.neurons()
        return self.spikes.value


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Rates (Hz), the CV of the inter-spike intervals, and how long it took."""
    chosen = options(__doc__, arguments)
    sg.random.seed(0)
    network = nn.init_all_states(COBAHH())
    duration = SHORT_DURATION if chosen.short else DURATION
    return observe("COBAHH", network, duration, chosen.output / "hodgkin_huxley.png")


if __name__ == "__main__":
    main()

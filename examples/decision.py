"""A decision between two noisy stimuli, which is remembered: Wang (2002).

    python examples/decision.py [--short] [--output DIR]

1,600 pyramidal cells and 400 interneurons. Two groups of 240 pyramidal cells prefer one stimulus each, excite
themselves through slow NMDA receptors and the other group less, and all share inhibition. While both stimuli are
on, one group's rate climbs and the other's falls, mostly in favour of the stronger stimulus; the choice persists
when they are gone. All trials run at once, as a batch.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from shared import COLOURS, options, save_picture
from spiking import bar

import stategraph as sg
from stategraph import nn

DT, SETTLE, STIMULUS, DELAY = 0.1, 200.0, 1500.0, 500.0  # ms
SELECTIVE = 0.15  # of the pyramidal cells, for each stimulus
STRONG = 1.7  # excitation within a group, in units of the mean
COHERENCES = [0.0, 6.4, 25.6, 51.2]  # %


class Decision(nn.Module):
    """Synapses connect all cells with all, in nS for 2,000 cells; with fewer they are stronger. Per trial: two rates (Hz)."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        excitatory, inhibitory = 1600 // scale, 400 // scale
        self.group = group = round(SELECTIVE * excitatory)
        cell = {
            "V_rest": -70.0,
            "V_th": -50.0,
            "V_reset": -55.0,
            "V_initializer": nn.init.Uniform(-70.0, -50.0),
        }
        self.E = nn.LIFRef(excitatory, R=40.0, tau=20.0, tau_ref=2.0, spk_reset="hard", **cell)
        self.I = nn.LIFRef(inhibitory, R=50.0, tau=10.0, tau_ref=1.0, spk_reset="hard", **cell)
        self.from_E, self.from_I = self.E.output_delay(0.5), self.I.output_delay(0.5)
        self.receptors = nn.NMDA(excitatory)  # of the cells that send
        weak = 1 - SELECTIVE * (STRONG - 1) / (1 - SELECTIVE)
        weights = scale * jnp.array([[STRONG, weak, weak], [weak, STRONG, weak], [1.0, 1.0, 1.0]])
        sizes = np.array([group, group, excitatory - 2 * group])

        def among(gates: Any) -> Any:  # to each pyramidal cell, from all of them
            sums = jnp.stack([part.sum(-1) for part in jnp.split(gates, [group, 2 * group], axis=-1)], -1)
            return jnp.repeat(sums @ weights.T, sizes, axis=-1, total_repeat_length=excitatory)

        def to_all(gates: Any) -> Any:
            return scale * gates.sum(-1, keepdims=True)

        ampa = {"syn": nn.Expon.desc(tau=2.0), "out": nn.COBA.desc(E=0.0)}
        gaba = {"syn": nn.Expon.desc(tau=5.0), "out": nn.COBA.desc(E=-70.0)}
        self.ampa_E = nn.AlignPostProj(comm=lambda s: 0.05 * among(s), post=self.E, **ampa)
        self.ampa_I = nn.AlignPostProj(
            comm=lambda s: jnp.full(inhibitory, 0.04) * to_all(s), post=self.I, **ampa
        )
        self.gaba_E = nn.AlignPostProj(
            comm=lambda s: jnp.full(excitatory, 1.3) * to_all(s), post=self.E, **gaba
        )
        self.gaba_I = nn.AlignPostProj(
            comm=lambda s: jnp.full(inhibitory, 1.0) * to_all(s), post=self.I, **gaba
        )
        self.nmda_E = nn.CurrentProj(comm=lambda s: 0.165 * among(s), out=nn.MgBlock(cc_Mg=1.0), post=self.E)
        self.nmda_I = nn.CurrentProj(comm=lambda s: 0.13 * to_all(s), out=nn.MgBlock(cc_Mg=1.0), post=self.I)
        self.noise_E = nn.PoissonInput(self.ampa_E.syn, None, num_input=800, freq=3.0, weight=2.1)
        self.noise_I = nn.PoissonInput(self.ampa_I.syn, None, num_input=800, freq=3.0, weight=1.62)
        self.stimuli = nn.PoissonEncoder(2 * group, spk_type=jnp.float32)

    def update(self, rates: Any) -> Any:
        from_E, from_I = self.from_E(), self.from_I()
        gates = self.receptors(from_E)
        for projection, sent in [
            (self.ampa_E, from_E), (self.ampa_I, from_E), (self.nmda_E, gates), (self.nmda_I, gates),
            (self.gaba_E, from_I), (self.gaba_I, from_I),
        ]:  # fmt: skip
            projection(sent)
        self.noise_E()
        self.noise_I()
        shown = self.stimuli(jnp.repeat(rates, self.group, axis=-1))
        rest = jnp.zeros((*shown.shape[:-1], self.E.varshape[0] - 2 * self.group))
        self.ampa_E.syn.add_delta_input("stimuli", 2.1 * jnp.concatenate([shown, rest], axis=-1))
        spikes = self.E()
        self.I()
        return spikes[..., : self.group].sum(-1), spikes[..., self.group : 2 * self.group].sum(-1)


def stimuli(coherences: np.ndarray, durations: tuple[float, float, float], seed: int) -> np.ndarray:
    """Rates (Hz) ``(50-ms windows, trials, 2)``: 40 (1 ± coherence) and a noise of 4 Hz, within the stimulus."""
    settle, stimulus, delay = (round(one / 50) for one in durations)
    means = 40 * (1 + np.stack([coherences, -coherences], -1) / 100)
    noise = np.random.default_rng(seed).normal(0, 4, (stimulus, *means.shape))
    return np.pad(np.maximum(means + noise, 0), [(settle, delay), (0, 0), (0, 0)]).astype(np.float32)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Per coherence the part of right choices; the rates (Hz) of winners and losers after the stimuli."""
    chosen = options(__doc__, arguments)
    coherences = np.repeat(COHERENCES, 6)
    scale, durations = 1, (SETTLE, STIMULUS, DELAY)
    if chosen.short:
        coherences, scale, durations = np.array([100.0, -100.0]), 4, (100.0, 500.0, 300.0)
    sg.random.seed(0)
    rates = stimuli(coherences, durations, seed=0)
    with sg.environ.context(dt=DT):
        network = nn.init_all_states(Decision(scale), batch_size=len(coherences))
        inputs = np.repeat(rates, round(50 / DT), axis=0)
        monitor = {"counts": lambda counts: jnp.stack(counts)}
        counts = nn.run(network, sum(durations), inputs, monitor, progress=bar("deciding"))["counts"]
    per_ms = counts.reshape(-1, round(1 / DT), 2, len(coherences)).sum(1) / network.group * 1000  # Hz
    late = per_ms[-200:].mean(0)
    right = np.where(coherences >= 0, late[0] > late[1], late[1] > late[0])
    numbers = {"winner": float(late.max(0).mean()), "loser": float(late.min(0).mean())}
    numbers |= {
        "right": {
            float(c): float(right[np.abs(coherences) == c].mean()) for c in np.unique(np.abs(coherences))
        }
    }
    print(
        "rates after the stimuli: {winner:.0f} Hz of the group that won, {loser:.1f} Hz of the other".format(
            **numbers
        )
    )
    print(
        "right choices:",
        ", ".join(f"{part:.0%} at {c:g} % coherence" for c, part in numbers["right"].items() if c),
    )
    save_picture(draw(per_ms, coherences, durations), chosen.output / "decision.png")
    return numbers


def draw(per_ms: np.ndarray, coherences: np.ndarray, durations: tuple[float, float, float]) -> Figure:
    """The rates of both groups, a line for each trial, for the weakest and the strongest stimulus that there were."""
    shown = sorted({np.abs(coherences).min(), coherences.max()})
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    cells = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    there = np.convolve(
        np.ones(len(per_ms)), np.ones(50), "same"
    )  # of the window, at the ends less than 50 ms
    for axes, coherence in zip(cells, shown, strict=True):
        for trial in np.flatnonzero(coherences == coherence):
            for group, colour in enumerate(COLOURS[:2]):
                smooth = np.convolve(per_ms[:, group, trial], np.ones(50), "same") / there
                axes.plot(smooth, color=colour, linewidth=0.9)
        axes.axvspan(durations[0], durations[0] + durations[1], color="#eeeeee", zorder=0)
        favour = " in favour of A" if coherence else ""
        axes.set(title=f"coherence {coherence:g} %{favour}", xlabel="time (ms); grey: the stimuli")
    cells[0].set(ylabel="rate of each group (Hz)", ylim=(0, None))
    for line, group in zip(cells[0].lines, "AB", strict=False):
        line.set_label(f"group {group}")
    return figure


if __name__ == "__main__":
    main()

"""A liquid-state machine: a column of random neurons remembers a stream long enough to name it.

    python examples/liquid_state_machine.py [--short] [--output DIR]

Maass, Natschläger and Markram (2002): 20 % of the neurons of a column are inhibitory, two neurons are connected the
more often the nearer they are, and synapses are dynamic. Handwritten digits arrive row by row, every 5 ms, as spikes on
32 fibres: four for each pixel of a row, which spike when it is darker than a threshold. Nothing in the column is
trained. When the last row is over, a linear readout names the digit from what the column does then. The same
readout of the fibres alone shows what the column adds. All digits run at once, as a batch.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from shared import COLOURS, load, options, save_picture
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from spiking import bar

import stategraph as sg
from stategraph import nn

DT, ROW = 0.5, 5.0  # ms
DARKER = np.array([0.2, 0.4, 0.6, 0.8])
"""The thresholds of the fibres of a pixel."""
WANTED = 0.85
"""The least test accuracy."""
# from, to: U, tau_d (ms), tau_f (ms), strength (nA), probability at no distance
DYNAMICS = {
    "EE": (0.5, 1100.0, 50.0, 30.0, 0.3), "EI": (0.05, 125.0, 1200.0, 60.0, 0.2),
    "IE": (0.25, 700.0, 20.0, -19.0, 0.4), "II": (0.32, 144.0, 60.0, -19.0, 0.1),
}  # fmt: skip


class Column(nn.Module):
    """A column of neurons: the excitatory ones come first. Returns traces (20 ms) of its spikes and of the fibres'."""

    def __init__(self, shape: tuple[int, int, int] = (6, 6, 10), seed: int = 0) -> None:
        super().__init__()
        draw = np.random.default_rng(seed)
        places = draw.permutation(np.argwhere(np.ones(shape)))
        size, self.excitatory = len(places), round(0.8 * len(places))
        inhibits = np.arange(size) >= self.excitatory
        distance = np.linalg.norm(places[:, None] - places, axis=-1)
        kinds = [np.array([DYNAMICS["EE"], DYNAMICS["IE"]])[inhibits.astype(int)].T,
                 np.array([DYNAMICS["EI"], DYNAMICS["II"]])[inhibits.astype(int)].T]  # fmt: skip
        self.to_E, self.to_I = (nn.STP(size, U=U, tau_d=tau_d, tau_f=tau_f) for U, tau_d, tau_f, *_ in kinds)
        strength = np.where(inhibits, kinds[1][3][:, None], kinds[0][3][:, None])
        chance = np.where(inhibits, kinds[1][4][:, None], kinds[0][4][:, None]) * np.exp(
            -((distance / 2) ** 2)
        )
        connected = (draw.random((size, size)) < chance) & ~np.eye(size, dtype=bool)
        self.weights = jnp.asarray(strength * draw.gamma(1.0, 1.0, (size, size)) * connected, jnp.float32)
        fibres = 8 * len(DARKER)
        reached = draw.random((fibres, size)) < 0.3
        self.inputs = jnp.asarray(
            np.where(inhibits, 4.5, 9.0) * draw.gamma(1.0, 1.0, (fibres, size)) * reached, jnp.float32
        )
        self.neurons = nn.LIFRef(
            size, R=1.0, tau=30.0, tau_ref=np.where(inhibits, 2.0, 3.0), V_rest=0.0, V_reset=13.5, V_th=15.0,
            V_initializer=nn.init.Uniform(13.5, 15.0), spk_reset="hard",
        )  # fmt: skip
        self.fast, self.slow = nn.Expon(size, tau=3.0), nn.Expon(size, tau=6.0)
        self.state, self.heard = nn.Expon(size, tau=20.0), nn.Expon(fibres, tau=20.0)

    def update(self, sent: Any) -> Any:
        E, weights = self.excitatory, self.weights
        spikes = self.neurons.get_spike()  # of the last step
        to_E, to_I = self.to_E(spikes), self.to_I(spikes)
        excitation = jnp.concatenate([to_E[..., :E] @ weights[:E, :E], to_I[..., :E] @ weights[:E, E:]], -1)
        inhibition = jnp.concatenate([to_E[..., E:] @ weights[E:, :E], to_I[..., E:] @ weights[E:, E:]], -1)
        current = 13.5 + self.fast(excitation + sent @ self.inputs) + self.slow(inhibition)
        spikes = self.neurons(current)
        return self.state(spikes), self.heard(sent), spikes


def listen(images: np.ndarray, title: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Traces of the column and of the fibres at the end of each image; the spikes of the first."""
    sg.random.seed(0)
    column = Column()
    column.neurons.V_initializer = nn.init_all_states(column).neurons.V.value  # each digit begins alike
    nn.init_all_states(column, batch_size=len(images))
    rows = jnp.asarray((images[..., None] > DARKER).reshape(len(images), 8, -1), jnp.float32)

    def fibres(t: Any) -> Any:
        step = jnp.int32(t / DT + 0.5)
        return rows[:, step // round(ROW / DT)] * (step % round(ROW / DT) == 0)

    monitor = {"first": lambda output: output[2][0]}
    with sg.environ.context(dt=DT):
        spikes = nn.run(column, 8 * ROW, fibres, monitor, progress=bar(title))["first"]
    return np.asarray(column.state.g.value), np.asarray(column.heard.g.value), spikes


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """The test accuracy of a linear readout of the column, and of the fibres."""
    chosen = options(__doc__, arguments)
    training, test = load()
    if chosen.short:
        training, test = training.first(300), test.first(100)
    *heard, _ = listen(training.images, "training")
    *tested, spikes = listen(test.images, "test")
    accuracy = {}
    for name, features, held_out in zip(("column", "fibres"), heard, tested, strict=True):
        readout = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=1000))
        accuracy[name] = float(readout.fit(features, training.labels).score(held_out, test.labels))
    rate = 1000 * float(spikes.mean()) / DT
    print(
        f"a linear readout after the last row: {accuracy['column']:.1%} of the test digits from the column,"
    )
    print(f"{accuracy['fibres']:.1%} from the fibres alone; the column spikes at {rate:.0f} Hz")
    save_picture(draw(test.images[0], spikes, accuracy), chosen.output / "liquid_state_machine.png")
    if not chosen.short and accuracy["column"] < WANTED:
        raise SystemExit(f"the test accuracy is below {WANTED:.0%}")
    return accuracy


def draw(image: np.ndarray, spikes: np.ndarray, accuracy: dict[str, float]) -> Figure:
    """A digit, the spikes of the column that hears it, and the accuracies."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.2, 3, 1])
    left.imshow(image, cmap="gray_r")
    left.set(title="a digit …", xticks=[], yticks=[], ylabel="a row every 5 ms")
    when, who = np.nonzero(spikes)
    middle.plot(when * DT, who, ".", color=COLOURS[0], markersize=3, markeredgewidth=0)
    middle.set(title="… and the spikes of the column", xlabel="time (ms)", ylabel="neuron")
    right.bar(list(accuracy), [100 * part for part in accuracy.values()], color=COLOURS[:2])
    right.set(title="named rightly", ylabel="% of the test digits", ylim=(0, 100))
    return figure


if __name__ == "__main__":
    main()

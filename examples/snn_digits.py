"""A spiking network learns to read handwritten digits from spikes: pixels as rates, and pixels as latencies.

    python examples/snn_digits.py [--short] [--output DIR]

Recurrently connected leaky integrate-and-fire neurons are trained with back-propagation through time and a surrogate
gradient (Neftci, Mostafa and Zenke 2019); leaky readouts name the digit. With the *rate code* a pixel is a Poisson process,
drawn anew at every step of the compiled loop; with the *latency code* it is one spike, the earlier the darker the pixel. The
products with the input and readout weights need nothing of what the neurons remember: the compiler runs them once for
all time steps, outside of the loops.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from shared import COLOURS, Digits, MiniBatches, load, options, save_picture, whole_numbers

import stategraph as sg

PIXELS, CLASSES, HIDDEN = 64, 10, 128
DT, STEPS = 1.0, 30  # ms
EPOCHS, SHORT_EPOCHS = 25, 2
WANTED = 0.95
"""The least test accuracy, for both codes."""


class RateCode(sg.nn.Module):
    """Poisson processes of up to 500 Hz."""

    strength = 0.25
    """The standard deviation of the input weights at first: larger where there are fewer spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = sg.nn.PoissonEncoder(PIXELS, spk_type=jnp.float32)

    def update(self, pixels: jax.Array) -> jax.Array:
        return self.encoder(500.0 * pixels)


class LatencyCode(sg.nn.Module):
    """One spike per pixel, within the time that the network is given."""

    strength = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.encoder = sg.nn.LatencyEncoder(
            PIXELS, duration=0.75 * DT * STEPS, method="linear", threshold=0.1, spk_type=jnp.float32
        )

    def update(self, pixels: jax.Array) -> jax.Array:
        return self.encoder(pixels)


class SpikingReader(sg.nn.Module):
    """Pixels f32[batch, 64] to logits f32[batch, classes], by way of spikes."""

    def __init__(self, code: RateCode | LatencyCode) -> None:
        super().__init__()
        self.code = code
        self.input = sg.nn.Linear(PIXELS, HIDDEN, w_init=sg.nn.init.Normal(scale=code.strength))
        self.recurrent = sg.nn.Linear(
            HIDDEN, HIDDEN, w_init=sg.nn.init.Normal(scale=0.3 / HIDDEN**0.5), b_init=None
        )
        self.neurons = sg.nn.LIF(HIDDEN, tau=10.0, R=5.0, V_th=1.0, spk_fun=sg.surrogate.Sigmoid())
        self.readout = sg.nn.LeakyRateReadout(HIDDEN, CLASSES, tau=10.0)
        self.spikes = sg.HiddenState(jnp.zeros((1, HIDDEN)))

    def step(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """One step of time: the spikes of the input and of the neurons, and what is read."""
        arriving = self.code(pixels)
        self.spikes.value = self.neurons(self.input(arriving) + self.recurrent(self.spikes.value))
        return arriving, self.spikes.value, self.readout(self.spikes.value)

    def watch(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """``step`` for all steps: each with a leading axis for time."""
        sg.nn.reset_all_states(self, batch_size=len(pixels))
        self.spikes.value = jnp.zeros((len(pixels), HIDDEN))

        def at(i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            with sg.environ.context(dt=DT, i=i):
                return self.step(pixels)

        return sg.compile.for_loop(at, jnp.arange(STEPS))

    def update(self, pixels: jax.Array) -> jax.Array:
        return self.watch(pixels)[2].mean(axis=0)


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), PIXELS)


def train(
    model: SpikingReader, data: tuple[Digits, Digits], epochs: int, title: str
) -> tuple[list[float], list[float]]:
    """The loss of every step, and the test accuracy after every epoch."""
    training, test = data
    weights = model.states(sg.ParamState)
    batches = MiniBatches(training, epochs, title=title)
    rate = optax.cosine_decay_schedule(3e-3, epochs * batches.per_epoch)
    optimizer = sg.optim.Optimizer(weights, optax.adam(rate))

    @sg.compile.jit
    def train_step(pixels: jax.Array, labels: jax.Array) -> jax.Array:
        def loss() -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(pixels), labels).mean()

        gradients, value = sg.augment.grad(loss, weights, return_value=True)()
        optimizer.update(gradients)
        return value

    @sg.compile.jit
    def evaluate(pixels: jax.Array, labels: jax.Array) -> jax.Array:
        return (model(pixels).argmax(axis=1) == labels).mean()

    losses: list[float] = []
    accuracies: list[float] = []
    for _, images, labels in batches:
        losses.append(float(train_step(flat(images), labels)))
        if len(losses) % batches.per_epoch == 0:
            accuracies.append(float(evaluate(flat(test.images), test.labels)))
            batches.show(loss=losses[-1], accuracy=accuracies[-1])
    return losses, accuracies


def draw(curves: dict[str, tuple[list[float], list[float]]], seen: dict[str, np.ndarray]) -> Figure:
    """Loss and accuracy, and the spikes of one image in both codes."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    (left, right), rasters = figure.subplots(2, 2)
    for colour, (name, (losses, accuracies)) in zip(COLOURS, curves.items(), strict=False):
        smooth = np.convolve(losses, np.ones(20) / 20, "valid")
        left.semilogy(np.arange(20, len(losses) + 1), smooth, color=colour, label=name)
        right.plot(range(1, len(accuracies) + 1), 100 * np.array(accuracies), ".-", color=colour, label=name)
    left.set(title="loss, mean of 20", xlabel="training step", ylabel="cross entropy")
    right.set(title="test accuracy", xlabel="epoch", ylabel="% correct")
    whole_numbers(right)
    for axes, colour, (name, spikes) in zip(rasters, COLOURS, seen.items(), strict=False):
        time, unit = np.nonzero(spikes)
        axes.plot(time * DT, unit, "|", color=colour, markersize=3)
        axes.axhline(PIXELS, color="black", linewidth=0.5)
        axes.set(title=f"one image, {name} code", xlabel="time (ms)", ylabel="pixels, then neurons")
    return figure


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """The test accuracy with each code."""
    chosen = options(__doc__, arguments)
    data = load()
    curves, seen, found = {}, {}, {}
    for name, code in {"rate": RateCode, "latency": LatencyCode}.items():
        sg.random.seed(0)
        model = SpikingReader(code())
        sg.nn.init_all_states(model, batch_size=1)
        curves[name] = train(model, data, SHORT_EPOCHS if chosen.short else EPOCHS, name)
        arriving, spikes, _ = model.watch(flat(data[1].images[:1]))
        seen[name] = np.concatenate([arriving[:, 0], spikes[:, 0]], axis=1)
        found[name] = curves[name][1][-1]

    save_picture(draw(curves, seen), chosen.output / "snn_digits.png")
    for name, accuracy in found.items():
        print(f"{name:8} test accuracy {accuracy:.1%}")
        if not chosen.short and accuracy < WANTED:
            raise SystemExit(f"the test accuracy is below {WANTED:.0%}")
    return found


if __name__ == "__main__":
    main()

"""A recurrent network reads handwritten digits row by row and names them: a GRU against a plain cell.

    python examples/sequence_classifier.py [--short] [--output DIR]

An image is a sequence of 8 rows. The hidden state of the cell is State: it is reset before each mini-batch
and written in every step of a compiled loop, and what it holds after the last row is classified.
"""

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from shared import COLOURS, Digits, MiniBatches, load, options, save_picture, whole_numbers

import stategraph as sg

ROWS, PIXELS, CLASSES, HIDDEN = 8, 8, 10, 48
EPOCHS, SHORT_EPOCHS = 20, 2
WANTED = {"GRU": 0.95, "plain": 0.90}
"""The least test accuracies after all epochs."""


class SequenceClassifier(sg.nn.Module):
    """A recurrent cell and a linear readout: f32[time, batch, inputs] to logits f32[batch, classes]."""

    def __init__(self, cell: sg.nn.RNNCell, classes: int) -> None:
        super().__init__()
        self.rnn = cell
        self.readout = sg.nn.Linear(cell.out_size, classes)

    def update(self, sequence: jax.Array) -> jax.Array:
        return self.beliefs(sequence)[-1]

    def beliefs(self, sequence: jax.Array) -> jax.Array:
        """The logits f32[time, batch, classes] after every step."""
        sg.nn.reset_all_states(self, batch_size=sequence.shape[1])
        hidden = sg.compile.for_loop(self.rnn, sequence)
        return self.readout(hidden)


def rows(images: np.ndarray) -> np.ndarray:
    """Images [batch, rows, pixels] as sequences [rows, batch, pixels]."""
    return images.swapaxes(0, 1)


def train(model: SequenceClassifier, data: tuple[Digits, Digits], epochs: int, title: str) -> list[float]:
    """The test accuracy after each epoch."""
    training, test = data
    weights = model.states(sg.ParamState)
    optimizer = sg.optim.Adam(lr=5e-3)
    optimizer.register_trainable_weights(weights)

    @sg.compile.jit
    def train_step(sequence: jax.Array, labels: jax.Array) -> jax.Array:
        def loss() -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(sequence), labels).mean()

        gradients, value = sg.augment.grad(loss, weights, return_value=True)()
        optimizer.update(gradients)
        return value

    @sg.compile.jit
    def evaluate(sequence: jax.Array, labels: jax.Array) -> jax.Array:
        return (model(sequence).argmax(axis=1) == labels).mean()

    accuracies: list[float] = []
    batches = MiniBatches(training, epochs, title=title)
    for step, (_, images, labels) in enumerate(batches, 1):
        loss = train_step(rows(images), labels)
        if step % batches.per_epoch == 0:
            accuracies.append(float(evaluate(rows(test.images), test.labels)))
            batches.show(loss=float(loss), accuracy=accuracies[-1])
    return accuracies


def draw(accuracies: dict[str, list[float]], digit: np.ndarray, beliefs: np.ndarray) -> Figure:
    """The accuracies against epochs, and an image beside what the GRU believes after each of its rows."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[3, 1, 2])
    for colour, (name, values) in zip(COLOURS, accuracies.items(), strict=False):
        left.plot(range(1, len(values) + 1), 100 * np.array(values), ".-", color=colour, label=name)
    left.set(title="test accuracy", xlabel="epoch", ylabel="% correct")
    whole_numbers(left)
    left.xaxis.get_major_locator().set_params(integer=True)
    middle.imshow(digit, cmap="gray_r")
    middle.set(title="an image …", xticks=[], yticks=range(ROWS), ylabel="row")
    right.imshow(beliefs, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    right.set(title="… and the belief after each row", xticks=range(CLASSES), yticks=[], xlabel="digit")
    return figure


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """The test accuracy of each network."""
    chosen = options(__doc__, arguments)
    data = load()
    sg.random.seed(0)
    cells = {
        "GRU": sg.nn.GRUCell(input_size=PIXELS, hidden_size=HIDDEN),
        "plain": sg.nn.VanillaRNNCell(input_size=PIXELS, hidden_size=HIDDEN, activation="tanh"),
    }
    models = {name: SequenceClassifier(cell, CLASSES) for name, cell in cells.items()}
    accuracies = {}
    for name, model in models.items():
        sg.nn.init_all_states(model, batch_size=1)
        accuracies[name] = train(model, data, SHORT_EPOCHS if chosen.short else EPOCHS, name)

    digit = data[1].images[0]
    beliefs = jax.nn.softmax(models["GRU"].beliefs(rows(digit[None])))[:, 0]
    save_picture(draw(accuracies, digit, np.asarray(beliefs)), chosen.output / "sequence_classifier.png")
    for name, values in accuracies.items():
        print(f"{name:6} {sg.nn.count_parameters(models[name]):>6,} weights, test accuracy {values[-1]:.1%}")
        if not chosen.short and values[-1] < WANTED[name]:
            raise SystemExit(f"the test accuracy is below {WANTED[name]:.0%}")
    return {name: values[-1] for name, values in accuracies.items()}


if __name__ == "__main__":
    main()

"""An autoencoder is saved half-way, loaded by another one, and both train on: to the same bits.

    python examples/autoencoder.py [--short] [--output DIR]

It squeezes an image of 64 pixels through two numbers and draws it again from them. While it is trained, dropout
hides some of the pixels, so a step depends on weights, on the memory of the optimiser and on the random stream.
All three are State, and ``stategraph.save`` writes them into one file.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from shared import COLOURS, Digits, MiniBatches, load, options, save_picture

import stategraph as sg
from stategraph import nn

PIXELS, HIDDEN, CODE = 64, 64, 2
EPOCHS, SHORT_EPOCHS = 80, 4


class Autoencoder(nn.Module):
    """Images f32[batch, 64] to codes f32[batch, 2] and back."""

    def __init__(self) -> None:
        super().__init__()
        self.hide = nn.Dropout(0.9)
        self.encode = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CODE))
        self.decode = nn.Sequential(
            nn.Linear(CODE, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, PIXELS), nn.Sigmoid()
        )

    def update(self, images: jax.Array) -> jax.Array:
        return self.decode(self.encode(self.hide(images)))


class Training:
    """A model, its optimiser and the compiled step."""

    def __init__(self, seed: int) -> None:
        sg.random.seed(seed)
        self.model = Autoencoder()
        self.optimizer = sg.optim.Adam(lr=5e-3)
        self.optimizer.register_trainable_weights(self.model.states(sg.ParamState))

    @sg.compile.jit
    def step(self, images: jax.Array) -> jax.Array:
        def loss() -> jax.Array:
            return jnp.mean((self.model(images) - images) ** 2)

        gradients, value = sg.augment.grad(loss, self.optimizer.params, return_value=True)()
        self.optimizer.update(gradients)
        return value

    def run(self, training: Digits, epochs: range, title: str) -> list[float]:
        """The losses of some epochs. Leaves the model evaluating."""
        self.model.train()
        losses = []
        batches = MiniBatches(training, epochs, title=title)
        for _, images, _ in batches:
            losses.append(float(self.step(images.reshape(-1, PIXELS))))
            batches.show(loss=losses[-1])
        self.model.eval()
        return losses


def same(one: Training, other: Training) -> bool:
    """Whether two trainings hold the same bits."""
    mine, theirs = (
        [state.value for part in (run.model, run.optimizer) for state in sg.graph.states(part).values()]
        for run in (one, other)
    )
    pairs = zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def best_linear(training: np.ndarray, test: np.ndarray) -> float:
    """The error that the first two principal components leave."""
    mean = training.mean(axis=0)
    axes = np.linalg.svd(training - mean, full_matrices=False)[2][:CODE]
    return float(np.mean((test - mean - (test - mean) @ axes.T @ axes) ** 2))


def draw(losses: list[float], middle: int, test: Digits, codes: np.ndarray, drawn: np.ndarray) -> Figure:
    """The loss, the codes of the test images, and an image of each digit above what was drawn from its code."""
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1])
    curve, scatter = left.subplots(1, 2)
    curve.semilogy(losses, color=COLOURS[0])
    curve.axvline(middle, color=COLOURS[1], label="saved and loaded")
    curve.set(title="training loss", xlabel="step", ylabel="mean squared error")
    for digit in range(10):
        x, y = codes[test.labels == digit].T
        scatter.scatter(x, y, s=5, color=f"C{digit}")
        scatter.text(x.mean(), y.mean(), str(digit), fontsize=13, weight="bold")
    scatter.set(title="codes of test images", xticks=[], yticks=[])

    right.suptitle("test images, and what two numbers tell of them")
    for digit, axes in enumerate(right.subplots(2, 10).T):
        shown = (test.labels == digit).argmax()
        for cell, image in zip(axes, (test.images[shown], drawn[shown].reshape(8, 8)), strict=True):
            cell.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            cell.set_axis_off()
    return figure


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Errors on the test images: of the autoencoder, and of the best linear one."""
    chosen = options(__doc__, arguments)
    training, test = load()
    epochs = SHORT_EPOCHS if chosen.short else EPOCHS
    half = epochs // 2
    checkpoint = chosen.output / "autoencoder.checkpoint"

    first = Training(seed=0)
    losses = first.run(training, range(half), "first half")
    sg.save(checkpoint, first.model, first.optimizer, epoch=half)
    middle = len(losses)
    losses += first.run(training, range(half, epochs), "second half")

    second = Training(seed=1)  # other weights, other random numbers: what a new process begins with
    epoch = sg.load(checkpoint, second.model, second.optimizer)["epoch"]
    resumed = second.run(training, range(epoch, epochs), "resumed")
    if resumed != losses[middle:] or not same(first, second):
        raise SystemExit("the resumed training differs from the one that went on")
    print(f"saved after {half} of {epochs} epochs; the resumed training ends with the same bits")

    images = test.images.reshape(-1, PIXELS)
    drawn = np.asarray(second.model(images))
    codes = np.asarray(second.model.encode(images))
    save_picture(draw(losses, middle, test, codes, drawn), chosen.output / "autoencoder.png")
    result = {
        "autoencoder": float(np.mean((drawn - images) ** 2)),
        "linear": best_linear(training.images.reshape(-1, PIXELS), images),
    }
    print(
        "mean squared error on test images:", "{autoencoder:.4f}, best linear {linear:.4f}".format(**result)
    )
    if not chosen.short and result["autoencoder"] > 0.9 * result["linear"]:
        raise SystemExit("the autoencoder is hardly better than two principal components")
    return result


if __name__ == "__main__":
    main()

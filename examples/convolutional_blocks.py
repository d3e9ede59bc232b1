"""Handwritten digits seen by two classics: residual blocks and Inception blocks, written as modules.

    python examples/convolutional_blocks.py [--short] [--output DIR]

A residual block adds its input to what its convolutions give (He et al., "Deep residual learning for image
recognition", 2016). An Inception block looks through windows of several sizes side by side (Szegedy et al.,
"Going deeper with convolutions", 2015). Blocks are modules that hold modules; ``train`` and ``eval`` reach the
batch normalisation in all of them, whose running statistics are State and are updated in the compiled step.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from shared import COLOURS, Digits, MiniBatches, load, options, save_picture

import stategraph as sg
from stategraph import nn

CLASSES = 10
EPOCHS, SHORT_EPOCHS = 10, 1
WANTED = 0.97
"""The least test accuracy of both after all epochs."""
Shape = tuple[int, int, int]
"""Height, width and channels of an image."""


def convolution(image: Shape, channels: int, window: int, stride: int = 1) -> nn.Sequential:
    """A convolution and batch normalisation, whose statistics follow those of the last ten mini-batches or so."""
    return nn.Sequential(nn.Conv2d(image, channels, window, stride=stride), nn.BatchNorm2d.desc(momentum=0.9))


class ResidualBlock(nn.Module):
    """``relu(x + f(x))``, where f is two convolutions; a projection of x where f changes its shape."""

    def __init__(self, image: Shape, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(image, channels, 3, stride)
        self.second = convolution(self.first.out_size, channels, 3)
        self.in_size, self.out_size = image, self.second.out_size
        same = self.in_size == self.out_size
        self.shortcut = nn.Identity() if same else convolution(image, channels, 1, stride)

    def update(self, x: jax.Array) -> jax.Array:
        return nn.relu(self.shortcut(x) + self.second(nn.relu(self.first(x))))


class InceptionBlock(nn.Module):
    """Four paths side by side: windows of 1, 3 and 5 pixels, and the largest value nearby."""

    def __init__(self, image: Shape, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        narrow = (*image[:2], quarter)
        self.path1 = convolution(image, quarter, 1)
        self.path3 = nn.Sequential(convolution(image, quarter, 1), nn.ReLU(), convolution(narrow, quarter, 3))
        self.path5 = nn.Sequential(convolution(image, quarter, 1), nn.ReLU(), convolution(narrow, quarter, 5))
        self.pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding="SAME", in_size=image), convolution(image, quarter, 1)
        )
        self.in_size, self.out_size = image, (*image[:2], 4 * quarter)

    def update(self, x: jax.Array) -> jax.Array:
        paths = [self.path1(x), self.path3(x), self.path5(x), self.pool(x)]
        return nn.relu(jnp.concatenate(paths, axis=-1))


def resnet() -> nn.Sequential:
    """Images f32[batch, 8, 8, 1] to logits."""
    return nn.Sequential(
        ResidualBlock((8, 8, 1), 16),
        ResidualBlock((8, 8, 16), 16, stride=2),
        ResidualBlock((4, 4, 16), 16),
        *head(),
    )


def inception() -> nn.Sequential:
    """Images f32[batch, 8, 8, 1] to logits."""
    return nn.Sequential(
        InceptionBlock((8, 8, 1), 64),
        nn.MaxPool2d.desc(2),
        InceptionBlock((4, 4, 64), 64),
        *head(),
    )


def head() -> list[nn.Module]:
    return [nn.Flatten.desc(), nn.Dropout(0.8), nn.Linear.desc(CLASSES)]


def train(model: nn.Module, training: Digits, epochs: int, title: str) -> list[float]:
    """The training losses. Leaves the model evaluating."""
    batches = MiniBatches(training, epochs, title=title)
    weights = model.states(sg.ParamState)
    rate = sg.optim.OneCycleLR(lr=1e-2, total_steps=epochs * batches.per_epoch)
    optimizer = sg.optim.AdamW(lr=rate, weight_decay=1e-3)
    optimizer.register_trainable_weights(weights)

    @sg.compile.jit
    def train_step(images: jax.Array, labels: jax.Array) -> jax.Array:
        def loss() -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        gradients, value = sg.augment.grad(loss, weights, return_value=True)()
        optimizer.update(gradients)
        return value

    model.train()
    losses = []
    for _, images, labels in batches:
        losses.append(float(train_step(images[..., None], labels)))
        batches.show(loss=losses[-1])
    model.eval()
    return losses


def draw(losses: dict[str, list[float]], beliefs: dict[str, np.ndarray], test: Digits) -> Figure:
    """The losses, and the test images in whose digit the two believe least."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2)
    axes = left.subplots()
    for colour, (name, values) in zip(COLOURS, losses.items(), strict=False):
        axes.semilogy(np.convolve(values, np.ones(10) / 10, "valid"), color=colour, label=name)
    axes.set(title="training loss, mean of 10 steps", xlabel="step", ylabel="cross entropy")

    right.suptitle("the hardest test images, and what the two say")
    every = range(len(test.labels))
    least = sum(belief[every, test.labels] for belief in beliefs.values()).argsort()[:8]
    for axes, i in zip(right.subplots(2, 4).flat, least, strict=True):
        axes.imshow(test.images[i], cmap="gray_r")
        said = ", ".join(str(belief[i].argmax()) for belief in beliefs.values())
        axes.set_title(f"{test.labels[i]}: {said}", fontsize=9)
        axes.set_axis_off()
    return figure


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """The test accuracy of each network."""
    chosen = options(__doc__, arguments)
    training, test = load()
    sg.random.seed(0)
    losses, beliefs, accuracies = {}, {}, {}
    for name, model in {"ResNet": resnet(), "Inception": inception()}.items():
        losses[name] = train(model, training, SHORT_EPOCHS if chosen.short else EPOCHS, name)
        predict = sg.compile.jit(lambda images, model=model: jax.nn.softmax(model(images)))
        beliefs[name] = np.asarray(predict(test.images[..., None]))
        accuracies[name] = float((beliefs[name].argmax(axis=1) == test.labels).mean())
        print(f"{name}: {nn.count_parameters(model):,} weights, test accuracy {accuracies[name]:.1%}")
    save_picture(draw(losses, beliefs, test), chosen.output / "convolutional_blocks.png")
    if not chosen.short and min(accuracies.values()) < WANTED:
        raise SystemExit(f"a test accuracy is below {WANTED:.0%}")
    return accuracies


if __name__ == "__main__":
    main()

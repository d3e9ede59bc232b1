"""What the examples share: handwritten digits, mini-batches under a progress bar, options, the look of pictures."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.datasets import load_digits
from tqdm import tqdm

COLOURS = ["#1f5fa8", "#d1701f", "#2c8a4b", "#7a4ea3"]


class Digits(NamedTuple):
    """Images f32[n, 8, 8] in [0, 1] and labels i32[n]."""

    images: np.ndarray
    labels: np.ndarray

    def first(self, count: int) -> "Digits":
        return Digits(self.images[:count], self.labels[:count])


def load(seed: int = 0) -> tuple[Digits, Digits]:
    """(training, test): 1437 and 360 images."""
    raw = load_digits()
    order = np.random.default_rng(seed).permutation(len(raw.target))
    images, labels = (raw.images[order] / 16).astype(np.float32), raw.target[order].astype(np.int32)
    return Digits(images[360:], labels[360:]), Digits(images[:360], labels[:360])


class MiniBatches:
    """Shuffled mini-batches, ``epochs`` times over the data, under a progress bar.

    Iterating gives ``(epoch, images, labels)``. Each epoch leaves out the few images that fill no mini-batch.
    ``epochs`` may be a range, to go on where another run has stopped: an epoch has the same order in both.
    """

    def __init__(self, digits: Digits, epochs: int | range, size: int = 64, title: str = "training") -> None:
        self.digits = digits
        self.epochs = range(epochs) if isinstance(epochs, int) else epochs
        self.size = size
        self.per_epoch = len(digits.labels) // size
        layout = "{desc} {bar} {n_fmt}/{total_fmt} steps, {elapsed}{postfix}"
        total = len(self.epochs) * self.per_epoch
        self.bar = tqdm(total=total, desc=title, ncols=100, bar_format=layout)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        with self.bar:
            for epoch in self.epochs:
                order = np.random.default_rng(epoch).permutation(len(self.digits.labels))
                for chosen in order[: self.per_epoch * self.size].reshape(self.per_epoch, self.size):
                    yield epoch, self.digits.images[chosen], self.digits.labels[chosen]
                    self.bar.update()

    def show(self, **numbers: float) -> None:
        """Numbers to stand behind the bar."""
        text = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        self.bar.set_postfix_str(text, refresh=False)


def options(description: str, arguments: list[str] | None) -> argparse.Namespace:
    """``--short`` and ``--output``, from the command line or as given."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="only a moment of it")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="a folder for the picture")
    found = parser.parse_args(arguments)
    found.output.mkdir(parents=True, exist_ok=True)
    return found


def whole_numbers(axes: Axes) -> None:
    """Epochs have no fractions: no ticks between whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure, and say so."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")

"""A recurrent network learns to read handwritten digits, and shows the program that it runs as.

    make demo                                   (or: python examples/digits_gru.py [--short] [--output DIR])

A GRU reads an 8×8 image row by row and then names the digit. The model holds its weights and its memory in
``State``, and the training step is plain Python: loss, gradient, optax. StateGraph traces that step once into
one program, which is printed before and after the compiler has worked on it, and then trained with.
Everything is written to ``demo/``: the programs, the StableHLO, drawings, the learning curve.
"""

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from tqdm import tqdm

import stategraph as sg

ROWS, PIXELS, CLASSES = 8, 8, 10
HIDDEN, BATCH, SEED = 96, 64, 0
RATE = 6e-3
"""The learning rate at the start; it falls to zero on a cosine."""
EPOCHS, SHORT_EPOCHS = 30, 12
WANTED = 0.95
"""The least test accuracy."""
Step = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
PLAIN_OP = re.compile(r" = (jax\.|\"jax\.|flow\.call |flow\.custom_jvp )")
"""Ops of the program's text that the excerpts leave out."""

# -------------------------------------------------------------------------------------------------- the model


class GRU(sg.nn.Module):
    """A gated recurrent unit (Cho et al., 2014): ``h`` is what it remembers from one input to the next."""

    def __init__(self, inputs: int, hidden: int, key: jax.Array) -> None:
        super().__init__()
        key_input, key_hidden = jax.random.split(key)
        self.weight = sg.ParamState(
            {
                "input": jax.nn.initializers.glorot_uniform()(key_input, (inputs, 3 * hidden)),
                "hidden": jax.nn.initializers.orthogonal()(key_hidden, (hidden, 3 * hidden)),
                "bias": jnp.zeros(3 * hidden),
            }
        )
        self.h = sg.HiddenState(jnp.zeros((1, hidden)))

    def reset(self, batch: int) -> None:
        self.h.value = jnp.zeros((batch, self.h.shape[1]))

    def update(self, x: jax.Array) -> jax.Array:
        weight, h = self.weight.value, self.h.value
        to_z, to_r, to_n = jnp.split(x @ weight["input"] + weight["bias"], 3, axis=1)
        from_z, from_r, from_n = jnp.split(h @ weight["hidden"], 3, axis=1)
        z = jax.nn.sigmoid(to_z + from_z)
        r = jax.nn.sigmoid(to_r + from_r)
        n = jnp.tanh(to_n + r * from_n)
        self.h.value = (1 - z) * n + z * h
        return self.h.value


class Linear(sg.nn.Module):
    """A matrix and a bias."""

    def __init__(self, inputs: int, outputs: int, key: jax.Array) -> None:
        super().__init__()
        matrix = jax.nn.initializers.glorot_uniform()(key, (inputs, outputs))
        self.weight = sg.ParamState({"matrix": matrix, "bias": jnp.zeros(outputs)})

    def update(self, x: jax.Array) -> jax.Array:
        return x @ self.weight.value["matrix"] + self.weight.value["bias"]


class DigitReader(sg.nn.Module):
    """Reads images f32[batch, rows, pixels] from top to bottom; returns logits f32[batch, classes]."""

    def __init__(self, key: jax.Array) -> None:
        super().__init__()
        key_gru, key_readout = jax.random.split(key)
        self.gru = GRU(PIXELS, HIDDEN, key_gru)
        self.readout = Linear(HIDDEN, CLASSES, key_readout)

    def update(self, images: jax.Array) -> jax.Array:
        self.gru.reset(images.shape[0])
        rows = jnp.moveaxis(images, 1, 0)
        sg.compile.for_loop(self.gru, rows)  # time: the GRU writes its State in every step
        return self.readout(self.gru.h.value)

    def read_row(self, row: jax.Array) -> jax.Array:
        """One step of time: the belief f32[classes] after one more row."""
        return jax.nn.softmax(self.readout(self.gru(row[None])))[0]


def make_training_step(model: DigitReader, steps: int) -> Step:
    """A plain Python function that trains ``model`` on one mini-batch and returns (loss, accuracy)."""
    rate = optax.cosine_decay_schedule(RATE, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    weights = model.states(sg.ParamState)
    moments = sg.LongTermState(optimizer.init({path: state.value for path, state in weights.items()}))

    def train_step(images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        def loss() -> tuple[jax.Array, jax.Array]:
            logits = model(images)
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return cross_entropy.mean(), (logits.argmax(axis=1) == labels).mean()

        (value, accuracy), gradients = sg.augment.value_and_grad(loss, weights, has_aux=True)()
        values = {path: state.value for path, state in weights.items()}
        updates, moments.value = optimizer.update(gradients, moments.value, values)
        for path, new in optax.apply_updates(values, updates).items():
            weights[path].value = new
        return value, accuracy

    return train_step


# --------------------------------------------------------------------------------------------------- the data


class Digits(NamedTuple):
    """Images f32[n, 8, 8] in [0, 1] and labels i32[n]."""

    images: np.ndarray
    labels: np.ndarray

    def batches(self, order: np.ndarray) -> list["Digits"]:
        """Mini-batches in the given order; the last one is short."""
        pieces = np.split(order, range(BATCH, len(order), BATCH))
        return [Digits(self.images[piece], self.labels[piece]) for piece in pieces]


def load() -> tuple[Digits, Digits, Digits]:
    """(training, validation, test): 1257, 180 and 360 images. The test images are used once, at the end."""
    raw = load_digits()
    order = np.random.default_rng(SEED).permutation(len(raw.target))
    images, labels = (raw.images[order] / 16).astype(np.float32), raw.target[order].astype(np.int32)
    test, validation, training = slice(0, 360), slice(360, 540), slice(540, None)
    return tuple(Digits(images[part], labels[part]) for part in (training, validation, test))  # type: ignore[return-value]


# ------------------------------------------------------------------------------------- looking at the program


def title(text: str) -> None:
    print(f"\n── {text} {'─' * (96 - len(text))}\n")


def skeleton(program: sg.ir.Program, width: int = 100) -> str:
    """The program's State accesses, loops and results; other ops are counted."""
    lines: list[str] = []
    hidden, end = 0, ""
    text = program.to_text(locations=False).partition("\n{-#")[0].splitlines()  # without large constants
    for line in text[next(i for i, line in enumerate(text) if "  state @" in line) :]:
        indent = line[: len(line) - len(line.lstrip())]
        if end:  # inside of an op that is hidden
            hidden += " = " in line
            end = "" if line == end else end
        elif PLAIN_OP.search(line):
            hidden += 1
            end = indent + "}" if line.endswith("{") else ""
        else:
            if hidden:
                lines.append(f"{indent}… {hidden} op{'s' if hidden > 1 else ''}")
                hidden = 0
            end_of_line = " {" if line.endswith("{") else ""
            short = len(line) <= width
            lines.append(line if short else line[: width - 1 - len(end_of_line)] + "…" + end_of_line)
    return "\n".join(lines).rstrip()


def figures(program: sg.ir.Program) -> list[int]:
    """One column of the table below."""
    counts = sg.passes.count(program)
    accesses = list(program.walk("state.read", "state.write", "state.alloc"))
    inside = sum(op.parent is not program.body for op in accesses)
    read = {op.symbol for op in program.walk("state.read")}
    written = {op.symbol for op in program.walk("state.write")}
    bytes_in = sum(program.states[path].nbytes for path in read)
    bytes_out = sum(type.nbytes for path in written for type in program.states[path].result_types)
    return [counts.ops, len(accesses), inside, counts.carried, bytes_in, bytes_out]


ROW_NAMES = [
    "ops",
    "State accesses",
    "… of them inside loops and gradients",
    "values carried by loops",
    "bytes of State that go in",
    "bytes of State that come out",
]


def compare(columns: dict[str, sg.ir.Program]) -> str:
    """A table of figures, one column for each program."""
    lines = [f"{'':38}" + "".join(f"{name:>18}" for name in columns)]
    for name, *cells in zip(ROW_NAMES, *map(figures, columns.values()), strict=True):
        lines.append(f"{name:38}" + "".join(f"{cell:>18,}" for cell in cells))
    return "\n".join(lines)


STAGES = {
    "trace": "run the Python function once",
    "passes": "rewrite the program",
    "emit": "hand it to JAX",
    "lower": "StableHLO",
    "compile": "XLA, for this machine",
}


def show_times(times: dict[str, float]) -> str:
    return "\n".join(f"{stage:10}{times[stage] * 1e3:9.1f} ms   {what}" for stage, what in STAGES.items())


# --------------------------------------------------------------------------------------------------- training


class History(NamedTuple):
    """Loss and accuracy of every step, and (step, accuracy) on the validation images after every epoch."""

    losses: list[float]
    accuracies: list[float]
    validation: list[tuple[int, float]]


def train(step: Step, evaluate: Callable[..., Any], data: tuple[Digits, Digits], epochs: int) -> History:
    """Train with a progress bar; the bar is outside of what is compiled."""
    training, validation = data
    history = History([], [], [])
    shuffle = np.random.default_rng(SEED + 1)
    per_epoch = -(-len(training.labels) // BATCH)
    layout = "{desc} {bar} {n_fmt}/{total_fmt} steps, {elapsed}{postfix}"
    with tqdm(total=epochs * per_epoch, ncols=100, bar_format=layout) as bar:
        for epoch in range(epochs):
            for images, labels in training.batches(shuffle.permutation(len(training.labels))):
                loss, accuracy = step(images, labels)
                history.losses.append(float(loss))
                history.accuracies.append(float(accuracy))
                bar.update()
            history.validation.append((len(history.losses), float(evaluate(*validation))))
            mean_loss = np.mean(history.losses[-per_epoch:])
            bar.set_description_str(f"epoch {epoch + 1}/{epochs}", refresh=False)
            bar.set_postfix_str(f"loss {mean_loss:.4f}, validation {history.validation[-1][1]:.1%}")
    return history


def mean_of_20(values: list[float]) -> np.ndarray:
    return np.convolve(values, np.ones(20) / 20, "valid")


def draw_curve(history: History, test: float, path: Path) -> None:
    """Loss and accuracy against steps."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = np.arange(1, len(history.losses) + 1)

    left.semilogy(steps, history.losses, color="#b7cce8", linewidth=0.8, label="one mini-batch")
    left.semilogy(steps[19:], mean_of_20(history.losses), color="#1f5fa8", label="mean of 20")
    left.set(title="loss", xlabel="training step", ylabel="cross entropy")

    right.plot(
        steps[19:], 100 * mean_of_20(history.accuracies), color="#1f5fa8", label="training, mean of 20"
    )
    when, correct = np.array(history.validation).T
    right.plot(when, 100 * correct, ".-", color="#d1701f", label="validation")
    right.axhline(100 * test, color="#2c8a4b", linestyle="--", label=f"test, at the end: {test:.1%}")
    right.set(title="accuracy", xlabel="training step", ylabel="% correct", ylim=(60, 101))

    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper right" if axes is left else "lower right")
    figure.savefig(path, dpi=120)


def read_aloud(model: DigitReader, image: np.ndarray, label: int) -> None:
    """Show what the model believes after each row. Its memory stays in ``model.gru.h`` between the calls."""
    read_row = sg.compile.jit(model.read_row)
    model.gru.reset(batch=1)
    for row in image:
        belief = read_row(row)
        first, second = np.argsort(belief)[:-3:-1]
        ink = "".join(" ░▒▓█"[round(4 * pixel)] * 2 for pixel in row)
        bar = "▪" * round(20 * belief[first])
        print(f"    {ink}    {first} {bar:20} {belief[first]:4.0%}     then {second}")
    print(f"    it is a {label}")


# ------------------------------------------------------------------------------------------------------- main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help=f"train {SHORT_EPOCHS} epochs, not {EPOCHS}")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="where to write (default: demo)")
    options = parser.parse_args()
    epochs, output = SHORT_EPOCHS if options.short else EPOCHS, options.output
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    training, validation, test = load()
    model = DigitReader(jax.random.key(SEED))
    train_step = make_training_step(model, steps=epochs * -(-len(training.labels) // BATCH))
    count = sum(state.size for state in model.states(sg.ParamState).values())
    sizes = [len(part.labels) for part in (training, validation, test)]
    print("{} training, {} validation and {} test images of".format(*sizes), f"{ROWS}×{PIXELS} pixels")
    print(f"a GRU with {HIDDEN} units reads them row by row; the model has {count:,} weights")

    # Trace, rewrite, lower and compile the step for full mini-batches.
    traced = sg.trace(train_step, training.images[:BATCH], training.labels[:BATCH])
    only_hoisting = "inline-calls,hoist-state,forward-state,eliminate-local-state"
    hoisted = sg.passes.run_passes(traced.program, only_hoisting).program
    lowered = traced.lower()
    compiled = lowered.compile()

    title("the training step as traced: State is read and written where the Python code does so")
    print(skeleton(traced.program))
    title("after the passes: State in at the top, out at the bottom; the loops carry what changes")
    print(skeleton(lowered.program))
    title("in figures")
    print(compare({"as traced": traced.program, "State hoisted": hoisted, "optimized": lowered.program}))
    print(
        "\n(As traced, the gradient is one op; in the end all of its ops are there, its own loop included.)"
    )
    title("what was decided about the memory of the GRU, and why")
    print("\n".join(str(record) for record in lowered.explain() if record.subject.endswith("gru.h")))
    title("time of each stage")
    print(show_times(compiled.times))

    forward = sg.trace(model, training.images[:BATCH])
    files = {
        "train_step.traced.sg": traced.as_text(),
        "train_step.hoisted.sg": str(hoisted),
        "train_step.optimized.sg": lowered.as_text(),
        "train_step.stablehlo.mlir": lowered.as_text("stablehlo"),
        "train_step.explain.txt": f"{lowered.explain()}\n",
        "train_step.optimized.svg": sg.ir.to_svg(lowered.program, limit=400),
        "model.traced.svg": sg.ir.to_svg(forward.program),
        "model.optimized.svg": sg.ir.to_svg(forward.lower().program),
    }
    for name, content in files.items():
        (output / name).write_text(content, encoding="utf-8")

    # The executable from above takes the full mini-batches; `jit` compiles the step for the short last one.
    short_step = sg.compile.jit(train_step)

    def step(images: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, jax.Array]:
        return (compiled if len(labels) == BATCH else short_step)(images, labels)

    @sg.compile.jit
    def evaluate(images: jax.Array, labels: jax.Array) -> jax.Array:
        return (model(images).argmax(axis=1) == labels).mean()

    title(f"training: {epochs} epochs")
    start = time.perf_counter()
    history = train(step, evaluate, (training, validation), epochs)
    seconds = time.perf_counter() - start
    accuracy = float(evaluate(*test))
    draw_curve(history, accuracy, output / "learning_curve.png")

    title("it reads a digit that it has not seen, one row at a time")
    read_aloud(model, test.images[0], int(test.labels[0]))

    title("results")
    right = round(accuracy * len(test.labels))
    print(f"test accuracy   {accuracy:.1%} ({right} of {len(test.labels)} images, looked at only now)")
    print(
        f"training        {len(history.losses)} steps in {seconds:.1f} s, with compiling two more functions"
    )
    print(f"all together    {time.perf_counter() - began:.1f} s")
    for path in sorted(output.iterdir()):
        print(f"written         {path} ({path.stat().st_size:,} bytes)")
    if accuracy < WANTED:
        raise SystemExit(f"the test accuracy is below {WANTED:.0%}")


if __name__ == "__main__":
    main()

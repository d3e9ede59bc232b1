"""Eight recurrent networks, trained at once as one model on few images; together they know more, and know when not.

    python examples/ensemble.py [--short] [--output DIR]

``vmap_init_all_states`` makes an ensemble of a model: hidden states and weights get a leading axis, and every
member draws weights of its own. ``nn.Vmap`` calls all members. Averaging what they believe gives predictions
that are better than those of a member, and a measure of doubt (Lakshminarayanan et al., "Simple and scalable
predictive uncertainty estimation using deep ensembles", 2017).
"""

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from sequence_classifier import CLASSES, PIXELS, SequenceClassifier, rows
from shared import COLOURS, MiniBatches, load, options, save_picture

import stategraph as sg

MEMBERS, HIDDEN, IMAGES = 8, 32, 256
EPOCHS, SHORT_EPOCHS = 60, 10
WANTED = 0.90
"""The least test accuracy of the ensemble after all epochs."""


def make_ensemble() -> sg.nn.Vmap:
    """Sequences f32[time, batch, pixels] to logits f32[members, batch, classes]."""
    member = SequenceClassifier(sg.nn.GRUCell(input_size=PIXELS, hidden_size=HIDDEN), CLASSES)
    sg.nn.vmap_init_all_states(member, batch_size=1, axis_size=MEMBERS, parameters=True)
    return sg.nn.Vmap(member, in_axes=None, axis_size=MEMBERS)


def train(ensemble: sg.nn.Vmap, batches: MiniBatches) -> None:
    """Train all members; the sum of their losses has the gradients of each."""
    weights = ensemble.states(sg.ParamState)
    optimizer = sg.optim.Adam(lr=5e-3)
    optimizer.register_trainable_weights(weights)

    @sg.compile.jit
    def train_step(sequence: jax.Array, labels: jax.Array) -> jax.Array:
        def loss() -> tuple[jax.Array, jax.Array]:
            logits = ensemble(sequence)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels[None]).mean(axis=1)
            return each.sum(), each

        gradients, each = sg.augment.grad(loss, weights, has_aux=True)()
        optimizer.update(gradients)
        return each

    for step, (_, images, labels) in enumerate(batches, 1):
        losses = train_step(rows(images), labels)
        if step % batches.per_epoch == 0:
            batches.show(best=float(losses.min()), worst=float(losses.max()))


def draw(members: np.ndarray, together: float, confidence: np.ndarray, right: np.ndarray) -> Figure:
    """The accuracies, and how sure the ensemble is where it is right and where it is wrong."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    first, second = figure.subplots(1, 2)
    first.bar(range(1, MEMBERS + 1), 100 * members, color="#b7cce8", label="a member")
    first.axhline(100 * together, color=COLOURS[1], label="all together")
    first.set(title="test accuracy", xlabel="member", ylabel="% correct")
    first.set_ylim(100 * members.min() - 3, 100 * together + 3)
    sides = {"right": (right, COLOURS[0]), "wrong": (~right, COLOURS[1])}
    for name, (chosen, colour) in sides.items():
        shown = {"label": f"{name} ({chosen.sum()} images)", "color": colour, "alpha": 0.6}
        second.hist(confidence[chosen], bins=20, range=(0, 1), density=True, **shown)
    second.set(title="how sure all together are", xlabel="belief in the answer", yticks=[])
    return figure


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Test accuracies: the mean of the members', and that of all together."""
    chosen = options(__doc__, arguments)
    training, test = load()
    sg.random.seed(0)
    ensemble = make_ensemble()
    print(sg.nn.summary(ensemble))
    epochs = SHORT_EPOCHS if chosen.short else EPOCHS
    train(ensemble, MiniBatches(training.first(IMAGES), epochs, title=f"{MEMBERS} members"))

    beliefs = np.asarray(jax.nn.softmax(ensemble(rows(test.images))))
    members = (beliefs.argmax(axis=2) == test.labels).mean(axis=1)
    belief = beliefs.mean(axis=0)
    right = belief.argmax(axis=1) == test.labels
    save_picture(draw(members, right.mean(), belief.max(axis=1), right), chosen.output / "ensemble.png")
    result = {"member": float(members.mean()), "together": float(right.mean())}
    print("test accuracy: {member:.1%} for a member, {together:.1%} together".format(**result))
    if not chosen.short and result["together"] < max(WANTED, result["member"]):
        raise SystemExit(f"the ensemble is below {WANTED:.0%}, or below its members")
    return result


if __name__ == "__main__":
    main()

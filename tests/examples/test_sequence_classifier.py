"""The recurrent classifiers."""

from collections.abc import Callable
from types import ModuleType

import jax
import numpy as np

import stategraph as sg


def test_both_cells_learn(run_example: Callable[[str], dict[str, float]]) -> None:
    accuracies = run_example("sequence_classifier")
    assert min(accuracies.values()) > 0.5, "chance is 0.1"


def test_a_batch_does_not_depend_on_what_was_read_before(
    load_example: Callable[[str], ModuleType],
) -> None:
    example = load_example("sequence_classifier")
    sg.random.seed(0)
    model = example.SequenceClassifier(sg.nn.VanillaRNNCell(3, 4), classes=2)
    sg.nn.init_all_states(model, batch_size=1)
    sequence = np.random.default_rng(0).random((5, 2, 3), dtype=np.float32)
    compiled = sg.compile.jit(model)
    first = compiled(sequence)
    compiled(sequence[:, :1] + 1)
    np.testing.assert_array_equal(compiled(sequence), first)
    with jax.disable_jit():
        np.testing.assert_allclose(model(sequence), first, rtol=1e-5, atol=1e-6)

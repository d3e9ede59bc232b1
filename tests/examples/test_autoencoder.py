"""The autoencoder that is saved and restored."""

from collections.abc import Callable


def test_a_resumed_training_equals_one_that_went_on(run_example: Callable[[str], dict[str, float]]) -> None:
    errors = run_example("autoencoder")  # which compares the two itself
    assert errors["autoencoder"] < 0.07, "the mean image leaves 0.073"

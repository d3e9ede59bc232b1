"""The ensemble."""

from collections.abc import Callable


def test_the_members_learn_and_know_more_together(run_example: Callable[[str], dict[str, float]]) -> None:
    accuracies = run_example("ensemble")
    assert 0.4 < accuracies["member"] < accuracies["together"], "chance is 0.1"

"""The decision: it follows the stronger stimulus and stays when both are gone."""

from collections.abc import Callable
from typing import Any


def test_choices_follow_the_stimulus_and_persist(run_example: Callable[[str], dict[str, Any]]) -> None:
    numbers = run_example("decision")
    assert numbers["right"] == {100.0: 1.0}
    assert numbers["winner"] > 7 and numbers["winner"] > 3 * numbers["loser"]

"""The liquid-state machine: a column that nobody trained remembers more than its fibres."""

from collections.abc import Callable


def test_the_column_remembers_the_stream(run_example: Callable[[str], dict[str, float]]) -> None:
    accuracy = run_example("liquid_state_machine")
    assert accuracy["column"] > 0.65, "chance is 0.1"
    assert accuracy["column"] > accuracy["fibres"] + 0.05

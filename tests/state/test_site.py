"""Where a State was made."""

from __future__ import annotations

import pytest

import stategraph as sg


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("/somewhere/model.py", "/somewhere/model.py:1"),
        ("/usr/bin/stategraph", "population.py:"),
        ("<frozen runpy>", "population.py:"),
    ],
)
def test_a_state_was_made_on_the_line_of_the_user_and_not_by_the_command(file: str, shown: str) -> None:
    neurons = sg.nn.IF(2)
    exec(compile("sg.nn.init_all_states(neurons)", file, "exec"), {"sg": sg, "neurons": neurons})
    assert shown in str(neurons.V.source_location)

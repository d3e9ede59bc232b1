"""JSON: as lossless as text, and understandable without it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stategraph import ir
from stategraph.ir import ParseError, Program
from tests.ir.programs import random_program


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_survive_json(seed: int) -> None:
    program = random_program(seed)
    text = json.dumps(ir.to_json(program), allow_nan=False)
    again = ir.from_json(json.loads(text))
    assert again == program
    assert json.dumps(ir.to_json(again)) == text
    ir.verify(again)


@settings(max_examples=15)
@given(st.integers(0, 2**64))
def test_chosen_random_programs_survive_json(seed: int) -> None:
    program = random_program(seed)
    assert ir.from_json(json.loads(json.dumps(ir.to_json(program)))) == program


def test_the_form_can_be_read_without_a_manual(step: Program) -> None:
    data = ir.to_json(step)
    assert data["ops"][0] == {
        "name": "state.read",
        "operands": [],
        "results": [{"value": "%h", "type": "f32[3]"}],
        "attributes": {"symbol": "net.h"},
        "regions": [],
        "location": 1,
    }
    assert data["locations"][data["ops"][0]["location"]] == ["model.py", 12, "step", ""]
    assert data["ops"][4]["operands"] == ["%b", {"constant": "0.0:f32[]"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, 'no "format": "stategraph"'),
        ({"version": 99}, "format version 99"),
        ({"ops": None}, "not the JSON form"),
        ({"resources": {}}, "'$1' is missing"),
        ({"argument_tree": "(*"}, "expected ',' or ')'"),
        ({"captured": {"table": "$9"}}, "'$9' is missing"),
    ],
)
def test_other_data_is_a_parse_error(step: Program, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParseError) as caught:
        ir.from_json({**ir.to_json(step), **change})
    assert message in str(caught.value)


def test_something_else_is_a_parse_error() -> None:
    with pytest.raises(ParseError):
        ir.from_json([])  # type: ignore[arg-type]

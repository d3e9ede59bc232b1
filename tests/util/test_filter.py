"""The filter DSL: literals, functions of one or two arguments, and filter objects."""

from __future__ import annotations

from typing import Any

import pytest

import stategraph as sg
from stategraph.util import (
    All,
    Everything,
    Not,
    Nothing,
    OfType,
    PathContains,
    WithTag,
    to_predicate,
)
from stategraph.util import (
    Any as AnyOf,
)
from stategraph.util.filter import to_predicates

PARAM = sg.ParamState(1.0, tag="slow")
HIDDEN = sg.HiddenState(1.0)
REFERENCE = sg.TreefyState(sg.HiddenState, 1.0, tag={"fast", "slow"})


@pytest.mark.core
@pytest.mark.parametrize(
    ("the_filter", "selected"),
    [
        (..., [PARAM, HIDDEN, REFERENCE]),
        (True, [PARAM, HIDDEN, REFERENCE]),
        (Everything(), [PARAM, HIDDEN, REFERENCE]),
        (None, []),
        (False, []),
        (Nothing(), []),
        ((), []),
        (sg.State, [PARAM, HIDDEN, REFERENCE]),
        (sg.ShortTermState, [HIDDEN, REFERENCE]),
        (sg.ParamState | sg.HiddenState, [PARAM, HIDDEN, REFERENCE]),
        ("slow", [PARAM, REFERENCE]),
        ("fast", [REFERENCE]),
        ((sg.ParamState, "fast"), [PARAM, REFERENCE]),
        ([sg.ParamState, [None, "fast"]], [PARAM, REFERENCE]),
        (lambda path, value: path == ("a", 0) and value is PARAM, [PARAM]),
        (lambda value: value is HIDDEN, [HIDDEN]),
        (lambda value, kept=HIDDEN: value is kept, [HIDDEN]),
        (lambda *both: both[1] is HIDDEN, [HIDDEN]),
        (lambda path, value: [], []),
        (OfType(sg.ParamState), [PARAM]),
        (WithTag("fast"), [REFERENCE]),
        (PathContains("a"), [PARAM, HIDDEN, REFERENCE]),
        (PathContains("b"), []),
        (All(sg.ShortTermState, "slow"), [REFERENCE]),
        (AnyOf(sg.ParamState, "fast"), [PARAM, REFERENCE]),
        (Not(sg.ParamState), [HIDDEN, REFERENCE]),
    ],
)
def test_what_a_filter_selects(the_filter: Any, selected: list[Any]) -> None:
    predicate = to_predicate(the_filter)
    found = [value for value in (PARAM, HIDDEN, REFERENCE) if predicate(("a", 0), value)]
    assert [id(value) for value in found] == [id(value) for value in selected]
    assert all(predicate(("a", 0), value) in (True, False) for value in (PARAM, 1, "x"))


def test_everything_is_only_allowed_last() -> None:
    assert len(to_predicates((sg.ParamState, ...))) == 2
    for everything in (..., True):
        with pytest.raises(ValueError, match=r"put `[.]{3}` last"):
            to_predicates((everything, sg.ParamState))


def test_what_is_no_filter_is_refused() -> None:
    for wrong in (3, {"a": 1}, object()):
        with pytest.raises(TypeError, match="is no filter"):
            to_predicate(wrong)
    for function in (lambda: True, lambda a, b, c: True):
        with pytest.raises(TypeError, match="takes \\(path, value\\) or \\(value\\)"):
            to_predicate(function)


def test_filter_objects_compare_hash_and_print() -> None:
    assert All(sg.ParamState, "a") == All(OfType(sg.ParamState), WithTag("a"))
    assert len({Not("a"), Not("a"), Not("b"), Everything(), Everything()}) == 3
    assert repr(Not(PathContains(0))) == "Not(collection_filter=PathContains(key=0))"
    assert Not(collection_filter="a") == Not("a")
    assert isinstance(sg.util.filter.to_predicate("a"), WithTag)

"""Names of other libraries that are others here: what the errors say exists."""

from __future__ import annotations

import operator
import re
from types import ModuleType

import pytest

import stategraph as sg


@pytest.mark.parametrize(
    "module, name",
    [
        (sg.nn, "SectionInput"),
        (sg.nn, "MorrisLecar"),
        (sg.nn, "align_post_projection"),
        (sg.event, "EventArray"),
        (sg.event, "COO"),
        (sg.event, "FixedPreNumConn"),
        (sg.event, "JITCNormalR"),
        (sg, "StateTraceStack"),
    ],
)
def test_a_name_of_another_library_says_what_to_write(module: ModuleType, name: str) -> None:
    assert not hasattr(module, name)
    with pytest.raises(AttributeError, match=rf"{module.__name__} has no {name}\.") as caught:
        getattr(module, name)
    (path,) = re.findall(r"fix: +stategraph\.([\w.]+)", str(caught.value))
    assert callable(operator.attrgetter(path)(sg))


@pytest.mark.parametrize("module", [sg, sg.nn, sg.event])
def test_other_names_are_just_missing(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match=rf"module '{module.__name__}' has no attribute 'no_such_name'"):
        getattr(module, "no_such_name")  # noqa: B009

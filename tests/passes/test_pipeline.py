"""How pipelines are written, and what is said about those that cannot be read."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stategraph.passes import (
    DEFAULT,
    Pass,
    PassError,
    Pipeline,
    default_pipeline,
    lookup,
    parse_pipeline,
    register,
)
from stategraph.passes.dce import Dce
from stategraph.passes.licm import Licm


@register
@attrs.frozen
class Everything(Pass):
    """A pass with an option of every type."""

    name = "test-everything"
    flag: bool = False
    """Whether."""
    count: int = 1
    rate: float = 0.5
    label: str = "a"
    sizes: tuple[int, ...] = ()
    limit: int | None = None

    def run(self, program: object, context: object) -> None:
        pass


@register
@attrs.frozen
class Sloppy(Pass):
    """A pass that is not exact."""

    name = "test-sloppy"
    exactness = "fast-math"

    def run(self, program: object, context: object) -> None:
        pass


def test_names_options_and_the_default_pipeline_are_read() -> None:
    found = parse_pipeline("dce, licm{max_bytes=7},default")
    assert found[:2] == (Dce(), Licm(max_bytes=7))
    assert [item.name for item in found[2:]] == list(DEFAULT)


def test_options_take_every_type() -> None:
    text = 'test-everything{flag=true count=-3 rate=1e-3 label="a b,}" sizes=(1, 2) limit=4}'
    (found,) = parse_pipeline(text)
    assert found == Everything(True, -3, 1e-3, "a b,}", (1, 2), 4)
    assert parse_pipeline("test-everything{limit=none,label=word}") == (Everything(label="word"),)


@given(
    st.builds(
        Everything,
        flag=st.booleans(),
        count=st.integers(),
        rate=st.floats(allow_nan=False),
        label=st.text(),
        sizes=st.lists(st.integers()).map(tuple),
        limit=st.none() | st.integers(),
    )
)
def test_the_spelling_of_a_pipeline_reads_back(item: Everything) -> None:
    pipeline = Pipeline([Dce(), item, Licm()])
    assert parse_pipeline(str(pipeline)) == pipeline


def test_only_options_that_differ_are_spelt() -> None:
    assert str(Everything()) == "test-everything"
    assert str(Everything(count=2, flag=True)) == "test-everything{flag=true count=2}"


def test_objects_classes_functions_and_lists_are_pipelines_too() -> None:
    @register(name="test-function")
    def function(program: object) -> None:
        pass

    found = parse_pipeline([Dce(), Licm, function, "cse,dce", ["licm"]])
    assert [item.name for item in found] == ["dce", "licm", "test-function", "cse", "dce", "licm"]
    assert parse_pipeline(Dce()) == parse_pipeline(Dce) == parse_pipeline("dce") == (Dce(),)
    assert parse_pipeline(None) == default_pipeline()
    assert parse_pipeline("") == parse_pipeline([]) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dcee", "there is no pass 'dcee'; did you mean 'dce'?"),
        ("cse,zzz", "there is no pass 'zzz'\n  passes: "),
        (
            "licm{max_byte=3}",
            "has no option 'max_byte'; did you mean 'max_bytes'?; its options are: max_bytes: int",
        ),
        ("dce{x=1}", "pass 'dce' has no option 'x'; it has no options"),
        ("licm{max_bytes=many}", "option 'max_bytes' of 'licm' is of type int, and many is not"),
        ('licm{max_bytes="3"}', 'is of type int, and "3" is not'),
        ("licm{max_bytes=1.5}", "is of type int, and 1.5 is not"),
        ("simplify-loops{last=1}", "option 'last' of 'simplify-loops' is of type bool, and 1 is not"),
        ("test-everything{sizes=1}", "is of type tuple[int, ...], and 1 is not"),
        ("licm{max_bytes=1 max_bytes=2}", "option 'max_bytes' is given twice"),
        ("licm{max_bytes}", "expected '=' after option 'max_bytes'"),
        ("licm{max_bytes=1", "expected an option as name=value, or '}'"),
        ("licm dce", "expected ',' between passes"),
        ("dce,,cse", "expected the name of a pass"),
        ("dce,", "expected the name of a pass"),
    ],
)
def test_errors_say_what_is_wrong_and_where(text: str, message: str) -> None:
    with pytest.raises(PassError, match=re.escape(message)) as caught:
        parse_pipeline(text)
    assert "^" in str(caught.value).splitlines()[-1]


def test_things_that_are_no_passes_are_refused() -> None:
    with pytest.raises(PassError, match="3 is no pass"):
        parse_pipeline(3)  # type: ignore[arg-type]
    with pytest.raises(PassError, match=r"decorate it with @stategraph\.passes\.register"):
        parse_pipeline([lambda program: None])


def test_a_pass_beyond_the_exactness_is_refused_when_named_and_left_out_of_the_default() -> None:
    with pytest.raises(PassError, match="'test-sloppy' is fast-math, but only reduction-order is allowed"):
        parse_pipeline("dce,test-sloppy")
    with pytest.raises(PassError, match="exactness is one of"):
        parse_pipeline("dce", exactness="roughly")
    assert parse_pipeline("test-sloppy", exactness="fast-math") == (Sloppy(),)
    assert all(item.exactness == "exact" for item in default_pipeline("exact"))


def test_options_are_described() -> None:
    option = lookup("test-everything").options()[0]
    assert (option.name, option.type_name, option.default, option.summary) == (
        "flag",
        "bool",
        False,
        "Whether.",
    )
    assert lookup("test-everything").summary() == "A pass with an option of every type."

"""Mixins: descriptions, combined types, modes."""

from __future__ import annotations

from typing import Any

import pytest

import stategraph as sg
from stategraph.mixin import (
    Batching,
    JointMode,
    JointTypes,
    Mixin,
    Mode,
    OneOfTypes,
    ParamDesc,
    ParamDescriber,
    Training,
)


class Synapse(sg.nn.Module, ParamDesc):
    def __init__(self, size: int, *more: Any, tau: float = 1.0, weight: float = 0.0) -> None:
        super().__init__()
        self.size, self.more, self.tau, self.weight = size, more, tau, weight


def test_descriptions_make_instances() -> None:
    description = Synapse.desc(tau=5.0)
    assert isinstance(description, ParamDescriber) and repr(description) == "Synapse.desc(tau=5.0)"
    first, second = description(10), description.init(20, tau=6.0)
    assert (first.size, first.tau, second.size, second.tau) == (10, 5.0, 20, 6.0)
    assert Synapse.desc("a", "b")(3).more == ("a", "b")
    assert description == Synapse.desc(tau=5.0) and hash(description) == hash(Synapse.desc(tau=5.0))
    assert (
        description != Synapse.desc(tau=6.0)
        and len({description.identifier, Synapse.desc(tau=5.0).identifier}) == 1
    )
    assert ParamDescriber(dict, a=1)(b=2) == {"a": 1, "b": 2}
    with pytest.raises(TypeError, match="needs a class"):
        ParamDescriber(3)  # type: ignore[arg-type]


class A: ...


class B: ...


class C(A, B): ...


def test_combined_types() -> None:
    both: Any = JointTypes[A, B]
    assert (
        isinstance(C(), both)
        and not isinstance(A(), both)
        and issubclass(C, both)
        and not issubclass(A, both)
    )
    assert both == JointTypes(B, A) and hash(both) == hash(JointTypes(B, A)) and both != OneOfTypes[A, B]
    assert JointTypes[A] is A and repr(both) == "JointTypes[A, B]"
    one: Any = OneOfTypes(A, int)
    assert isinstance(C(), one) and isinstance(3, one) and not isinstance("", one)
    for wrong in (3, (), (A, "B")):
        with pytest.raises(TypeError):
            JointTypes[wrong]


def test_combined_types_are_filters() -> None:
    class Tagged(sg.ParamState[Any], Mixin):
        pass

    net = sg.nn.Module()
    net.a, net.b = sg.ParamState(1.0), Tagged(2.0)  # type: ignore[attr-defined]
    assert list(net.states(JointTypes[sg.ParamState, Mixin])) == [("b",)]
    assert len(net.states(OneOfTypes[sg.ParamState, Mixin])) == 2


def test_modes() -> None:
    mode = JointMode(Batching(32, 1), Training())
    assert mode.has(Batching) and mode.has(Training) and mode.has(Mode) and not mode.is_a(Training)
    assert mode.is_a(JointTypes[Batching, Training]) and (mode.batch_size, mode.batch_axis) == (32, 1)
    assert Batching() == Batching(1, 0) and Batching().is_a(Batching) and not Batching().has(Training)
    assert JointMode(Training(), Batching(32, 1)) == mode and hash(JointMode(mode)) == hash(mode)
    assert repr(mode) == "JointMode(Batching(batch_size=32, batch_axis=1), Training())"
    with pytest.raises(AttributeError):
        _ = mode.nothing
    with pytest.raises(TypeError, match="made of modes"):
        JointMode(3)  # type: ignore[arg-type]

"""States born in a trace, and attributes assigned while tracing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import StateAccessError
from tests.tracing.models import XS


class Cell(sg.nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.w = sg.ParamState(jnp.full((n,), 2.0))

    def init_state(self, x: Any) -> None:
        self.h = sg.HiddenState(jnp.zeros(self.n) + x)
        self.count = sg.State(0)

    def update(self, x: Any) -> Any:
        self.h.value = self.h.value * 0.5 + self.w.value * x
        self.count.value += 1
        return self.h.value


class Stack(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = [Cell(2), Cell(3)]

    def init_all_states(self, x: Any) -> None:
        for node in self.nodes(Cell).values():
            node.init_state(x)


@pytest.mark.core
def test_init_state_inside_jit_five_calls_one_trace() -> None:
    cell = Cell(3)
    init = sg.compile.jit(lambda x: cell.init_state(x))
    held: Any = None
    for k in range(5):
        init(float(k))
        assert np.allclose(cell.h.value, k) and int(cell.count.value) == 0
        assert held is None or cell.h is held
        held = cell.h
        cell.update(1.0)
    assert init.trace_count == 1


@pytest.mark.core
def test_init_all_states_inside_jit_five_calls_one_trace() -> None:
    stack = Stack()
    init = sg.compile.jit(lambda x: stack.init_all_states(x))
    step = sg.compile.jit(lambda x: [cell(x) for cell in stack.cells])
    for k in range(5):
        init(float(k))
        first, second = step(1.0)
        assert np.allclose(first, k * 0.5 + 2) and second.shape == (3,)
        assert int(stack.cells[1].count.value) == 1
    assert init.trace_count == 1 and step.trace_count == 1


def test_init_after_eager_init_replaces_the_states_and_settles() -> None:
    cell = Cell(2)
    cell.init_state(9.0)
    step = sg.compile.jit(lambda x: cell(x))
    step(1.0)
    init = sg.compile.jit(lambda x: cell.init_state(x))
    for k in range(3):
        init(float(k))
        assert np.allclose(step(1.0), k * 0.5 + 2)
    assert init.trace_count == 1 and step.trace_count == 2
    cell.init_state(7.0)
    assert np.allclose(step(1.0), 5.5)
    init(1.0)
    assert np.allclose(cell.h.value, 1)


def test_two_init_functions_take_turns() -> None:
    cell = Cell(2)
    one = sg.compile.jit(lambda: cell.init_state(1.0))
    two = sg.compile.jit(lambda: cell.init_state(2.0))
    step = sg.compile.jit(lambda: cell(0.0))
    for _ in range(3):
        one()
        assert np.allclose(step(), 0.5)
        two()
        assert np.allclose(step(), 1.0)
    assert one.trace_count == two.trace_count == 1 and step.trace_count == 2


@pytest.mark.core
def test_a_born_state_is_used_in_the_same_program_and_holds_its_last_value() -> None:
    cell = Cell(2)

    @sg.compile.jit
    def run(xs: Any) -> Any:
        cell.init_state(1.0)
        _, ys = jax.lax.scan(lambda c, x: (c, cell(x)), None, xs)
        return ys

    with jax.disable_jit():
        other = Cell(2)
        other.init_state(1.0)
        expected = jnp.stack([other(x) for x in XS])
    for _ in range(2):
        assert np.allclose(run(XS), expected)
        assert np.allclose(cell.h.value, expected[-1]) and int(cell.count.value) == 4
    assert run.trace_count == 1


def test_lazily_created_states_are_created_once() -> None:
    """The first call creates the State, later calls keep it: what Python would do."""

    class Lazy(sg.nn.Module):
        def update(self, x: Any) -> Any:
            if not hasattr(self, "total"):
                self.total = sg.State(jnp.zeros_like(x))
            self.total.value += x
            return self.total.value

    lazy, oracle = Lazy(), Lazy()
    step = sg.compile.jit(lambda x: lazy(x))
    for _ in range(4):
        assert float(step(2.0)) == float(oracle(jnp.float32(2.0)))
    assert step.trace_count == 2


def test_a_trace_alone_leaves_no_born_state_behind() -> None:
    cell = Cell(2)
    traced = sg.trace(lambda: cell.init_state(1.0))
    assert not hasattr(cell, "h") and not hasattr(cell, "count")
    born = [symbol for symbol in traced.program.states.values() if symbol.born]
    assert len(born) == 2
    assert [str(row.name) for row in traced.signature if row.group == "state out"] == [
        f"@{s.path}" for s in born
    ]


def test_a_born_state_in_new_containers_and_nodes() -> None:
    class Model(sg.nn.Module):
        def build(self, x: Any) -> None:
            self.parts = [sg.State(x), {"deep": sg.State(x + 1)}]
            self.child = Cell(2)
            self.child.init_state(x)

    model = Model()
    build = sg.compile.jit(lambda x: model.build(x))
    for k in range(3):
        build(float(k))
        assert float(model.parts[0].value) == k and float(model.parts[1]["deep"].value) == k + 1
        assert np.allclose(model.child.h.value, k) and np.allclose(model.child.w.value, 2)
    assert build.trace_count == 1


def test_plain_attributes_assigned_while_tracing_are_rolled_back() -> None:
    cell = Cell(2)

    @sg.compile.jit
    def f(x: Any) -> Any:
        cell.mode = "fast"
        assert cell.mode == "fast"
        cell.n = 5
        return x * cell.n

    assert float(f(1.0)) == 5 and float(f(2.0)) == 10
    assert not hasattr(cell, "mode") and cell.n == 2
    assert f.trace_count == 1


def test_a_state_born_inside_a_straight_inner_function_may_be_kept() -> None:
    cell = Cell(2)

    @sg.compile.jit
    def f(x: Any) -> Any:
        @jax.jit
        def inner(y: Any) -> Any:
            cell.init_state(y)
            return y

        return inner(x)

    for k in range(3):
        try:
            f(float(k))
        except StateAccessError as error:
            assert "fix:" in str(error)
            break
        assert np.allclose(cell.h.value, k)


@pytest.mark.core
def test_a_born_state_of_a_failed_first_call_says_so() -> None:
    cell = Cell(2)
    kept: list[Any] = []

    @sg.compile.jit
    def f(x: Any) -> Any:
        cell.init_state(x)
        kept.append(cell.h)
        raise ValueError("no")

    with pytest.raises(ValueError):
        f(1.0)
    assert not hasattr(cell, "h")
    with pytest.raises(StateAccessError) as error:
        kept[0].value
    assert (
        "created inside a trace" in str(error.value)
        and "test_born.py" in str(error.value)
        and "fix:" in str(error.value)
    )


def test_a_jitted_method_may_create_states() -> None:
    class Model(sg.nn.Module):
        @sg.compile.jit
        def reset(self, x: Any) -> None:
            self.h = sg.State(x)

    one, two = Model(), Model()
    one.reset(1.0)
    two.reset(2.0)
    one.reset(3.0)
    assert float(one.h.value) == 3 and float(two.h.value) == 2
    assert one.h is not two.h


def test_a_state_set_to_none_first_and_created_on_demand() -> None:
    class Lazy(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total: Any = None

        def update(self, x: Any) -> Any:
            if self.total is None:
                self.total = sg.State(jnp.zeros_like(x))
            self.total.value += x
            return self.total.value

    lazy = Lazy()
    step = sg.compile.jit(lambda x: lazy(x))
    assert [float(step(2.0)) for _ in range(4)] == [2, 4, 6, 8]
    assert step.trace_count == 2


def test_a_state_replaced_by_one_made_from_its_value_is_followed() -> None:
    cell = Cell(2)
    cell.h = sg.State(jnp.float32(1))
    double = sg.compile.jit(lambda: setattr(cell, "h", sg.State(cell.h.value * 2)))
    for k in range(4):
        double()
        assert float(cell.h.value) == 2 ** (k + 1)

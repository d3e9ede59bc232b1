"""``augment.vmap_new_states``: what lanes create, against a loop that creates one model per lane."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import StateAccessError
from tests.oracle import WAYS, run

new_states = sg.augment.vmap_new_states
pytestmark = pytest.mark.core


class Cell(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.ones(2))
        self.calls = 0

    def init_state(self, scale: Any = 1.0, batch: int = 2) -> Any:
        self.batch = batch
        self.calls += 1
        self.v = sg.ShortTermState({"v": sg.random.randn(batch) * scale, "n": jnp.zeros(batch, jnp.int32)})
        self.shared = sg.LongTermState(sg.random.randn(batch))
        sg.State(1.0)  # ends with its lane
        return self.v.value["v"].sum()


@pytest.mark.parametrize("way", WAYS)
def test_new_states_outlive_the_call_with_one_draw_per_lane(way: str) -> None:
    sg.random.seed(3)
    keys = jax.random.split(sg.random.DEFAULT.value, 5)
    cell = Cell()
    sums = run(way, new_states(cell.init_state, axis_size=4, state_tag="lane"))
    expected = []
    for i in range(4):  # one model per lane
        sg.random.set_key(keys[i + 1])
        one = Cell()
        one.init_state()
        expected.append(one)
    np.testing.assert_allclose(cell.v.value["v"], np.stack([one.v.value["v"] for one in expected]), rtol=1e-6)
    np.testing.assert_allclose(sums, cell.v.value["v"].sum(1), rtol=1e-5)
    assert cell.v.shape == {"v": (4, 2), "n": (4, 2)} and cell.v.tag == {"lane"}
    assert cell.w.shape == (2,) and cell.w.tag is None
    assert len(sg.graph.states(cell)) == 3


@pytest.mark.parametrize("way", WAYS)
def test_every_call_draws_other_numbers_and_goes_on_with_another_key(way: str) -> None:
    sg.random.seed(3)
    cell = Cell()
    call = new_states(cell.init_state, axis_size=4)
    run(way, call)
    first = np.asarray(cell.v.value["v"])
    run(way, call)
    assert not np.allclose(first, cell.v.value["v"])
    after = jax.random.key_data(sg.random.DEFAULT.value)
    sg.random.seed(3)
    for _ in range(2):
        sg.random.set_key(jax.random.split(sg.random.DEFAULT.value, 5)[0])
    assert np.array_equal(after, jax.random.key_data(sg.random.DEFAULT.value))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "exclude", [sg.LongTermState, (sg.LongTermState,), lambda path, state: path[-1] == "shared"]
)
def test_excluded_states_keep_their_shape_and_have_the_first_lane_s_value(way: str, exclude: Any) -> None:
    def shared(axis_size: int, exclude: Any) -> Any:
        sg.random.seed(1)
        cell = Cell()
        run(way, new_states(cell.init_state, axis_size=axis_size, state_to_exclude=exclude))
        assert cell.v.value["v"].shape == (axis_size, 2)
        return np.asarray(cell.shared.value)

    np.testing.assert_allclose(shared(4, exclude), shared(4, None)[0], rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_arguments_are_mapped_and_existing_states_kept(way: str) -> None:
    class Counting(Cell):
        def init_state(self, scale: Any = 1.0, batch: int = 2) -> Any:
            self.w.value = self.w.value * scale
            return super().init_state(scale, batch)

    cell = Counting()
    xs = jnp.array([0.0, 2.0, 3.0])
    run(way, new_states(cell.init_state, out_states=cell.w), xs)
    np.testing.assert_allclose(cell.w.value, xs[:, None] * jnp.ones(2))
    assert float(jnp.abs(cell.v.value["v"][0]).sum()) == 0 and cell.v.value["v"].shape == (3, 2)


def test_plain_attributes_stay_assigned_after_an_eager_call() -> None:
    cell = Cell()
    for count in (1, 2, 3):
        new_states(lambda: cell.init_state(batch=5), axis_size=2)()
        assert cell.batch == 5 and cell.calls == count and cell.v.value["v"].shape == (2, 5)
    sg.compile.jit(lambda: new_states(lambda: cell.init_state(batch=7), axis_size=2)())()
    assert cell.batch == 5 and cell.v.value["v"].shape == (2, 7)  # as in any trace


def test_a_deleted_attribute_stays_deleted() -> None:
    cell = Cell()
    cell.old = sg.State(1.0)

    def init() -> None:
        if hasattr(cell, "old"):
            del cell.old
        cell.new = sg.State(sg.random.rand())

    for _ in range(2):
        new_states(init, axis_size=2)()
        assert not hasattr(cell, "old") and cell.new.shape == (2,)


@pytest.mark.parametrize("way", WAYS)
def test_nested_lanes_give_two_axes(way: str) -> None:
    cell = Cell()
    run(way, new_states(lambda: new_states(cell.init_state, axis_size=3)().sum(), axis_size=2))
    assert cell.v.value["v"].shape == (2, 3, 2) and len(np.unique(cell.v.value["v"])) == 12
    assert cell.v.metadata["lanes"] == (2, 3)


def test_inside_a_foreign_trace_too() -> None:
    class Plain(sg.nn.Module):
        def init(self, x: Any) -> None:
            self.h = sg.State(x * 2)

    def f(xs: Any) -> Any:
        model = Plain()
        new_states(model.init)(xs)
        return model.h.value

    np.testing.assert_allclose(jax.jit(f)(jnp.arange(3.0)), [0, 2, 4])


def test_what_is_wrong_is_said() -> None:
    cell = Cell()
    with pytest.raises(ValueError, match="axis_size"):
        new_states(cell.init_state)()
    with pytest.raises(TypeError, match="state_tag"):
        new_states(cell.init_state, state_tag=3)
    with pytest.raises(TypeError, match="no filter"):
        new_states(cell.init_state, state_to_exclude=3)
    with pytest.raises(TypeError, match="axis_name"):
        new_states(cell.init_state, axis_name=3)

    def write() -> None:
        cell.w.value = sg.random.rand(2)

    with pytest.raises(StateAccessError, match="out_states"):
        new_states(write, axis_size=2)()


def test_as_a_decorator() -> None:
    cell = Cell()

    @new_states(axis_size=2)
    def init() -> None:
        cell.init_state()

    init()
    assert cell.v.value["v"].shape == (2, 2)

"""Delays, against a list of all values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import numbers
from tests.oracle import agree


@pytest.fixture(autouse=True)
def time_step() -> Iterator[None]:
    with sg.environ.context(dt=0.1):
        yield


def made(*args: Any, **kwargs: Any) -> nn.Delay:
    return nn.init_all_states(nn.Delay(*args, **kwargs))


@pytest.mark.core
def test_values_of_some_steps_ago() -> None:
    values = numbers(20, 3)
    delay = made(jnp.zeros(3), time=0.5, init=7.0)
    assert delay.max_length == 6 and delay.history.shape == (6, 3) and delay.max_time == pytest.approx(0.5)
    for n, value in enumerate(values):
        delay.update(value)
        for k in range(6):
            expected = values[n - k] if n >= k else 7.0
            np.testing.assert_array_equal(delay.retrieve_at_step(k), np.broadcast_to(np.float32(expected), 3))
    np.testing.assert_array_equal(delay.retrieve_at_step(jnp.int32(2)), values[-3])
    delay.reset_state()
    assert (delay.history.value == 7).all() and delay.write_ptr.value == 0


@pytest.mark.parametrize("time", [0.0, 0.1, 0.3, 0.6, 0.7, 1.1, 2.3, 0.25])
def test_times_are_rounded_up_to_steps_but_not_by_rounding_errors(time: float) -> None:
    steps = int(np.ceil(np.float32(time) / np.float32(0.1) - 1e-4))
    assert made(jnp.zeros(()), time=time).max_length == steps + 1


def test_entries() -> None:
    values = numbers(10, 4)
    each = np.array([0.0, 0.1, 0.3, 0.2])
    delay = made(
        jnp.zeros(4),
        entries={"now": None, "late": 0.3, "part": (0.2, np.array([1, 2])), "each": (each, np.arange(4))},
    )
    access = None
    for value in values:
        delay.update(value)
    np.testing.assert_array_equal(delay.at("now"), values[-1])
    np.testing.assert_array_equal(delay.at("late"), values[-4])
    np.testing.assert_array_equal(delay.at("part"), values[-3][[1, 2]])
    np.testing.assert_array_equal(
        delay.at("each"), [values[-1][0], values[-2][1], values[-4][2], values[-3][3]]
    )
    plain = nn.Delay(jnp.zeros(4))
    access = plain.access("again", 0.2)
    nn.init_all_states(plain)
    for value in values:
        plain.update(value)
    np.testing.assert_array_equal(access(), values[-3])
    assert plain.max_length == 3 and access.delay_info == (2,)


@pytest.mark.parametrize("interpolation", ["linear", "linear_interp", "round", "nearest"])
def test_values_at_times_in_the_past(interpolation: str) -> None:
    delay = made(jnp.zeros(2), time=1.0, interpolation=interpolation)
    for n in range(21):
        delay.update(jnp.full(2, n * 0.1) * jnp.array([1.0, 2.0]))
    with sg.environ.context(t=2.0):
        for time in (2.0, 1.96, 1.5, 1.43, 1.0):
            expected = time if "linear" in interpolation else round(time, 1)
            np.testing.assert_allclose(delay.retrieve_at_time(time), [expected, 2 * expected], rtol=1e-5)
        several = delay.retrieve_at_time(jnp.array([1.75, 1.31]))
        expected = np.array([1.75, 1.31]) if "linear" in interpolation else np.array([1.8, 1.3])
        np.testing.assert_allclose(
            several[:, 0], expected, atol=0.051 if interpolation in ("round", "nearest") else 1e-5
        )
        one = delay.retrieve_at_time(jnp.array([1.5, 1.2]), jnp.array([0, 1]))
        np.testing.assert_allclose(one, [1.5, 2.4], rtol=1e-5)


def test_slots_further_apart_than_steps() -> None:
    delay = made(jnp.zeros(()), time=0.9, update_every=0.3)
    assert delay.max_length == 4 and delay.max_time == pytest.approx(0.9)
    for n in range(25):
        delay.update(float(n))
        kept = [3 * (n // 3 - k) for k in range(4)]
        assert [float(delay.retrieve_at_step(k)) for k in range(4)] == [max(value, 0) for value in kept]


def test_pytrees_batches_and_initialisers() -> None:
    info = {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": jnp.zeros((), jnp.int32)}
    delay = nn.init_all_states(nn.Delay(info, time=0.2, init=nn.init.Constant(3.0)), batch_size=5)
    assert (
        delay.history.shape == {"a": (3, 5, 2), "b": (3, 5)} and (delay.retrieve_at_step(1)["b"] == 3).all()
    )
    delay.update({"a": jnp.ones((5, 2)), "b": jnp.arange(5)})
    assert delay.retrieve_at_step(0)["b"].tolist() == list(range(5))
    nn.reset_all_states(delay)
    assert delay.history.shape["a"] == (3, 5, 2) and delay.history.dtype["b"] == jnp.int32
    assert isinstance(delay.history, sg.DelayState)
    first = numbers(3, 2)
    np.testing.assert_array_equal(made(jnp.zeros(2), time=0.2, init=first).history.value, first)


@pytest.mark.core
@pytest.mark.parametrize("update_every", [None, 0.2])
def test_compiled_loops_and_gradients(update_every: Any) -> None:
    def make() -> Any:
        with sg.environ.context(dt=0.1):
            delay = nn.Delay(jnp.zeros(2), entries={"late": 0.4}, update_every=update_every)
        nn.init_all_states(delay)

        def step(x: Any) -> Any:
            y = 0.5 * delay.at("late") + x
            delay.update(y)
            return y

        def loss(xs: Any) -> Any:
            return jnp.sum(sg.compile.for_loop(step, xs) ** 2)

        return sg.augment.value_and_grad(loss, argnums=0), [delay.history, delay.write_ptr]

    agree(make, (jnp.asarray(numbers(9, 2)),), (jnp.asarray(numbers(9, 2, seed=1)),))


@pytest.mark.core
def test_the_buffer_is_updated_in_place() -> None:
    delay = made(jnp.zeros(1000), time=10.0)
    lowered = sg.trace(delay, jnp.ones(1000)).lower()
    copies = [
        op.name for op in lowered.program.walk() if op.name in ("jax.concatenate", "jax.copy", "jax.scatter")
    ]
    assert not copies and any(op.name == "jax.dynamic_update_slice" for op in lowered.program.walk())


def scalar(delay: nn.Delay) -> Any:
    return delay.retrieve_at_step(20)


def heterogeneous(delay: nn.Delay) -> Any:
    return delay.retrieve_at_step(np.arange(40) % 21, np.arange(40))


def per_synapse(delay: nn.Delay) -> Any:
    steps = np.arange(120).reshape(40, 3) % 21
    return delay.retrieve_at_step(steps, np.arange(40)[:, None]).sum(1)


def interpolated(delay: nn.Delay) -> Any:
    with sg.environ.context(t=10.0):
        return delay.retrieve_at_time(9.25)


@pytest.mark.core
@pytest.mark.parametrize("read", [scalar, heterogeneous, per_synapse, interpolated])
@pytest.mark.parametrize("update_every", [None, 0.2])
def test_no_step_of_a_loop_copies_the_buffer(read: Any, update_every: float | None) -> None:
    delay = made(jnp.zeros(40), time=2.0 if update_every is None else 4.0, update_every=update_every)

    def step(x: Any) -> Any:
        delay.update(0.5 * read(delay) + x)

    text = sg.trace(lambda xs: sg.compile.for_loop(step, xs), jnp.ones((30, 40))).lower().as_text("hlo")
    body = text[: text.index("ENTRY")]
    made_anew = re.findall(r"= f32\[21,40\]\S* ([\w-]+)\(", body)
    assert "dynamic-update-slice" in made_anew
    assert set(made_anew) <= {
        "dynamic-update-slice",
        "fusion",
        "parameter",
        "get-tuple-element",
        "call",
        "bitcast",
    }


@pytest.mark.core
def test_the_delay_of_a_state() -> None:
    cell = nn.init_all_states(nn.GRUCell(2, 3), batch_size=4)
    cell.late = nn.StateWithDelay(cell, "h", time=0.2)
    nn.init_all_states(cell, batch_size=4)
    assert cell.late.history.shape == (3, 4, 3)
    seen = []
    for x in numbers(5, 4, 2):
        cell(x)
        cell.late.update()
        seen.append(cell.h.value)
    np.testing.assert_array_equal(cell.late.retrieve_at_step(2), seen[-3])
    nn.reset_all_states(cell)
    assert (cell.late.history.value == 0).all() and "late" in repr(cell)
    with pytest.raises(TypeError, match=r"GRUCell has no State 'v'"):
        nn.init_all_states(nn.StateWithDelay(cell, "v", time=0.2))


def test_ways_to_ask_for_the_same_delay() -> None:
    values = numbers(6, 3)

    def read(**kwargs: Any) -> Any:
        delay = made(jnp.zeros(3), 0.5, None, None, **kwargs)
        for n, value in enumerate(values):
            delay.update(value)
            with sg.environ.context(t=0.1 * n):
                found = delay.retrieve_at_time(0.1 * n - 0.13), delay.retrieve_at_step(2)
        return found

    linear, nearest = read(interpolation="linear"), read(interpolation="round")
    assert not np.allclose(linear[0], nearest[0])
    for other in (
        {},
        {"delay_method": "concat"},
        {"interp_method": "linear_interp", "take_aware_unit": True},
    ):
        np.testing.assert_array_equal(read(**other), linear)
    np.testing.assert_array_equal(read(interp_method="nearest"), nearest)
    np.testing.assert_array_equal(read(interpolation="round", interp_method="linear"), nearest)
    with pytest.raises(ValueError, match="delay_method is one of rotation, concat"):
        nn.Delay(jnp.zeros(2), delay_method="list")


def test_what_is_wrong_is_said() -> None:
    delay = nn.Delay(jnp.zeros(2), time=0.2)
    with pytest.raises(sg.errors.StateAccessError, match=r"(?s)no buffer yet.*init_all_states"):
        delay.update(jnp.ones(2))
    nn.init_all_states(delay)
    with pytest.raises(sg.errors.StateAccessError, match="before init_state"):
        delay.register_entry("later", 0.5)
    delay.register_entry("late", 0.2)
    with pytest.raises(KeyError, match="registered already"):
        delay.register_entry("late", 0.1)
    with pytest.raises(KeyError, match="no delay entry 'x'"):
        delay.at("x")
    for steps in (3, -1, np.array([0, 3])):
        with pytest.raises(ValueError, match="holds steps 0 to 2"):
            delay.retrieve_at_step(steps)
    with pytest.raises(ValueError, match="negative"):
        nn.Delay(jnp.zeros(2), time=-1.0)
    with pytest.raises(ValueError, match="multiple of dt"):
        nn.Delay(jnp.zeros(2), update_every=0.25)
    with pytest.raises(ValueError, match="interpolation"):
        nn.Delay(jnp.zeros(2), interpolation="spline")
    with pytest.raises(TypeError, match="needs a Delay"):
        nn.DelayAccess(delay.history, 0.1, entry="a")  # type: ignore[arg-type]

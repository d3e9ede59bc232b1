"""Values between the slots of a delay, against SciPy and against polynomials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate

import stategraph as sg
from stategraph import nn
from tests.nn.checking import numbers
from tests.oracle import agree

NOW = 2.0
SLOTS = 9


@pytest.fixture(autouse=True)
def time_step() -> Iterator[None]:
    with sg.environ.context(dt=0.1, t=NOW):
        yield


def filled(values: Any, interpolation: Any) -> nn.Delay:
    """A delay that was given ``values``, the last one at the time 2."""
    delay = nn.init_all_states(
        nn.Delay(values[0], time=0.1 * (min(len(values), SLOTS) - 1), interpolation=interpolation)
    )
    for value in values:
        delay.update(value)
    return delay


def times(count: int) -> np.ndarray[Any, Any]:
    """Times within ``count`` slots: on them, between them and at both ends."""
    slots = np.concatenate([np.arange(count), np.linspace(0, count - 1, 23)])
    return np.asarray(NOW - 0.1 * slots)


@pytest.mark.parametrize("interpolation, count", [("cubic", 13), ("hermite", 13), ("cubic", 2), ("cubic", 1)])
def test_a_cubic_spline_has_central_differences_as_slopes(interpolation: str, count: int) -> None:
    values = numbers(count, 2)
    kept = min(count, SLOTS)
    at = NOW - 0.1 * np.arange(kept)[::-1]
    wanted = times(kept)
    found = filled(values, interpolation).retrieve_at_time(wanted)
    if kept == 1:
        np.testing.assert_array_equal(found, np.broadcast_to(values[-1], found.shape))
        return
    slopes = np.gradient(values[-kept:].astype(np.float64), 0.1, axis=0)
    spline = scipy.interpolate.CubicHermiteSpline(at, values[-kept:], slopes)
    np.testing.assert_allclose(found, spline(wanted), atol=2e-5)


@pytest.mark.parametrize("interpolation, degree", [("polynomial2", 2), ("polynomial3", 3)])
@pytest.mark.parametrize("count", [13, 2, 1])
def test_polynomials_of_their_degree_are_met_everywhere(interpolation: str, degree: int, count: int) -> None:
    polynomial = np.polynomial.Polynomial(numbers(min(degree, count - 1) + 1).astype(np.float64))
    at = (NOW - 0.1 * np.arange(count)[::-1]).astype(np.float32)
    delay = filled([jnp.float32(polynomial(t)) for t in at], interpolation)
    wanted = times(min(count, SLOTS))
    np.testing.assert_allclose(delay.retrieve_at_time(wanted), polynomial(wanted), atol=1e-4)


@pytest.mark.parametrize("interpolation", ["cubic", "polynomial3"])
def test_indices_integers_and_transformations(interpolation: str) -> None:
    values = np.round(numbers(12, 3) * 10).astype(np.int32)
    delay = filled(values, interpolation)
    when = np.array([1.93, 1.41, 1.2])
    each = delay.retrieve_at_time(when, np.arange(3))
    assert each.dtype == jnp.float32
    for k, time in enumerate(when):
        np.testing.assert_allclose(each[k], delay.retrieve_at_time(time)[k], rtol=1e-5)

    slope = sg.augment.jacfwd(delay.retrieve_at_time)(jnp.float32(1.67))
    before, after = delay.retrieve_at_time(1.66), delay.retrieve_at_time(1.68)
    np.testing.assert_allclose(slope, (after - before) / 0.02, rtol=0.05, atol=0.1)


def test_compiled_code_reads_the_same() -> None:
    def make() -> Any:
        delay = filled(numbers(12, 3), "cubic")

        def step(value: Any, time: Any) -> Any:
            delay.update(value)
            return delay.retrieve_at_time(time)

        return step, [delay.history]

    agree(make, *((value, jnp.float32(1.67)) for value in numbers(2, 3)))


def test_a_function_is_given_the_buffer_and_the_place_in_it() -> None:
    def weighted(history: Any, indices: tuple[Any, ...], position: Any, max_length: int) -> Any:
        low = jnp.floor(position).astype(jnp.int32)
        part = position - low
        return (1 - part) * history[(low % max_length, *indices)] + part * history[
            ((low + 1) % max_length, *indices)
        ]

    values = numbers(13, 3)
    for time in times(SLOTS):
        ours = filled(values, weighted).retrieve_at_time(time, 1)
        np.testing.assert_allclose(ours, filled(values, "linear").retrieve_at_time(time, 1), atol=1e-5)


@pytest.mark.parametrize("interpolation", ["linear", "round", "cubic", "polynomial2"])
def test_steps_that_are_no_whole_numbers_are_times_between_two(interpolation: str) -> None:
    delay = filled(numbers(13, 2), interpolation)
    steps = np.array([0.0, 1.3, 2.5, 7.9])
    np.testing.assert_allclose(
        delay.retrieve_at_step(steps), delay.retrieve_at_time(NOW - 0.1 * steps), atol=1e-5
    )
    np.testing.assert_array_equal(delay.retrieve_at_step(jnp.asarray(2.5)), delay.retrieve_at_step(2.5))
    with pytest.raises(ValueError, match="not in the buffer"):
        delay.retrieve_at_step(8.5)

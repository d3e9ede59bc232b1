"""Spikes and what is counted of them: against exact values and the laws of Poisson processes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from stategraph import spikes
from stategraph.spikes import Spikes, events

DT = 0.5


def trains(*periods: int, steps: int = 1000) -> np.ndarray:
    """Regular spikes: one at step 0 and every so many steps."""
    return np.arange(steps)[:, None] % np.array(periods) == 0


def poisson(hertz: float, neurons: int, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((steps, neurons)) < hertz * DT / 1000


# ---------------------------------------------------------------------------------------------- the spikes


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 8), (100, 41), (7, 0), (0, 9), (513, 3)])
@pytest.mark.parametrize("probability", [0.0, 0.05, 1.0])
def test_events_are_the_places_that_are_not_zero(shape: tuple[int, int], probability: float) -> None:
    array = np.random.default_rng(1).random(shape) < probability
    for values in (array, array * np.float32(2.0), array.astype(np.int64), np.asfortranarray(array)):
        rows, columns = events(values)
        expected = np.nonzero(array)
        np.testing.assert_array_equal(rows, expected[0])
        np.testing.assert_array_equal(columns, expected[1])


def test_spikes_know_times_and_neurons() -> None:
    found = Spikes.from_dense(np.array([[0, 1], [1, 1], [0, 0], [1, 0]]), dt=DT, first=10)
    np.testing.assert_array_equal(found.times, [5.0, 5.5, 5.5, 6.5])
    np.testing.assert_array_equal(found.ids, [1, 0, 1, 0])
    np.testing.assert_array_equal(found.steps, [0, 1, 1, 3])
    assert (len(found), found.size, found.duration, found.start) == (4, 2, 2.0, 5.0)
    assert repr(found) == "Spikes(4 spikes of 2 neurons in 2 ms)"


def test_dense_and_compact_are_the_same() -> None:
    array = poisson(50.0, 12, 200).reshape(200, 3, 4).astype(np.float32)
    dense = Spikes.from_dense(array, DT)
    compact = Spikes(dense.steps, dense.ids, shape=(3, 4), length=200, dt=DT)
    np.testing.assert_array_equal(compact.dense, array)
    some = Spikes.from_dense(array.reshape(200, 12)[:, [7, 2]], DT, shape=(3, 4), members=(7, 2))
    assert set(some.ids) == {2, 7} and some.size == 2
    again = Spikes(some.steps, some.ids, shape=(3, 4), length=200, dt=DT, members=(7, 2))
    np.testing.assert_array_equal(again.dense, array.reshape(200, 12)[:, [7, 2]])


def test_parts_of_spikes() -> None:
    array = poisson(50.0, 12, 200)
    whole = Spikes.from_dense(array, DT, first=100)
    part = whole.of(3, 7)
    np.testing.assert_array_equal(part.dense, array[:, 3:7])
    assert part.shape == (4,)
    window = whole.between(60.0, 90.0)
    np.testing.assert_array_equal(window.dense, array[20:80])
    np.testing.assert_array_equal(window.times, whole.times[(whole.times >= 60) & (whole.times < 90)])
    np.testing.assert_array_equal(whole.between(60.0).dense, array[20:])
    assert whole.between(500.0).length == 0
    some = Spikes.from_dense(array[:, [5, 2, 9]], DT, shape=(12,), members=(5, 2, 9)).of(2, 6)
    assert some.members == (3, 0) and set(some.ids) <= {3, 0}


def test_spikes_are_a_pytree() -> None:
    array = poisson(50.0, 4, 100)
    dense = Spikes.from_dense(array, DT)
    lanes = jax.tree.map(lambda *x: np.stack(x), dense, dense)
    with pytest.raises(ValueError, match="of lanes"):
        _ = lanes.ids
    one = jax.tree.map(lambda x: x[1], lanes)
    np.testing.assert_array_equal(one.times, dense.times)
    compact = Spikes(dense.steps, dense.ids, shape=(4,), length=100, dt=DT)
    copied = jax.tree.map(lambda x: x, compact)
    np.testing.assert_array_equal(copied.dense, array)


# -------------------------------------------------------------------------------------------------- numbers


def test_rates_of_regular_trains_are_exact() -> None:
    np.testing.assert_allclose(spikes.rates(trains(10, 20, 50), DT), [200.0, 100.0, 40.0])
    t, hertz = spikes.rate(trains(10, 10), bin=5.0, dt=DT)
    np.testing.assert_allclose(t[:2], [2.5, 7.5])
    np.testing.assert_allclose(hertz, 200.0)


def test_the_rate_of_a_part_begins_at_its_time_and_leaves_out_what_fills_no_bin() -> None:
    found = Spikes.from_dense(np.ones((7, 3)), DT, first=4)
    t, hertz = spikes.rate(found, bin=1.0)
    np.testing.assert_allclose(t, [2.5, 3.5, 4.5])
    np.testing.assert_allclose(hertz, 2000.0)
    with pytest.raises(ValueError, match="not a multiple"):
        spikes.rate(found, bin=0.7)


def test_smoothing_keeps_constants_and_the_number_of_spikes() -> None:
    flat = spikes.rate(trains(10), bin=5.0, sigma=12.0, dt=DT)[1]
    np.testing.assert_allclose(flat, 200.0)
    one = np.zeros((400, 1))
    one[200] = 1
    t, hertz = spikes.rate(one, bin=0.5, sigma=5.0, dt=DT)
    assert hertz.sum() * 0.5 / 1000 == pytest.approx(1.0, rel=1e-6)
    expected = 1000 * np.exp(-0.5 * ((t - 100.25) / 5) ** 2) / (5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(hertz, expected, atol=0.01 * expected.max())
    with pytest.raises(ValueError, match="positive"):
        spikes.rate(one, sigma=0.0, dt=DT)


def test_intervals_of_regular_trains_are_the_periods_and_do_not_vary() -> None:
    found = trains(10, 25, 600)
    intervals = spikes.isi(found, DT)
    np.testing.assert_allclose(intervals, [5.0] * 99 + [12.5] * 39 + [300.0])
    np.testing.assert_allclose(spikes.cv(found, DT), [0.0, 0.0, np.nan])
    assert len(spikes.isi(np.zeros((10, 3)), DT)) == 0
    assert np.isnan(spikes.cv(np.zeros((10, 3)), DT)).all()


def test_a_poisson_process_has_an_exponential_distribution_of_intervals() -> None:
    found = Spikes.from_dense(poisson(40.0, 20, 100_000), DT)
    p = 40.0 * DT / 1000
    intervals = spikes.isi(found)
    assert intervals.mean() == pytest.approx(DT / p, rel=0.02)
    exact = np.sqrt(1 - p)  # of the geometric distribution that steps make of it
    cv = spikes.cv(found)
    assert cv.shape == (20,) and cv.mean() == pytest.approx(exact, abs=0.01)
    assert spikes.rates(found).mean() == pytest.approx(40.0, rel=0.02)


def test_cv_is_the_spread_over_the_mean() -> None:
    found = np.zeros((40, 2))
    found[[0, 3, 10, 30], 1] = 1
    intervals = np.array([3, 7, 20])
    expected = intervals.std() / intervals.mean()
    assert spikes.cv(found, DT)[1] == pytest.approx(expected)
    assert np.isnan(spikes.cv(found, DT, least=4)[1])


def test_numbers_of_some_neurons_are_in_their_order() -> None:
    array = trains(10, 20, 40)
    some = Spikes.from_dense(array[:, [2, 0]], DT, shape=(3,), members=(2, 0))
    np.testing.assert_allclose(spikes.rates(some), [50.0, 200.0])
    np.testing.assert_allclose(spikes.cv(some), [0.0, 0.0])


def test_arrays_need_the_length_of_a_step() -> None:
    with pytest.raises(TypeError, match=r"dt=0\.1"):
        spikes.rates(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="steps, neurons"):
        Spikes.from_dense(np.zeros(3), DT)


def test_raster_is_the_times_and_neurons() -> None:
    times, ids = spikes.raster(np.eye(3), DT)
    np.testing.assert_array_equal(times, [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(ids, [0, 1, 2])


def test_nothing_recorded_is_no_error() -> None:
    empty = Spikes.from_dense(np.zeros((0, 2, 3), bool), 0.1)
    assert len(empty) == 0 and empty.times.shape == (0,) and empty.of(1, 3).dense.shape == (0, 2)
    assert np.isnan(spikes.rates(empty)).tolist() == [True] * 6
    assert spikes.isi(empty).shape == (0,) and np.isnan(spikes.cv(empty)).all()
    assert [len(part) for part in (*spikes.rate(empty), *spikes.raster(empty))] == [0] * 4
    assert spikes.rates(np.zeros((0, 2)), dt=0.1).shape == (2,)


@pytest.mark.parametrize("part", [(-1, 2), (2, 1), (0, 4)])
def test_parts_are_of_neurons_that_are_there(part: tuple[int, int]) -> None:
    with pytest.raises(IndexError, match="no part of a population of 3"):
        Spikes.from_dense(np.eye(5, 3), 0.1).of(*part)


def test_what_is_not_one_recording_of_spikes_has_a_repr_as_well() -> None:
    dense = np.zeros((2, 5, 3))
    lanes = Spikes.from_dense(dense[0], 0.1)
    lanes = jax.tree.map(lambda x: np.stack([x, x]), lanes)
    assert repr(lanes) == "Spikes(dense=(2, 5, 3))"
    assert repr(jax.eval_shape(lambda x: x, Spikes.from_dense(dense[0], 0.1))) == "Spikes(dense=(5, 3))"

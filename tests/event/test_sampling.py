"""Random connectivity: its statistics, its limits, and that a seed decides it."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event


def test_synapses_exist_with_their_probability() -> None:
    csr = event.bernoulli(400, 300, 0.05, seed=0)
    matrix = np.asarray(csr.todense())
    assert matrix.max() == 1  # no pair twice
    expected = 400 * 300 * 0.05
    assert abs(csr.size - expected) < 5 * np.sqrt(expected)
    # rows vary as independent draws do: a fixed number for each row would not
    variance = matrix.sum(axis=1).var() / (300 * 0.05 * 0.95)
    assert 0.7 < variance < 1.35
    assert 0.7 < matrix.sum(axis=0).var() / (400 * 0.05 * 0.95) < 1.35


def test_probabilities_zero_and_one() -> None:
    assert event.bernoulli(5, 4, 0.0, seed=0).size == 0
    np.testing.assert_array_equal(event.bernoulli(5, 4, 1.0, seed=0).todense(), np.ones((5, 4)))
    assert event.bernoulli(0, 4, 0.5, seed=0).size == 0


@pytest.mark.parametrize("by", ["pre", "post"])
@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("number", [0, 1, 5, 19, 20])
def test_every_neuron_has_its_number_of_synapses(by: str, repeated: bool, number: int) -> None:
    csr = event.fixed_number(20, 20, number, by=by, repeated=repeated, seed=1)
    matrix = np.asarray(csr.todense())
    np.testing.assert_array_equal(matrix.sum(axis=1 if by == "pre" else 0), np.full(20, number))
    if not repeated:
        assert matrix.max(initial=0) <= 1


def test_a_seed_decides_the_connectivity_and_the_default_stream_does_too() -> None:
    a, b, c = (event.bernoulli(50, 50, 0.1, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.indices, b.indices)
    assert not np.array_equal(a.rows, c.rows) or not np.array_equal(a.indices, c.indices)
    sg.random.seed(5)
    first, second = event.bernoulli(50, 50, 0.1), event.bernoulli(50, 50, 0.1)
    sg.random.seed(5)
    np.testing.assert_array_equal(first.indices, event.bernoulli(50, 50, 0.1).indices)
    assert first.size != second.size or not np.array_equal(first.indices, second.indices)


@pytest.mark.parametrize("seed", [-1, 2**31, 2**32, 2**40 + 1, np.int64(-3), 2**64 - 1])
def test_all_bits_of_a_seed_count_with_and_without_64_bit_numbers(seed: Any) -> None:
    made = [event.bernoulli(20, 30, 0.2, seed=seed).indices]
    with jax.enable_x64(not jax.config.jax_enable_x64):
        made.append(event.bernoulli(20, 30, 0.2, seed=seed).indices)
    np.testing.assert_array_equal(*made)
    low = event.bernoulli(20, 30, 0.2, seed=int(seed) % 2**32).indices
    assert np.array_equal(made[0], low) == (int(seed) == int(seed) % 2**32)
    with pytest.raises(ValueError, match="64 bits"):
        event.bernoulli(20, 30, 0.2, seed=2**64)


def test_more_synapses_than_can_be_counted_are_refused_before_they_are_made() -> None:
    for make in (
        lambda: event.FixedProb(2**20, 2**20, 1.0, 1.0),
        lambda: event.FixedNumConn(2**20, 2**20, 2**12, 1.0),
        lambda: event.FixedNumConn(2**20, 2**20, 2**12, 1.0, efferent_target="pre"),
    ):
        with pytest.raises(ValueError, match=r"synapses from 1048576 to 1048576 neurons are too many"):
            make()


@pytest.mark.parametrize("shape", [(2,), (1, -1), (1, 2.5), (1, 2, 3)])
def test_the_shape_of_connections_is_two_sizes(shape: Any) -> None:
    with pytest.raises(ValueError, match="two whole numbers"):
        event.CSR([0, 0], [], shape)


def test_connections_of_a_seed_can_be_made_in_a_trace() -> None:
    key = jax.random.key(1)

    def sent(events: Any) -> Any:
        layers = [event.JITConn(20, 30, 0.1, 1.0, seed=1), event.FixedProb(20, 30, 0.1, 1.0, seed=key)]
        return [events @ layer for layer in layers]

    given = jnp.arange(20.0)
    for compiled, eager in zip(sg.compile.jit(sent)(given), sent(given), strict=True):
        assert np.array_equal(compiled, eager)


def test_a_large_connectivity_needs_memory_for_its_synapses_only() -> None:
    csr = event.bernoulli(100_000, 100_000, 1e-5, seed=0)  # dense: 40 GB
    assert abs(csr.size - 100_000) < 5 * np.sqrt(100_000)


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 1], [0], r"indptr has the shape \(2,\)"),
        ([0, 1, 2], [[0, 1]], "one axis"),
        ([0, 1, 2], [0.0, 1.0], "whole numbers"),
        ([0, 2, 1], [0], "ascends"),
        ([0, 1, 3], [0, 1], "ascends"),
        ([0, 1, 2], [0, 3], "synapse 1 leads to neuron 3, and there are 3"),
        ([0, 1, 2], [-1, 0], "synapse 0 leads to neuron -1"),
    ],
)
def test_bad_connectivity_is_an_error(indptr: Any, indices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        event.CSR(indptr, indices, (2, 3))


@pytest.mark.parametrize("prob", [-0.1, 1.5])
def test_probabilities_are_between_zero_and_one(prob: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        event.bernoulli(3, 3, prob)


def test_more_distinct_partners_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape("4 partners cannot be drawn from 3")):
        event.fixed_number(3, 3, 4, repeated=False)


def test_a_fraction_of_the_partners() -> None:
    layer = event.FixedNumConn(10, 40, 0.25, 1.0, seed=0)
    np.testing.assert_array_equal(np.asarray(layer.connections.todense()).sum(axis=1), np.full(10, 10))


@pytest.mark.parametrize("by", ["pre", "post"])
@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("number", [1, 5, 11])
def test_masks_leave_every_neuron_its_number(by: str, repeated: bool, number: int) -> None:
    mask = np.abs(np.subtract.outer(np.arange(20), np.arange(20))) > 3
    for given in (mask, lambda i, j: np.abs(i - j) > 3):
        csr = event.fixed_number(20, 20, number, by=by, repeated=repeated, mask=given, seed=2)
        matrix = np.asarray(csr.todense())
        np.testing.assert_array_equal(matrix.sum(axis=1 if by == "pre" else 0), np.full(20, number))
        assert not matrix[~mask].any() and (repeated or matrix.max() == 1)
        if given is mask:
            by_matrix = matrix
    np.testing.assert_array_equal(matrix, by_matrix)


def test_masks_of_probable_synapses_take_away_those_they_do_not_allow() -> None:
    mask = np.random.default_rng(0).random((200, 200)) < 0.5
    for include_self in (True, False):
        options = {"include_self": include_self, "seed": 3}
        every = np.asarray(event.bernoulli(200, 200, 0.2, **options).todense())
        found = event.bernoulli(200, 200, 0.2, mask=mask, **options).todense()
        np.testing.assert_array_equal(found, every * mask)
    assert not every.diagonal().any() and abs(every.mean() / (199 / 200) - 0.2) < 0.01


def test_partners_are_drawn_uniformly() -> None:
    for repeated, mask in ((True, None), (False, None), (False, lambda i, j: j % 2 == 0)):
        csr = event.fixed_number(3000, 40, 8, repeated=repeated, mask=mask, seed=4)
        places = 20 if mask else 40
        counts = np.bincount(np.asarray(csr.indices), minlength=40)
        counts = counts[counts > 0]
        expected = 3000 * 8 / places
        assert counts.size == places and np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_share_of_the_neurons_has_synapses() -> None:
    csr = event.fixed_number(1000, 50, 7, share=0.3, seed=0)
    counts = np.diff(np.asarray(csr.indptr))
    assert set(counts) == {0, 7} and 230 < (counts == 7).sum() < 370
    assert event.fixed_number(10, 50, 7, by="post", share=0.0, seed=0).size == 0


def test_the_synapses_of_a_seed_never_change() -> None:
    """They are the same on every platform and in every version: models are published with their seeds."""
    csr = event.bernoulli(1000, 1000, 0.01, seed=42)
    assert (csr.size, np.asarray(csr.indices[:6]).tolist()) == (10116, [214, 283, 309, 504, 546, 775])
    csr = event.fixed_number(1000, 1000, 10, repeated=False, seed=42)
    assert np.asarray(csr.indices[:6]).tolist() == [100, 116, 141, 179, 275, 502]


def test_rows_do_not_depend_on_how_many_there_are_nor_on_threads() -> None:
    few, many = (event.fixed_number(pre, 500, 100, repeated=False, seed=1) for pre in (10, 5000))
    np.testing.assert_array_equal(few.indices, many.indices[: few.size])
    few, many = (event.bernoulli(pre, 500, 0.2, seed=1) for pre in (10, 5000))
    np.testing.assert_array_equal(few.indices, many.indices[: few.size])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((3, 4)), r"mask is float64\[3, 4\]"),
        (np.ones((4, 3), bool), r"mask is bool\[4, 3\]"),
        (lambda i, j: i + j, "mask gives int32"),
        (lambda i, j: np.zeros(i.shape, bool), "the mask allows 0 of 4"),
    ],
)
def test_masks_that_are_none_are_errors(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        event.fixed_number(3, 4, 2, mask=mask, seed=0)


def test_arrays_that_a_connectivity_is_made_of_are_copied() -> None:
    indices = np.array([0, 1, 2], np.int32)
    csr = event.CSR(np.array([0, 3], np.int32), indices, (1, 3))
    indices[:] = 0
    np.testing.assert_array_equal(csr.indices, [0, 1, 2])

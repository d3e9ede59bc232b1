"""Embedding: rows of a table, and what its options do to values and gradients."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import check_layer, numbers

INDICES = np.array([[1, 3, 3], [0, 1, 3]])


def gradient(layer: Any, indices: Any = INDICES) -> Any:
    return sg.augment.grad(lambda: (layer(indices) * 2).sum(), layer.weight)()


@pytest.mark.core
@pytest.mark.parametrize("size", [4, (2, 3)])
def test_rows_of_a_table(size: Any) -> None:
    layer = check_layer(lambda: nn.Embedding(5, size), INDICES, lambda x, weight: weight[x], gradients=False)
    counts = np.bincount(INDICES.ravel(), minlength=5)
    expected = np.broadcast_to(
        2 * counts.reshape(-1, *[1] * (layer.weight.value.ndim - 1)), layer.weight.shape
    )
    np.testing.assert_allclose(gradient(layer), expected)
    assert layer(np.int32(2)).shape == layer.out_size


def test_padding_is_zero_and_stays() -> None:
    layer = nn.Embedding(5, 4, padding_idx=3)
    assert (layer.weight.value[3] == 0).all() and (layer(np.array(3)) == 0).all()
    grads = gradient(layer)
    assert (grads[3] == 0).all() and (grads[1] == 4).all()


@pytest.mark.core
def test_gradients_by_frequency() -> None:
    grads = gradient(nn.Embedding(5, 4, scale_grad_by_freq=True))
    np.testing.assert_allclose(grads[:, 0], [2, 2, 0, 2, 0])


@pytest.mark.core
@pytest.mark.parametrize("order", [1.0, 2.0])
def test_long_rows_are_shortened(order: float) -> None:
    table = numbers(5, 4) * 3
    table[0] *= 1e-3
    layer = nn.Embedding.from_pretrained(table, freeze=False, max_norm=1.0, norm_type=order)
    norms = np.linalg.norm(table, order, axis=-1)
    expected = np.where(norms[:, None] > 1, table / norms[:, None], table)
    np.testing.assert_allclose(sg.compile.jit(layer)(INDICES), expected[INDICES], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(layer.weight.value)[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(layer.weight.value)[[2, 4]], table[[2, 4]])
    layer = nn.Embedding.from_pretrained(table, freeze=False, max_norm=1.0, norm_type=order)
    np.testing.assert_allclose(gradient(layer)[:, 0], [2, 4, 0, 6, 0], rtol=1e-6)


def test_a_frozen_table_is_no_parameter() -> None:
    layer = nn.Embedding.from_pretrained(numbers(5, 4))
    np.testing.assert_array_equal(layer(INDICES), numbers(5, 4)[INDICES])
    assert not layer.states(sg.ParamState) and nn.Embedding(5, 4, freeze=True).freeze


def test_what_is_no_index() -> None:
    layer = nn.Embedding(5, 4)
    assert np.isnan(layer(jnp.array([5, 1]))[0]).all() and np.isfinite(layer(jnp.array([5, 1]))[1]).all()
    with pytest.raises(TypeError, match="float32"):
        layer(jnp.ones(3))
    with pytest.raises(ValueError, match="no row"):
        nn.Embedding(5, 4, padding_idx=5)
    with pytest.raises(ValueError, match="max_norm"):
        nn.Embedding(5, 4, max_norm=0.0)
    with pytest.raises(ValueError, match="rows"):
        nn.Embedding.from_pretrained(np.ones(3))

"""Activations that JAX does not have, against formulas in NumPy; clipping of gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import functional as F

pytestmark = pytest.mark.core

X = np.linspace(-3, 3, 25).astype(np.float32)


def test_the_activations_of_jax() -> None:
    for name in F.__all__:
        if hasattr(jax.nn, name) and name != "hard_tanh":  # which takes its bounds here
            assert getattr(F, name) is getattr(jax.nn, name)
            assert getattr(sg.nn, name) is getattr(jax.nn, name)


@pytest.mark.parametrize(
    ("ours", "formula"),
    [
        (lambda x: F.prelu(x, 0.1), lambda x: np.maximum(x, 0) + 0.1 * np.minimum(x, 0)),
        (F.softmin, lambda x: np.exp(-x) / np.exp(-x).sum()),
        (F.soft_shrink, lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0)),
        (F.hard_shrink, lambda x: x * (np.abs(x) > 0.5)),
        (F.tanh_shrink, lambda x: x - np.tanh(x)),
        (F.hard_tanh, jax.nn.hard_tanh),
        (lambda x: F.hard_tanh(x, -0.5, 2.0), lambda x: np.clip(x, -0.5, 2.0)),
    ],
)
def test_the_others(ours: Any, formula: Any) -> None:
    np.testing.assert_allclose(ours(X), formula(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(ours)(X), formula(X), rtol=1e-5, atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: ours(x).sum())(X)).all()
    assert ours(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


def test_rrelu() -> None:
    y = F.rrelu(X, 0.2, 0.4)
    slopes = (y / X)[X < 0]
    assert (y[X >= 0] == X[X >= 0]).all() and (slopes > 0.199).all() and (slopes < 0.401).all()
    key = jax.random.key(0)
    assert (F.rrelu(X, key=key) == F.rrelu(X, key=key)).all() and (F.rrelu(X) != F.rrelu(X)).any()


@pytest.mark.parametrize("order", [1, 2, 3.5, float("inf"), "inf"])
def test_clip_grad_norm(order: Any) -> None:
    grads = {"a": jnp.asarray(X[:6].reshape(2, 3)), "b": [jnp.asarray(X[6:])]}
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)])
    expected = np.linalg.norm(flat, float(order))
    clipped, norm = F.clip_grad_norm(grads, 1.5, order, return_norm=True)
    np.testing.assert_allclose(norm, expected, rtol=1e-6)
    after = np.concatenate([np.ravel(x) for x in jax.tree.leaves(clipped)])
    np.testing.assert_allclose(np.linalg.norm(after, float(order)), 1.5, rtol=1e-5)
    np.testing.assert_allclose(after, flat * (1.5 / expected), rtol=1e-5)
    same = F.clip_grad_norm(grads, 1e3, order)
    assert all((x == y).all() for x, y in zip(jax.tree.leaves(same), jax.tree.leaves(grads), strict=True))


def test_clip_grad_norm_at_its_limits() -> None:
    assert F.clip_grad_norm({}, 1.0) == {}
    zeros = F.clip_grad_norm(jnp.zeros(3), 1.0)
    assert (zeros == 0).all()
    assert F.clip_grad_norm(jnp.ones(3, jnp.bfloat16), 1.0).dtype == jnp.bfloat16
    slope = jax.grad(lambda g: F.clip_grad_norm(g, 1.0).sum())(jnp.array([3.0, 4.0]))
    assert np.isfinite(slope).all()
    with pytest.raises(ValueError, match="norm_type"):
        F.clip_grad_norm(jnp.ones(3), 1.0, 0)

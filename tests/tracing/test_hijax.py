"""Operations that JAX 0.12 defines by others, and takes apart only when it compiles."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg

pytestmark = pytest.mark.core


def test_searchsorted_with_state() -> None:
    edges = sg.State(jnp.arange(5.0))

    @sg.compile.jit
    def place(x: Any) -> Any:
        edges.value = edges.value + 1.0
        return jnp.searchsorted(edges.value, x)

    assert int(place(2.5)) == 2
    assert int(place(2.5)) == 1


def test_searchsorted_under_lanes_and_gradients() -> None:
    def loss(x: Any) -> Any:
        return (x * jnp.searchsorted(jnp.sort(x), 0.5)).sum()

    x = jnp.asarray(np.random.default_rng(0).random(6), jnp.float32)
    found = sg.compile.jit(sg.augment.grad(loss))(x)
    np.testing.assert_allclose(found, jax.grad(loss)(x), rtol=1e-6)
    lanes = jnp.stack([x, x + 0.3, x - 0.3])
    np.testing.assert_allclose(sg.compile.jit(sg.augment.vmap(loss))(lanes), jax.vmap(loss)(lanes), rtol=1e-6)

"""What the tests of the reference interpreter share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

X = jnp.linspace(-2.0, 3.0, 6).reshape(2, 3)


V = jnp.array([0.5, -1.0, 2.0])


def calls(x: Any) -> Any:
    inner = jax.jit(lambda y: y * 2)
    return (
        inner(x) + inner(x + 1),
        jax.checkpoint(jnp.sin)(x),
        jax.nn.relu(x),
        jax.nn.softmax(x),
        jax.nn.gelu(x),
        jax.numpy.linalg.norm(x),
    )

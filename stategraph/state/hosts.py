"""Values on their way through pickle: NumPy arrays, and keys as their numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax


def to_host(leaf: Any) -> Any:
    if _jax.is_key_array(leaf):
        return _Key(str(jax.random.key_impl(leaf)), np.asarray(jax.random.key_data(leaf)))
    return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf


class _Key:
    """A typed PRNG key on its way through pickle."""

    def __init__(self, impl: str, data: np.ndarray) -> None:
        self.impl = impl
        self.data = data


def from_host(leaf: Any) -> Any:
    """What ``to_host`` was given."""
    if isinstance(leaf, _Key):
        return jax.random.wrap_key_data(jnp.asarray(leaf.data), impl=leaf.impl)
    return leaf

"""Keys: what a seed means, and how a key gives the next one."""

from __future__ import annotations

import secrets
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax

SeedOrKey = Any
"""An integer seed, a typed key, a raw ``uint32`` key, a ``RandomState``, or None for a seed of the operating
system's.
"""


def fresh_seed() -> int:
    """A seed that nobody can foresee."""
    return secrets.randbits(32)


def as_key(seed_or_key: SeedOrKey) -> jax.Array:
    """The typed key that a seed or key means.

    A seed ``n`` means ``jax.random.key(n)``; a raw key (``uint32[2]``, from ``jax.random.PRNGKey``) is
    wrapped.
    """
    if seed_or_key is None:
        return jax.random.key(fresh_seed())
    if isinstance(seed_or_key, (int, np.integer)) and not isinstance(seed_or_key, bool):
        return jax.random.key(seed_or_key)
    if isinstance(seed_or_key, jax.Array) and _jax.is_key_array(seed_or_key):
        return seed_or_key
    if isinstance(seed_or_key, (jax.Array, np.ndarray)):
        if seed_or_key.ndim == 0 and np.issubdtype(seed_or_key.dtype, np.integer):
            return jax.random.key(seed_or_key)
        if seed_or_key.ndim >= 1 and seed_or_key.dtype == np.uint32:
            key: jax.Array = jax.random.wrap_key_data(jnp.asarray(seed_or_key))
            return key
    raise TypeError(
        "a seed or key is needed: an integer, jax.random.key(...) or a uint32 key array, "
        f"not {_what(seed_or_key)}"
    )


def _what(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array {value.dtype}{list(value.shape)}"
    return f"{value!r} ({type(value).__name__})"


def advance(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the next key, the key to draw with)."""
    keys = jax.random.split(key, 2)
    return keys[0], keys[1]


advance_compiled = jax.jit(advance)
"""``advance`` as one dispatch, for eager draws."""

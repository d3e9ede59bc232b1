"""A spike whose derivative is another function."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import jax
import jax.numpy as jnp

from stategraph import environ

Number = Any
"""A number or an array of numbers."""


@attrs.frozen
class Surrogate:
    """Base class of surrogates: an attrs class whose fields are its settings. Subclasses write ``surrogate_grad``."""

    def __call__(self, x: Any) -> jax.Array:
        """The spikes of ``x``: 1 where it is at least 0, else 0, in its floating-point type."""
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(environ.dftype())
        settings = attrs.asdict(self, recurse=False)
        arrays = {name: value for name, value in settings.items() if isinstance(value, jax.Array)}
        fixed = tuple((name, value) for name, value in settings.items() if name not in arrays)
        spikes: jax.Array = _spike(type(self), fixed, x, arrays)
        return spikes

    def surrogate_grad(self, x: Any) -> Any:
        """What stands for the derivative at ``x``."""
        raise NotImplementedError(f"{type(self).__name__} has no method surrogate_grad(x)")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _spike(kind: Any, fixed: Any, x: jax.Array, arrays: dict[str, jax.Array]) -> jax.Array:
    return (x >= 0).astype(x.dtype)


@_spike.defjvp
def _spike_jvp(kind: Any, fixed: Any, primals: Any, tangents: Any) -> Any:
    x, arrays = primals
    slope = jnp.asarray(kind(**dict(fixed), **arrays).surrogate_grad(x))
    return _spike(kind, fixed, x, arrays), slope.astype(x.dtype) * tangents[0]

"""Values between the slots of a delay's buffer.

A delay of ``s`` slots that is no whole number lies between the slots ``floor(s)`` and ``ceil(s)``. ``linear`` looks at
these two; the others look at slots around them, of which there are none beyond the newest and the oldest:

- ``cubic``, also called ``hermite``, is a cubic between the two slots whose slopes there are central differences, so that
  value and slope are continuous. At the ends of the buffer the slope is the difference of the last two slots. Catmull
  and Rom, "A class of local interpolating splines" (1974).
- ``polynomial2`` and ``polynomial3`` are the polynomials through three and four slots, in Lagrange's form; at the ends
  of the buffer, through the last ones that there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Slot = Callable[[Any], jax.Array]
"""The value in a slot, counted from the newest: an array of integers that are within the buffer."""


def nearest(at: Slot, slots: jax.Array, length: int) -> jax.Array:
    return at(jnp.round(slots).astype(jnp.int32))


def linear(at: Slot, slots: jax.Array, length: int) -> jax.Array:
    later, earlier = at(jnp.floor(slots).astype(jnp.int32)), at(jnp.ceil(slots).astype(jnp.int32))
    return later + (earlier - later) * _beside(slots - jnp.floor(slots), later)


def cubic(at: Slot, slots: jax.Array, length: int) -> jax.Array:
    if length < 2:
        return at(jnp.zeros_like(slots, jnp.int32))
    first = jnp.clip(jnp.floor(slots).astype(jnp.int32), 0, length - 2)
    near = [at(jnp.clip(first + offset, 0, length - 1)) for offset in (-1, 0, 1, 2)]
    start, end = near[1], near[2]
    inside = _beside(first > 0, start), _beside(first < length - 2, start)
    slope_start = jnp.where(inside[0], (end - near[0]) / 2, end - start)
    slope_end = jnp.where(inside[1], (near[3] - start) / 2, end - start)
    t = _beside(slots - first, start)
    rest = 1 - t
    value: jax.Array = (
        (1 + 2 * t) * rest**2 * start
        + t * rest**2 * slope_start
        + t**2 * (3 - 2 * t) * end
        - t**2 * rest * slope_end
    )
    return value


def _polynomial(count: int, before: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """Through ``count`` slots, the first of which is the one before ``before`` of the delay."""

    def polynomial(at: Slot, slots: jax.Array, length: int) -> jax.Array:
        nodes = min(count, length)
        first = jnp.clip(before(slots).astype(jnp.int32) - 1, 0, length - nodes)
        values = [at(first + node) for node in range(nodes)]
        x = _beside(slots - first, values[0])
        total: jax.Array = jnp.zeros_like(values[0])
        for node, value in enumerate(values):
            weight: Any = 1.0
            for other in range(nodes):
                weight = weight if other == node else weight * (x - other) / (node - other)
            total = total + weight * value
        return total

    return polynomial


def _beside(numbers: jax.Array, value: jax.Array) -> jax.Array:
    """What belongs to each delay, in a shape and type that goes with the values: delays are their first axes."""
    shaped = numbers.reshape(numbers.shape + (1,) * (value.ndim - numbers.ndim))
    return shaped if shaped.dtype == bool else shaped.astype(value.dtype)


INTERPOLATIONS: dict[str, Callable[[Slot, jax.Array, int], jax.Array]] = {
    "linear": linear,
    "linear_interp": linear,
    "round": nearest,
    "nearest": nearest,
    "cubic": cubic,
    "hermite": cubic,
    "polynomial2": _polynomial(3, jnp.ceil),
    "polynomial3": _polynomial(4, jnp.floor),
}
"""By the names under which ``Delay`` takes them."""

"""Synapses with their weights, as one operand: ``spikes @ (csr * weight)``, and the products of both directions.

``spikes @ connections`` goes the way of the spikes, from pre to post neurons; ``connections @ events`` the other way.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from stategraph.errors import describe
from stategraph.event.csr import CSR
from stategraph.event.product import product


class Weighted:
    """A connectivity with weights: ``csr * weight``.

    Args:
      csr: the synapses.
      weight: one number for all synapses, or one for each, ``(synapses,)``.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> csr = event.CSR([0, 2, 2, 3], [0, 1, 1], (3, 2))
    >>> jnp.array([True, False, True]) @ (csr * 0.5)
    Array([0.5, 1. ], dtype=float32)
    >>> (csr * 0.5) @ jnp.array([True, False])
    Array([0.5, 0. , 0. ], dtype=float32)
    """

    __array_ufunc__ = None

    def __init__(self, csr: CSR, weight: Any) -> None:
        self.csr = csr
        self.weight = weight
        self.shape = csr.shape

    def todense(self) -> jax.Array:
        """The matrix ``(pre, post)``."""
        return self.csr.todense(self.weight)

    def __rmatmul__(self, events: Any) -> jax.Array:
        return product(events, self.weight, self.csr)

    def __matmul__(self, events: Any) -> jax.Array:
        return from_post(
            events, self.shape, lambda given: product(given, self.weight, self.csr, transpose=True)
        )

    def __repr__(self) -> str:
        return f"{self.csr!r} * {'one weight' if jnp.ndim(self.weight) == 0 else 'weights'}"


def from_post(events: Any, shape: tuple[int, int], send: Any) -> jax.Array:
    """``connections @ events``: ``send`` takes events ``(..., post)``, and ``@`` has the post neurons on the last axis but
    one where there are several.
    """
    given = jnp.asarray(events)
    axis = max(given.ndim - 2, 0)
    if given.ndim == 0 or given.shape[axis] != shape[1]:
        raise ValueError(
            describe(
                f"connections @ events: events of the shape {given.shape} do not fit {shape[1]} post neurons.",
                why=f"their {'last axis' if given.ndim < 2 else 'last axis but one'} has one element for each",
                fix="events @ connections goes from pre to post neurons",
            )
        )
    if given.ndim == 1:
        arrived: jax.Array = send(given)
        return arrived
    return jnp.swapaxes(send(jnp.swapaxes(given, -1, -2)), -1, -2)

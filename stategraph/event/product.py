"""The product of events with a connectivity: ``post[j] = sum over i of events[i] * weight[i, j]``.

What is here checks shapes and dtypes; the products are the primitives of ``stategraph.backends.events``, which stand
in a program as ops ``event.csr``.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from stategraph.backends.events.primitives import csr_product
from stategraph.errors import describe
from stategraph.event.csr import CSR

SMALL = 1024
"""Synapses of which all are looked at as fast as those of active neurons are found."""


def as_events(given: jax.Array, dtype: Any) -> jax.Array:
    """Events as they are multiplied with weights of a dtype: as bools, or in that dtype.

    Raises:
      TypeError: for complex events and real weights.
    """
    if given.dtype in (jnp.bool_, dtype):
        return given
    if jnp.issubdtype(given.dtype, jnp.complexfloating) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            describe(
                f"Events are {given.dtype}, and the weights {dtype}.",
                why="what arrives has the dtype of the weights, which holds no imaginary part",
                fix="give complex weights, or events.real",
            )
        )
    return given.astype(dtype)


def product(events: Any, weight: Any, csr: CSR, *, transpose: bool = False) -> jax.Array:
    """Send events through synapses.

    Args:
      events: ``(..., pre)``: booleans, or numbers that are mostly zero.
      weight: one number for all synapses, or one for each, ``(synapses,)``.
      csr: the synapses.
      transpose: send from post to pre, against the direction of the synapses: events are ``(..., post)`` then. The first
        such product lists the synapses by post neuron, ``csr.by_post``: 8 bytes for each, kept with the connectivity.
        Where many neurons are active, every synapse is looked at.

    Returns:
      What arrives: ``(..., post)``, of the weight's dtype; ``(..., pre)`` with ``transpose``.

    Raises:
      ValueError: when the shapes do not fit.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> csr = event.CSR([0, 2, 2, 3], [0, 1, 1], (3, 2))
    >>> event.product(jnp.array([True, False, True]), 0.5, csr)
    Array([0.5, 1. ], dtype=float32)
    """
    given, weights = jnp.asarray(events), jnp.asarray(weight)
    if not jnp.issubdtype(weights.dtype, jnp.inexact):
        weights = weights.astype(jnp.result_type(float))
    senders = csr.shape[1] if transpose else csr.shape[0]
    if given.ndim == 0 or given.shape[-1] != senders:
        raise ValueError(
            describe(
                f"Events of the shape {given.shape} do not fit {csr}.",
                why=f"the last axis has one element for each of the {senders} {'post' if transpose else 'pre'} neurons",
            )
        )
    if weights.shape not in ((), (csr.size,)):
        raise ValueError(
            describe(
                f"Weights of the shape {weights.shape} do not fit {csr}.",
                why=f"there is one weight for all synapses, (), or one for each, {(csr.size,)}",
            )
        )
    given = as_events(given, weights.dtype)
    flat = given if given.ndim == 1 else given.reshape(math.prod(given.shape[:-1]), senders)
    by_post: tuple[Any, Any, Any] | tuple[()] = ()
    if transpose and csr.size >= SMALL:
        columns, order = csr.by_post
        by_post = columns.indptr, columns.indices, order
    sent: jax.Array = csr_product(flat, weights, csr.indptr, csr.indices, csr.shape, transpose, by_post)
    return sent.reshape(*given.shape[:-1], sent.shape[-1])

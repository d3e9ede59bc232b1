"""The product of events with a connectivity: ``post[j] = sum over i of events[i] * weight[i, j]``.

Forward, a loop goes over the active rows and adds each to the result; neurons are passed over in chunks of
``CHUNK`` when none of them is active. Derivatives are linear in what they propagate and use every synapse once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from stategraph.errors import describe
from stategraph.event.csr import CSR

CHUNK = 16


def product(events: Any, weight: Any, csr: CSR) -> jax.Array:
    """Send events through synapses.

    Args:
      events: ``(..., pre)``: booleans, or numbers that are mostly zero.
      weight: one number for all synapses, or one for each, ``(synapses,)``.
      csr: the synapses.

    Returns:
      What arrives: ``(..., post)``, of the weight's dtype.

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
    if given.ndim == 0 or given.shape[-1] != csr.shape[0]:
        raise ValueError(
            describe(
                f"Events of the shape {given.shape} do not fit {csr}.",
                why=f"the last axis has one element for each of the {csr.shape[0]} pre neurons",
            )
        )
    if weights.shape not in ((), (csr.size,)):
        raise ValueError(
            describe(
                f"Weights of the shape {weights.shape} do not fit {csr}.",
                why=f"there is one weight for all synapses, (), or one for each, {(csr.size,)}",
            )
        )
    if given.dtype != weights.dtype and given.dtype != jnp.bool_:
        given = given.astype(weights.dtype)

    @jax.custom_jvp
    def send(events: jax.Array, weights: jax.Array) -> jax.Array:
        return _by_rows(events, weights, csr)

    @send.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        (events, weights), (moved, changed) = primals, tangents
        out = send(events, weights)
        if events.dtype == jnp.bool_:
            return out, by_synapses(events.astype(weights.dtype), changed, csr)
        return out, by_synapses(moved, weights, csr) + by_synapses(events, changed, csr)

    flat = given.reshape(-1, csr.shape[0])
    if flat.shape[0] == 1:
        sent = send(flat[0], weights)
    else:
        sent = lax.map(lambda row: send(row, weights), flat)
    return sent.reshape(*given.shape[:-1], csr.shape[1])


def by_synapses(events: jax.Array, weights: jax.Array, csr: CSR) -> jax.Array:
    """The same product over all synapses, whatever is active. Linear in both, for any order of derivative."""
    return jax.ops.segment_sum(events[csr.rows] * weights, csr.indices, csr.shape[1])


def _by_rows(events: jax.Array, weights: jax.Array, csr: CSR) -> jax.Array:
    pre, post = csr.shape
    nothing = jnp.zeros(post + 1, weights.dtype)  # the last element takes what is beyond the end of a row
    if not csr.size:
        return nothing[:post]
    values = jnp.pad(events, (0, -pre % CHUNK)).reshape(-1, CHUNK)
    active = values != 0
    some = active.any(axis=1)
    places = jnp.arange(csr.width)
    indptr, targets = csr.indptr, csr._padded
    own = weights if weights.ndim == 0 else jnp.pad(weights, (0, csr.width))

    def add(row: Any, value: Any, total: Any) -> Any:
        start, length = indptr[row], indptr[row + 1] - indptr[row]
        columns = lax.dynamic_slice(targets, (start,), (csr.width,))
        columns = jnp.where(places < length, columns, post)
        sent = own if weights.ndim == 0 else lax.dynamic_slice(own, (start,), (csr.width,))
        if value.dtype != jnp.bool_:
            sent = sent * value
        return total.at[columns].add(sent, mode="promise_in_bounds")

    def visit(chunk: Any, total: Any) -> Any:
        def one(k: Any, total: Any) -> Any:
            value = values[chunk, k]
            return lax.cond(active[chunk, k], lambda t: add(chunk * CHUNK + k, value, t), lambda t: t, total)

        return lax.fori_loop(0, CHUNK, one, total)

    total: jax.Array = lax.fori_loop(
        0, values.shape[0], lambda c, t: lax.cond(some[c], lambda t: visit(c, t), lambda t: t, t), nothing
    )
    return total[:post]

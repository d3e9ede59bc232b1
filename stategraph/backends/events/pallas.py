"""Sparse products of events for GPUs, in Pallas: a program for each neuron that may be active.

A program whose neuron is silent ends at once. The others walk along their row, a block of synapses at a time, and add
to the sum with atomic operations, in an order that the hardware decides. Memory: the sum is updated in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

BLOCK = 128
"""Synapses that are added at once."""


def csr_add(
    total: Any,
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    *,
    shape: tuple[int, int],
    transposed: bool,
    interpret: bool = False,
) -> Any:
    """``event.csr_add`` of events ``(pre,)`` or ``(batch, pre)``, from pre to post.

    Args:
      total: what is added to, ``(..., post)``.
      interpret: run the kernel as ordinary operations, on any device.
    """
    if not indices.shape[0] or not events.size:
        return total
    sums, given = jnp.atleast_2d(total), jnp.atleast_2d(events)
    own = jnp.atleast_1d(weight)
    valued = events.dtype != jnp.bool_
    if not valued:
        given = given.astype(jnp.uint8)
    add = _serial if interpret else _atomic
    program = functools.partial(_row, each=weight.ndim == 1, valued=valued, add=add)
    added = pl.pallas_call(
        program,
        grid=given.shape,
        out_shape=jax.ShapeDtypeStruct(sums.shape, sums.dtype),
        input_output_aliases={4: 0},
        compiler_params=None if interpret else triton.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="event_rows",
    )(given, own, indptr, indices, sums)
    return added.reshape(total.shape)


def csr(events: Any, weight: Any, *connectivity: Any, shape: tuple[int, int], **params: Any) -> Any:
    """``event.csr``, as a sum that begins at zero."""
    nothing = jnp.zeros((*events.shape[:-1], shape[1]), weight.dtype)
    return csr_add(nothing, events, weight, *connectivity, shape=shape, **params)


def _atomic(out: Any, batch: Any, targets: Any, sent: Any) -> None:
    triton.atomic_add(out, (batch, targets), sent)


def _serial(out: Any, batch: Any, targets: Any, sent: Any) -> None:
    """The interpreter runs one program after another; its atomic addition loses repeated targets."""
    out[batch, :] = out[batch, :].at[targets].add(sent)


def _row(
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    before: Any,
    out: Any,
    *,
    each: bool,
    valued: bool,
    add: Callable[..., None],
) -> None:
    """One neuron of one vector of the batch; ``before`` and ``out`` are the same memory.

    ``each``: whether every synapse has a weight of its own; ``valued``: whether events are more than 0 or 1.
    """
    batch, row = pl.program_id(0), pl.program_id(1)
    event = events[batch, row]

    @pl.when(event != 0)
    def _() -> None:
        start, end = indptr[row], indptr[row + 1]
        scale = event if valued else 1

        def block(k: Any, carry: Any) -> Any:
            places = start + k * BLOCK + jnp.arange(BLOCK)
            own = places < end
            places = jnp.where(own, places, 0)
            sent = weight[places] if each else jnp.full(BLOCK, weight[0])
            add(out, batch, indices[places], jnp.where(own, (sent * scale).astype(out.dtype), 0))
            return carry

        jax.lax.fori_loop(0, (end - start + BLOCK - 1) // BLOCK, block, None)

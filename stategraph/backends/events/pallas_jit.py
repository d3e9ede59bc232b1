"""Products with connectivity that is not stored, for GPUs in Pallas: rows are made of the seed where they are needed.

The numbers are those of ``jit_generic``, bit for bit. A program makes a block of gaps at once; their running sum gives
the synapses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from stategraph.backends.events.generic import of_sums
from stategraph.backends.events.hashing import (
    Gaps,
    another,
    normal,
    normals,
    numbers,
    streams,
    uniform,
)
from stategraph.backends.events.pallas import BLOCK, WARP, add, power, put, side_by_side, walk, warps

LONGEST = 2**31 - 1
"""What running sums of gaps may reach."""


def jit(
    events: Any,
    weight: Any,
    seed: Any,
    *,
    shape: tuple[int, int],
    prob: float,
    law: str,
    include_self: bool,
    transposed: bool,
    interpret: bool = False,
) -> Any:
    """``event.jit``: from pre to post over active rows, against their direction over all."""
    (pre, post), flags = shape, events if events.ndim == 2 else events[None]
    block = power(min(max(round(2 * post * prob), WARP), 4 * BLOCK, LONGEST // (post + 1) - 1))
    gaps, sums = Gaps.of(prob), of_sums(weight.dtype)

    def synapses(row: Any, refs: Any, each: Callable[[Any, Any, Any, Any], Any], total: Any) -> Any:
        """``each(post neurons, which of them are there, weights, total)`` for the blocks of a row."""
        weights, seed, table, quantiles = refs
        stream = streams((seed[0], seed[1]), row.astype(jnp.uint32))
        end = post if include_self else post - (row < post).astype(jnp.int32)

        def piece(state: Any) -> Any:
            last, first, total = state
            bits = numbers(stream, first + lax.iota(jnp.uint32, block))
            passed = gaps(bits, lambda i: (table[0, i], table[1, i]), _leading_zeros)
            steps = jnp.minimum(passed, np.uint32(post))
            found = last + jnp.cumsum(steps.astype(jnp.int32) + 1)
            there, last = found < end, jnp.minimum(jnp.max(found), post)
            if not include_self:
                found = found + (found >= row).astype(jnp.int32)
            if law == "one":
                own = jnp.full(block, weights[0])
            else:
                random = (
                    uniform(another(bits))
                    if law == "uniform"
                    else normal(another(bits), lambda i: quantiles[i])
                )
                own = weights[0] + weights[1] * random.astype(weight.dtype)
            return last, first + np.uint32(block), each(found, there, own, total)

        start = (jnp.int32(-1), jnp.uint32(0), total)
        return lax.while_loop(lambda state: state[0] < post - 1, piece, start)[2]

    given = (jnp.atleast_1d(weight), seed, jnp.asarray(gaps.table()), jnp.asarray(normals()))
    if not transposed:

        def row(neuron: Any, event: Any, lane: Any, refs: Any) -> None:
            *made, _, out = refs

            def each(found: Any, there: Any, own: Any, total: Any) -> Any:
                sent = own.astype(sums) if event.dtype == jnp.bool_ else own.astype(sums) * event.astype(sums)
                add(out, lane, jnp.where(there, found, 0), sent, there, interpret)
                return total

            synapses(neuron, made, each, jnp.int32(0))

        nothing = jnp.zeros((flags.shape[0], post), sums)
        sent = walk(row, events, (*given, nothing), block, interpret, "event_jit_rows")
        return sent.reshape(*events.shape[:-1], post).astype(weight.dtype)

    def program(flags: Any, *refs: Any) -> None:
        *made, out = refs
        place = pl.program_id(0)
        lane, neuron = place // pre, place % pre

        def each(found: Any, there: Any, own: Any, total: Any) -> Any:
            arrived = flags[lane, jnp.where(there, found, 0)].astype(sums)
            return total + jnp.where(there, arrived * own.astype(sums), 0)

        total = synapses(neuron, made, each, jnp.zeros(block, sums)).sum()
        put(out, jnp.full(1, place), jnp.full(1, total), jnp.full(1, True), interpret)

    received = side_by_side(
        program,
        flags.shape[0] * pre,
        jax.ShapeDtypeStruct((flags.shape[0] * pre,), sums),
        (flags.astype(jnp.uint8) if flags.dtype == jnp.bool_ else flags, *given),
        warps(block),
        interpret,
        "event_jit_columns",
    )
    return received.reshape(*events.shape[:-1], pre).astype(weight.dtype)


def _leading_zeros(bits: Any) -> Any:
    """Those of ``uint32``; Triton counts them in signed numbers."""
    return lax.clz(lax.bitcast_convert_type(bits, jnp.int32)).astype(jnp.uint32)

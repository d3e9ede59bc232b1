"""Products with connectivity that is not stored: its synapses come from a seed whenever they are needed.

Row ``i`` is made of the numbers of its stream (see ``hashing``): number ``k`` is the gap between its synapses ``k`` and
``k + 1``, and its bits decide the random part ``x`` of the weight, ``weight[0] + weight[1] * x``. The numbers are the same
on every platform, bit for bit; what is summed of them is rounded as every sum is. A row without its own neuron is made for
a neuron less, and places from its own on are one further.

The forms are those of ``generic``: the loop over active rows, and everything at once. The meaning of the op is the product
with the dense matrix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from stategraph.backends.events.generic import MEANINGS, of_sums, over_active
from stategraph.backends.events.hashing import (
    Gaps,
    another,
    candidates,
    normal,
    normals,
    numbers,
    streams,
    uniform,
)

LAWS = ("one", "uniform", "normal")
"""The laws of weights: the same for all; with a random part that is uniform in [0, 1), or normal."""

BLOCK = 256
"""Rows that are made at once where all are needed."""


class Rows:
    """The rows of a connectivity."""

    def __init__(self, seed: Any, shape: tuple[int, int], prob: float, law: str, include_self: bool) -> None:
        self.seed, self.law, self.include_self = seed, law, include_self
        self.pre, self.post = shape
        self.width = candidates(self.post, prob) if prob else 0
        self.gaps = Gaps.of(prob) if prob else None
        self.table = jnp.asarray(self.gaps.table()) if self.gaps else None
        self.quantiles = jnp.asarray(normals())

    def given(self, seed: Any, table: Any, quantiles: Any) -> Rows:
        """The same with other arrays: the operands of a function that makes them."""
        found = copy.copy(self)
        found.seed, found.table, found.quantiles = seed, table, quantiles
        return found

    @property
    def none(self) -> bool:
        """Whether there are no synapses at all."""
        return self.gaps is None or not self.pre or not self.post

    def over(self, row: Any, each: Any, total: Any) -> Any:
        """``each(post neurons, which of them are there, random parts, total)`` for pieces of a row, or of an array of rows:
        the first synapses of all, and the next ones while some row has any.
        """
        stream = tuple(word[..., None] for word in streams(self.seed, row))
        places = jnp.arange(self.width, dtype=jnp.uint32)
        own = row.astype(jnp.int32)[..., None]
        end = self.post if self.include_self else self.post - (own < self.post)

        def piece(state: Any) -> Any:
            last, first, total = state
            bits = numbers(stream, first + places)
            found = last[..., None] + jnp.cumsum(self.steps(bits), axis=-1)
            there = found < end
            last = jnp.minimum(found[..., -1], self.post)
            found = found if self.include_self else found + (found >= own)
            return last, first + self.width, each(found, there, self.random(bits), total)

        start = (jnp.full(row.shape, -1, jnp.int32), jnp.uint32(0), total)
        return lax.while_loop(lambda state: (state[0] < self.post - 1).any(), piece, start)[2]

    def steps(self, bits: Any) -> Any:
        """From one synapse to the next."""
        table = self.table
        if self.gaps is None or table is None:
            raise ValueError("there are no synapses")
        gaps = self.gaps(bits, lambda i: (table[0, i], table[1, i]), lax.clz)
        return jnp.minimum(gaps, np.uint32(self.post)).astype(jnp.int32) + 1

    def blocks(self) -> Any:
        """The rows in blocks ``(blocks, BLOCK)``, with some that are none at the end."""
        padded = self.pre + -self.pre % BLOCK
        return jnp.arange(padded, dtype=jnp.uint32).reshape(-1, BLOCK)

    def random(self, bits: Any) -> Any:
        """The random parts of weights, None where there are none."""
        if self.law == "one":
            return None
        if self.law == "uniform":
            return uniform(another(bits))
        return normal(another(bits), lambda i: self.quantiles[i])


def weighed(weight: Any, random: Any) -> Any:
    """The weights of synapses."""
    return weight if random is None else weight[0] + weight[1] * random.astype(weight.dtype)


def jit_matrix(
    weight: Any, seed: Any, *, shape: tuple[int, int], prob: float, law: str, include_self: bool
) -> Any:
    """The dense matrix ``(pre, post)``: a function of the weight that can be differentiated, in which no loop takes it."""
    rows = Rows(seed, shape, prob, law, include_self)
    if rows.none:
        return jnp.zeros(shape, weight.dtype)

    def block(own: Any) -> Any:
        def each(found: Any, there: Any, random: Any, total: list[Any]) -> list[Any]:
            places = jnp.where(there, found, rows.post)
            parts = [True] if random is None else [True, random]
            lines = jnp.arange(BLOCK)[:, None]
            return [part.at[lines, places].set(given) for part, given in zip(total, parts, strict=True)]

        dtypes = [bool] if law == "one" else [bool, jnp.float32]
        return rows.over(own, each, [jnp.zeros((BLOCK, rows.post + 1), dtype) for dtype in dtypes])

    found = lax.map(block, rows.blocks())
    there, *random = (part.reshape(-1, rows.post + 1)[: rows.pre, : rows.post] for part in found)
    return jnp.where(there, weighed(weight, *(random or [None])), jnp.zeros((), weight.dtype))


def jit_dense(events: Any, weight: Any, seed: Any, *, transposed: bool, **connectivity: Any) -> Any:
    """``event.jit`` as its meaning: the product with the dense matrix."""
    matrix = jit_matrix(weight, seed, **connectivity)
    return events.astype(weight.dtype) @ (matrix.T if transposed else matrix)


def jit_by(rows_added: Callable[[Any, Any, Rows], Any]) -> Callable[..., Any]:
    """``event.jit`` over active rows; against the direction of the synapses over all of them.

    Args:
      rows_added: ``(events, weight, rows)``, the sum of the active rows of one vector.
    """

    def jit(events: Any, weight: Any, seed: Any, *, transposed: bool, **connectivity: Any) -> Any:
        rows = Rows(seed, **connectivity)
        if rows.none or transposed:
            return jit_by_synapses(events, weight, seed, transposed=transposed, **connectivity)
        if events.ndim == 1:
            return rows_added(events, weight, rows)
        return lax.map(lambda own: rows_added(own, weight, rows), events)

    return jit


def sum_of_rows(events: Any, weight: Any, rows: Rows, add_each: Callable[[Any, Any, Any], Any]) -> Any:
    """The sum of active rows; ``add_each(total, places, values)`` adds up those of a piece of a row."""
    sums = of_sums(weight.dtype)

    def add(row: Any, value: Any, total: Any) -> Any:
        def each(found: Any, there: Any, random: Any, total: Any) -> Any:
            sent = weighed(weight, random).astype(sums) * value.astype(sums)
            return add_each(total, jnp.where(there, found, rows.post), sent)

        return rows.over(row.astype(jnp.uint32), each, total)

    return over_active(events, add, jnp.zeros(rows.post + 1, sums))[: rows.post].astype(weight.dtype)


jit_by_rows = jit_by(
    lambda events, weight, rows: sum_of_rows(
        events, weight, rows, lambda total, places, sent: total.at[places].add(sent)
    )
)
"""``event.jit``, one scatter for a piece of a row."""


def jit_by_synapses(
    events: Any,
    weight: Any,
    seed: Any,
    *,
    shape: tuple[int, int],
    prob: float,
    law: str,
    include_self: bool,
    transposed: bool,
) -> Any:
    """``event.jit`` over all synapses, in blocks of rows."""
    rows = Rows(seed, shape, prob, law, include_self)
    pre, post = shape
    if rows.none:
        return jnp.zeros((*events.shape[:-1], pre if transposed else post), weight.dtype)
    sums = of_sums(weight.dtype)
    values = events.astype(sums)
    if transposed:

        def receive(own: Any) -> Any:
            def each(found: Any, there: Any, random: Any, total: Any) -> Any:
                arrived = values[..., jnp.where(there, found, 0)]
                return total + jnp.where(there, arrived * weighed(weight, random).astype(sums), 0).sum(-1)

            return rows.over(own, each, jnp.zeros((*events.shape[:-1], BLOCK), sums))

        arrived = jnp.moveaxis(lax.map(receive, rows.blocks()), 0, -2)
        return arrived.reshape(*events.shape[:-1], pre + -pre % BLOCK)[..., :pre].astype(weight.dtype)

    def send(total: Any, block: Any) -> Any:
        own, values = block

        def each(found: Any, there: Any, random: Any, total: Any) -> Any:
            sent = values[..., None] * weighed(weight, random).astype(sums)
            return total.at[..., jnp.where(there, found, post)].add(sent)

        return rows.over(own, each, total), None

    padded = jnp.pad(values, [(0, 0)] * (events.ndim - 1) + [(0, -pre % BLOCK)])
    blocks = jnp.moveaxis(padded.reshape(*events.shape[:-1], padded.shape[-1] // BLOCK, BLOCK), -2, 0)
    total = jnp.zeros((*events.shape[:-1], post + 1), sums)
    return lax.scan(send, total, (rows.blocks(), blocks))[0][..., :post].astype(weight.dtype)


MEANINGS["event.jit"] = jit_dense

"""Products of events with dense matrices, and lists of events, for GPUs in Pallas.

A matrix is read by rows, those of active neurons only. So a product with one vector never reads more than an ordinary
one, which is as slow as memory is; products of several vectors are ordinary ones.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from stategraph.backends.events.generic import of_sums
from stategraph.backends.events.pallas import PROGRAMS, add, power, put, side_by_side, warps

COLUMNS = 512
"""Columns of a program, at most."""
TILE = 128
"""Neurons that a program looks at at once, if they are expected to be silent."""
ROWS = 8
"""Rows that a program reads at once, if nobody knows."""
LISTED = 1024
"""Events that one program lists."""


def dense(
    events: Any, matrix: Any, *, transposed: bool, threshold: float | None, interpret: bool = False
) -> Any:
    """``event.dense`` of one vector with the rows of a matrix, in groups of rows whose sums are added up.

    Where somebody said that events are rare (no ``threshold``), the rows of active neurons are read one after another,
    and silent neurons cost next to nothing. Else rows are read in blocks, at the speed of memory if all are active.
    """
    pre, post = matrix.shape
    width = power(min(max(2 * post - 1, 32), COLUMNS))
    across = pl.cdiv(post, width)
    each = pl.cdiv(pre, power(min(PROGRAMS // across, pre // 32)))
    valued = events.dtype != jnp.bool_
    read = _one_by_one if threshold is None else _in_blocks

    def program(events: Any, matrix: Any, before: Any, out: Any) -> None:
        place = pl.program_id(0)
        columns = place % across * width + jnp.arange(width, dtype=jnp.int32)
        own = columns < post
        columns = jnp.where(own, columns, 0)
        first = place // across * each
        found, total = read(events, matrix, first, jnp.minimum(first + each, pre), columns, own, valued)

        @pl.when(found > 0)
        def _() -> None:
            add(out, 0, columns, total, own, interpret)

    nothing = jnp.zeros((1, post), of_sums(matrix.dtype))
    given = (events if valued else events.astype(jnp.uint8), matrix, nothing)
    out = jax.ShapeDtypeStruct(nothing.shape, nothing.dtype)
    programs = across * pl.cdiv(pre, each)
    sent = side_by_side(program, programs, out, given, warps(width), interpret, "event_dense", {2: 0})[0]
    return sent.astype(matrix.dtype)


def _one_by_one(
    events: Any, matrix: Any, first: Any, last: Any, columns: Any, own: Any, valued: bool
) -> tuple[Any, Any]:
    """(how many rows from ``first`` to ``last`` are active, the sum of their columns)."""
    lanes, sums = jnp.arange(TILE, dtype=jnp.int32), of_sums(matrix.dtype)

    def tile(k: Any, state: Any) -> Any:
        begin = first + k * TILE
        there = begin + lanes < last
        active = there & (events[jnp.where(there, begin + lanes, 0)] != 0)

        def following(after: Any) -> Any:
            return jnp.min(jnp.where(active & (lanes > after), lanes, TILE))

        def visit(state: Any) -> Any:
            at, found, total = state
            sent = matrix[begin + at, columns].astype(sums)
            sent = sent * events[begin + at].astype(sums) if valued else sent
            return following(at), found + 1, total + sent

        return lax.while_loop(lambda state: state[0] < TILE, visit, (following(-1), *state))[1:]

    start = (jnp.int32(0), jnp.zeros(columns.shape, sums))
    found, total = lax.fori_loop(0, (last - first + TILE - 1) // TILE, tile, start)
    return found, total


def _in_blocks(
    events: Any, matrix: Any, first: Any, last: Any, columns: Any, own: Any, valued: bool
) -> tuple[Any, Any]:
    """The same, reading several rows at once."""
    sums = of_sums(matrix.dtype)

    def part(k: Any, state: Any) -> Any:
        found, total = state
        rows = first + k * ROWS + jnp.arange(ROWS, dtype=jnp.int32)
        there = rows < last
        values = events[jnp.where(there, rows, 0)]
        active = there & (values != 0)
        wanted = active[:, None] & own[None, :]
        at = jnp.where(active, rows, 0)[:, None], columns[None, :]
        places = tuple(jnp.broadcast_to(axis, wanted.shape) for axis in at)
        sent = triton.load(matrix.at[places], mask=wanted, other=0).astype(sums)
        if valued:
            sent = jnp.where(wanted, sent * values[:, None].astype(sums), 0)
        return found + active.astype(jnp.int32), total + sent

    start = jnp.zeros(ROWS, jnp.int32), jnp.zeros((ROWS, columns.shape[0]), sums)
    found, total = lax.fori_loop(0, (last - first + ROWS - 1) // ROWS, part, start)
    return found.sum(), total.sum(axis=0)


def places(events: Any, *, interpret: bool = False) -> Any:
    """``event.compact``: XLA counts the events of each part, then every part knows where its list begins."""
    flat = events.reshape(-1)
    size = flat.size
    parts = pl.cdiv(size, LISTED)
    counts = jnp.pad(flat, (0, parts * LISTED - size)).reshape(parts, LISTED).sum(1, dtype=jnp.int32)
    ends = jnp.cumsum(counts, dtype=jnp.int32)

    def program(flat: Any, begins: Any, total: Any, out: Any) -> None:
        part = pl.program_id(0)
        at = part * LISTED + jnp.arange(LISTED, dtype=jnp.int32)
        there = at < size
        active = there & (flat[jnp.where(there, at, 0)] != 0)
        put(out, begins[part] + jnp.cumsum(active.astype(jnp.int32)), at, active, interpret)
        put(out, jnp.zeros(1, jnp.int32), jnp.full(1, total[0]), jnp.full(1, part == 0), interpret)

    out = jax.ShapeDtypeStruct((1 + size,), jnp.int32)
    given = (flat.astype(jnp.uint8), ends - counts, ends[-1:])
    return side_by_side(program, parts, out, given, 4, interpret, "event_list")


def try_lowering() -> None:
    """Lower a small kernel for this GPU, and raise whatever JAX raises."""
    with jax.disable_jit(False), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        jax.jit(places).lower(jax.ShapeDtypeStruct((LISTED,), jnp.bool_))

"""Event products on a CPU as one loop each, over active rows and the synapses of these, that XLA compiles as one function.

A program of XLA runs on a CPU as a list of small functions, one for each op, and a loop calls those of its body again in
each round: 0.1 µs each, as much as a hundred synapses cost. So ``generic`` adds up a row at once, with a scatter. Here a
whole product is one function of machine code (``_jax.in_one_function``), and a round costs its instructions. No such
function holds a scatter: synapses are added one by one, several to a round.

These forms are for programs of this process that run on one device. Where nobody knows whether XLA will compile them as
one function, in programs that are exported, a loop over synapses could be a hundred times as slow; and where XLA
divides a program among devices, it would put communication in the middle of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from stategraph import _jax
from stategraph.backends.events import changes, generic, jit_generic, ring
from stategraph.backends.events.generic import of_sums, over_active

PIECE = 8
"""Synapses to a round."""


def csr_rows(events: Any, weight: Any, indptr: Any, indices: Any, order: Any, size: int) -> Any:
    """The sum of active rows, in which synapse ``s`` has the weight ``order[s]``, or ``s`` without ``order``."""
    return _rows_added(None, events, weight, indptr, indices, order, size)


csr = generic.csr_by(csr_rows)
"""``event.csr`` over the synapses of active rows."""


def csr_add(
    total: Any, events: Any, weight: Any, indptr: Any, indices: Any, *by_post: Any, **params: Any
) -> Any:
    """``event.csr_add`` over the synapses of active rows, in place."""
    if params["transposed"] or not indices.shape[0] or of_sums(total.dtype) != total.dtype:
        return total + csr(events, weight, indptr, indices, *by_post, **params)

    def lane(own: Any) -> Any:
        return _rows_added(own[0], own[1], weight, indptr, indices, None, total.shape[-1])

    return lane((total, events)) if events.ndim == 1 else lax.map(lane, (total, events))


def _rows_added(
    total: Any, events: Any, weight: Any, indptr: Any, indices: Any, order: Any, size: int
) -> Any:
    def compute(total: Any, events: Any, weight: Any, indptr: Any, indices: Any, order: Any) -> Any:
        sums = of_sums(weight.dtype)

        def add(row: Any, value: Any, total: Any) -> Any:
            def piece(begin: Any, count: int, total: Any) -> Any:
                sent = _weights(weight, order, begin, count, sums)
                if value.dtype != jnp.bool_:
                    sent = [one * value.astype(sums) for one in sent]
                return _add_each(total, _place(_taken(indices, begin, count)), sent)

            return _over_synapses(row, indptr, indices, piece, total)

        start = jnp.zeros(size, sums) if total is None else total
        return over_active(events, add, start).astype(weight.dtype)

    return _jax.in_one_function(compute, total, events, weight, indptr, indices, order)


def csr_ring(
    total: Any, events: Any, weight: Any, indptr: Any, indices: Any, base: Any, *, shape: tuple[int, int]
) -> Any:
    """``event.csr_ring`` over the synapses of active rows."""
    size = shape[1]
    if not indices.shape[0]:
        return ring.taken(total, base, size)

    def compute(total: Any, events: Any, weight: Any, indptr: Any, indices: Any, base: Any) -> Any:
        def add(row: Any, value: Any, total: Any) -> Any:
            def piece(begin: Any, count: int, total: Any) -> Any:
                sent = _weights(weight, None, begin, count, total.dtype)
                if value.dtype != jnp.bool_:
                    sent = [one * value.astype(total.dtype) for one in sent]
                places = _taken(indices, begin, count) + base
                return _add_each(total, _place(jnp.where(places >= size, places - size, places)), sent)

            return _over_synapses(row, indptr, indices, piece, total)

        return ring.taken(over_active(events, add, total), base, size)

    def lane(own: Any) -> Any:
        return _jax.in_one_function(compute, *own, weight, indptr, indices, base)

    return lane((total, events)) if events.ndim == 1 else lax.map(lane, (total, events))


def csr_outer(pre: Any, post: Any, indptr: Any, indices: Any, *, shape: tuple[int, int]) -> Any:
    """``event.csr_outer`` over the synapses of active rows."""
    if not indices.shape[0] or post.dtype == jnp.bool_:
        return generic.outer_by_synapses(pre, post, indptr, indices, shape=shape)
    return csr_outer_add(jnp.zeros(indices.shape, post.dtype), pre, post, indptr, indices, shape=shape)


def csr_outer_add(
    total: Any, pre: Any, post: Any, indptr: Any, indices: Any, *, shape: tuple[int, int]
) -> Any:
    """``event.csr_outer_add`` over the synapses of active rows, in place."""
    if not indices.shape[0] or post.dtype == jnp.bool_:
        return total + generic.outer_by_synapses(pre, post, indptr, indices, shape=shape)

    def compute(total: Any, pre: Any, post: Any, indptr: Any, indices: Any) -> Any:
        def add(row: Any, value: Any, total: Any) -> Any:
            def piece(begin: Any, count: int, total: Any) -> Any:
                ends = _place(_taken(indices, begin, count))
                found = [_taken(post, ends[k]) for k in range(count)]
                if value.dtype != jnp.bool_:
                    found = [one * value for one in found]
                return _add_each(total, begin + jnp.arange(count, dtype=begin.dtype), found)

            return _over_synapses(row, indptr, indices, piece, total)

        return over_active(pre, add, total)

    def lane(pre: Any, post: Any, total: Any) -> Any:
        return _jax.in_one_function(compute, total, pre, post, indptr, indices)

    if pre.ndim == 1:
        return lane(pre, post, total)
    return lax.fori_loop(0, pre.shape[0], lambda b, total: lane(pre[b], post[b], total), total)


def csr_change(
    weight: Any,
    events: Any,
    others: Any,
    amount: Any,
    indptr: Any,
    indices: Any,
    *order: Any,
    shape: tuple[int, int],
    **law: Any,
) -> Any:
    """``event.csr_change`` over the synapses of active rows, in place."""
    if not indices.shape[0]:
        return weight

    def compute(
        weight: Any, events: Any, others: Any, amount: Any, indptr: Any, indices: Any, *order: Any
    ) -> Any:
        def row(i: Any, event: Any, weight: Any) -> Any:
            def piece(begin: Any, count: int, weight: Any) -> Any:
                ends = _place(_taken(indices, begin, count))
                places = _place(_taken(order[0], begin, count)) if order else None
                for k in range(count):
                    place = begin + k if places is None else places[k]
                    new = changes.changed(
                        _taken(weight, place), event, _taken(others, ends[k]), amount, **law
                    )
                    weight = lax.dynamic_update_slice(weight, new, (place,))
                return weight

            return _over_synapses(i, indptr, indices, piece, weight)

        return over_active(events, row, weight)

    return _jax.in_one_function(compute, weight, events, others, amount, indptr, indices, *order)


def _dense_rows(events: Any, matrix: Any, transposed: bool) -> Any:
    def compute(events: Any, matrix: Any) -> Any:
        return generic.dense_rows(events, matrix, transposed)

    return _jax.in_one_function(compute, events, matrix)


dense = generic.dense_by(_dense_rows)
"""``event.dense`` over active rows, unless many are active."""


def _made_rows(events: Any, weight: Any, rows: jit_generic.Rows) -> Any:
    def add_each(total: Any, places: Any, sent: Any) -> Any:
        places, sent = _place(places), jnp.broadcast_to(sent, places.shape)

        def one(k: Any, total: Any) -> Any:
            return _add_each(total, _taken(places, k), [_taken(sent, k)])

        return lax.fori_loop(jnp.uint32(0), jnp.uint32(places.size), one, total)

    def compute(events: Any, weight: Any, *given: Any) -> Any:
        return jit_generic.sum_of_rows(events, weight, rows.given(*given), add_each)

    return _jax.in_one_function(compute, events, weight, rows.seed, rows.table, rows.quantiles)


jit = jit_generic.jit_by(_made_rows)
"""``event.jit`` over active rows."""


# ------------------------------------------------------------------------------------------------------- synapses


def _over_synapses(
    row: Any, indptr: Any, indices: Any, piece: Callable[[Any, int, Any], Any], total: Any
) -> Any:
    """``piece(place of the first synapse, how many, total)`` for pieces of a row."""
    row = _place(row)
    begin, end = _place(_taken(indptr, row))[0], _place(_taken(indptr, row + 1))[0]

    def pieces(count: int, state: Any) -> Any:
        def one(state: Any) -> Any:
            return state[0] + count, piece(state[0], count, state[1])

        return lax.while_loop(lambda state: state[0] + count <= end, one, state)

    state = begin, total
    for count in (PIECE, 1):
        if count <= indices.shape[0]:
            state = pieces(count, state)
    return state[1]


def _weights(weight: Any, order: Any, begin: Any, count: int, dtype: Any) -> list[Any]:
    """Those of synapses, ``(1,)`` or ``()`` each."""
    if weight.ndim == 0:
        return [weight.astype(dtype)] * count
    if order is None:
        found = _taken(weight, begin, count).astype(dtype)
        return [found[k : k + 1] for k in range(count)]
    places = _place(_taken(order, begin, count))
    return [_taken(weight, places[k]).astype(dtype) for k in range(count)]


def _add_each(total: Any, places: Any, values: Sequence[Any]) -> Any:
    """One after another: two of them may have the same place."""
    for k, value in enumerate(values):
        total = lax.dynamic_update_slice(total, _taken(total, places[k]) + value, (places[k],))
    return total


def _taken(values: Any, begin: Any, count: int = 1) -> Any:
    return lax.dynamic_slice(values, (begin,), (count,))


def _place(index: Any) -> Any:
    """An index of which XLA need not ask whether it is negative."""
    return index.astype(jnp.uint64 if index.dtype.itemsize == 8 else jnp.uint32)

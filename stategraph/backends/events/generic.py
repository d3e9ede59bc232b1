"""Event products as programs of XLA: what they compute on every platform, and in programs that are exported.

Two forms of each. *By rows*: a loop over the active rows only, which is fast on a CPU. *By synapses*: everything at
once, whatever is active, for devices on which a loop over spikes would be slow; it is also the meaning of the ops.

A row is read in windows of a fixed width. Where a window would reach beyond the end of the synapses it begins
earlier, and what it holds of other rows goes to a place that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from stategraph.passes.event_costs import TABLE, Size
from stategraph.passes.event_costs import threshold as default_threshold

WORD = 32
"""Neurons that are passed over at once when none of them is active."""
FEW = 8
"""From post to pre neurons every synapse is looked at when more than one of so many is active."""


def rows_of(indptr: Any, synapses: int) -> Any:
    """The pre neuron of each synapse; for those behind the last row, which fill up a list, the number of pre neurons."""
    pre = indptr.shape[0] - 1
    rows = jnp.repeat(jnp.arange(pre, dtype=jnp.int32), jnp.diff(indptr), total_repeat_length=synapses)
    return jnp.where(jnp.arange(synapses, dtype=jnp.int32) < indptr[-1], rows, pre)


def _of_neurons(values: Any, neurons: Any) -> Any:
    """What neurons have, in the order in which synapses name them; 0 for those that fill up a list."""
    return values.at[..., neurons].get(mode="fill", fill_value=0)


def of_sums(dtype: Any) -> Any:
    """The type in which numbers of a type are added up: as in ordinary products, 16-bit floats are 32-bit floats until their sum is
    complete.
    """
    return jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype


# ----------------------------------------------------------------------------------------------------- by synapses


def csr_by_synapses(
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    *by_post: Any,
    shape: tuple[int, int],
    transposed: bool,
) -> Any:
    """``event.csr`` over all synapses."""
    if not indices.shape[0]:
        return _nothing(events, weight.dtype, shape[0] if transposed else shape[1])
    rows = rows_of(indptr, indices.shape[0])
    sources, targets = (indices, rows) if transposed else (rows, indices)
    sums = of_sums(weight.dtype)
    sent = _of_neurons(events.astype(sums), sources) * weight.astype(sums)
    arrived = jnp.zeros((*events.shape[:-1], shape[0] if transposed else shape[1]), sums)
    return (
        arrived.at[..., targets]
        .add(sent, mode="drop", indices_are_sorted=transposed and events.ndim == 1)
        .astype(weight.dtype)
    )


def outer_by_synapses(pre: Any, post: Any, indptr: Any, indices: Any, *, shape: tuple[int, int]) -> Any:
    """``event.csr_outer`` over all synapses."""
    dtype = post.dtype if pre.dtype == jnp.bool_ else pre.dtype
    if not indices.shape[0]:
        return jnp.zeros(0, dtype)
    rows = rows_of(indptr, indices.shape[0])
    found = _of_neurons(pre.astype(dtype), rows) * _of_neurons(post.astype(dtype), indices)
    return found if found.ndim == 1 else found.sum(0)


def dense_whole(events: Any, matrix: Any, *, transposed: bool, threshold: float | None) -> Any:
    """``event.dense`` as an ordinary product, which takes the matrix as it lies: in a branch XLA would transpose it first."""
    contracted = ((events.ndim - 1,), (1 if transposed else 0,))
    numbers = (contracted, ((), ()))
    return lax.dot_general(events.astype(matrix.dtype), matrix, numbers, precision=precision_of(events))


def precision_of(events: Any) -> Any:
    """That of an ordinary product in place of an event product: one of a vector costs what reading the matrix costs, so on
    GPUs it need not be less exact than the sum of the rows is.
    """
    return lax.Precision.HIGHEST if events.ndim == 1 else None


def added(product: Callable[..., Any]) -> Callable[..., Any]:
    """``event.csr_add`` by a kernel of ``event.csr``, and ``event.csr_outer_add`` by one of ``event.csr_outer``."""
    return lambda total, *operands, **params: total + product(*operands, **params)


def places(events: Any) -> Any:
    """``event.compact``; what is unspecified is 0."""
    flat = events.reshape(-1)
    (found,) = jnp.nonzero(flat, size=flat.size, fill_value=0)
    return jnp.concatenate([flat.sum(dtype=jnp.int32)[None], found.astype(jnp.int32)])


def empty_list(*, room: int, number: int) -> Any:
    """``event.list``; what is unspecified is 0."""
    return jnp.zeros(1 + room, jnp.int32)


def appended(listed: Any, events: Any, base: Any) -> Any:
    """``event.append``."""
    flat = events.reshape(-1)
    ends = listed[0] + jnp.cumsum(flat, dtype=jnp.int32)
    where = jnp.where(flat, ends, listed.size)
    listed = listed.at[where].set(base + jnp.arange(flat.size, dtype=jnp.int32), mode="drop")
    return listed.at[0].add(flat.sum(dtype=jnp.int32))


MEANINGS: dict[str, Callable[..., Any]] = {
    "event.csr": csr_by_synapses,
    "event.csr_add": added(csr_by_synapses),
    "event.csr_outer": outer_by_synapses,
    "event.csr_outer_add": added(outer_by_synapses),
    "event.dense": dense_whole,
    "event.compact": places,
    "event.list": empty_list,
    "event.append": appended,
    "event.declare": lambda x, *, rate, use: x,
}
"""What each op computes, without looking at what is active."""

# ---------------------------------------------------------------------------------------------------------- by rows


def csr_by(rows_added: Callable[..., Any]) -> Callable[..., Any]:
    """``event.csr`` over the synapses of active rows; against their direction over those of active columns if these are
    listed and few, else over all.

    Args:
      rows_added: ``(events, weight, indptr, indices, order, size)``, the sum of the active rows of one vector.
    """

    def csr(
        events: Any,
        weight: Any,
        indptr: Any,
        indices: Any,
        *by_post: Any,
        shape: tuple[int, int],
        transposed: bool,
    ) -> Any:
        given = (weight, indptr, indices)
        if not indices.shape[0] or (transposed and not by_post):
            return csr_by_synapses(events, *given, shape=shape, transposed=transposed)
        if events.ndim == 2:
            return lax.map(lambda own: csr(own, *given, *by_post, shape=shape, transposed=transposed), events)
        if not transposed:
            return rows_added(events, *given, None, shape[1])
        starts, pres, order = by_post
        return lax.cond(
            jnp.count_nonzero(events) > events.size // FEW,
            lambda events: csr_by_synapses(events, *given, shape=shape, transposed=True),
            lambda events: rows_added(events, weight, starts, pres, order, shape[0]),
            events,
        )

    return csr


def _rows_added(events: Any, weight: Any, indptr: Any, indices: Any, order: Any, size: int) -> Any:
    """The sum of active rows, in which synapse ``s`` has the weight ``order[s]``."""
    windows, sums = Windows(indptr, indices), of_sums(weight.dtype)

    def add(row: Any, value: Any, total: Any) -> Any:
        def window(begin: Any, own: Any, total: Any) -> Any:
            columns = jnp.where(own, windows.at(indices, begin), size)
            if weight.ndim == 0:
                sent = weight
            else:
                sent = windows.at(weight, begin) if order is None else weight[windows.at(order, begin)]
            sent = sent.astype(sums)
            if value.dtype != jnp.bool_:
                sent = sent * value.astype(sums)
            return total.at[columns].add(sent, mode="promise_in_bounds")

        return windows.over(row, window, total)

    # the last element takes what is no synapse of the row
    total = over_active(events, add, jnp.zeros(size + 1, sums))
    return total[:size].astype(weight.dtype)


csr_by_rows = csr_by(_rows_added)
"""``event.csr``, one scatter for a row."""


def outer_by_rows(pre: Any, post: Any, indptr: Any, indices: Any, *, shape: tuple[int, int]) -> Any:
    """``event.csr_outer`` over the synapses of active rows."""
    if not indices.shape[0] or post.dtype == jnp.bool_:
        return outer_by_synapses(pre, post, indptr, indices, shape=shape)
    return outer_add_by_rows(jnp.zeros(indices.shape, post.dtype), pre, post, indptr, indices, shape=shape)


def outer_add_by_rows(
    total: Any, pre: Any, post: Any, indptr: Any, indices: Any, *, shape: tuple[int, int]
) -> Any:
    """``event.csr_outer_add`` over the synapses of active rows."""
    if not indices.shape[0] or post.dtype == jnp.bool_:
        return total + outer_by_synapses(pre, post, indptr, indices, shape=shape)
    windows = Windows(indptr, indices)

    def lane(pre: Any, post: Any, total: Any) -> Any:
        def add(row: Any, value: Any, total: Any) -> Any:
            def window(begin: Any, own: Any, total: Any) -> Any:
                found = post[windows.at(indices, begin)]
                if value.dtype != jnp.bool_:
                    found = found * value
                found = windows.at(total, begin) + jnp.where(own, found, 0)
                return lax.dynamic_update_slice(total, found, (begin,))

            return windows.over(row, window, total)

        return over_active(pre, add, total)

    if pre.ndim == 1:
        return lane(pre, post, total)
    return lax.fori_loop(0, pre.shape[0], lambda b, total: lane(pre[b], post[b], total), total)


def dense_by(rows_added: Callable[..., Any]) -> Callable[..., Any]:
    """``event.dense`` over active rows, unless many are active.

    Args:
      rows_added: ``(events, matrix, transposed)``, the sum of the active rows of one vector.
    """

    def dense(events: Any, matrix: Any, *, transposed: bool, threshold: float | None) -> Any:
        if threshold is None:
            batch = events.shape[0] if events.ndim == 2 else 1
            post = matrix.shape[0 if transposed else 1]
            size = Size(batch, events.shape[-1], post, matrix.dtype.itemsize)
            threshold = default_threshold(TABLE["cpu"], size, transposed)
        if not events.size or not matrix.size:
            return dense_whole(events, matrix, transposed=transposed, threshold=None)

        def whole(events: Any) -> Any:
            return dense_whole(events, matrix, transposed=transposed, threshold=None)

        def rows(events: Any) -> Any:
            if events.ndim == 2:
                return lax.map(rows, events)
            return rows_added(events, matrix, transposed)

        if threshold >= 1.0:
            return rows(events)
        most = int(threshold * events.size)
        return lax.cond(_count(events) > most, whole, rows, events)

    return dense


def dense_rows(events: Any, matrix: Any, transposed: bool) -> Any:
    """The sum of active rows, or columns."""
    sums = of_sums(matrix.dtype)

    def add(row: Any, value: Any, total: Any) -> Any:
        sent = lax.dynamic_index_in_dim(matrix, row, 1 if transposed else 0, keepdims=False).astype(sums)
        return total + (sent if value.dtype == jnp.bool_ else sent * value.astype(sums))

    return over_active(events, add, jnp.zeros(matrix.shape[0 if transposed else 1], sums)).astype(
        matrix.dtype
    )


dense_by_rows = dense_by(dense_rows)
"""``event.dense``."""


def _count(events: Any) -> Any:
    """How many are active; in a batch those of each neuron first, several neurons at a time."""
    return (events != 0).sum(0, dtype=jnp.int32).sum()


# ---------------------------------------------------------------------------------------------------------- loops


class Windows:
    """Reading rows in pieces of one width: about the mean length of a row."""

    def __init__(self, indptr: Any, indices: Any) -> None:
        synapses, pre = indices.shape[0], indptr.shape[0] - 1
        mean = -(-synapses // max(pre, 1))
        self.width = min(synapses, mean if mean * pre == synapses else mean + mean // 4 + 8)
        self.indptr = indptr
        self.last = synapses - self.width

    def at(self, values: Any, begin: Any) -> Any:
        return lax.dynamic_slice(values, (begin,), (self.width,))

    def over(self, row: Any, window: Callable[[Any, Any, Any], Any], total: Any) -> Any:
        """``window(begin, which of its elements are the row's, total)`` for each window of a row."""
        start, end = self.indptr[row], self.indptr[row + 1]

        def one(state: Any) -> Any:
            position, total = state
            begin = jnp.minimum(position, self.last)
            places = begin + jnp.arange(self.width, dtype=begin.dtype)
            return position + self.width, window(begin, (places >= position) & (places < end), total)

        return lax.while_loop(lambda state: state[0] < end, one, (start, total))[1]


def over_active(events: Any, add: Callable[[Any, Any, Any], Any], total: Any) -> Any:
    """``add(row, value, total)`` for each row whose value is not zero.

    The active neurons are bits of words: the loop passes over words that are zero, and takes the lowest bit of the
    others until none is left.
    """
    active = jnp.pad(events != 0, (0, -events.shape[0] % WORD)).reshape(-1, WORD)
    bits = jnp.uint32(1) << jnp.arange(WORD, dtype=jnp.uint32)
    words = jnp.where(active, bits, jnp.uint32(0)).sum(axis=1, dtype=jnp.uint32)

    def visit(place: Any, total: Any) -> Any:
        def lowest(state: Any) -> Any:
            word, total = state
            below = (word & (~word + 1)) - 1
            row = place * WORD + lax.population_count(below).astype(jnp.int32)
            return word & (word - 1), add(row, events[row], total)

        return lax.while_loop(lambda state: state[0] != 0, lowest, (words[place], total))[1]

    return lax.fori_loop(
        0,
        words.shape[0],
        lambda place, total: lax.cond(words[place] != 0, lambda t: visit(place, t), lambda t: t, total),
        total,
    )


def _nothing(events: Any, dtype: Any, size: int) -> jax.Array:
    return jnp.zeros((*events.shape[:-1], size), dtype)

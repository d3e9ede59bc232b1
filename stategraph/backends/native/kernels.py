"""Event products as loops over arrays, compiled by numba; generated kernels call them too (needs numba).

    count = compact(events, ids)                               # the indices of the active neurons
    count = count_active(events, most)                         # how many there are in a batch, or more than ``most``
    add_rows(ids, count, events, weight, indptr, indices, out)       # out[j] += events[i] * weight, for each synapse
    add_columns(events, weight, indptr, indices, out)                # out[i] += events[j] * weight, for each synapse
    add_listed(ids, events, weight, indptr, indices, starts, pres, order, out)   # the same, of few events by their columns
    add_outer(ids, count, pre, post, indptr, indices, out)           # out[synapse] += pre[i] * post[j]
    add_dense(ids, count, events, matrix, out)                       # out[j] += events[i] * matrix[i, j]
    add_dense_columns(ids, count, events, matrix, out)               # out[i] += events[j] * matrix[i, j]

``events`` is bool or a float vector of the weight's dtype; ``ids`` is i32 with room for every neuron, ascending;
``weight`` has rank 0, or one number for each synapse. All add to ``out``, so that a caller who has a sum already needs
no second pass over it.

Indices are read as unsigned numbers, which spares the check for negative ones. While a row is added, that of a
neuron further on is on its way from memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from stategraph.backends.native.runtime import first_bit, njit, prefetch

AHEAD = 4
"""How many active rows ahead memory is asked for."""
BLOCK = 32
"""Float events that are passed over at once when none of them is active."""
COUNTED = 2048
"""Events that are counted before it is asked whether that is enough."""
LINE = 16
"""Indices in a cache line."""
FEW = 8
"""From post to pre neurons every synapse is looked at when more than one of so many is active."""


# ----------------------------------------------------------------------------------------------------- active neurons


def compact(events: Any, ids: Any) -> Any:
    """Write the indices of the active neurons to ``ids``, in order; returns how many there are."""
    raise NotImplementedError("for compiled code")


@overload(compact, strict=False)
def _compact(events: Any, ids: Any) -> Any:
    if events.dtype == types.boolean:
        return lambda events, ids: _compact_bools(events, ids)
    if events.dtype == types.float32:
        return lambda events, ids: _compact_bits(events, events.view(np.uint32), ids)
    return lambda events, ids: _compact_bits(events, events.view(np.uint64), ids)


@njit
def _compact_bools(events: Any, ids: Any) -> Any:
    """Eight neurons at a time: each byte of a word is 0 or 1."""
    size = events.size
    whole = size // 8
    words = events[: whole * 8].view(np.uint64)
    count = 0
    for k in range(whole):
        word = words[k]
        while word != 0:
            ids[count] = np.int32(k * 8 + (first_bit(word) >> 3))
            count += 1
            word &= word - np.uint64(1)
    for i in range(whole * 8, size):
        if events[i]:
            ids[count] = np.int32(i)
            count += 1
    return count


@njit
def _compact_bits(events: Any, bits: Any, ids: Any) -> Any:
    """A number is zero when nothing but its sign is set."""
    size = events.size
    whole = size // BLOCK
    count = np.uint64(0)
    for k in range(whole):
        start = np.uint64(k * BLOCK)
        some = bits[start]
        for j in range(1, BLOCK):
            some |= bits[start + np.uint64(j)]
        if some + some != 0:
            for j in range(BLOCK):  # without a branch, which would be taken wrongly again and again
                i = start + np.uint64(j)
                ids[count] = np.int32(i)
                count += np.uint64(events[i] != 0)
    for i in range(whole * BLOCK, size):
        if events[i] != 0:
            ids[count] = np.int32(i)
            count += np.uint64(1)
    return np.int64(count)


@njit
def count_active(events: Any, most: Any) -> Any:
    """How many neurons of a batch ``events`` (batch, pre) are active, counted no further than it takes to be sure that they are
    more than ``most``.
    """
    flat = events.reshape(-1)
    total = 0
    for start in range(0, flat.size, COUNTED):
        part = flat[start : start + COUNTED]
        some = np.int32(0)
        for i in range(part.size):
            some = np.int32(some + np.int32(part[i] != 0))
        total += some
        if total > most:
            break
    return total


def times(weight: Any, event: Any) -> Any:
    """What one event sends: the weight, times the event's value if it has one."""
    raise NotImplementedError("for compiled code")


@overload(times, inline="always", strict=False)
def _times(weight: Any, event: Any) -> Any:
    if event == types.boolean:
        return lambda weight, event: weight
    return lambda weight, event: weight * event


# ---------------------------------------------------------------------------------------------------- sparse synapses


@njit
def add_rows(ids: Any, count: Any, events: Any, weight: Any, indptr: Any, indices: Any, out: Any) -> None:
    """Events from pre to post: the rows of active neurons."""
    starts, targets = indptr.view(np.uint32), indices.view(np.uint32)
    one = np.uint32(1)
    for k in range(count):
        if k + AHEAD < count:
            row = np.uint32(ids[k + AHEAD])
            for s in range(starts[row], starts[row + one], LINE):
                prefetch(indices, np.int64(s))
                if weight.ndim == 1:
                    prefetch(weight, np.int64(s))
        row = np.uint32(ids[k])
        if weight.ndim == 0:
            sent = times(weight[()], events[row])
            for s in range(starts[row], starts[row + one]):
                out[targets[s]] += sent
        else:
            for s in range(starts[row], starts[row + one]):
                out[targets[s]] += times(weight[s], events[row])


@njit
def add_columns(events: Any, weight: Any, indptr: Any, indices: Any, out: Any) -> None:
    """Events from post to pre: each row looks at its synapses."""
    starts, sources = indptr.view(np.uint32), indices.view(np.uint32)
    for i in range(out.size):
        total = out.dtype.type(0)
        if weight.ndim == 0:
            for s in range(starts[i], starts[i + 1]):
                total += events[sources[s]]
            total *= weight[()]
        else:
            for s in range(starts[i], starts[i + 1]):
                total += weight[s] * events[sources[s]]
        out[i] += total


@njit
def add_listed(
    ids: Any,
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    starts: Any,
    pres: Any,
    order: Any,
    out: Any,
) -> None:
    """Events from post to pre, where synapses are listed by post neuron too: those of active ones, if these are few."""
    count = compact(events, ids)
    if count > events.size // FEW:
        add_columns(events, weight, indptr, indices, out)
        return
    begins, targets, places = starts.view(np.uint32), pres.view(np.uint32), order.view(np.uint32)
    for k in range(count):
        column = np.uint32(ids[k])
        for s in range(begins[column], begins[column + np.uint32(1)]):
            if weight.ndim == 0:
                out[targets[s]] += times(weight[()], events[column])
            else:
                out[targets[s]] += times(weight[places[s]], events[column])


@njit
def add_outer(ids: Any, count: Any, pre: Any, post: Any, indptr: Any, indices: Any, out: Any) -> None:
    """For each synapse of an active pre neuron, the product of the two values."""
    starts, targets = indptr.view(np.uint32), indices.view(np.uint32)
    one = np.uint32(1)
    for k in range(count):
        row = np.uint32(ids[k])
        for s in range(starts[row], starts[row + one]):
            out[s] += times(post[targets[s]], pre[row])


# ------------------------------------------------------------------------------------------------------- full matrices


@njit
def add_dense(ids: Any, count: Any, events: Any, matrix: Any, out: Any) -> None:
    """The rows of active neurons, eight at a time."""
    size = out.size
    eights = count // 8
    for k in range(eights):
        a, b, c, d = ids[8 * k], ids[8 * k + 1], ids[8 * k + 2], ids[8 * k + 3]
        e, f, g, h = ids[8 * k + 4], ids[8 * k + 5], ids[8 * k + 6], ids[8 * k + 7]
        first, second, third, fourth = matrix[a], matrix[b], matrix[c], matrix[d]
        fifth, sixth, seventh, eighth = matrix[e], matrix[f], matrix[g], matrix[h]
        for j in range(size):
            left = times(first[j], events[a]) + times(second[j], events[b])
            left += times(third[j], events[c]) + times(fourth[j], events[d])
            right = times(fifth[j], events[e]) + times(sixth[j], events[f])
            right += times(seventh[j], events[g]) + times(eighth[j], events[h])
            out[j] += left + right
    for k in range(8 * eights, count):
        i = ids[k]
        row = matrix[i]
        for j in range(size):
            out[j] += times(row[j], events[i])


@njit
def add_dense_columns(ids: Any, count: Any, events: Any, matrix: Any, out: Any) -> None:
    """For each row, its elements in the columns of active neurons; four rows wait for memory at once."""
    size = out.size
    fours = size // 4
    zero = out.dtype.type(0)
    for i in range(0, 4 * fours, 4):
        first, second, third, fourth = matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
        a, b, c, d = zero, zero, zero, zero
        for k in range(count):
            j = np.uint32(ids[k])
            event = events[j]
            a += times(first[j], event)
            b += times(second[j], event)
            c += times(third[j], event)
            d += times(fourth[j], event)
        out[i] += a
        out[i + 1] += b
        out[i + 2] += c
        out[i + 3] += d
    for i in range(4 * fours, size):
        row = matrix[i]
        total = zero
        for k in range(count):
            j = np.uint32(ids[k])
            total += times(row[j], events[j])
        out[i] += total

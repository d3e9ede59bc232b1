"""Event products as calls of native kernels, one kernel for all sizes.

A product of one vector is two calls: ``compact`` lists the active neurons, and the product goes through the list. The
first depends on the events alone, so XLA merges the lists that the projections of one population would make (they are
equal calls), and a program computes one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from stategraph.backends.events import generic
from stategraph.backends.native.binding import Kernel, Tensor, bind
from stategraph.ir.types import short_dtype
from stategraph.passes.event_costs import TABLE, Size
from stategraph.passes.event_costs import threshold as default_threshold

FLOATS = ("f32", "f64")
"""Dtypes of weights that kernels are compiled for."""
_SOURCE = """
def event_compact(events, ids, count):
    count[()] = compact(events, ids)


def event_places(events, out):
    out[0] = compact(events.reshape(-1), out[1:])


def event_list(number, out):
    out[0] = 0


def event_rows(ids, count, events, weight, indptr, indices, out):
    out[:] = 0
    add_rows(ids, count[()], events, weight, indptr, indices, out)


def event_rows_batch(events, weight, indptr, indices, out):
    out[:, :] = 0
    ids = np.empty(events.shape[1], np.int32)
    for b in range(events.shape[0]):
        count = compact(events[b], ids)
        add_rows(ids, count, events[b], weight, indptr, indices, out[b])


def event_columns(events, weight, indptr, indices, out):
    out[:] = 0
    add_columns(events, weight, indptr, indices, out)


def event_columns_batch(events, weight, indptr, indices, out):
    out[:, :] = 0
    for b in range(events.shape[0]):
        add_columns(events[b], weight, indptr, indices, out[b])


def event_listed(events, weight, indptr, indices, starts, pres, order, out):
    out[:] = 0
    ids = np.empty(events.size, np.int32)
    add_listed(ids, events, weight, indptr, indices, starts, pres, order, out)


def event_listed_batch(events, weight, indptr, indices, starts, pres, order, out):
    out[:, :] = 0
    ids = np.empty(events.shape[1], np.int32)
    for b in range(events.shape[0]):
        add_listed(ids, events[b], weight, indptr, indices, starts, pres, order, out[b])


def event_listed_add(events, weight, indptr, indices, starts, pres, order, total, out):
    ids = np.empty(events.size, np.int32)
    add_listed(ids, events, weight, indptr, indices, starts, pres, order, out)


def event_listed_batch_add(events, weight, indptr, indices, starts, pres, order, total, out):
    ids = np.empty(events.shape[1], np.int32)
    for b in range(events.shape[0]):
        add_listed(ids, events[b], weight, indptr, indices, starts, pres, order, out[b])


def event_rows_add(ids, count, events, weight, indptr, indices, total, out):
    add_rows(ids, count[()], events, weight, indptr, indices, out)


def event_rows_batch_add(events, weight, indptr, indices, total, out):
    ids = np.empty(events.shape[1], np.int32)
    for b in range(events.shape[0]):
        count = compact(events[b], ids)
        add_rows(ids, count, events[b], weight, indptr, indices, out[b])


def event_columns_add(events, weight, indptr, indices, total, out):
    add_columns(events, weight, indptr, indices, out)


def event_columns_batch_add(events, weight, indptr, indices, total, out):
    for b in range(events.shape[0]):
        add_columns(events[b], weight, indptr, indices, out[b])


def event_outer(ids, count, pre, post, indptr, indices, out):
    out[:] = 0
    add_outer(ids, count[()], pre, post, indptr, indices, out)


def event_outer_batch(pre, post, indptr, indices, out):
    out[:] = 0
    ids = np.empty(pre.shape[1], np.int32)
    for b in range(pre.shape[0]):
        count = compact(pre[b], ids)
        add_outer(ids, count, pre[b], post[b], indptr, indices, out)


def event_outer_add(ids, count, pre, post, indptr, indices, total, out):
    add_outer(ids, count[()], pre, post, indptr, indices, out)


def event_outer_batch_add(pre, post, indptr, indices, total, out):
    ids = np.empty(pre.shape[1], np.int32)
    for b in range(pre.shape[0]):
        count = compact(pre[b], ids)
        add_outer(ids, count, pre[b], post[b], indptr, indices, out)


def event_dense(ids, count, events, matrix, out):
    out[:] = 0
    add_dense(ids, count[()], events, matrix, out)


def event_dense_columns(ids, count, events, matrix, out):
    out[:] = 0
    add_dense_columns(ids, count[()], events, matrix, out)


def event_count(events, most, count):
    count[()] = count_active(events, most[()])


def event_dense_batch(events, matrix, out):
    out[:, :] = 0
    ids = np.empty(events.shape[1], np.int32)
    for b in range(events.shape[0]):
        count = compact(events[b], ids)
        add_dense(ids, count, events[b], matrix, out[b])


def event_dense_columns_batch(events, matrix, out):
    out[:, :] = 0
    ids = np.empty(events.shape[1], np.int32)
    for b in range(events.shape[0]):
        count = compact(events[b], ids)
        add_dense_columns(ids, count, events[b], matrix, out[b])
"""

Compute = Callable[..., Any]


def csr(avals: Any, *, shape: tuple[int, int], transposed: bool) -> Compute | None:
    """``event.csr`` by kernels, None when there are none for these types."""
    return _csr(avals, None, shape[0] if transposed else shape[1], transposed)


def csr_add(avals: Any, *, shape: tuple[int, int], transposed: bool) -> Compute | None:
    """``event.csr_add`` by kernels that add in place, None when there are none for these types."""
    total, *others = avals
    compute = _csr(others, total, shape[0] if transposed else shape[1], transposed)
    return compute and (lambda total, *operands, **params: compute(*operands, total))


def _csr(avals: Any, total: Any, arrived: int, transposed: bool) -> Compute | None:
    """The product; the sum that it is added to is the last operand."""
    events, weight = avals[:2]
    if not _supported(events, weight):
        return None
    adds = total is not None
    given = [*avals, total] if adds else avals
    listed = "event_listed" if len(avals) == 7 else "event_columns"
    name = listed if transposed else "event_rows"
    suffix = "_add" if adds else ""
    out = _like(weight, events.ndim)
    if not transposed and events.ndim == 1:
        through = _through_list(name + suffix, events, given, out, aliased=adds)
        return through and (lambda events, *others, **params: through(events, *others, size=arrived))
    name += "_batch" if events.ndim == 2 else ""
    aliases = [(len(avals), 0)] if adds else []
    kernel = bind(_SOURCE, name + suffix, list(map(_tensor, given)), [out], aliases)
    if kernel is None:
        return None

    def whole(events: Any, *others: Any, **params: Any) -> Any:
        return kernel(events, *others, shapes=[(*events.shape[:-1], arrived)])[0]

    return whole


def csr_outer(avals: Any, *, shape: tuple[int, int]) -> Compute | None:
    """``event.csr_outer`` by kernels, None when there are none for these types."""
    return _outer(avals, None)


def csr_outer_add(avals: Any, *, shape: tuple[int, int]) -> Compute | None:
    """``event.csr_outer_add`` by kernels that add in place, None when there are none for these types."""
    total, *others = avals
    compute = _outer(others, total)
    return compute and (lambda total, *operands, **params: compute(*operands, total))


def _outer(avals: Any, total: Any) -> Compute | None:
    """The products; the sum that they are added to is the last operand."""
    pre, post, _, indices = avals
    if post.dtype == jnp.bool_ or not _supported(pre, post):
        return None
    adds = total is not None
    given, suffix, out = [*avals, *([total] if adds else [])], "_add" if adds else "", _like(post, 1)
    if pre.ndim == 1:
        through = _through_list("event_outer" + suffix, pre, given, out, aliased=adds)
        return through and (lambda pre, *others, **params: through(pre, *others, size=indices.shape[0]))
    aliases = [(len(avals), 0)] if adds else []
    kernel = bind(_SOURCE, "event_outer_batch" + suffix, list(map(_tensor, given)), [out], aliases)
    return kernel and (lambda *operands, **params: kernel(*operands, shapes=[indices.shape])[0])


def places(avals: Any) -> Compute | None:
    """``event.compact`` by a kernel, None when there is none."""
    events = avals[0]
    kernel = bind(_SOURCE, "event_places", [_tensor(events)], [Tensor("i32", (None,))])
    return kernel and (lambda events: kernel(events, shapes=[(1 + events.size,)])[0])


def empty_list(avals: Any, *, room: int, number: int) -> Compute | None:
    """``event.list`` by a kernel. XLA would make one array of two equal calls, and then copy it: they differ by a number."""
    kernel = bind(_SOURCE, "event_list", [Tensor("i32", ())], [Tensor("i32", (None,))])
    return kernel and (lambda **params: kernel(jnp.int32(number), shapes=[(1 + room,)])[0])


def dense(avals: Any, *, transposed: bool, threshold: float | None) -> Compute | None:
    """``event.dense`` by kernels, None when there are none for these types."""
    events, matrix = avals
    if not _supported(events, matrix):
        return None
    arrived = matrix.shape[0] if transposed else matrix.shape[1]
    batch = events.ndim == 2
    if threshold is None:
        size = Size(events.shape[0] if batch else 1, events.shape[-1], arrived, matrix.dtype.itemsize)
        threshold = default_threshold(TABLE["cpu-native"], size, transposed)
    most = int(threshold * events.size)
    name = "event_dense_columns" if transposed else "event_dense"
    ids = Tensor("i32", (None,))
    if batch:
        counts = bind(_SOURCE, "event_count", [_tensor(events), _COUNT], [_COUNT])
    else:
        counts = _kernel("event_compact", [events], [ids, _COUNT])
    given = avals if batch else [jnp.zeros(1, jnp.int32), jnp.zeros((), jnp.int32), *avals]
    rows = _kernel(f"{name}_batch" if batch else name, given, [_like(matrix, events.ndim)])
    if counts is None or rows is None:
        return None

    def compute(events: Any, matrix: Any, **params: Any) -> Any:
        if batch:
            lists, (count,) = [], counts(events, jnp.int32(most), shapes=[()])
        else:
            lists = counts(events, shapes=[(events.shape[0],), ()])
            count = lists[1]

        def by_rows(events: Any, matrix: Any) -> Any:
            return rows(*lists, events, matrix, shapes=[(*events.shape[:-1], arrived)])[0]

        def whole(events: Any, matrix: Any) -> Any:
            return generic.dense_whole(events, matrix, transposed=transposed, threshold=None)

        if threshold >= 1.0:
            return by_rows(events, matrix)
        return lax.cond(count > most, whole, by_rows, events, matrix)

    return compute


# ---------------------------------------------------------------------------------------------------------- kernels

_COUNT = Tensor("i32", ())


def _supported(events: Any, weight: Any) -> bool:
    dtype = short_dtype(weight.dtype.name)
    return dtype in FLOATS and events.dtype in (jnp.bool_, weight.dtype)


def _through_list(name: str, events: Any, avals: Any, out: Tensor, aliased: bool = False) -> Compute | None:
    """The product ``name`` of a vector of events, by the list of its active neurons; ``aliased``: its result is the
    last operand.
    """
    ids = Tensor("i32", (None,))
    compact = _kernel("event_compact", [events], [ids, _COUNT])
    inputs = [ids, _COUNT, *map(_tensor, avals)]
    rows = bind(_SOURCE, name, inputs, [out], [(len(inputs) - 1, 0)] if aliased else [])
    if compact is None or rows is None:
        return None

    def through(events: Any, *others: Any, size: int) -> Any:
        listed, count = compact(events, shapes=[events.shape, ()])
        return rows(listed, count, events, *others, shapes=[(size,)])[0]

    return through


def _kernel(name: str, avals: Any, outputs: list[Tensor]) -> Kernel | None:
    return bind(_SOURCE, name, [_tensor(aval) for aval in avals], outputs)


def _tensor(aval: Any) -> Tensor:
    return _like(aval, aval.ndim)


def _like(aval: Any, rank: int) -> Tensor:
    """A buffer of the same dtype, of any size."""
    return Tensor(short_dtype(aval.dtype.name), (None,) * rank)

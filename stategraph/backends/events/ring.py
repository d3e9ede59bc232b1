"""Products that arrive in a ring buffer: each synapse has its own delay.

A buffer of ``slots * post`` numbers, the *ring*, holds what arrives in this step and the next ones; ``post`` more hold what
arrived. A synapse with a delay of ``d`` steps to neuron ``j`` has the target ``d * post + j``, counted from ``base``, where the
slot of this step begins. One operation is a step, so that nothing of the buffer is copied:

    ring[(base + target) mod size] += events[i] * weight, for each synapse of an active neuron
    arrived = ring[base : base + post]
    ring[base : base + post] = 0

So a step costs what its events cost, however long the delays are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from stategraph.backends.events import native
from stategraph.backends.events.generic import MEANINGS, Windows, csr_by_synapses, over_active
from stategraph.backends.native.binding import Tensor, bind

_SOURCE = """
@njit
def add_around(ids, count, events, weight, indptr, indices, base, post, out):
    starts, targets = indptr.view(np.uint32), indices.view(np.uint32)
    one, size, shift = np.uint32(1), np.uint64(out.size - post), np.uint64(base)
    for k in range(count):
        if k + 4 < count:
            ahead = np.uint32(ids[k + 4])
            for s in range(starts[ahead], starts[ahead + one], 16):
                prefetch(indices, np.int64(s))
                if weight.ndim == 1:
                    prefetch(weight, np.int64(s))
        row = np.uint32(ids[k])
        for s in range(starts[row], starts[row + one]):
            place = np.uint64(targets[s]) + shift
            if place >= size:
                place -= size
            if weight.ndim == 0:
                out[place] += times(weight[()], events[row])
            else:
                out[place] += times(weight[s], events[row])
    out[out.size - post :] = out[base : base + post]
    out[base : base + post] = 0


def event_ring(ids, count, events, weight, indptr, indices, base, post, total, out):
    add_around(ids, count[()], events, weight, indptr, indices, base[()], post[()], out)


def event_ring_batch(events, weight, indptr, indices, base, post, total, out):
    ids = np.empty(events.shape[1], np.int32)
    for b in range(events.shape[0]):
        count = compact(events[b], ids)
        add_around(ids, count, events[b], weight, indptr, indices, base[()], post[()], out[b])
"""


def taken(buffer: Any, base: Any, size: int) -> Any:
    """The buffer once what is in the slot of this step has arrived."""
    post = buffer.shape[-1] - size
    arrived = lax.dynamic_slice_in_dim(buffer, base, post, -1)
    emptied = lax.dynamic_update_slice_in_dim(buffer, jnp.zeros_like(arrived), base, -1)
    return lax.dynamic_update_slice_in_dim(emptied, arrived, size, -1)


def ring_apart(product: Callable[..., Any]) -> Callable[..., Any]:
    """``event.csr_ring`` by a kernel of ``event.csr``."""

    def compute(
        total: Any, events: Any, weight: Any, indptr: Any, indices: Any, base: Any, *, shape: tuple[int, int]
    ) -> Any:
        sent = jnp.roll(
            product(events, weight, indptr, indices, shape=shape, transposed=False), base, axis=-1
        )
        wide = jnp.pad(sent, [(0, 0)] * (sent.ndim - 1) + [(0, total.shape[-1] - shape[1])])
        return taken(total + wide, base, shape[1])

    return compute


ring_by_synapses = ring_apart(csr_by_synapses)
"""``event.csr_ring`` over all synapses."""


def ring_by_rows(
    total: Any, events: Any, weight: Any, indptr: Any, indices: Any, base: Any, *, shape: tuple[int, int]
) -> Any:
    """``event.csr_ring`` over the synapses of active rows."""
    size = shape[1]
    if not indices.shape[0]:
        return taken(total, base, size)
    if events.ndim == 2:

        def lane(own: Any) -> Any:
            return ring_by_rows(own[0], own[1], weight, indptr, indices, base, shape=shape)

        return lax.map(lane, (total, events))
    windows = Windows(indptr, indices)

    def add(row: Any, value: Any, total: Any) -> Any:
        def window(begin: Any, own: Any, total: Any) -> Any:
            places = windows.at(indices, begin) + base
            places = jnp.where(places >= size, places - size, places)
            sent = weight if weight.ndim == 0 else windows.at(weight, begin)
            if value.dtype != jnp.bool_:
                sent = sent * value
            return total.at[jnp.where(own, places, total.shape[0])].add(sent, mode="drop")

        return windows.over(row, window, total)

    return taken(over_active(events, add, total), base, size)


def ring_native(avals: Any, *, shape: tuple[int, int]) -> Callable[..., Any] | None:
    """``event.csr_ring`` by kernels that add in place, None when there are none for these types."""
    total, events, *others = avals
    if not native._supported(events, others[0]):
        return None
    counted = Tensor("i32", ())
    given = [*(native._tensor(aval) for aval in (events, *others)), counted, native._tensor(total)]
    out = [native._tensor(total)]
    post = jnp.asarray(total.shape[-1] - shape[1], jnp.int32)
    if events.ndim == 2:
        whole = bind(_SOURCE, "event_ring_batch", given, out, [(6, 0)])
        return whole and (
            lambda total, *operands, **params: whole(*operands, post, total, shapes=[total.shape])[0]
        )
    compact = native._kernel("event_compact", [events], [Tensor("i32", (None,)), counted])
    ring = bind(_SOURCE, "event_ring", [Tensor("i32", (None,)), counted, *given], out, [(8, 0)])
    if compact is None or ring is None:
        return None

    def through(total: Any, events: Any, *operands: Any, **params: Any) -> Any:
        ids, count = compact(events, shapes=[events.shape, ()])
        return ring(ids, count, events, *operands, post, total, shapes=[total.shape])[0]

    return through


MEANINGS["event.csr_ring"] = ring_by_synapses

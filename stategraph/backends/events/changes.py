"""Changes of weights where there are events: plasticity as products of events.

Of the synapses of each active neuron, ``weight`` becomes

    clip(weight + event * amount * ((high - weight) / (high - low))**mu * other, low, high)     up
    clip(weight - event * amount * ((weight - low) / (high - low))**mu * other, low, high)      not up

where ``other`` is a value of the neuron at the other end. Neurons of either end can be the active ones: connectivity that
lists synapses by post neuron comes with ``order``, the place of each synapse's weight.

The forms are those of ``generic``. The derivative is that of a change of all synapses, so that an event that is zero has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from stategraph.backends.events import native
from stategraph.backends.events.generic import MEANINGS, Windows, over_active, rows_of
from stategraph.backends.native.binding import Tensor, bind

_SOURCE = """
@njit
def change(weight, other, factor, low, high, mu, up):
    span = high - low
    distance = (high - weight if up else weight - low) / span
    if mu == 0:
        new = weight + factor * other
    elif mu == 1:
        new = weight + factor * distance * other
    else:
        new = weight + factor * distance**mu * other
    new = low if new < low else new
    return high if new > high else new


def event_change(ids, count, events, others, amount, indptr, indices, law, weight, out):
    starts, ends = indptr.view(np.uint32), indices.view(np.uint32)
    low, high, mu, up = law[0], law[1], law[2], law[3] > 0
    sent = amount[()] if up else -amount[()]
    for k in range(count[()]):
        row = np.uint32(ids[k])
        factor = times(sent, events[row])
        for s in range(starts[row], starts[row + np.uint32(1)]):
            out[s] = change(out[s], others[ends[s]], factor, low, high, mu, up)


def event_change_in_order(ids, count, events, others, amount, indptr, indices, order, law, weight, out):
    starts, ends, places = indptr.view(np.uint32), indices.view(np.uint32), order.view(np.uint32)
    low, high, mu, up = law[0], law[1], law[2], law[3] > 0
    sent = amount[()] if up else -amount[()]
    for k in range(count[()]):
        row = np.uint32(ids[k])
        factor = times(sent, events[row])
        for s in range(starts[row], starts[row + np.uint32(1)]):
            out[places[s]] = change(out[places[s]], others[ends[s]], factor, low, high, mu, up)
"""


def changed(
    weight: Any, event: Any, other: Any, amount: Any, *, low: float, high: float, mu: float, up: bool
) -> Any:
    """The new weights of synapses, from the event at one end and the value at the other."""
    change = event.astype(weight.dtype) * amount
    if mu:
        distance = (high - weight if up else weight - low) / (high - low)
        change = change * (distance if mu == 1 else distance**mu)
    return jnp.clip(weight + change * other if up else weight - change * other, low, high)


def change_everywhere(
    weight: Any,
    events: Any,
    others: Any,
    amount: Any,
    indptr: Any,
    indices: Any,
    *order: Any,
    shape: tuple[int, int],
    where: bool = False,
    **law: Any,
) -> Any:
    """All weights as if all neurons were active; with ``where``, those of neurons that are not stay as they are."""
    own = events[rows_of(indptr, indices.shape[0])]
    old = weight[order[0]] if order else weight
    new = changed(old, own, others[indices], amount, **law)
    if where:
        new = jnp.where(own != 0, new, old)
    return weight.at[order[0]].set(new, unique_indices=True) if order else new


def change_by_synapses(*operands: Any, **params: Any) -> Any:
    """``event.csr_change`` over all synapses."""
    return change_everywhere(*operands, **params, where=True)


def change_by_rows(
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
    """``event.csr_change`` over the synapses of active rows."""
    if not indices.shape[0]:
        return weight
    windows = Windows(indptr, indices)

    def row(i: Any, event: Any, weight: Any) -> Any:
        def window(begin: Any, own: Any, weight: Any) -> Any:
            places = windows.at(order[0], begin) if order else begin + jnp.arange(windows.width)
            new = changed(weight[places], event, others[windows.at(indices, begin)], amount, **law)
            return weight.at[jnp.where(own, places, weight.size)].set(new, mode="drop", unique_indices=True)

        return windows.over(i, window, weight)

    return over_active(events, row, weight)


def change_native(avals: Any, *, shape: tuple[int, int], **law: Any) -> Callable[..., Any] | None:
    """``event.csr_change`` by kernels that change weights in place, None when there are none for these types."""
    weight, events, *others = avals
    if not native._supported(events, weight):
        return None
    numbers = jnp.asarray([law["low"], law["high"], law["mu"], law["up"]], weight.dtype)
    counted, own = Tensor("i32", ()), native._tensor(weight)
    given = [Tensor("i32", (None,)), counted, native._tensor(events), *map(native._tensor, others), own, own]
    name = "event_change_in_order" if len(others) == 5 else "event_change"
    compact = native._kernel("event_compact", [events], [Tensor("i32", (None,)), counted])
    change = bind(_SOURCE, name, given, [own], [(len(given) - 1, 0)])
    if compact is None or change is None:
        return None

    def through(weight: Any, events: Any, *operands: Any, **params: Any) -> Any:
        ids, count = compact(events, shapes=[events.shape, ()])
        return change(ids, count, events, *operands, numbers, weight, shapes=[weight.shape])[0]

    return through


MEANINGS["event.csr_change"] = change_by_synapses

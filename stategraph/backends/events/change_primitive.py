"""The primitive ``event.csr_change``: weights of synapses, those of active neurons changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stategraph import _jax
from stategraph.backends.events.changes import change_everywhere
from stategraph.backends.events.dispatch import choose
from stategraph.backends.events.primitives import Lanes, one_by_one


def csr_change(
    weight: Any,
    events: Any,
    others: Any,
    amount: Any,
    indptr: Any,
    indices: Any,
    order: Any = None,
    **params: Any,
) -> Any:
    """``event.csr_change``.

    Args:
      weight: one for each synapse.
      events: ``(shape[0],)``, of the neurons by which the connectivity lists synapses: bool, or of the weight's dtype.
      others: ``(shape[1],)``, of the neurons at the other end.
      amount: a number.
      indptr, indices: the connectivity.
      order: the place of each synapse's weight; None for their own order.
      **params: ``shape``, the bounds ``low`` and ``high``, the exponent ``mu``, and ``up``, whether weights rise.
    """
    more = () if order is None else (order,)
    return csr_change_p.bind(weight, events, others, amount, indptr, indices, *more, **params)


def _aval(weight: Any, *operands: Any, **params: Any) -> Any:
    return _jax.strong_aval(weight)


def _lanes(operands: Sequence[Any], axes: Sequence[int | None], **params: Any) -> Lanes:
    return one_by_one(csr_change_p, operands, axes, **params)


csr_change_p = _jax.new_operation("event.csr_change", _aval, smooth=change_everywhere, on_batch=_lanes)
_jax.lower_by(csr_change_p, choose)

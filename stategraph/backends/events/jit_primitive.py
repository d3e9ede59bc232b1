"""The primitive ``event.jit``: events through synapses that are made of a seed. Its derivatives and its lanes.

With ``J(e, w)`` for the product, a cotangent ``y`` of its result and ``T`` for the other direction:

    J(e, w):  e <- J^T(y, w)    w <- (sum(J(e, (1, 0)) * y), sum(J(e, (0, 1)) * y)), or sum(J(e, 1) * y) for one weight
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from stategraph import _jax
from stategraph.backends.events.dispatch import choose
from stategraph.backends.events.primitives import one_by_one, product_aval


def jit_product(events: Any, weight: Any, seed: Any, **params: Any) -> Any:
    """``event.jit`` of events ``(pre,)`` or ``(batch, pre)``.

    Args:
      events: bool, or of the weight's dtype; ``(post,)`` or ``(batch, post)`` when transposed.
      weight: one number for the law ``one``, else two: what the random part is multiplied with and added to.
      seed: two ``uint32``.
      **params: ``shape`` (pre, post), ``prob``, ``law``, ``include_self``, ``transposed``.
    """
    return jit_p.bind(events, weight, seed, **params)


def _parts(events: Any, seed: Any, dtype: Any, params: dict[str, Any]) -> list[Any]:
    """The products whose combination with the numbers of the weight is the product."""
    units = [jnp.ones((), dtype)] if params["law"] == "one" else list(jnp.eye(2, dtype=dtype))
    return [jit_product(events, unit, seed, **params) for unit in units]


def _transpose(index: int, cotangent: Any, operands: Sequence[Any], aval: Any, **params: Any) -> Any:
    events, weight, seed = operands
    if index == 0:
        return jit_product(cotangent, weight, seed, **{**params, "transposed": not params["transposed"]})
    found = [(part * cotangent).sum() for part in _parts(events, seed, cotangent.dtype, params)]
    return jnp.stack(found).reshape(aval.shape)


def _flat(events: Any) -> Any:
    """Events with one batch axis."""
    return events.reshape(math.prod(events.shape[:-1]), events.shape[-1])


def _lanes(operands: Sequence[Any], axes: Sequence[int | None], **params: Any) -> tuple[Any, int]:
    events, weight, seed = operands
    if axes[2] is not None:
        return one_by_one(jit_p, operands, axes, **params)
    if axes[1] is None:
        events = jnp.moveaxis(events, axes[0] or 0, 0)
        sent = jit_product(_flat(events), weight, seed, **params)
        return sent.reshape(*events.shape[:-1], sent.shape[-1]), 0
    weights = jnp.moveaxis(weight, axes[1], 0)
    weights = weights.reshape(weights.shape[0], -1)
    if axes[0] is None:
        parts = [part[None] for part in _parts(events, seed, weight.dtype, params)]
    else:
        events = jnp.moveaxis(events, axes[0], 0)
        flat = _flat(events)
        parts = [
            part.reshape(*events.shape[:-1], part.shape[-1])
            for part in _parts(flat, seed, weight.dtype, params)
        ]
    scaled = [part * weights[:, i].reshape(-1, *[1] * (part.ndim - 1)) for i, part in enumerate(parts)]
    return sum(scaled[1:], scaled[0]), 0


jit_p = _jax.new_operation("event.jit", product_aval, linear=(0, 1), on_transpose=_transpose, on_batch=_lanes)
_jax.lower_by(jit_p, choose)

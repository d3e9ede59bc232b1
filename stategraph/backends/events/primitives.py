"""The primitives of event products, their derivatives and their lanes.

The three are closed under differentiation. With ``C(e, w)`` for ``event.csr`` and ``O(a, b)`` for ``event.csr_outer``,
cotangents ``y`` of the result and ``g`` of ``O``, and ``T`` for the other direction:

    C(e, w):  e <- C^T(y, w)    w <- O(e, y), or sum(C(e, 1) * y) for one weight
    O(a, b):  a <- C^T(b, g)    b <- C(a, g)
    D(e, m):  e <- y @ m^T      m <- outer(e, y)

So a gradient to the weights looks at active rows only, and a gradient to the events at every synapse once. Products
that are linear in events of which none is zero are ordinary products where the matrix is dense.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from stategraph import _jax
from stategraph.backends.events.dispatch import choose
from stategraph.backends.events.generic import precision_of

Lanes = tuple[Any, int]


def csr_product(
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    shape: tuple[int, int],
    transposed: bool = False,
    by_post: tuple[Any, Any, Any] | tuple[()] = (),
) -> Any:
    """``event.csr`` of events ``(pre,)`` or ``(batch, pre)``; from post to pre when ``transposed``: then ``by_post`` may list
    the same synapses by post neuron.
    """
    return csr_p.bind(events, weight, indptr, indices, *by_post, shape=shape, transposed=transposed)


def csr_add(
    total: Any,
    events: Any,
    weight: Any,
    indptr: Any,
    indices: Any,
    shape: tuple[int, int],
    transposed: bool = False,
) -> Any:
    """``event.csr_add``: the sum and the product, in the memory of the sum where nobody else needs it."""
    return csr_add_p.bind(total, events, weight, indptr, indices, shape=shape, transposed=transposed)


def csr_outer(pre: Any, post: Any, indptr: Any, indices: Any, shape: tuple[int, int]) -> Any:
    """``event.csr_outer``: ``pre[i] * post[j]`` for each synapse, summed over the batch if there is one."""
    return csr_outer_p.bind(pre, post, indptr, indices, shape=shape)


def csr_outer_add(total: Any, pre: Any, post: Any, indptr: Any, indices: Any, shape: tuple[int, int]) -> Any:
    """``event.csr_outer_add``: the sum and the products, in the memory of the sum where nobody else needs it."""
    return csr_outer_add_p.bind(total, pre, post, indptr, indices, shape=shape)


def dense_product(events: Any, matrix: Any, transposed: bool = False, threshold: float | None = None) -> Any:
    """``event.dense`` of events ``(k,)`` or ``(batch, k)``; ``threshold`` is the share of active events above which the
    product is an ordinary one, None for the platform's own.
    """
    return dense_p.bind(events, matrix, transposed=transposed, threshold=threshold)


# ----------------------------------------------------------------------------------------------------- event.csr


def product_aval(
    events: Any, weight: Any, *connectivity: Any, shape: Any, transposed: bool, **params: Any
) -> Any:
    """The type of a product of events with connections of this shape."""
    arrived = shape[0] if transposed else shape[1]
    return _jax.resized_aval(
        _jax.strong_aval(events.update(dtype=weight.dtype)), (*events.shape[:-1], arrived)
    )


def _csr_transpose(
    index: int, cotangent: Any, operands: Sequence[Any], aval: Any, *, shape: Any, transposed: bool
) -> Any:
    events, weight, indptr, indices = operands[:4]
    if index == 0:
        return csr_product(cotangent, weight, indptr, indices, shape, not transposed)
    if aval.shape == ():
        one = jnp.ones((), cotangent.dtype)
        return (csr_p.bind(events, one, *operands[2:], shape=shape, transposed=transposed) * cotangent).sum()
    sides = (cotangent, events) if transposed else (events, cotangent)
    return csr_outer(*sides, indptr, indices, shape)


def _csr_lanes(operands: Sequence[Any], axes: Sequence[int | None], *, shape: Any, transposed: bool) -> Lanes:
    events, weight, *connectivity = operands
    shared = all(axis is None for axis in axes[2:])
    if not shared or (axes[1] is not None and weight.ndim == 2):
        return one_by_one(csr_p, operands, axes, shape=shape, transposed=transposed)
    if axes[1] is not None:  # one number for each lane
        one = jnp.ones((), weight.dtype)
        given = (events, one, *connectivity)
        if axes[0] is None:
            sent = csr_p.bind(*given, shape=shape, transposed=transposed)[None]
        else:
            alone = (axes[0], *[None] * (len(given) - 1))
            sent, _ = _csr_lanes(given, alone, shape=shape, transposed=transposed)
        return sent * weight.reshape(-1, *[1] * (sent.ndim - 1)), 0
    events = jnp.moveaxis(events, axes[0] or 0, 0)
    flat = events.reshape(math.prod(events.shape[:-1]), events.shape[-1])
    sent = csr_p.bind(flat, weight, *connectivity, shape=shape, transposed=transposed)
    return sent.reshape(*events.shape[:-1], sent.shape[-1]), 0


# ------------------------------------------------------------------------------------------------- event.csr_add


def _csr_add_aval(total: Any, *operands: Any, shape: Any, transposed: bool) -> Any:
    return product_aval(*operands, shape=shape, transposed=transposed)


def _csr_add_apart(total: Any, *operands: Any, **params: Any) -> Any:
    return total + csr_p.bind(*operands, **params)


# ----------------------------------------------------------------------------------------------- event.csr_outer


def _outer_aval(pre: Any, post: Any, indptr: Any, indices: Any, *, shape: Any) -> Any:
    dtype = post.dtype if pre.dtype == jnp.bool_ else pre.dtype
    return _jax.resized_aval(_jax.strong_aval(pre.update(dtype=dtype)), indices.shape)


def _outer_transpose(index: int, cotangent: Any, operands: Sequence[Any], aval: Any, *, shape: Any) -> Any:
    pre, post, indptr, indices = operands
    given = post if index == 0 else pre
    return csr_product(given, cotangent, indptr, indices, shape, transposed=index == 0)


def _outer_lanes(operands: Sequence[Any], axes: Sequence[int | None], *, shape: Any) -> Lanes:
    return one_by_one(csr_outer_p, operands, axes, shape=shape)


def _outer_add_aval(total: Any, *operands: Any, shape: Any) -> Any:
    return _outer_aval(*operands, shape=shape)


def _outer_add_apart(total: Any, *operands: Any, **params: Any) -> Any:
    return total + csr_outer_p.bind(*operands, **params)


# --------------------------------------------------------------------------------------------------- event.dense


def _dense_aval(events: Any, matrix: Any, *, transposed: bool, threshold: float | None) -> Any:
    arrived = matrix.shape[0] if transposed else matrix.shape[1]
    return _jax.resized_aval(
        _jax.strong_aval(events.update(dtype=matrix.dtype)), (*events.shape[:-1], arrived)
    )


def _dense_transpose(
    index: int,
    cotangent: Any,
    operands: Sequence[Any],
    aval: Any,
    *,
    transposed: bool,
    threshold: float | None,
) -> Any:
    events, matrix = operands
    if index == 0:
        there = matrix if transposed else matrix.T
        return jnp.matmul(cotangent, there, precision=precision_of(cotangent))
    sent = jnp.atleast_2d(events).astype(cotangent.dtype)
    arrived = jnp.atleast_2d(cotangent)
    sides = (arrived.T, sent) if transposed else (sent.T, arrived)
    return jnp.matmul(*sides, precision=precision_of(cotangent))


def _dense_lanes(operands: Sequence[Any], axes: Sequence[int | None], **params: Any) -> Lanes:
    events, matrix = operands
    if axes[1] is not None:
        return one_by_one(dense_p, operands, axes, **params)
    events = jnp.moveaxis(events, axes[0] or 0, 0)
    sent = dense_p.bind(events.reshape(math.prod(events.shape[:-1]), events.shape[-1]), matrix, **params)
    return sent.reshape(*events.shape[:-1], sent.shape[-1]), 0


# ------------------------------------------------------------------------------------------------------ all three


def one_by_one(primitive: Any, operands: Sequence[Any], axes: Sequence[int | None], **params: Any) -> Lanes:
    """One lane after another: for operands that lanes do not share, connectivity among them."""
    mapped = [jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True) if axis is not None]

    def lane(own: Sequence[Any]) -> Any:
        given = iter(own)
        return primitive.bind(
            *(x if axis is None else next(given) for x, axis in zip(operands, axes, strict=True)), **params
        )

    return lax.map(lane, mapped), 0


csr_p = _jax.new_operation(
    "event.csr", product_aval, linear=(0, 1), on_transpose=_csr_transpose, on_batch=_csr_lanes
)
csr_add_p = _jax.new_operation("event.csr_add", _csr_add_aval, apart=_csr_add_apart)
csr_outer_p = _jax.new_operation(
    "event.csr_outer", _outer_aval, linear=(0, 1), on_transpose=_outer_transpose, on_batch=_outer_lanes
)
csr_outer_add_p = _jax.new_operation("event.csr_outer_add", _outer_add_aval, apart=_outer_add_apart)
dense_p = _jax.new_operation(
    "event.dense", _dense_aval, linear=(0, 1), on_transpose=_dense_transpose, on_batch=_dense_lanes
)

for _primitive in (csr_p, csr_add_p, csr_outer_p, csr_outer_add_p, dense_p):
    _jax.lower_by(_primitive, choose)

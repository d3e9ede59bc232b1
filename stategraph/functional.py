"""Functions of arrays that models are written with: activations, and clipping of gradients.

The activations are JAX's own (``jax.nn``), and a few that JAX does not have.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import (
    celu,
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logsumexp,
    mish,
    one_hot,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_sign,
    softmax,
    softplus,
    sparse_plus,
    sparse_sigmoid,
    squareplus,
    standardize,
    swish,
    tanh,
)

from stategraph import random

Array = jax.Array


def hard_tanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> jax.Array:
    """The input, cut off at ``min_val`` and ``max_val``."""
    x = jnp.asarray(x)
    return jnp.where(x > max_val, max_val, jnp.where(x < min_val, min_val, x))


def prelu(x: Any, a: Any = 0.25) -> Array:
    """``x`` where it is positive and ``a * x`` elsewhere: a leaky ReLU whose slope is learned. He et al.,
    "Delving deep into rectifiers" (ICCV 2015).

    >>> from stategraph import functional as F
    >>> F.prelu(-2.0, 0.5)
    Array(-1., dtype=float32, weak_type=True)
    """
    x = jnp.asarray(x)
    return jnp.where(x >= 0, x, a * x)


def rrelu(x: Any, lower: float = 1 / 8, upper: float = 1 / 3, key: Any = None) -> Array:
    """``x`` where it is positive and ``a * x`` elsewhere, with a random ``a`` between ``lower`` and ``upper``
    for every element. Xu et al., "Empirical evaluation of rectified activations in convolutional network"
    (2015).

    Args:
      x: an array.
      lower: the least slope.
      upper: the largest slope.
      key: a key to draw with; None for the stream of ``stategraph.random``.
    """
    x = jnp.asarray(x)
    return jnp.where(x >= 0, x, x * random.uniform(lower, upper, x.shape, key=key, dtype=x.dtype))


def softmin(x: Any, axis: int = -1) -> Array:
    """The softmax of ``-x``."""
    return softmax(-jnp.asarray(x), axis=axis)


def soft_shrink(x: Any, lambd: float = 0.5) -> Array:
    """``x`` moved towards zero by ``lambd``, and zero where it would pass it."""
    x = jnp.asarray(x)
    return jnp.where(x > lambd, x - lambd, jnp.where(x < -lambd, x + lambd, jnp.zeros_like(x)))


def hard_shrink(x: Any, lambd: float = 0.5) -> Array:
    """``x``, and zero where its magnitude is at most ``lambd``."""
    x = jnp.asarray(x)
    return jnp.where(jnp.abs(x) > lambd, x, jnp.zeros_like(x))


def tanh_shrink(x: Any) -> Array:
    """``x - tanh(x)``."""
    return jnp.asarray(x) - tanh(x)


def clip_grad_norm(
    grad: Any, max_norm: float | Array, norm_type: float | str = 2.0, return_norm: bool = False
) -> Any:
    """Gradients scaled down together, so that their norm is at most ``max_norm``. Pascanu et al., "On the
    difficulty of training recurrent neural networks" (ICML 2013).

    Args:
      grad: a pytree of arrays, taken as one long vector.
      max_norm: the largest norm allowed.
      norm_type: the order of the norm: 2, 1, any positive number, or ``inf``.
      return_norm: whether to return the norm as well (before the clipping).

    Returns:
      The gradients, or ``(gradients, norm)``. Gradients within the limit come back as they are.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import functional as F
    >>> F.clip_grad_norm({"w": jnp.array([3.0, 4.0])}, 1.0, return_norm=True)
    ({'w': Array([0.6, 0.8], dtype=float32)}, Array(5., dtype=float32))
    """
    order = float(norm_type)
    if not order > 0:
        raise ValueError(f"norm_type is a positive number or inf, not {norm_type!r}")
    leaves = [jnp.abs(leaf) for leaf in jax.tree.leaves(grad)]
    if not leaves:
        return (grad, jnp.zeros(())) if return_norm else grad
    if math.isinf(order):
        norm = jnp.stack([jnp.max(leaf, initial=0.0) for leaf in leaves]).max()
    else:
        norm = jnp.stack([jnp.sum(leaf**order) for leaf in leaves]).sum() ** (1 / order)
    factor = jnp.where(norm > max_norm, max_norm / jnp.where(norm > 0, norm, 1.0), 1.0)
    clipped = jax.tree.map(lambda leaf: leaf * factor.astype(jnp.real(leaf).dtype), grad)
    return (clipped, norm) if return_norm else clipped


__all__ = [
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "swish", "mish",
    "hard_silu", "hard_swish", "sigmoid", "hard_sigmoid", "log_sigmoid", "sparse_sigmoid", "tanh", "hard_tanh",
    "tanh_shrink", "soft_shrink", "hard_shrink", "soft_sign", "softplus", "squareplus", "sparse_plus", "glu",
    "softmax", "log_softmax", "softmin", "logsumexp", "standardize", "one_hot", "clip_grad_norm",
]  # fmt: skip

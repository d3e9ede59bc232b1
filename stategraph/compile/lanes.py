"""Values that all lanes of a ``vmap`` share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from stategraph import _jax

_REDUCE = {"any": jnp.any, "all": jnp.all, "max": jnp.max}
_PRIMITIVES = {op: _jax.new_lane_reduction(f"unvmap_{op}", reduce, reduce) for op, reduce in _REDUCE.items()}
_FIRST = _jax.new_lane_reduction(
    "unvmap_first",
    lambda x: x,
    lambda x, axis: jax.lax.index_in_dim(x, 0, axis, keepdims=False),
)


def first_lane(x: Any) -> Any:
    """An array as the first lane of every ``vmap`` around it has it."""
    return _FIRST.bind(jnp.asarray(x))


def unvmap(x: Any, op: str = "any") -> Any:
    """Reduce an array to one scalar, over its elements and over the lanes of every ``vmap`` around it.

    Inside a mapped function the result is the same in all lanes and has no lanes itself, so that a ``cond`` on
    it stays a branch instead of becoming a selection between both sides.

    Args:
      x: an array; of anything for ``any`` and ``all``, of real numbers for ``max``.
      op: ``any``, ``all`` or ``max``.

    Returns:
      A scalar: ``bool[]``, or for ``max`` one of the dtype of ``x``. It has no derivative.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> def clipped(x):
    ...     return sg.compile.cond(sg.compile.unvmap(x > 1), lambda: jnp.minimum(x, 1), lambda: x)
    >>> sg.augment.vmap(clipped)(jnp.array([0.5, 3.]))
    Array([0.5, 1. ], dtype=float32)
    """
    if op not in _PRIMITIVES:
        raise ValueError(f"op of unvmap is one of {', '.join(map(repr, _PRIMITIVES))}, not {op!r}")
    array = jnp.asarray(x)
    return _PRIMITIVES[op].bind(array if op == "max" else array.astype(bool))

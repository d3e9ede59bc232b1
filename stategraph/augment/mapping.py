"""Mapping a function over slices one after another, or in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from stategraph.augment.lanes import Lanes
from stategraph.augment.vmap import MappedFunction
from stategraph.compile.control import for_loop
from stategraph.compile.progress import ProgressBar, as_bar
from stategraph.errors import TraceError, describe


def map(
    f: Callable[..., Any],
    *xs: Any,
    batch_size: int | None = None,
    progress: ProgressBar | int | bool = False,
) -> Any:
    """``f`` of every slice of ``xs`` along their first axis, one after another, with the results stacked.

    Args:
      f: a function of one slice of every input. A slice sees what the ones before it wrote to State.
      *xs: arrays, or pytrees of arrays.
      batch_size: run this many slices at once, as lanes of a ``vmap``, which takes less time and more memory.
        Then the lanes of one batch share States, and may write only what does not depend on the lane.
      progress: True, a ``ProgressBar``, or how often it moves: a bar over the slices, or over the batches.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> total = sg.State(0)
    >>> def add(x):
    ...     total.value += x
    ...     return total.value
    >>> sg.augment.map(add, jnp.arange(4))
    Array([0, 1, 3, 6], dtype=int32)
    """
    if batch_size is None:
        return for_loop(f, *xs, pbar=as_bar(progress))
    if batch_size < 1:
        raise ValueError(f"batch_size has to be at least 1, but is {batch_size}")
    leaves = jax.tree.leaves(xs)
    if not leaves or not all(getattr(leaf, "ndim", 0) for leaf in leaves):
        raise ValueError("map needs arrays to take apart along their first axis")
    lengths = sorted({leaf.shape[0] for leaf in leaves})
    if len(lengths) > 1:
        raise TraceError(
            describe(
                f"map has inputs of different lengths: {lengths}.", fix="give arrays with equal first axes"
            )
        )
    length = lengths[0]
    whole = length - length % batch_size
    lanes = MappedFunction(f, Lanes(0, 0, None, None, None, None, False, batches=True))
    results = []
    if whole:
        batches = jax.tree.map(lambda x: x[:whole].reshape(-1, batch_size, *x.shape[1:]), xs)
        results.append(
            jax.tree.map(
                lambda y: y.reshape(whole, *y.shape[2:]), for_loop(lanes, *batches, pbar=as_bar(progress))
            )
        )
    if whole < length or not length:
        results.append(lanes(*jax.tree.map(lambda x: x[whole:], xs)))
    return (
        results[0]
        if len(results) == 1
        else jax.tree.map(lambda *parts: jax.numpy.concatenate(parts), *results)
    )

"""Synapses in any order, sorted by pre neuron: what ``rewrite-events`` puts before a loop over products with them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from stategraph import _jax
from stategraph.ir.core import Value
from stategraph.ir.location import Location
from stategraph.passes.event_sparse import SORTED
from stategraph.passes.expand_transforms import Expansion


def compressed(weights: Any, places: Any, axis: int, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """(weights, indptr, indices) of a list of synapses; those that lie outside of the matrix come last, in no row.

    Args:
      weights: ``(synapses,)``.
      places: ``(synapses, 2)``, the row and column of each.
      axis: 0 if the rows are the pre neurons, 1 if the columns are.
      shape: the rows and columns of the matrix.
    """
    pre, post = places[:, axis].astype(jnp.int32), places[:, 1 - axis].astype(jnp.int32)
    inside = (pre < shape[axis]) & (post < shape[1 - axis])
    weights = jnp.where(inside, weights, 0)
    pre, post = jnp.where(inside, pre, shape[axis]), jnp.where(inside, post, 0)
    pre, post, weights = lax.sort((pre, post, weights), num_keys=1)
    counts = jnp.zeros(shape[axis] + 1, jnp.int32).at[pre + 1].add(1, mode="drop")
    return weights, jnp.cumsum(counts), post


def sort_synapses(
    weights: Value, places: Value, axis: int, shape: tuple[int, int], location: Location
) -> Expansion:
    """The ops of ``compressed``, and its three results."""
    from stategraph.tracing.importer import import_inline

    operands = [weights, places]
    jaxpr, consts = _jax.trace_flat(
        lambda weights, places: list(compressed(weights, places, axis, shape)),
        [_jax.aval_of(value.type) for value in operands],
        traced_for="stategraph rewrite-events",
        name="sort_synapses",
    )
    return import_inline(jaxpr, consts, operands, location, keep_rules=False)


SORTED["coo"] = sort_synapses

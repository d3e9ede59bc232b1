"""Meshes over eight devices, and ways to run a function over shards, for the tests that have such devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import stategraph as sg
from tests.support import assert_same, build, eagerly, interpret, leaves_of

P = PartitionSpec


MESH = Mesh(np.array(jax.devices()[:8]), ("i",))


XS = jnp.arange(16.0) / 4 - 1


def four_ways(
    function: Callable[..., Any], *args: Any, reference: bool = True, tolerance: float = 1e-5
) -> tuple[Any, dict[str, Any]]:
    """Check that eager Python, the interpreter and the compiled program agree: (result, leaves by path)."""
    trace = build(function, *args)
    expected, states = eagerly(function, *args, states=trace.states)
    if reference:
        assert_same(interpret(trace, *args), (expected, states), exact=False, tolerance=tolerance)
    result = sg.compile.jit(function)(*args)
    after = leaves_of(trace.states)
    assert_same((result, after), (expected, states), exact=False, tolerance=tolerance)
    return result, after


def plain(body: Callable[..., Any], out_specs: Any = None) -> Callable[..., Any]:
    """The body on shards of its argument, by JAX's own function."""
    wanted = P("i") if out_specs is None else out_specs
    return lambda x: jax.shard_map(body, mesh=MESH, in_specs=P("i"), out_specs=wanted)(x)

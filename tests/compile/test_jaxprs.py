"""``make_jaxpr``: jaxprs that compute, from the leaves of States and arguments, what the function does."""

from __future__ import annotations

from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg


def evaluated(jaxpr: Any, states: Any, *args: Any) -> list[Any]:
    return jax.extend.core.jaxpr_as_fun(jaxpr)(*jax.tree.leaves([s.value for s in states]), *args)


@pytest.mark.core
@pytest.mark.parametrize("only_written", [False, True])
def test_a_jaxpr_takes_and_gives_the_states_and_changes_none(only_written: bool) -> None:
    read, both, written = (
        sg.State(2.0),
        sg.State({"a": jnp.ones(3), "b": jnp.arange(2)}),
        sg.State(jnp.zeros(3)),
    )
    table = jnp.arange(3.0)

    def f(x: Any, n: int) -> Any:
        both.value = {**both.value, "a": both.value["a"] * x + read.value}
        written.value = both.value["a"] + table
        return {"sum": both.value["a"].sum() * n}

    jaxpr, states = sg.compile.make_jaxpr(f, static_argnums=1, return_only_write=only_written)(3.0, 2)
    assert set(states) == {read, both, written} and states[-1] is read
    assert float(written.value[0]) == 0
    before = [s.value for s in states]
    found = evaluated(jaxpr, states, 3.0)
    assert float(f(3.0, 2)["sum"]) == float(found[0])
    after = states[:2] if only_written else states
    expected = jax.tree.leaves([s.value for s in after])
    assert len(found) == 1 + len(expected) and len(jaxpr.in_avals) == len(jax.tree.leaves(before)) + 1
    assert all(np.array_equal(x, y) for x, y in zip(found[1:], expected, strict=True))


def test_shapes_of_the_results_on_request() -> None:
    _, shapes, states = sg.compile.make_jaxpr(lambda x: {"y": x[:1]}, return_shape=True)(jnp.ones(3))
    assert shapes["y"].shape == (1,) and states == ()


def test_collectives_name_axes_that_are_given() -> None:
    total = sg.State(0.0)

    def f(x: Any) -> None:
        total.value = jax.lax.psum(x, "cells")

    jaxpr, states = sg.compile.make_jaxpr(f, axis_env=[("cells", 4)])(1.0)
    mapped = jax.vmap(lambda x: evaluated(jaxpr, states, x), axis_name="cells")(jnp.arange(4.0))
    assert states == (total,) and np.allclose(mapped[0], 6)

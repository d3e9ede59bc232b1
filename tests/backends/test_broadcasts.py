"""Numbers beside arrays: one broadcast each, and the results of ``jax.jit``."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg

pytestmark = pytest.mark.core

X = np.array([-1.5, -0.0, 0.0, 2.0, np.inf, np.nan], np.float32)


def text_of(function: Any, *args: Any) -> str:
    return sg.trace(function, *args).lower().as_text("stablehlo")


def test_a_number_is_broadcast_once_for_all_arrays_of_a_shape() -> None:
    def f(xs: Any) -> Any:
        return [0.9 * x + 0.1 for x in xs]

    text = text_of(f, [X, X, X, X[:2]])
    assert (
        text.count("stablehlo.broadcast_in_dim") == text.count("stablehlo.constant") == 4
    )  # two numbers, two shapes


def test_numbers_are_the_same_by_type_and_bits() -> None:
    text = text_of(lambda x: (x + 0.0, x * -0.0, jnp.maximum(x, 0.0)), X)
    assert len(re.findall(r"stablehlo\.constant dense<-?0\.0", text)) == 2
    assert text_of(lambda x, n: (x * 2.0, n * 2), X, np.arange(6)).count("stablehlo.constant") == 2


def test_a_computed_number_is_broadcast_once_too() -> None:
    text = text_of(lambda s, x, y: (x / jnp.exp(s), y / jnp.exp(s)), np.float32(2), X, X)
    assert text.count("stablehlo.broadcast_in_dim") == 1


def test_each_body_broadcasts_for_itself() -> None:
    def f(x: Any, flag: Any) -> Any:
        y = 3.0 * x
        y = jax.lax.cond(flag, lambda: 3.0 * y, lambda: y - 3.0)
        return jax.lax.fori_loop(0, 3, lambda i, c: c * 3.0 + i, y)

    compiled = sg.trace(f, X, True).lower().compile()
    for flag in (True, False):
        np.testing.assert_array_equal(compiled(X, flag), jax.jit(f)(X, flag))


@pytest.mark.parametrize("number", [0.0, -0.0, 2.0, np.inf, np.nan])
def test_bits_are_those_of_jax(number: float) -> None:
    def f(x: Any) -> list[Any]:
        functions = (jnp.add, jnp.multiply, jnp.maximum, jnp.minimum, jnp.arctan2)
        comparisons = (jnp.less, jnp.equal, jnp.not_equal)
        return [g(a, b) for g in (*functions, *comparisons) for a, b in ((x, number), (number, x))]

    for ours, theirs in zip(sg.compile.jit(f)(X), jax.jit(f)(X), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


def test_keys_and_empty_arrays_pass() -> None:
    key = jax.random.key(0)
    same, empty = sg.compile.jit(lambda k, x: (k == k, x * 2.0 + 1.0))(key, jnp.zeros((0, 3)))
    assert bool(same) and empty.shape == (0, 3)

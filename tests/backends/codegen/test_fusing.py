"""What a kernel rounds once is decided from how an op is defined: its results do not depend on what else is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.backends.codegen.running import natively

SIZE = 70
_random = np.random.default_rng(0)
X, Y, Z = (jnp.asarray(_random.uniform(0.1, 2, SIZE), jnp.float32) for _ in range(3))


def product(x: Any, y: Any, z: Any) -> tuple[Any, list[Any]]:
    a = x * y
    return (a + z,), [a, a * z]


def difference(x: Any, y: Any, z: Any) -> tuple[Any, list[Any]]:
    a, b = x * y, y * z
    return (z - a, b - x * z), [a, b]


def literals(x: Any, y: Any, z: Any) -> tuple[Any, list[Any]]:
    a = x / 5.3
    b = 0.1 * a
    return (b * 3.7, z + b * 0.3), [a, b]


def quotient(x: Any, y: Any, z: Any) -> tuple[Any, list[Any]]:
    a = jnp.sin(x) * y
    b = jnp.expm1(a)
    return (z + 0.1 * (b / a),), [a, b]


def sums(x: Any, y: Any, z: Any) -> tuple[Any, list[Any]]:
    a = x * y + z
    return (a.sum(), a.mean() * x, (x.astype(jnp.bool) * 1.0).sum()), [a, x > 1, a < 1]


def scalars(x: Any, y: Any, z: Any) -> tuple[Any, list[Any]]:
    a = x[3] * y[5]
    return (a + z[1], z - a * x), [a, a * x]


FUNCTIONS = [product, difference, literals, quotient, sums, scalars]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("looped", [False, True])
def test_results_do_not_depend_on_what_else_is_asked_for(
    function: Callable[..., tuple[Any, list[Any]]], looped: bool
) -> None:
    def asked(*wanted: int) -> list[Any]:
        def once(x: Any, y: Any, z: Any) -> Any:
            found, others = function(x, y, z)
            return found, [others[i] for i in wanted]

        def steps(x: Any, y: Any, z: Any) -> Any:
            def step(carry: Any, _: Any) -> Any:
                x, y, z = carry
                found, others = once(x, y, z)
                return (y, z, x * 0.9 + found[0] * 0.01), (found, others)

            last, stacked = lax.scan(step, (x, y, z), None, length=3)
            return [*last, *stacked[0]], stacked[1]

        count = len(function(X, Y, Z)[0]) + 3 * looped
        return natively(steps if looped else once, X, Y, Z)[:count]

    alone = asked()
    others = range(len(function(X, Y, Z)[1]))
    for wanted in [*([i] for i in others), list(others)]:
        for a, b in zip(asked(*wanted), alone, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"with {wanted}")


def test_a_sum_of_a_product_is_rounded_once() -> None:
    x, y = jnp.full(SIZE, 1 + 2.0**-12, jnp.float32), jnp.full(SIZE, 1 - 2.0**-12, jnp.float32)
    for found in natively(lambda x, y: (x * y - 1.0, 1.0 - x * y), x, y):
        np.testing.assert_array_equal(np.abs(found), np.full(SIZE, 2.0**-24, np.float32))


def test_what_is_made_of_a_rounded_product_is_compared_with_it() -> None:
    """A number less itself is 0, and nobody takes the root of what is a little less than 0."""

    def function(x: Any, y: Any, z: Any) -> list[Any]:
        p = x * y
        others = [
            p,
            lax.stop_gradient(p),
            jnp.abs(p),
            jnp.maximum(p, z * 0.1),
            jnp.floor(p),
            jnp.where(p > z, p, z),
        ]
        return [
            *(p - other for other in others),
            *(other - p for other in others),
            p - p.astype(jnp.int32),
            p - p.max(),
        ]

    with jax.disable_jit():
        wanted = function(X, Y, Z)
    for a, b in zip(natively(function, X, Y, Z), wanted, strict=True):
        np.testing.assert_array_equal(a, b)

"""Event products in kernels, compared with the dense product."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategraph import event
from stategraph.backends.events.primitives import csr_product, dense_product
from tests.backends.codegen.running import natively

pytest.importorskip("llvmlite")

RANDOM = np.random.default_rng(0)
MATRIX = (RANDOM.random((50, 33)) < 0.2) * RANDOM.normal(size=(50, 33))
MATRIX[7] = 0
CSR = event.CSR.from_dense(MATRIX)
WEIGHTS = jnp.asarray(MATRIX[MATRIX != 0], jnp.float32)
RATES = (0.0, 0.1, 1.0)


def vectors(size: int, *leading: int) -> list[Any]:
    return [jnp.asarray(RANDOM.random((*leading, size)) < rate) for rate in RATES]


@pytest.mark.parametrize("transposed", [False, True])
def test_sparse_products(transposed: bool) -> None:
    indptr, indices = CSR.indptr, CSR.indices

    def function(events: Any, values: Any, weights: Any, one: Any, batch: Any) -> Any:
        def send(x: Any, w: Any) -> Any:
            return csr_product(x, w, indptr, indices, CSR.shape, transposed)

        return [
            send(events, weights),
            send(values, weights),
            send(values, one),
            send(batch, weights),
            send(values, one) * 2 + 1,
        ]

    dense = (MATRIX.T if transposed else MATRIX, (MATRIX.T if transposed else MATRIX) != 0)
    for events, batch in zip(vectors(dense[0].shape[0]), vectors(dense[0].shape[0], 3), strict=True):
        values = events * jnp.asarray(RANDOM.normal(size=events.shape), jnp.float32)
        found = natively(function, events, values, WEIGHTS, jnp.float32(0.5), batch)
        one = values @ dense[1] * 0.5
        for a, b in zip(
            found, [events @ dense[0], values @ dense[0], one, batch @ dense[0], one * 2 + 1], strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_dense_products() -> None:
    matrix = jnp.asarray(MATRIX, jnp.float32)

    def function(events: Any, values: Any, back: Any, batch: Any) -> Any:
        return [
            dense_product(events, matrix), dense_product(values, matrix), dense_product(back, matrix, transposed=True),
            dense_product(batch, matrix),
        ]  # fmt: skip

    for events, back, batch in zip(vectors(50), vectors(33), vectors(50, 4), strict=True):
        values = events * 1.5
        found = natively(function, events, values, back, batch)
        wanted = [events @ matrix, values @ matrix, matrix @ back, batch @ matrix]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_products_that_are_added_in_place() -> None:
    """A product adds to what is there, also where the old value, the sum and its parts are needed elsewhere."""
    square = event.CSR.from_dense(np.eye(33)[::-1] + np.eye(33))

    def send(events: Any, by: float) -> Any:
        return csr_product(events, jnp.float32(by), square.indptr, square.indices, square.shape)

    def body(carry: Any, t: Any) -> Any:
        g, h, k, v = carry
        events = v > 0.5
        new_g = g * 0.5 + send(events, 0.1)
        new_h = send(events, 0.2) + h  # adds to the carried value itself
        sent = send(events.astype(jnp.float32), 0.3)
        new_k = k + sent
        twice = send(events, 0.1) + send(events, 0.1)
        v = jnp.sin(v * 9 + new_g + new_h + twice) + 0.1
        return (new_g, new_h, new_k, v), (sent[0], g.sum(), k[3], twice.max(), events)

    start = jnp.asarray(RANDOM.random(33), jnp.float32)

    def function(x: Any) -> Any:
        return lax.scan(body, (x, x + 1, x, x), jnp.arange(4))

    import jax

    for a, b in zip(natively(function, start), jax.tree.leaves(jax.jit(function)(start)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_product_is_added_to_a_value_from_around_the_loop() -> None:
    square = event.CSR.from_dense(np.eye(33)[::-1])

    def send(events: Any) -> Any:
        return csr_product(events, jnp.float32(0.1), square.indptr, square.indices, square.shape)

    def outer(carry: Any, t: Any) -> Any:
        around = jnp.tanh(carry) + t
        last, _ = lax.scan(lambda inner, s: (around + send(inner > s), None), carry, jnp.arange(3) * 0.2)
        return last, around[::-1]

    def function(x: Any) -> Any:
        return lax.scan(outer, x, jnp.arange(4) * 0.1)

    import jax

    start = jnp.asarray(RANDOM.random(33), jnp.float32)
    for a, b in zip(natively(function, start), jax.tree.leaves(jax.jit(function)(start)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

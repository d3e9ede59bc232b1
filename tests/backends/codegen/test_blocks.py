"""Regions as kernels: loops that share memory, indexing, reductions, control flow; each compared with JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import stategraph as sg
from stategraph.passes.native_ops import why_not
from tests.backends.codegen.running import assert_same, natively

pytest.importorskip("llvmlite")

X = jnp.asarray(np.random.default_rng(0).normal(size=37), jnp.float32)
M = jnp.asarray(np.random.default_rng(1).normal(size=(5, 7)), jnp.float32)


def check(function: Any, *args: Any, ulps: int = 8) -> None:
    assert_same(natively(function, *args), jax.tree.leaves(jax.jit(function)(*args)), ulps=ulps)


def test_elements_that_are_others() -> None:
    def function(x: Any, m: Any, i: Any) -> Any:
        return [
            x[3:9], x[::4], x[5:6], jnp.roll(x, 3), jnp.flip(x), m.T, m[:, 2], m[1:3, ::2], m[2], jnp.flip(m, (0, 1)),
            m + m[:1], m * m[:, :1], jnp.broadcast_to(m[0], (3, 5, 7)), m.reshape(7, 5) + 1, m.reshape(-1)[2:30],
            (m + 1).reshape(5, 1, 7).transpose(2, 1, 0), lax.dynamic_slice(x, (i,), (4,)), lax.dynamic_index_in_dim(m, i),
            lax.dynamic_slice(m, (i, -3), (2, 3)), x[i], m[i, 2], jnp.concatenate([x, m[0], x[:1]]),
            jnp.concatenate([m, m + 1, m[:, :1]], 1), jnp.stack([x, x * 2]), lax.dynamic_update_slice(m, m[:2, :2] + 9, (i, 1)),
            m.at[i].set(0.0), x.at[i].add(1.0), jnp.arange(11) * i,
            lax.broadcasted_iota(jnp.float32, (3, 4), 1),
        ]  # fmt: skip

    for i in (-2, 0, 3, 100):
        check(function, X, M, jnp.int32(i))


def test_an_unsigned_index_is_clamped_at_the_end() -> None:
    def function(x: Any, i: Any) -> Any:
        return [lax.dynamic_slice(x, (i,), (4,)), lax.dynamic_update_slice(x, x[:2] + 9, (i,))]

    with jax.enable_x64(True):
        for i in (jnp.uint8(200), jnp.uint32(2), jnp.uint64(2**63 + 5)):
            check(function, X, i)


def test_gather() -> None:
    places = jnp.array([3, 0, 4, 4, 99, -1])

    def function(x: Any, m: Any, at: Any) -> Any:
        return [
            x[at],
            m[at],
            m[:, at],
            x.at[at].get(mode="fill"),
            m.at[at].get(mode="clip"),
            jnp.take(m, at[:2], axis=1),
            x[at[:, None] % 5 + at],
        ]

    check(function, X, M, places)


def test_scatter() -> None:
    """Rows, columns and elements are set or added to; those beyond the borders are dropped, or moved inside."""
    at, once = jnp.array([2, 4, 2, 9, -8]), jnp.array([3, 9, 0, -7])

    def function(x: Any, at: Any, once: Any) -> Any:
        rows, columns = x[:4] * 2, x[:, :4] + 1
        return [
            x.at[once].set(rows, mode="drop"), x.at[at].add(x, mode="drop"), x.at[:, once].set(columns, mode="drop"),
            x.at[at, at - 1].add(3.0), x.at[at].add(1.0, mode="clip"), x.at[once[:, None], jnp.arange(3)].set(7.0),
            x.at[once[0]].set(x[1], mode="drop"), x.at[once[1]].set(x[1], mode="drop"),
        ]  # fmt: skip

    check(function, M, at, once)


def test_reductions() -> None:
    def function(x: Any, m: Any) -> Any:
        whole = jnp.int32(m.size) * jnp.arange(35).reshape(5, 7)
        return [
            x.sum(), x.max(), m.min(), m.sum(0), m.max(1), m.prod(), (m > 0).any(), (m > 9).all(1), whole.sum(0), whole.max(), whole.min(1),
            (x * 2 + 1).sum() + x, jnp.ones((3, 4)).sum(0), m.mean(0), m - m.max(), (x - x.mean()).std(),
        ]  # fmt: skip

    check(function, X, M, ulps=64)


def test_parts_running_sums_and_small_products() -> None:
    def function(x: Any, m: Any, n: Any) -> Any:
        three = lax.broadcast_in_dim(m, (5, 7, 2), (0, 1)) + jnp.arange(2)
        return [
            *jnp.split(x, [5, 6]), *jnp.split(m, [2], axis=1), *jnp.split(three, [1, 3], axis=1), *jnp.split(n[:1], 1),
            jnp.cumsum(n), jnp.cumsum(m, 1), lax.cumsum(three, 1, reverse=True), jnp.cumsum(n[:1]), lax.cumsum(n.astype(jnp.uint8)),
            m @ m.T, m[0] @ m[1], m @ m[2], jnp.einsum("ab,cab->c", m, m.reshape(1, 5, 7)), jnp.einsum("abc,bd->acd", three, m.T),
            m[:1, :1] @ m[:1], jnp.outer(m[0], m[:, 0]),
        ]  # fmt: skip

    check(function, X, jnp.round(M * 8), jnp.arange(9) * 2**29)
    infinite = M.at[0, 0].set(jnp.inf).at[1, 0].set(jnp.nan).at[2, 0].set(0.0)
    check(lambda m: m @ m.T, infinite, ulps=200)


def test_a_large_product_is_not_for_a_kernel() -> None:
    large, batch = jnp.ones((20, 20)), jnp.ones((2, 3, 4))
    for product in (lambda: large @ large, lambda: batch @ batch.transpose(0, 2, 1)):
        program = sg.trace(product).lower().program
        (reason,) = (why_not(op) for op in program.walk("jax.dot_general"))
        assert reason is not None


def test_carries_that_depend_on_each_other_keep_their_old_values() -> None:
    def body(carry: Any, t: Any) -> Any:
        a, b, c, d, n = carry
        swapped = (b, a * 0.5 + b[::-1], jnp.roll(c, 1) + a, c, n + 1)
        return swapped, (a[2:5], c.sum(), n * t, d)

    def function(x: Any) -> Any:
        return lax.scan(body, (x, x + 1, x * 2, x, 0), jnp.arange(6.0))

    check(function, X)
    check(lambda x: lax.scan(lambda c, t: body(c, t), (x, x, x, x, 3), jnp.arange(5.0), reverse=True), X)


def test_one_step_reads_a_carry_before_and_after_others_write_theirs() -> None:
    def body(carry: Any, x: Any) -> Any:
        v, g = carry
        total = g.sum()  # a loop before that of v
        new = v * 0.9 + g * total * 1e-3
        g = g * 0.5 + (new > 0.3) * x
        late = v + g.max()  # needs the old v after another loop
        return (new, g), late.sum() + v[0]

    check(lambda x: lax.scan(body, (x, x * x), jnp.linspace(0, 1, 9)), X, ulps=64)


def test_loops_and_branches_inside_of_loops() -> None:
    def body(carry: Any, t: Any) -> Any:
        x, n = carry
        x = lax.fori_loop(0, 3, lambda i, v: v * 0.9 + jnp.float32(i), x)
        x = lax.cond(t % 2 == 0, lambda v: v - v.mean(), lambda v: v[::-1] * 2, x)
        x, n = lax.while_loop(lambda s: (s[0] ** 2).sum() > 50, lambda s: (s[0] * 0.7, s[1] + 1), (x, n))
        y = lax.switch(t % 3, [lambda: x[0], lambda: x.sum(), lambda: jnp.float32(1)])
        return (x, n), y

    def function(x: Any) -> Any:
        return lax.scan(body, (x, 0), jnp.arange(8))

    for a, b in zip(natively(function, X), jax.tree.leaves(jax.jit(function)(X)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_ring_buffer_is_written_in_place() -> None:
    def body(ring: Any, t: Any) -> Any:
        ring = lax.dynamic_update_slice(ring, (ring[(t + 3) % 5] * 0.5 + t)[None], (t % 5, 0))
        return ring, ring[(t + 1) % 5] + ring.sum()

    check(lambda m: lax.scan(body, m, jnp.arange(13)), M, ulps=64)


def test_rules_of_functions_are_their_bodies() -> None:
    @jax.custom_jvp
    def spike(x: Any) -> Any:
        return (x > 0).astype(x.dtype)

    spike.defjvp(lambda p, t: (spike(*p), t[0]))
    check(lambda x: [spike(x) * 2, jax.jit(jnp.sin)(x), jax.checkpoint(jnp.tanh)(x)], X)


def test_random_numbers_of_scalars_and_shapes_of_one() -> None:
    def function(x: Any, s: Any) -> Any:
        one = x[:1] * s
        return [
            one,
            one.reshape(1, 1) + s,
            jnp.concatenate([one, one]),
            jnp.full((3, 1), s),
            jnp.full((4,), 2.0) * s + one,
            one.sum(),
        ]

    check(function, X, jnp.float32(3))


def test_literals_in_a_row_are_multiplied_first() -> None:
    def function(x: Any) -> list[Any]:
        return [
            0.1 * (x / 20),
            (x * 3) * 7,
            1e30 * (x * 1e30),
            1e-30 * (x / 1e30),
            x / 20 * 0.1 + x / 20,
            (x * 1e30) * 1e-30,
        ]

    x = jnp.concatenate([X, jnp.float32([1e-30, -0.0, jnp.inf, jnp.nan])])
    wide = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        wanted = [np.asarray(part, np.float32) for part in function(wide)]
        wanted[2], wanted[3] = [
            (x * f) * f for x, f in ((np.asarray(x), np.float32(1e30)), (np.asarray(x), np.float32(1e-30)))
        ]
    assert_same(natively(function, x), wanted, ulps=2)

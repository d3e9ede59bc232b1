"""Random numbers in kernels are those of JAX: the same bits for keys, integers and uniform numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.passes.native_ops import why_not
from tests.backends.codegen.running import assert_same, natively

pytest.importorskip("llvmlite")

random = jax.random
KEY = random.key_data(random.key(987654321987))
"""Of a seed with more than 32 bits where JAX has them."""


def drawn(key: Any) -> list[Any]:
    """Keys of every origin, bits of every width, in shapes of all kinds."""
    key = random.wrap_key_data(key)
    first, second = random.split(key)
    table = random.split(first, (2, 3))
    moved = jnp.concatenate([table.reshape(3, 2).T[:, :2], table[:, :2], jnp.broadcast_to(second, (1, 2))])
    chosen = jnp.where(jnp.array([[True], [False]]), table, second)
    wrapped = random.wrap_key_data(jnp.arange(6, dtype=jnp.uint32).reshape(3, 2))
    keys = [
        first, random.split(key, 3)[1:], table, jax.vmap(jax.vmap(random.split))(table), random.split(table[1, 2], 1)[0],
        random.fold_in(key, 7), random.fold_in(second, jnp.int32(-5)), jax.vmap(random.fold_in)(wrapped, jnp.arange(3)),
        random.key(3), random.key(jnp.uint32(2**32 - 2)), jax.vmap(random.key)(jnp.arange(3) - 1), moved, chosen,
        jnp.expand_dims(table[::-1, 0], 1),
    ]  # fmt: skip
    shapes: list[tuple[int, ...]] = [(), (1,), (2,), (7,), (64,), (129,), (3, 5), (1, 5, 1), (4, 1, 3)]
    bits = [random.bits(key, shape) for shape in shapes]
    bits += [random.bits(second, (21,), dtype) for dtype in (jnp.uint8, jnp.uint16)]
    lanes = jax.vmap(lambda one: random.bits(one, (5,)))
    many = jax.vmap(lanes)(table)
    return [*map(random.key_data, keys), *bits, lanes(wrapped), many]


@pytest.mark.parametrize("partitionable", [True, False])
def test_keys_and_bits_are_those_of_jax(partitionable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from stategraph.backends.codegen import kernel
    from tests.backends.codegen import running

    def generate(*args: Any, **options: Any) -> Any:
        return kernel.generate(*args, partitionable=partitionable, **options)

    monkeypatch.setattr(running, "generate", generate)
    with jax.threefry_partitionable(partitionable):
        wanted = jax.jit(drawn)(KEY)
        found = natively(drawn, KEY)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=str(number))
        assert a.dtype == b.dtype


def wide(key: Any) -> list[Any]:
    key = random.wrap_key_data(key)
    return [
        random.bits(key, (9,), jnp.uint64),
        random.uniform(key, (3, 3), jnp.float64),
        random.key_data(random.key(jnp.uint64(2**63 + 5))),
        random.key_data(random.key(jnp.int64(-3))),
    ]


@pytest.mark.parametrize("partitionable", [True, False])
def test_numbers_of_64_bits(partitionable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from stategraph.backends.codegen import kernel
    from tests.backends.codegen import running

    def generate(*args: Any, **options: Any) -> Any:
        return kernel.generate(*args, partitionable=partitionable, **options)

    monkeypatch.setattr(running, "generate", generate)
    with jax.enable_x64(True), jax.threefry_partitionable(partitionable):
        for a, b in zip(natively(wide, KEY), jax.jit(wide)(KEY), strict=True):
            np.testing.assert_array_equal(a, b)


def exact(key: Any) -> list[Any]:
    keys = random.split(random.wrap_key_data(key), 6)
    return [
        random.uniform(keys[0], (37,)),
        random.bernoulli(keys[1], 0.3, (4, 9)),
        random.randint(keys[2], (50,), -3, 1000),
        random.randint(keys[3], (5,), 0, 7, jnp.uint8),
        random.bernoulli(keys[4], jnp.linspace(0.0, 1.0, 11)),
        random.rademacher(keys[5], (8,)),
    ]


@pytest.mark.core
def test_uniform_numbers_integers_and_coins_have_the_bits_of_jax() -> None:
    for a, b in zip(natively(exact, KEY), jax.jit(exact)(KEY), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def rounded(key: Any) -> list[Any]:
    keys = random.split(random.wrap_key_data(key), 5)
    return [
        random.normal(keys[0], (1000,)),
        random.exponential(keys[1], (33,)),
        random.laplace(keys[2], (33,)),
        random.gumbel(keys[3], (33,)),
        random.cauchy(keys[4], (33,)),
    ]


def test_other_distributions_are_those_of_jax_but_for_rounding() -> None:
    for a, b in zip(natively(rounded, KEY), jax.jit(rounded)(KEY), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=3e-6)


def counted(key: Any) -> list[Any]:
    keys = random.split(random.wrap_key_data(key), 3)
    return [
        random.poisson(keys[0], jnp.array([0.0, 0.1, 1.0, 5.0, 9.9, 11.0, 50.0, 3e3])),
        random.binomial(keys[1], 100.0, jnp.array([0.0, 0.01, 0.05, 0.3, 0.9, 1.0])),
        random.geometric(keys[2], jnp.full(20, 0.2)),
    ]


def test_counts_from_loops_of_draws() -> None:
    for a, b in zip(natively(counted, KEY), jax.jit(counted)(KEY), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf_inv_and_lgamma(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        ends = 1 - np.geomspace(1e-15 if dtype == "float64" else 1e-7, 0.5, 40)
        x = np.concatenate(
            [ends, -ends, np.linspace(-1, 1, 41), [np.nan, -0.0, 0.0, 1.5, -np.inf, 1e-30]]
        ).astype(dtype)
        y = np.abs(x) * 30 + 1.25

        def function(x: Any, y: Any) -> list[Any]:
            return [jax.lax.erf_inv(x), jax.lax.lgamma(y)]

        found, wanted = natively(function, x, y), jax.jit(function)(x, y)
        assert_same(found[:1], wanted[:1], ulps=16)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5 if dtype == "float32" else 1e-13)
        assert np.signbit(found[0][x == 0]).tolist() == np.signbit(x[x == 0]).tolist()


def test_the_bits_of_numbers() -> None:
    def function(x: Any, n: Any) -> list[Any]:
        return [
            jax.lax.bitcast_convert_type(x, jnp.int32) + 1,
            jax.lax.bitcast_convert_type(n, jnp.float32),
            jax.lax.bitcast_convert_type(n, jnp.int32),
        ]

    x = np.array([0.0, -0.0, np.inf, 1.5, 1e-42], np.float32)
    n = np.array([0, 1, 2**31, 0x7F800000, 0xFFFFFFFF], np.uint32)
    for a, b in zip(natively(function, x, n), function(x, n), strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), np.asarray(b).view(np.uint32))


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "another generator": (lambda: random.bits(random.key(0, impl="rbg"), (3,)), "random_seed"),
    "nothing": (lambda: random.bits(random.key(0), (0,)), "empty"),
    "keys that are looked up": (lambda: random.split(random.key(0), 4)[jnp.array([1, 3])], "gather"),
    "elements of another size": (
        lambda: jax.lax.bitcast_convert_type(jnp.arange(4.0), jnp.uint8),
        "size of elements",
    ),
    "gamma": (lambda: random.gamma(random.key(0), 2.0, (3,)), "random_gamma"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_kernel_does_not_draw(what: str) -> None:
    function, why = REFUSED[what]
    program = sg.trace(function).lower(passes="inline-calls").program
    reasons = [reason for op in program.body.ops[:-1] if (reason := why_not(op)) is not None]
    assert any(why in reason for reason in reasons), reasons

"""Every elementwise op of kernels gives what JAX gives, for random and for special numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategraph.backends.codegen.arithmetic import RULES
from stategraph.backends.codegen.fusing import FUSED, QUOTIENT
from stategraph.backends.codegen.keys import HASH
from stategraph.passes.native_ops import ELEMENTWISE, FLOAT_ONLY
from tests.backends.codegen.running import assert_same, natively

pytest.importorskip("llvmlite")

UNARY = [
    "floor",
    "ceil",
    "sqrt",
    "rsqrt",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "tanh",
    "logistic",
    "cbrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "erfc",
    "is_finite",
    "neg",
    "abs",
    "sign",
    "square",
]
BINARY = ["add", "sub", "mul", "div", "max", "min", "eq", "ne", "lt", "le", "gt", "ge"]
INTEGER = ["and", "or", "xor", "shift_left", "shift_right_logical", "shift_right_arithmetic", "rem"]
SPREAD = {
    "sin": 64, "cos": 64, "tan": 128, "erfc": 512, "cbrt": 32, "exp2": 256, "pow": 32, "acosh": 16, "asinh": 16, "atanh": 256, "log1p": 256,
    "sinh": 64, "cosh": 64, "asin": 16, "acos": 16, "atan": 16, "atan2": 16, "erf": 32, "tanh": 16,
}  # fmt: skip
"""Units in the last place where XLA itself uses an approximation."""


def test_the_table_of_the_pass_is_that_of_the_generator() -> None:
    assert set(RULES) - {HASH, FUSED, QUOTIENT} == ELEMENTWISE | FLOAT_ONLY


def _floats(dtype: Any) -> tuple[jax.Array, jax.Array]:
    random = np.random.default_rng(0)
    special = np.array(
        [
            0.0,
            -0.0,
            np.inf,
            -np.inf,
            np.nan,
            1.0,
            -1.0,
            0.5,
            1e-30,
            -1e-30,
            3e38,
            88.5,
            89.0,
            -104.0,
            1e-7,
            2.5,
        ]
    )
    pairs = np.stack(np.meshgrid(special, special)).reshape(2, -1)
    wide = random.normal(size=(2, 300)) * np.exp(random.uniform(-12, 5, size=(2, 300)))
    both = np.concatenate([pairs, wide], axis=1).astype(dtype)
    return jnp.asarray(both[0]), jnp.asarray(both[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_floats(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        x, y = _floats(dtype)
        names = [
            *UNARY,
            *BINARY,
            "select",
            "clamp",
            "convert",
            "half",
            "bool",
            "power",
            "inverse",
            "pow",
            "atan2",
            "rem",
            "even",
            "away",
        ]

        def together(x: Any, y: Any) -> list[Any]:
            found = [
                getattr(lax, "integer_pow" if n == "square" else n)(x, *[2] * (n == "square")) for n in UNARY
            ]
            found += [getattr(lax, name)(x, y) for name in BINARY]
            return [
                *found,
                lax.select(x > y, x, y),
                lax.clamp(jnp.asarray(-1, dtype), x, jnp.asarray(2, dtype)),
                lax.convert_element_type(x, jnp.int32),
                lax.convert_element_type(x, jnp.uint8),
                x != 0,
                lax.integer_pow(x, 5),
                lax.integer_pow(x, -3),
                lax.pow(x, y),
                lax.atan2(x, y),
                lax.rem(x, y),
                lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
                lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO),
            ]

        found, wanted = natively(together, x, y), together(x, y)
        normal = np.finfo(dtype).tiny
        for name, a, b in zip(names, found, wanted, strict=True):
            b = np.asarray(b)
            if b.dtype.kind == "f":  # XLA flushes what is smaller than normal to zero
                a, b = (np.where(np.abs(v) < 4 * normal, 0, v) for v in (a, b))
            assert_same([a], [b], [name], ulps=SPREAD.get(name, 4))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint16"])
def test_functions_of_whole_numbers(dtype: str) -> None:
    with jax.enable_x64(dtype == "int64"):
        limits, random = np.iinfo(dtype), np.random.default_rng(0)
        special = np.array([0, 1, 2, 7, 31, 40, limits.max, limits.min, limits.max - 1], dtype)
        pairs = np.stack(np.meshgrid(special, special)).reshape(2, -1)
        rest = random.integers(limits.min, limits.max, (2, 100), dtype, endpoint=True)
        x, y = map(jnp.asarray, np.concatenate([pairs, rest], axis=1))
        unary = ["sign", *["abs", "neg"] * (limits.min < 0)]

        def named(name: str) -> str:
            return f"bitwise_{name}" if name in ("and", "or", "xor") else name

        def function(x: Any, y: Any) -> list[Any]:
            found = [getattr(lax, named(name))(x, y) for name in (*BINARY, *INTEGER)]
            found += [getattr(lax, name)(x) for name in unary]
            converted = [
                lax.convert_element_type(x, d) for d in ("float32", "int8", "uint32", "int16", "bool")
            ]
            return [*found, *converted, ~x, lax.integer_pow(x, 3), jnp.where(x > y, x, y)]

        names = [*BINARY, *INTEGER, *unary, "f32", "i8", "u32", "i16", "bool", "not", "cube", "where"]
        assert_same(natively(function, x, y), function(x, y), names)


def test_functions_of_booleans() -> None:
    x, y = jnp.array([True, True, False, False]), jnp.array([True, False, True, False])

    def function(x: Any, y: Any) -> list[Any]:
        return [
            x & y,
            x | y,
            x ^ y,
            ~x,
            x == y,
            x != y,
            x.astype(jnp.float32),
            x.astype(jnp.int32),
            jnp.where(x, 1.0, y),
        ]

    assert_same(natively(function, x, y), function(x, y))

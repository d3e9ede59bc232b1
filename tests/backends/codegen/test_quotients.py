"""``expm1(x) / x`` in kernels: right for all numbers, whatever the other elements of its block are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph.backends.codegen.quotients import BLOCK, block_of
from tests.backends.codegen.running import assert_same, natively

pytest.importorskip("llvmlite")

SPECIAL = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-40,
    -1e-40,
    1e-5,
    1.0,
    -1.0,
    1.0000001,
    -1.0000001,
    44.0,
    88.5,
    -200.0,
]


def steps(x: Any, v: Any) -> list[Any]:
    """A quotient alone, one that stands in for another number near 0, and what is made of them."""
    z = jnp.minimum(x * 0.5, 44.0)
    near = jnp.abs(z) < 1e-5
    safe = jnp.where(near, 1, z)
    phi = jnp.where(near, 1 + z / 2, jnp.expm1(safe) / safe)
    plain = jnp.expm1(x) / x
    moved = v + phi * (1.0 - v)
    return [plain, phi, moved, plain > 1.25, moved.max(), jnp.where(x == x, plain, 0.0) * phi + v]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [37, 2 * BLOCK + 40])
def test_quotients_of_all_numbers(dtype: str, size: int) -> None:
    random = np.random.default_rng(0)
    x = (random.normal(size=size) * np.exp(random.uniform(-12, 4, size=size))).astype(dtype)
    x[: len(SPECIAL)] = np.array(SPECIAL).astype(dtype)
    v = random.uniform(2, 3, size=size).astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        found = natively(steps, jnp.asarray(x), jnp.asarray(v))
    with np.errstate(all="ignore"):
        wide, z = x.astype(np.longdouble), np.minimum(x / 2, 44).astype(np.longdouble)
        plain = (np.expm1(wide) / wide).astype(dtype)
        phi = np.where(abs(z) < 1e-5, 1 + z / 2, np.expm1(z) / z).astype(dtype)
    assert_same(found[:2], [plain, phi], ulps=3)
    np.testing.assert_array_equal(found[3], found[0] > 1.25)
    finite = np.isfinite(x)
    np.testing.assert_allclose(found[2][finite], (v + phi * (1 - v))[finite], rtol=1e-5, atol=1e-5)


def test_an_element_does_not_depend_on_the_others_of_its_block() -> None:
    random = np.random.default_rng(1)
    x = random.uniform(-1, 1, size=3 * BLOCK).astype(np.float32)
    far = x.copy()
    far[[5, BLOCK + 7]] = -1000.0, 30.0
    same = x == far
    v = np.ones_like(x)
    for a, b in zip(natively(steps, x, v), natively(steps, far, v), strict=True):
        if a.shape:
            np.testing.assert_array_equal(a[same], b[same])


def test_blocks_of_whole_vectors() -> None:
    assert [block_of(n) for n in (16, 37, 512, 4000, 4096, 1000)] == [16, 37, 512, 400, 512, 512]


def test_a_loop_of_exponential_steps_in_place() -> None:
    def step(carry: Any, drive: Any) -> Any:
        v, g = carry
        z = jnp.minimum(-0.1 * (1 + g), 44.0)
        near = jnp.abs(z) < 1e-5
        safe = jnp.where(near, 1, z)
        v = v + 0.1 * (drive - v * (1 + g)) * jnp.where(near, 1 + z / 2, jnp.expm1(safe) / safe)
        return (v, g * 0.9), v > 0.5

    def run(v: Any, g: Any, drive: Any) -> Any:
        return jax.lax.scan(step, (v, g), drive)

    random = np.random.default_rng(2)
    v, g = random.uniform(0, 1, size=(2, 700)).astype(np.float32) * np.float32([[1], [300]])
    drive = np.linspace(0, 2, 20, dtype=np.float32)
    found, wanted = natively(run, v, g, drive), jax.tree.leaves(jax.jit(run)(v, g, drive))
    for a, b in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert (found[2] != np.asarray(wanted[2])).mean() < 1e-3

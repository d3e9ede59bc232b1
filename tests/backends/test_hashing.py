"""Random numbers by counting: the same bits from NumPy and JAX, and distributed as they should be."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph.backends.events import hashing
from stategraph.backends.events.hashing import Gaps, below, leading_zeros, mix, numbers, streams

pytestmark = pytest.mark.core

WORDS = np.array([123, 456], np.uint32)
BITS = np.concatenate(
    [
        np.array([0, 1, 2, 3, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32),
        np.random.default_rng(0).integers(0, 2**32, 100_000).astype(np.uint32),
    ]
)


def reference_mix(x: int) -> int:
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 1)):
        x = (x ^ (x >> shift)) * factor % 2**32
    return x


def gaps(law: Gaps, bits: np.ndarray) -> np.ndarray:
    table = law.table()
    found: np.ndarray = law(bits, lambda i: (table[0, i], table[1, i]), leading_zeros)
    return found


def test_the_hash_is_the_published_one() -> None:
    np.testing.assert_array_equal(mix(BITS[:50]), [reference_mix(int(x)) for x in BITS[:50]])


def test_numpy_and_jax_agree_bit_for_bit() -> None:
    rows, counts = np.arange(50, dtype=np.uint32)[:, None], np.arange(40, dtype=np.uint32)
    ours = numbers(streams(WORDS, rows), counts)
    theirs = jax.jit(lambda s, r, c: numbers(streams(s, r), c))(WORDS, rows, counts)
    np.testing.assert_array_equal(ours, theirs)
    for limit in (1, 3, 1000, 2**26):
        np.testing.assert_array_equal(below(ours, limit), jax.jit(lambda b: below(b, limit))(ours))  # noqa: B023
    for prob in (1.0, 0.5, 0.02, 1e-5, hashing.SMALLEST):
        law = Gaps.of(prob)
        table = jnp.asarray(law.table())
        by_jax = jax.jit(lambda b: law(b, lambda i: (table[0, i], table[1, i]), jax.lax.clz))(BITS)  # noqa: B023
        np.testing.assert_array_equal(gaps(law, BITS), by_jax)


@pytest.mark.parametrize("prob", [0.9, 0.5, 0.1, 0.02, 1e-3, 1e-6])
def test_gaps_are_the_floor_of_an_exponential(prob: float) -> None:
    uniform = (BITS[8:].astype(np.float64)) / 2**32
    exact = np.log(uniform) / np.log1p(-prob)
    found = gaps(Gaps.of(prob), BITS[8:])
    # what linear interpolation leaves of the logarithm, 1.2e-7, moves few numbers across a whole one
    assert np.abs(found + 0.5 - exact).max() < 0.5 + 1e-6 / prob
    expected = (1 - prob) / prob
    assert abs(found.mean() - expected) < 5 * np.sqrt(expected / prob / found.size)


def test_every_probability_that_is_possible_has_a_law() -> None:
    rng = np.random.default_rng(1)
    for prob in (hashing.SMALLEST, 1 - 2**-53, 0.5, *rng.random(20), *2.0 ** (-26 * rng.random(20))):
        law = Gaps.of(float(prob))
        assert 2**25 <= law.unit < 2**32 / 33 and 0 <= law.point < 32
        assert int(law.table()[1].max()) << hashing.STEP_BITS < 2**32
    assert gaps(Gaps.of(1.0), BITS).max() == 0
    with pytest.raises(ValueError, match="too small"):
        Gaps.of(1e-9)


def test_numbers_of_rows_and_counts_are_uniform_and_unrelated() -> None:
    drawn = numbers(
        streams(WORDS, np.arange(1000, dtype=np.uint32)[:, None]), np.arange(1000, dtype=np.uint32)
    )
    places = np.bincount(below(drawn, 64).ravel(), minlength=64)
    assert ((places - 1e6 / 64) ** 2 / (1e6 / 64)).sum() < 63 + 5 * np.sqrt(2 * 63)
    x = drawn / 2**32 - 0.5
    for other in (np.roll(x, 1, 0), np.roll(x, 1, 1), np.roll(x, 1, (0, 1))):
        assert abs((x * other).mean() * 12) < 5e-3
    ones = np.unpackbits(drawn.view(np.uint8)).reshape(-1, 8).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5e-3

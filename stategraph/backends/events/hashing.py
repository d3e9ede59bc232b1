"""Random numbers by counting: a hash of (seed, row, number), the same 32 bits wherever it is computed.

Only 32-bit integer arithmetic is used, so NumPy, XLA on any device, and native kernels agree bit for bit. ``mix`` is the
integer hash with the lowest known bias of its form, two multiplications and three xor-shifts: C. Wellons, "Hash function
prospector" (2018, in the public domain), with the constants found by T. Ettinger (2022). A *stream* of numbers belongs to
each row: two words, hashed from the seed and the row, say where its counter starts and by how much it counts, an odd number;
number ``k`` is the hash of what it says after ``k`` steps (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", 2014).

``gaps`` makes geometric numbers of hashes, the distances between the synapses of Bernoulli connectivity: ``floor(log(U) /
log(1 - prob))`` for a uniform ``U`` (Devroye, "Non-Uniform Random Variate Generation", 1986, section X.2), with the
logarithm in fixed point: the leading zeros of ``U`` are its whole part, and a table with linear interpolation gives the rest,
both multiplied with what the logarithm is to be divided by.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import attrs
import numpy as np

from stategraph.errors import describe

FIRST, SECOND = 0x21F0AAAD, 0xD35A2D97
GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: seeds that differ by one differ in many bits

INDEX_BITS, STEP_BITS = 10, 14
"""The bits of a logarithm's argument that are looked up, and those that are interpolated."""

SMALLEST = 2.0**-26
"""Smaller probabilities have gaps that 32 bits do not hold."""

LARGEST = 2**26
"""More neurons than these are too many for positions in 32 bits."""


def mix(x: Any) -> Any:
    """The hash of 32-bit words: an array of ``uint32`` of NumPy or JAX."""
    x = (x ^ (x >> 16)) * np.uint32(FIRST)
    x = (x ^ (x >> 15)) * np.uint32(SECOND)
    return x ^ (x >> 15)


def streams(seed: Any, rows: Any) -> tuple[Any, Any]:
    """The stream of each row, (start, step): arrays like ``rows`` (``uint32``)."""
    first = mix(rows ^ seed[0])
    return mix(first + seed[1]), mix((first ^ np.uint32(GOLDEN)) + seed[1]) | np.uint32(1)


def numbers(stream: tuple[Any, Any], counts: Any) -> Any:
    """The numbers ``counts`` (``uint32``) of streams; the arrays broadcast."""
    start, step = stream
    return mix(start + counts * step)


def another(bits: Any) -> Any:
    """Bits for a second purpose: for the weight of a synapse whose place was decided by the given ones."""
    return mix(bits ^ np.uint32(GOLDEN))


def below(bits: Any, limit: int) -> Any:
    """Whole numbers below ``limit`` from 32 bits: the high word of their product. What differs between their
    probabilities is less than ``limit / 2**32`` of them.
    """
    return high(bits, np.uint32(limit))


def high(a: Any, b: Any) -> Any:
    """The high words of products of ``uint32``."""
    if isinstance(a, np.ndarray):
        return ((a.astype(np.uint64) * np.uint64(b)) >> np.uint64(32)).astype(np.uint32)
    a1, a0, b1, b0 = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    middle = a1 * b0 + ((a0 * b0) >> 16)
    return a1 * b1 + (middle >> 16) + ((a0 * b1 + (middle & 0xFFFF)) >> 16)


@attrs.frozen
class Gaps:
    """The law of gaps: how many places are passed over before the next synapse."""

    unit: int
    """The gap that a factor of two of ``U`` makes, in fixed point."""
    point: int
    """The bits of its fraction."""

    @classmethod
    def of(cls, prob: float) -> Gaps:
        """The law for a probability.

        Raises:
          ValueError: when it is too small, or not between 0 and 1.
        """
        if not 0.0 <= prob <= 1.0:
            raise ValueError(f"a probability is between 0 and 1, not {prob}")
        if prob == 1.0:
            return cls(0, 0)
        if prob < SMALLEST:
            raise ValueError(
                describe(
                    f"The probability {prob} is too small.",
                    why=f"the gaps between synapses do not fit 32 bits; the smallest is {SMALLEST:.1e}",
                    fix="stategraph.event.FixedNumConn, for so few synapses",
                )
            )
        rate = -_log2(1 - Fraction(prob))
        # up to 33 units fit a word
        point = min(max(n for n in range(64) if 33 * round(2**n / rate) < 2**32), 31)
        return cls(round(2**point / rate), point)

    def table(self) -> np.ndarray:
        """``(unit * (1 - log2(1 + x)), how much less it is at the next x)`` for ``x = i / 2**INDEX_BITS``: ``uint32``,
        ``(2, 2**INDEX_BITS)``.
        """
        here = np.array([round(self.unit * x) for x in _logarithms()], np.uint32)
        return np.stack([here[:-1], here[:-1] - here[1:]])

    def __call__(
        self, bits: Any, look: Callable[[Any], tuple[Any, Any]], leading_zeros: Callable[[Any], Any]
    ) -> Any:
        """Gaps from 32 random bits each (``uint32``).

        Args:
          bits: the random bits.
          look: looks up columns of ``table()``.
          leading_zeros: counts them in ``uint32``.
        """
        zeros = leading_zeros(bits)
        rest = (bits << 1) << (zeros & 31)
        place = rest >> (32 - INDEX_BITS)
        step = (rest >> (32 - INDEX_BITS - STEP_BITS)) & ((1 << STEP_BITS) - 1)
        here, slope = look(place)
        fraction = here - ((slope * step) >> STEP_BITS)
        return (zeros * np.uint32(self.unit) + fraction) >> np.uint32(self.point)


NORMAL_BITS = 12


@functools.cache
def normals() -> np.ndarray:
    """Quantiles of the normal distribution at the middles of ``2**NORMAL_BITS`` parts, scaled to a variance of 1."""
    parts = 1 << NORMAL_BITS
    exact = [statistics.NormalDist().inv_cdf((i + 0.5) / parts) for i in range(parts)]
    scale = (sum(x * x for x in exact) / parts) ** -0.5
    return np.array([x * scale for x in exact], np.float32)


def normal(bits: Any, quantile: Callable[[Any], Any]) -> Any:
    """Normal numbers from 32 random bits each: two looked up in ``normals()``, added, so that there are 2**24 of them."""
    mask = (1 << NORMAL_BITS) - 1
    return (quantile(bits & mask) + quantile((bits >> NORMAL_BITS) & mask)) * np.float32(0.5**0.5)


def uniform(bits: Any) -> Any:
    """Uniform numbers in [0, 1) from 32 random bits each, in single precision."""
    return (bits >> 8).astype(np.float32) * np.float32(2.0**-24)


def candidates(post: int, prob: float) -> int:
    """How many gaps nearly always reach the end of a row."""
    expected = post * prob
    return min(int(expected + 5.0 * expected**0.5 + 16), post + 1)


@functools.cache
def _logarithms() -> list[Fraction]:
    """``1 - log2(1 + i / 2**INDEX_BITS)``, the same on every machine."""
    parts = 1 << INDEX_BITS
    return [1 - _log2(Fraction(parts + i, parts)) for i in range(parts + 1)]


def _log2(x: Fraction, bits: int = 96) -> Fraction:
    """The logarithm to that many binary places, by squaring: the same on every machine."""
    whole = x.numerator.bit_length() - x.denominator.bit_length()
    if Fraction(2) ** whole > x:
        whole -= 1
    precision = 2 * bits + 32
    value = int(x / Fraction(2) ** whole * (1 << precision))
    fraction = 0
    for _ in range(bits):
        value = value * value >> precision
        bit = value >> (precision + 1)
        value >>= bit
        fraction = 2 * fraction + bit
    return whole + Fraction(fraction, 1 << bits)


def leading_zeros(bits: np.ndarray) -> np.ndarray:
    """How many leading zeros there are in each ``uint32``."""
    return (32 - np.frexp(bits.astype(np.float64))[1]).astype(np.uint32)

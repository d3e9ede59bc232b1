"""The functions that are used most: uniform and normal numbers, integers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.random import checks
from stategraph.random.checks import NUMBERS, Size, as_float, as_shape, float_dtype, int_dtype, shape_of
from stategraph.random.keys import SeedOrKey
from stategraph.random.sampler import sampler
from stategraph.random.stream import Stream


@sampler
def _unit(key: Any, static: Any) -> Any:
    shape, dtype = static
    return jax.random.uniform(key, shape, dtype)


@sampler
def _uniform(key: Any, static: Any, low: Any, high: Any) -> Any:
    shape, dtype = static
    return jax.random.uniform(key, shape, dtype, low, high)


@sampler
def _normal(key: Any, static: Any) -> Any:
    return jax.random.normal(key, *static)


@sampler
def _randint(key: Any, static: Any, low: Any, high: Any) -> Any:
    shape, dtype = static
    return jax.random.randint(key, shape, low, high, dtype)


@sampler
def _randint_to_end(key: Any, static: Any, low: Any) -> Any:
    """To the largest number of an unsigned type, whose successor has no representation."""
    shape, dtype, span = static
    if span is None:
        return jax.random.bits(key, shape, dtype)
    return jax.random.randint(key, shape, 0, jnp.asarray(span, dtype), dtype) + jnp.asarray(low, dtype)


@sampler
def _bernoulli(key: Any, static: Any, p: Any) -> Any:
    return jax.random.bernoulli(key, p, static)


def affine(sample: jax.Array, loc: Any, scale: Any) -> jax.Array:
    """``loc + scale * sample`` in the sample's dtype; None for what is not there."""
    if scale is not None and not (type(scale) in NUMBERS and scale == 1):
        sample = sample * as_float(scale, sample.dtype)
    if loc is not None and not (type(loc) in NUMBERS and loc == 0):
        sample = sample + as_float(loc, sample.dtype)
    return sample


class Basic(Stream):
    """Uniform and normal numbers, integers, and coin flips."""

    def rand(self, *dn: int, key: SeedOrKey = None, dtype: Any = None) -> jax.Array:
        """Uniform numbers in [0, 1) of shape ``dn``."""
        return self._draw(_unit, (_dimensions(dn), float_dtype(dtype)), (), key)

    def random(self, size: Size = None, key: SeedOrKey = None, dtype: Any = None) -> jax.Array:
        """Uniform numbers in [0, 1)."""
        return self._draw(_unit, (() if size is None else as_shape(size), float_dtype(dtype)), (), key)

    random_sample = ranf = sample = random

    def randn(self, *dn: int, key: SeedOrKey = None, dtype: Any = None) -> jax.Array:
        """Numbers from the standard normal distribution, of shape ``dn``."""
        return self._draw(_normal, (_dimensions(dn), float_dtype(dtype)), (), key)

    def standard_normal(self, size: Size = None, key: SeedOrKey = None, dtype: Any = None) -> jax.Array:
        """Numbers from the standard normal distribution."""
        return self._draw(_normal, (() if size is None else as_shape(size), float_dtype(dtype)), (), key)

    def normal(
        self,
        loc: Any = None,
        scale: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Numbers from the normal distribution with mean ``loc`` (0) and standard deviation ``scale`` (1)."""
        loc, scale = 0.0 if loc is None else loc, 1.0 if scale is None else scale
        if check_valid:
            checks.non_negative(scale=scale)
        shape = shape_of(size, loc=loc, scale=scale)
        return affine(self._draw(_normal, (shape, float_dtype(dtype)), (), key), loc, scale)

    def uniform(
        self,
        low: Any = 0.0,
        high: Any = 1.0,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Uniform numbers in [``low``, ``high``)."""
        if check_valid:
            checks.ordered("low", low, "high", high, strictly=False)
        return self._draw(
            _uniform, (shape_of(size, low=low, high=high), float_dtype(dtype)), (low, high), key
        )

    def randint(
        self,
        low: Any,
        high: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Integers from ``low`` (included) to ``high`` (excluded), or from 0 to ``low`` when ``high`` is
        None.
        """
        if high is None:
            low, high = 0, low
        dtype = int_dtype(dtype)
        if check_valid:
            checks.ordered("low", low, "high", high, strictly=True)
        shape = shape_of(size, low=low, high=high)
        low, high = _bound("low", low, dtype, 0), _bound("high", high, dtype, 1)
        if type(high) is int and high > np.iinfo(np.int32).max:
            if dtype.kind == "u" and high > np.iinfo(dtype).max and type(low) is int:
                return self._draw(
                    _randint_to_end,
                    (shape, dtype, high - low if low else None),
                    (np.asarray(low, dtype),),
                    key,
                )
            high = np.asarray(high, np.uint32 if high < 2**32 else np.uint64)
        return self._draw(_randint, (shape, dtype), (low, high), key)

    def random_integers(
        self,
        low: Any,
        high: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Integers from ``low`` to ``high``, both included, or from 1 to ``low`` when ``high`` is None."""
        low, high = (1, low) if high is None else (low, high)
        return self.randint(low, high + 1, size, key, dtype, check_valid)

    def bernoulli(
        self, p: Any = 0.5, size: Size = None, key: SeedOrKey = None, check_valid: bool = True
    ) -> jax.Array:
        """True with probability ``p``."""
        if check_valid:
            checks.probability(p=p)
        return self._draw(_bernoulli, shape_of(size, p=p), (_probability(p),), key)

    def rand_like(self, input: Any, *, dtype: Any = None, key: SeedOrKey = None) -> jax.Array:
        """Uniform numbers in [0, 1) in the shape of ``input``, and in its dtype if that is a floating-point
        type.
        """
        return self.random(np.shape(input), key, _like(input, dtype, jnp.floating))

    def randn_like(self, input: Any, *, dtype: Any = None, key: SeedOrKey = None) -> jax.Array:
        """Standard normal numbers in the shape of ``input``, and in its dtype if that is a floating-point
        type.
        """
        return self.standard_normal(np.shape(input), key, _like(input, dtype, jnp.floating))

    def randint_like(
        self, input: Any, low: Any = 0, high: Any = None, *, dtype: Any = None, key: SeedOrKey = None
    ) -> jax.Array:
        """Integers as of ``randint`` in the shape of ``input``, and in its dtype if that is an integer type.

        Without ``high`` the integers run from 0 to ``low``; without both, to the largest element of
        ``input``.
        """
        if high is None:
            low, high = (0, jnp.max(jnp.asarray(input))) if type(low) is int and low == 0 else (0, low)
        return self.randint(low, high, np.shape(input), key, _like(input, dtype, jnp.integer))


def _dimensions(dn: tuple[Any, ...]) -> tuple[int, ...]:
    for n in dn:
        if type(n) is not int or n < 0:
            return as_shape(dn[0] if len(dn) == 1 and isinstance(dn[0], (tuple, list)) else dn)
    return dn


def _like(input: Any, dtype: Any, kind: Any) -> Any:
    if dtype is None and hasattr(input, "dtype") and jnp.issubdtype(input.dtype, kind):
        return input.dtype
    return dtype


def _probability(p: Any) -> Any:
    return float(p) if type(p) is int else p


def _bound(name: str, value: Any, dtype: np.dtype, extra: int) -> Any:
    """A bound that JAX takes for integers of ``dtype``: a Python number has to be one, give or take the
    excluded end.
    """
    if type(value) is not int:
        return value
    limits = np.iinfo(dtype)
    if not limits.min <= value <= limits.max + extra:
        raise ValueError(f"{name}={value} is out of bounds for {dtype}")
    return value

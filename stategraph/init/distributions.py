"""Initialisers that give constants and independent random numbers."""

from __future__ import annotations

from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import units
from stategraph.init.initializer import Initializer, RandomInitializer, seed_field, unit_field


@attrs.frozen(repr=False)
class ZeroInit(Initializer):
    """Zeros.

    Args:
      unit: the unit that they are in.
    """

    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.zeros(shape, dtype)


def _comparable(value: Any) -> Any:
    return (value.shape, str(value.dtype), value.tobytes()) if isinstance(value, np.ndarray) else value


def _number_or_array(value: Any) -> Any:
    return (
        value if isinstance(value, (int, float, complex)) or units.is_quantity(value) else np.asarray(value)
    )


@attrs.frozen(repr=False)
class Constant(Initializer):
    """The same value everywhere.

    Args:
      value: a number, or an array that broadcasts to the shape.
      unit: the unit that plain numbers are in.

    Example:

    >>> from stategraph import init
    >>> init.Constant(0.5)((2, 2))
    Array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """

    value: Any = attrs.field(default=1.0, converter=_number_or_array, eq=_comparable)
    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> Any:
        if units.is_quantity(self.value):
            return units.quantity(jnp.full(shape, self.value.mantissa, dtype), self.value.unit)
        return jnp.full(shape, self.value, dtype)


@attrs.frozen(repr=False)
class Identity(Initializer):
    """A matrix with one value on its diagonal and zeros elsewhere.

    Args:
      value: the value on the diagonal.
      unit: the unit that it is in.
    """

    value: float = 1.0
    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        if len(shape) not in (1, 2):
            raise ValueError(f"Identity makes matrices, not arrays of the shape {shape}")
        rows, columns = (shape[0], shape[-1])
        return jnp.eye(rows, columns, dtype=dtype) * jnp.asarray(self.value, dtype)


@attrs.frozen(repr=False)
class Normal(RandomInitializer):
    """Normally distributed numbers.

    Args:
      mean: their mean.
      scale: their standard deviation.
      unit: the unit that the numbers are in.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.

    Example:

    >>> from stategraph import init
    >>> init.Normal(scale=0.1, seed=0)(3).shape
    (3,)
    """

    mean: float = 0.0
    scale: float = 1.0
    unit: Any = unit_field()
    seed: Any = seed_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.normal(self.mean, self.scale, shape, dtype=dtype)


@attrs.frozen(repr=False)
class TruncatedNormal(RandomInitializer):
    """Normally distributed numbers between two bounds.

    Args:
      loc: the mean before the cut.
      scale: the standard deviation before the cut.
      unit: the unit that the numbers are in.
      lower: the least number.
      upper: the largest number.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
    """

    loc: float = 0.0
    scale: float = 1.0
    unit: Any = unit_field()
    lower: float = -2.0
    upper: float = 2.0
    seed: Any = seed_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.truncated_normal(self.lower, self.upper, shape, self.loc, self.scale, dtype=dtype)


@attrs.frozen(repr=False)
class Uniform(RandomInitializer):
    """Uniformly distributed numbers in [``min_val``, ``max_val``).

    Args:
      min_val: the least number.
      max_val: what the numbers are less than.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
      unit: the unit that the numbers are in.
    """

    min_val: float = 0.0
    max_val: float = 1.0
    seed: Any = seed_field()
    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.uniform(self.min_val, self.max_val, shape, dtype=dtype)


@attrs.frozen(repr=False)
class Gamma(RandomInitializer):
    """Gamma distributed numbers.

    Args:
      shape: the shape parameter of the distribution.
      scale: the scale parameter of the distribution; None for 1.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
      unit: the unit that the numbers are in.
    """

    shape: float
    scale: float | None = None
    seed: Any = seed_field()
    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.gamma(self.shape, self.scale, shape, dtype=dtype)


@attrs.frozen(repr=False)
class Exponential(RandomInitializer):
    """Exponentially distributed numbers.

    Args:
      scale: their mean; None for 1.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
      unit: the unit that the numbers are in.
    """

    scale: float | None = None
    seed: Any = seed_field()
    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.exponential(self.scale, shape, dtype=dtype)

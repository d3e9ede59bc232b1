"""Initialisers of weights that look at the shape: a variance that suits the number of inputs, orthogonal matrices."""

from __future__ import annotations

import math
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph.init.initializer import RandomInitializer, seed_field, unit_field
from stategraph.random import RandomState
from stategraph.random.sampler import sampler, stepwise

MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")
DISTRIBUTIONS = ("truncated_normal", "normal", "uniform")
Axis = int | tuple[int, ...]


def variance_scaling(key: jax.Array, static: Any) -> jax.Array:
    recipe, shape, dtype = static
    return jax.nn.initializers.variance_scaling(*recipe)(key, shape, dtype)


_VARIANCE_SCALING = {
    "truncated_normal": sampler(variance_scaling),
    "uniform": sampler(variance_scaling),
    "normal": stepwise(variance_scaling),
}


@attrs.frozen(repr=False)
class VarianceScaling(RandomInitializer):
    """Random weights with a variance of ``scale / n``: ``jax.nn.initializers.variance_scaling``.

    Args:
      scale: a positive number.
      mode: what ``n`` is: the inputs of a unit (``fan_in``), its outputs (``fan_out``), or their mean,
        arithmetic (``fan_avg``) or geometric (``fan_geo_avg``).
      distribution: ``truncated_normal`` (at two standard deviations), ``normal`` or ``uniform``.
      in_axis: the axis of the inputs.
      out_axis: the axis of the outputs. All other axes are the receptive field.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
      unit: the unit that the numbers are in.
    """

    scale: float
    mode: str = attrs.field(validator=attrs.validators.in_(MODES))
    distribution: str = attrs.field(validator=attrs.validators.in_(DISTRIBUTIONS))
    in_axis: Axis = -2
    out_axis: Axis = -1
    seed: Any = seed_field()
    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        scale = float(self.scale) if isinstance(self.scale, (jax.Array, np.ndarray)) else self.scale
        recipe = (scale, self.mode, self.distribution, self.in_axis, self.out_axis)
        return self.rng._draw(_VARIANCE_SCALING[self.distribution], (recipe, shape, dtype), (), None)


@attrs.frozen(repr=False)
class KaimingUniform(VarianceScaling):
    """``VarianceScaling`` for weights, uniform, with a variance of 2 / fan_in; He et al., "Delving deep into
    rectifiers" (ICCV 2015).
    """

    scale: float = 2.0
    mode: str = attrs.field(default="fan_in", validator=attrs.validators.in_(MODES))
    distribution: str = attrs.field(default="uniform", validator=attrs.validators.in_(DISTRIBUTIONS))
    in_axis: Axis = -2
    out_axis: Axis = -1
    seed: Any = seed_field()
    unit: Any = unit_field()


@attrs.frozen(repr=False)
class KaimingNormal(VarianceScaling):
    """``VarianceScaling`` for weights, truncated normal, with a variance of 2 / fan_in; He et al., "Delving
    deep into rectifiers" (ICCV 2015).
    """

    scale: float = 2.0
    mode: str = attrs.field(default="fan_in", validator=attrs.validators.in_(MODES))
    distribution: str = attrs.field(default="truncated_normal", validator=attrs.validators.in_(DISTRIBUTIONS))
    in_axis: Axis = -2
    out_axis: Axis = -1
    seed: Any = seed_field()
    unit: Any = unit_field()


@attrs.frozen(repr=False)
class XavierUniform(VarianceScaling):
    """``VarianceScaling`` for weights, uniform, with a variance of 1 / fan_avg; Glorot and Bengio,
    "Understanding the difficulty of training deep feedforward neural networks" (AISTATS 2010).
    """

    scale: float = 1.0
    mode: str = attrs.field(default="fan_avg", validator=attrs.validators.in_(MODES))
    distribution: str = attrs.field(default="uniform", validator=attrs.validators.in_(DISTRIBUTIONS))
    in_axis: Axis = -2
    out_axis: Axis = -1
    seed: Any = seed_field()
    unit: Any = unit_field()


@attrs.frozen(repr=False)
class XavierNormal(VarianceScaling):
    """``VarianceScaling`` for weights, truncated normal, with a variance of 1 / fan_avg; Glorot and Bengio,
    "Understanding the difficulty of training deep feedforward neural networks" (AISTATS 2010).
    """

    scale: float = 1.0
    mode: str = attrs.field(default="fan_avg", validator=attrs.validators.in_(MODES))
    distribution: str = attrs.field(default="truncated_normal", validator=attrs.validators.in_(DISTRIBUTIONS))
    in_axis: Axis = -2
    out_axis: Axis = -1
    seed: Any = seed_field()
    unit: Any = unit_field()


@attrs.frozen(repr=False)
class LecunUniform(VarianceScaling):
    """``VarianceScaling`` for weights, uniform, with a variance of 1 / fan_in; LeCun et al., "Efficient
    backprop" (1998).
    """

    scale: float = 1.0
    mode: str = attrs.field(default="fan_in", validator=attrs.validators.in_(MODES))
    distribution: str = attrs.field(default="uniform", validator=attrs.validators.in_(DISTRIBUTIONS))
    in_axis: Axis = -2
    out_axis: Axis = -1
    seed: Any = seed_field()
    unit: Any = unit_field()


@attrs.frozen(repr=False)
class LecunNormal(VarianceScaling):
    """``VarianceScaling`` for weights, truncated normal, with a variance of 1 / fan_in; LeCun et al.,
    "Efficient backprop" (1998).
    """

    scale: float = 1.0
    mode: str = attrs.field(default="fan_in", validator=attrs.validators.in_(MODES))
    distribution: str = attrs.field(default="truncated_normal", validator=attrs.validators.in_(DISTRIBUTIONS))
    in_axis: Axis = -2
    out_axis: Axis = -1
    seed: Any = seed_field()
    unit: Any = unit_field()


@attrs.frozen(repr=False)
class Orthogonal(RandomInitializer):
    """A random matrix with orthonormal rows or columns, whichever are fewer: ``jax.nn.initializers.orthogonal``.
    Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks" (ICLR
    2014).

    Args:
      scale: what the matrix is multiplied with.
      axis: the axis of the columns; all other axes together are the rows.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
      unit: the unit that the numbers are in.

    Example:

    >>> from stategraph import init
    >>> w = init.Orthogonal(seed=0)((5, 3))
    >>> (w.T @ w).round(4) + 0.0
    Array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """

    scale: float = 1.0
    axis: int = -1
    seed: Any = seed_field()
    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return _in_single(jax.nn.initializers.orthogonal(self.scale, self.axis), self.rng, shape, dtype)


def _in_single(draw: Any, rng: RandomState, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """What JAX's initialiser draws; in single precision where ``dtype`` is shorter, which QR does not have."""
    found: jax.Array = draw(rng.split_key(), shape, jnp.promote_types(dtype, jnp.float32)).astype(dtype)
    return found


@attrs.frozen(repr=False)
class DeltaOrthogonal(RandomInitializer):
    """Convolution kernels that are an orthogonal matrix in the middle and zero elsewhere:
    ``jax.nn.initializers.delta_orthogonal``. Xiao et al., "Dynamical isometry and a mean field theory of CNNs"
    (ICML 2018).

    Args:
      scale: what the kernel is multiplied with.
      axis: the axis of the output channels.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
      unit: the unit that the numbers are in.
    """

    scale: float = 1.0
    axis: int = -1
    seed: Any = seed_field()
    unit: Any = unit_field()

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return _in_single(jax.nn.initializers.delta_orthogonal(self.scale, self.axis), self.rng, shape, dtype)


def calculate_init_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which an activation function shrinks the standard deviation of what passes it.

    Args:
      nonlinearity: ``linear``, ``conv1d`` to ``conv3d``, ``conv_transpose1d`` to ``conv_transpose3d``,
        ``sigmoid``, ``tanh``, ``relu``, ``leaky_relu`` or ``selu``.
      param: the negative slope of ``leaky_relu`` (0.01 when None).

    Example:

    >>> from stategraph import init
    >>> init.calculate_init_gain("tanh")
    1.6666666666666667
    """
    plain = {f"conv{middle}{n}d" for middle in ("", "_transpose") for n in (1, 2, 3)} | {"linear", "sigmoid"}
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2.0), "selu": 3 / 4, **dict.fromkeys(plain, 1.0)}
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in gains:
        raise ValueError(
            f"nonlinearity is one of {', '.join(sorted([*gains, 'leaky_relu']))}, not {nonlinearity!r}"
        )
    return gains[nonlinearity]

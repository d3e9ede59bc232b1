"""Initialisers: what a parameter or a State holds at first, as a recipe.

An *initialiser* is called with a shape and gives an array. Random ones draw from ``stategraph.random``, or
from a stream of their own when they are given a ``seed``. ``param`` turns whatever a layer was given for a
parameter (an initialiser, an array, a number, nothing) into its first value.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import environ, units
from stategraph.errors import describe
from stategraph.random import RandomState, default_rng
from stategraph.random.checks import as_shape
from stategraph.random.sampler import sampler, stepwise
from stategraph.state import State
from stategraph.typing import Size

Initial = Any
"""What a layer takes for a parameter: an initialiser, a function of a shape, an array, a number, or None."""

MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")
Axis = int | tuple[int, ...]
DISTRIBUTIONS = ("truncated_normal", "normal", "uniform")


# ---------------------------------------------------------------------------------------------- initialisers


def _unit_text(unit: Any) -> str | None:
    return None if unit is None else units.text_of(unit)


@attrs.frozen(repr=False)
class Initializer:
    """A recipe for an array of a given shape. Subclasses write ``make``.

    Two initialisers with the same settings are equal. They print as the call that makes them. All take ``unit``: the unit
    (of saiunit, the extra ``units``) that the numbers are in; the array is a quantity then.
    """

    unit: Any = attrs.field(default=None, kw_only=True, eq=_unit_text)

    def __call__(self, shape: Size, dtype: Any = None) -> Any:
        """An array; a quantity with ``unit``.

        Args:
          shape: its shape.
          dtype: its type; ``environ.dftype()`` when None.
        """
        made = self.make(as_shape(shape), np.dtype(environ.dftype() if dtype is None else dtype))
        if self.unit is None or self.unit.is_unitless:
            return made
        if units.is_quantity(made):
            raise ValueError(
                describe(
                    f"{self!r} has quantities among its settings, and a unit.",
                    why="unit= says what plain numbers are in",
                    fix="give the settings as plain numbers, or leave unit= out",
                )
            )
        return units.quantity(made, self.unit)

    @unit.validator
    def _check_unit(self, _: Any, unit: Any) -> None:
        if unit is not None and not units.is_unit(unit):
            raise TypeError(
                describe(
                    f"unit={unit!r} of {type(self).__name__} is no unit.",
                    fix="a unit of saiunit: unit=saiunit.mV",
                )
            )

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """The array; subclasses write it."""
        raise NotImplementedError(f"{type(self).__name__} has no method make(shape, dtype)")

    def __repr__(self) -> str:
        said = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in attrs.fields(type(self))
            if field.init and not _is_default(getattr(self, field.name), field.default)
        ]
        return f"{type(self).__name__}({', '.join(said)})"


def _is_default(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _comparable(value: Any) -> Any:
    return (value.shape, str(value.dtype), value.tobytes()) if isinstance(value, np.ndarray) else value


def _seed(seed: Any) -> Any:
    return seed if seed is None or isinstance(seed, int) else id(seed)


@attrs.frozen(repr=False)
class RandomInitializer(Initializer):
    """An initialiser that draws random numbers."""

    seed: Any = attrs.field(default=None, kw_only=True, eq=_seed)
    """A seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``."""
    rng: RandomState = attrs.field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        rng = self.seed if isinstance(self.seed, RandomState) else default_rng(self.seed)
        object.__setattr__(self, "rng", rng)


@attrs.frozen(repr=False)
class ZeroInit(Initializer):
    """Zeros."""

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.zeros(shape, dtype)


def _number_or_array(value: Any) -> Any:
    return (
        value if isinstance(value, (int, float, complex)) or units.is_quantity(value) else np.asarray(value)
    )


@attrs.frozen(repr=False)
class Constant(Initializer):
    """The same value everywhere.

    Args:
      value: a number, or an array that broadcasts to the shape.

    Example:

    >>> from stategraph import init
    >>> init.Constant(0.5)((2, 2))
    Array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """

    value: Any = attrs.field(default=1.0, converter=_number_or_array, eq=_comparable)

    def make(self, shape: tuple[int, ...], dtype: Any) -> Any:
        if units.is_quantity(self.value):
            return units.quantity(jnp.full(shape, self.value.mantissa, dtype), self.value.unit)
        return jnp.full(shape, self.value, dtype)


@attrs.frozen(repr=False)
class Identity(Initializer):
    """A matrix with one value on its diagonal and zeros elsewhere.

    Args:
      value: the value on the diagonal.
    """

    value: float = 1.0

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
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.

    Example:

    >>> from stategraph import init
    >>> init.Normal(scale=0.1, seed=0)(3).shape
    (3,)
    """

    mean: float = 0.0
    scale: float = 1.0

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.normal(self.mean, self.scale, shape, dtype=dtype)


@attrs.frozen(repr=False)
class TruncatedNormal(RandomInitializer):
    """Normally distributed numbers between two bounds.

    Args:
      loc: the mean before the cut.
      scale: the standard deviation before the cut.
      lower: the least number.
      upper: the largest number.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
    """

    loc: float = 0.0
    scale: float = 1.0
    lower: float = -2.0
    upper: float = 2.0

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.truncated_normal(self.lower, self.upper, shape, self.loc, self.scale, dtype=dtype)


@attrs.frozen(repr=False)
class Uniform(RandomInitializer):
    """Uniformly distributed numbers in [``min_val``, ``max_val``).

    Args:
      min_val: the least number.
      max_val: what the numbers are less than.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
    """

    min_val: float = 0.0
    max_val: float = 1.0

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.uniform(self.min_val, self.max_val, shape, dtype=dtype)


@attrs.frozen(repr=False)
class Gamma(RandomInitializer):
    """Gamma distributed numbers.

    Args:
      shape: the shape parameter of the distribution.
      scale: the scale parameter of the distribution; None for 1.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
    """

    shape: float
    scale: float | None = None

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.gamma(self.shape, self.scale, shape, dtype=dtype)


@attrs.frozen(repr=False)
class Exponential(RandomInitializer):
    """Exponentially distributed numbers.

    Args:
      scale: their mean; None for 1.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.
    """

    scale: float | None = None

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.rng.exponential(self.scale, shape, dtype=dtype)


# --------------------------------------------------------------------- initialisers that look at the fan-in


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
    """

    scale: float
    mode: str = attrs.field(validator=attrs.validators.in_(MODES))
    distribution: str = attrs.field(validator=attrs.validators.in_(DISTRIBUTIONS))
    in_axis: Axis = -2
    out_axis: Axis = -1

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        recipe = (self.scale, self.mode, self.distribution, self.in_axis, self.out_axis)
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


@attrs.frozen(repr=False)
class Orthogonal(RandomInitializer):
    """A random matrix with orthonormal rows or columns, whichever are fewer: ``jax.nn.initializers.orthogonal``.
    Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks" (ICLR
    2014).

    Args:
      scale: what the matrix is multiplied with.
      axis: the axis of the columns; all other axes together are the rows.
      seed: a seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``.

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
    """

    scale: float = 1.0
    axis: int = -1

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return _in_single(jax.nn.initializers.delta_orthogonal(self.scale, self.axis), self.rng, shape, dtype)


# ------------------------------------------------------------------------------------------ using initialisers


def param(
    parameter: Initial,
    sizes: Size,
    batch_size: int | None = None,
    allow_none: bool = True,
    allow_scalar: bool = True,
) -> Any:
    """The first value of a parameter or State, from whatever stands for it.

    Args:
      parameter: an initialiser or a function of a shape; an initialiser of JAX (a function of key, shape and
        dtype); an array or State that broadcasts to ``sizes``; a number; or None.
      sizes: the shape, without a batch.
      batch_size: the length of a leading axis to add; None for none.
      allow_none: whether None is possible; it gives None.
      allow_scalar: whether a number is possible; it gives that number.

    Returns:
      An array of the shape ``sizes``, or ``(batch_size, *sizes)``. A given array is returned as it is unless a
      batch is asked for, a State becomes a new State of its kind, and None and numbers stay what they are.

    Raises:
      ValueError: when the parameter is missing or does not fit the shape.
      TypeError: for anything else.

    Example:

    >>> from stategraph import init
    >>> init.param(init.ZeroInit(), (3,), batch_size=2).shape
    (2, 3)
    >>> init.param(None, (3,)), init.param(0.5, (3,))
    (None, 0.5)
    """
    shape = as_shape(sizes)
    full = shape if batch_size is None else (batch_size, *shape)
    if parameter is None:
        if allow_none:
            return None
        raise ValueError(
            describe(
                "A parameter is missing.", why="it cannot be None", fix="give an initialiser or an array"
            )
        )
    if isinstance(parameter, State):
        return type(parameter)(_fitted(parameter.value, shape, full))
    if isinstance(parameter, (bool, int, float, complex)) or (
        isinstance(parameter, (np.generic, np.ndarray, jax.Array)) and np.ndim(parameter) == 0
    ):
        if allow_scalar:
            return parameter
        raise ValueError(
            describe(
                f"The number {parameter} stands where an array of the shape {shape} is needed.",
                fix=f"stategraph.init.Constant({parameter})",
            )
        )
    if isinstance(parameter, Initializer):
        return parameter(full)
    if isinstance(parameter, (np.ndarray, jax.Array)):
        return _fitted(parameter, shape, full)
    if callable(parameter):
        return _called(parameter, full)
    raise TypeError(
        describe(
            f"A {type(parameter).__name__} stands for a parameter of the shape {shape}.",
            why="a parameter is an initialiser, a function of a shape, an array, a number or None",
            fix="for example stategraph.init.Normal(), or jnp.asarray(...)",
        )
    )


def _fitted(value: Any, shape: tuple[int, ...], full: tuple[int, ...]) -> Any:
    """An array that broadcasts to ``shape``; repeated to ``full`` if that has a batch."""
    value = jnp.asarray(value)
    wanted = full if value.ndim == len(full) else shape
    try:
        fits = np.broadcast_shapes(value.shape, wanted) == wanted
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            describe(
                f"An array of the shape {value.shape} does not fit a parameter of the shape {full}.",
                fix=f"give one of the shape {shape}, or an initialiser",
            )
        )
    return value if full == shape else jnp.broadcast_to(value, full)


def _called(function: Callable[..., Any], shape: tuple[int, ...]) -> Any:
    """What a function of a shape gives, or one of JAX's initialisers: a function of key, shape and dtype."""
    try:
        first = next(iter(inspect.signature(function).parameters), "")
    except ValueError:
        first = ""
    if first != "key":
        return function(shape)
    return function(default_rng().split_key(), shape, np.dtype(environ.dftype()))


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


__all__ = [
    "Initializer", "ZeroInit", "Constant", "Identity", "Normal", "TruncatedNormal", "Uniform", "Gamma", "Exponential",
    "VarianceScaling", "KaimingUniform", "KaimingNormal", "XavierUniform", "XavierNormal", "LecunUniform", "LecunNormal",
    "Orthogonal", "DeltaOrthogonal", "param", "calculate_init_gain",
]  # fmt: skip

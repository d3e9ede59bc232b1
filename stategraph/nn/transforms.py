"""Transforms: maps from the unconstrained numbers that training changes to the values that a model may use.

A ``Param`` stores ``x`` and gives ``y = forward(x)``. Each transform here is a bijection from all real
numbers to its *range* (but for ``ClipT`` and ``ReluT``, which are constant somewhere), element by element;
those of whole vectors are in ``transforms_vector``.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph.errors import describe
from stategraph.util.static import static_key


def _bound(value: Any) -> Any:
    """A bound as a Python float or a NumPy array: comparable, and no part of any trace."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            describe(
                "A bound of a transform is computed by traced code.",
                why="a transform is a setting of the model, not data",
                fix="make the transform before the trace, from plain numbers or arrays",
            )
        )
    found = np.asarray(value)
    return float(found) if found.ndim == 0 else found


def _like(bound: Any, x: Any) -> Any:
    """A bound in the dtype of the values that it is used with."""
    return bound if isinstance(bound, float) else jnp.asarray(bound, jnp.asarray(x).dtype)


class Transform:
    """Base of all transforms. Write ``forward`` and ``inverse``; the rest where it can be said.

    Transforms are settings: immutable, equal when their type and options are. Those here are attrs classes, whose
    fields are their options.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Cube(sg.nn.Transform):
    ...     def forward(self, x):
    ...         return x**3
    ...     def inverse(self, y):
    ...         return jnp.cbrt(y)
    >>> sg.nn.Param(jnp.full(2, 8.0), t=Cube()).val.value
    Array([2., 2.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:
        """The value for an unconstrained ``x``."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method")

    def inverse(self, y: Any) -> Any:
        """The ``x`` with ``forward(x) = y``, for a ``y`` in the range."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse method")

    def __call__(self, x: Any) -> Any:
        return self.forward(x)

    def contains(self, y: Any) -> Any:
        """Whether ``y`` is in the range, element by element or as one bool."""
        return True

    def log_abs_det_jacobian(self, x: Any, y: Any = None) -> Any:
        """``log |det d forward(x) / dx|``, a scalar: what a density gains by the change of variables.

        Args:
          x: where.
          y: ``forward(x)``, if it is at hand; some transforms then need not compute it again.

        Raises:
          TypeError: for a transform that is no bijection.
        """
        raise TypeError(
            describe(
                f"{type(self).__name__} has no log_abs_det_jacobian.",
                why="it is not a bijection with a density",
            )
        )

    def _options(self) -> tuple[Any, ...]:
        return tuple(sorted(vars(self).items()))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and static_key(self._options()) == static_key(other._options())

    def __hash__(self) -> int:
        return hash((type(self), static_key(self._options())))


class Elementwise(Transform):
    """A bijection of single numbers. ``log_slope`` is the logarithm of its derivative."""

    def log_slope(self, x: Any) -> Any:
        """``log |d forward(x) / dx|``, element by element."""
        raise NotImplementedError(f"{type(self).__name__} has no log_slope method")

    def log_abs_det_jacobian(self, x: Any, y: Any = None) -> Any:
        return jnp.sum(self.log_slope(x))


@attrs.frozen(eq=False, slots=False)
class IdentityT(Elementwise):
    """``y = x``: no constraint."""

    def forward(self, x: Any) -> Any:
        return x

    def inverse(self, y: Any) -> Any:
        return y

    def log_slope(self, x: Any) -> Any:
        return jnp.zeros_like(x)


@attrs.frozen(eq=False, slots=False)
class AffineT(Elementwise):
    """``y = scale * x + shift``.

    Args:
      scale: not zero anywhere.
      shift: a number or array.
    """

    scale: Any = attrs.field(converter=_bound)
    shift: Any = attrs.field(default=0.0, converter=_bound)

    def __attrs_post_init__(self) -> None:
        if np.any(np.asarray(self.scale) == 0):
            raise ValueError("the scale of AffineT is 0 somewhere, which has no inverse")

    def forward(self, x: Any) -> Any:
        return _like(self.scale, x) * x + _like(self.shift, x)

    def inverse(self, y: Any) -> Any:
        return (y - _like(self.shift, y)) / _like(self.scale, y)

    def log_slope(self, x: Any) -> Any:
        return jnp.broadcast_to(jnp.log(jnp.abs(_like(self.scale, x))), jnp.shape(x))


# ----------------------------------------------------------------------------------------- half of the line


class Above(Elementwise):
    """A range without an upper end: ``y > lower``."""

    lower: Any

    def contains(self, y: Any) -> Any:
        return y > _like(self.lower, y)


@attrs.frozen(eq=False, slots=False)
class SoftplusT(Above):
    """``y = lower + log(1 + exp(x))``: above ``lower``, and linear far from it.

    Args:
      lower: the end of the range; not reached.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> tau = sg.nn.Param(jnp.array([0.5, 10.0]), t=sg.nn.SoftplusT())
    >>> tau.value().round(3)
    Array([ 0.5, 10. ], dtype=float32)
    """

    lower: Any = attrs.field(default=0.0, converter=_bound)

    def forward(self, x: Any) -> Any:
        return _like(self.lower, x) + jax.nn.softplus(x)

    def inverse(self, y: Any) -> Any:
        z = y - _like(self.lower, y)
        return z + jnp.log(-jnp.expm1(-z))  # log(exp(z) - 1) without overflow

    def log_slope(self, x: Any) -> Any:
        return jax.nn.log_sigmoid(x)


@attrs.frozen(eq=False, slots=False)
class ExpT(Above):
    """``y = lower + exp(x)``: above ``lower``.

    Args:
      lower: the end of the range; not reached.
    """

    lower: Any = attrs.field(default=0.0, converter=_bound)

    def forward(self, x: Any) -> Any:
        return _like(self.lower, x) + jnp.exp(x)

    def inverse(self, y: Any) -> Any:
        return jnp.log(y - _like(self.lower, y))

    def log_slope(self, x: Any) -> Any:
        return jnp.asarray(x)


@attrs.frozen(eq=False, slots=False)
class LogT(ExpT):
    """``ExpT`` under the name of what is stored: ``x = log(y - lower)``."""


@attrs.frozen(eq=False, slots=False)
class PositiveT(Above):
    """``y = exp(x)``: positive numbers."""

    lower = 0.0

    def forward(self, x: Any) -> Any:
        return jnp.exp(x)

    def inverse(self, y: Any) -> Any:
        return jnp.log(y)

    def log_slope(self, x: Any) -> Any:
        return jnp.asarray(x)


class Below(Elementwise):
    """A range without a lower end: ``y < upper``."""

    upper: Any

    def contains(self, y: Any) -> Any:
        return y < _like(self.upper, y)


@attrs.frozen(eq=False, slots=False)
class NegSoftplusT(Below):
    """``y = upper - log(1 + exp(-x))``: below ``upper``, increasing in ``x``, and linear far from it.

    Args:
      upper: the end of the range; not reached.
    """

    upper: Any = attrs.field(default=0.0, converter=_bound)

    def forward(self, x: Any) -> Any:
        return _like(self.upper, x) - jax.nn.softplus(-x)

    def inverse(self, y: Any) -> Any:
        z = _like(self.upper, y) - y
        return -(z + jnp.log(-jnp.expm1(-z)))

    def log_slope(self, x: Any) -> Any:
        return jax.nn.log_sigmoid(-x)


@attrs.frozen(eq=False, slots=False)
class NegativeT(Below):
    """``y = -exp(-x)``: negative numbers, increasing in ``x``."""

    upper = 0.0

    def forward(self, x: Any) -> Any:
        return -jnp.exp(-x)

    def inverse(self, y: Any) -> Any:
        return -jnp.log(-y)

    def log_slope(self, x: Any) -> Any:
        return -jnp.asarray(x)


@attrs.frozen(eq=False, slots=False)
class ReluT(Transform):
    """``y = lower_bound + max(x, 0)``. No bijection: below 0 all ``x`` give ``lower_bound``, and have no gradient.

    Args:
      lower_bound: the end of the range; it belongs to it.
    """

    lower_bound: Any = attrs.field(default=0.0, converter=_bound)

    def forward(self, x: Any) -> Any:
        return _like(self.lower_bound, x) + jax.nn.relu(x)

    def inverse(self, y: Any) -> Any:
        return y - _like(self.lower_bound, y)

    def contains(self, y: Any) -> Any:
        return y >= _like(self.lower_bound, y)


# -------------------------------------------------------------------------------------------------- intervals


def _check_interval(of: Any) -> None:
    if not np.all(np.asarray(of.lower) < np.asarray(of.upper)):
        raise ValueError(f"{type(of).__name__} needs lower < upper, not {of.lower} and {of.upper}")


class Between(Elementwise):
    """A range with two ends: ``lower < y < upper``. Subclasses map the line to the numbers between 0 and 1."""

    lower: Any
    upper: Any

    def __attrs_post_init__(self) -> None:
        _check_interval(self)

    def unit(self, x: Any) -> Any:
        """``x`` as a number between 0 and 1."""
        raise NotImplementedError

    def from_unit(self, u: Any) -> Any:
        """The inverse of ``unit``."""
        raise NotImplementedError

    def log_unit_slope(self, x: Any) -> Any:
        """``log |d unit(x) / dx|``."""
        raise NotImplementedError

    def forward(self, x: Any) -> Any:
        lower, upper = _like(self.lower, x), _like(self.upper, x)
        return lower + (upper - lower) * self.unit(x)

    def inverse(self, y: Any) -> Any:
        lower, upper = _like(self.lower, y), _like(self.upper, y)
        return self.from_unit((y - lower) / (upper - lower))

    def log_slope(self, x: Any) -> Any:
        return jnp.log(_like(self.upper, x) - _like(self.lower, x)) + self.log_unit_slope(x)

    def contains(self, y: Any) -> Any:
        return (y > _like(self.lower, y)) & (y < _like(self.upper, y))


@attrs.frozen(eq=False, slots=False)
class SigmoidT(Between):
    """``y = lower + (upper - lower) / (1 + exp(-x))``.

    Args:
      lower: the lower end of the range; not reached.
      upper: the upper end; not reached.
    """

    lower: Any = attrs.field(default=0.0, converter=_bound)
    upper: Any = attrs.field(default=1.0, converter=_bound)

    def unit(self, x: Any) -> Any:
        return jax.nn.sigmoid(x)

    def from_unit(self, u: Any) -> Any:
        return jnp.log(u) - jnp.log1p(-u)

    def log_unit_slope(self, x: Any) -> Any:
        return jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x)


@attrs.frozen(eq=False, slots=False)
class ScaledSigmoidT(SigmoidT):
    """``SigmoidT`` of ``beta * x``.

    Args:
      lower: the lower end of the range; not reached.
      upper: the upper end; not reached.
      beta: the steepness; positive.
    """

    beta: Any = attrs.field(default=1.0, converter=_bound)

    def __attrs_post_init__(self) -> None:
        _check_interval(self)
        if not np.all(np.asarray(self.beta) > 0):
            raise ValueError(f"the beta of ScaledSigmoidT is positive, not {self.beta}")

    def unit(self, x: Any) -> Any:
        return super().unit(_like(self.beta, x) * x)

    def from_unit(self, u: Any) -> Any:
        return super().from_unit(u) / _like(self.beta, u)

    def log_unit_slope(self, x: Any) -> Any:
        return super().log_unit_slope(_like(self.beta, x) * x) + jnp.log(_like(self.beta, x))


@attrs.frozen(eq=False, slots=False)
class TanhT(Between):
    """``y = lower + (upper - lower) * (1 + tanh(x)) / 2``.

    Args:
      lower: the lower end of the range; not reached.
      upper: the upper end; not reached.
    """

    lower: Any = attrs.field(default=-1.0, converter=_bound)
    upper: Any = attrs.field(default=1.0, converter=_bound)

    def unit(self, x: Any) -> Any:
        return (1 + jnp.tanh(x)) / 2

    def from_unit(self, u: Any) -> Any:
        return jnp.arctanh(2 * u - 1)

    def log_unit_slope(self, x: Any) -> Any:
        # log((1 - tanh(x)^2) / 2) = log 2 - 2 (x + log(1 + exp(-2x))), which does not underflow
        return math.log(2.0) - 2 * (x + jax.nn.softplus(-2 * x))


@attrs.frozen(eq=False, slots=False)
class SoftsignT(Between):
    """``y = lower + (upper - lower) * (1 + x / (1 + |x|)) / 2``.

    Args:
      lower: the lower end of the range; not reached.
      upper: the upper end; not reached.
    """

    lower: Any = attrs.field(default=-1.0, converter=_bound)
    upper: Any = attrs.field(default=1.0, converter=_bound)

    def unit(self, x: Any) -> Any:
        return (1 + jax.nn.soft_sign(x)) / 2

    def from_unit(self, u: Any) -> Any:
        s = 2 * u - 1
        return s / (1 - jnp.abs(s))

    def log_unit_slope(self, x: Any) -> Any:
        return -math.log(2.0) - 2 * jnp.log1p(jnp.abs(x))


@attrs.frozen(eq=False, slots=False)
class ClipT(Transform):
    """``y = min(max(x, lower), upper)``. No bijection: outside of the range ``x`` has no gradient.

    Args:
      lower: the lower end of the range; it belongs to it.
      upper: the upper end; it belongs to it.
    """

    lower: Any = attrs.field(converter=_bound)
    upper: Any = attrs.field(converter=_bound)

    def __attrs_post_init__(self) -> None:
        _check_interval(self)

    def forward(self, x: Any) -> Any:
        return jnp.clip(x, _like(self.lower, x), _like(self.upper, x))

    def inverse(self, y: Any) -> Any:
        return y

    def contains(self, y: Any) -> Any:
        return (y >= _like(self.lower, y)) & (y <= _like(self.upper, y))

"""Activations as modules, for ``Sequential``: each applies a function of ``stategraph.functional`` element by element
(or along one axis), and prints as the call that makes it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from stategraph import functional as F
from stategraph import init
from stategraph.graph.node import instance_dict
from stategraph.graph.show import plain_repr
from stategraph.nn.module import Module
from stategraph.state import ParamState, State


class ElementWiseBlock(Module):
    """A module whose output has the shape of its input, whatever that is."""


class Activation(ElementWiseBlock):
    """An activation without parameters; prints on one line."""

    def __repr__(self) -> str:
        said = [f"{key}={plain_repr(value)}" for key, value in instance_dict(self).items() if key != "_name"]
        return f"{type(self).__name__}({', '.join(said)})"


class Identity(Activation):
    """The input.

    >>> import stategraph as sg
    >>> sg.nn.Identity()
    Identity()
    """

    def update(self, x: Any) -> Any:
        return x


class Threshold(Activation):
    """The input where it is greater than a threshold, and another value elsewhere.

    Args:
      threshold: the threshold.
      value: the other value.
    """

    def __init__(self, threshold: float, value: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value

    def update(self, x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return jnp.where(x > self.threshold, x, jnp.asarray(self.value, x.dtype))


class Hardtanh(Activation):
    """The input, cut off at two values.

    Args:
      min_val: the least output.
      max_val: the largest output.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        if not min_val < max_val:
            raise ValueError(f"min_val={min_val} has to be less than max_val={max_val}")
        self.min_val = min_val
        self.max_val = max_val

    def update(self, x: Any) -> jax.Array:
        return F.hard_tanh(x, self.min_val, self.max_val)


class RReLU(Activation):
    """``functional.rrelu`` while training; a leaky ReLU with the mean slope otherwise (see ``Module.train``).

    Args:
      lower: the least slope.
      upper: the largest slope.
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper

    def update(self, x: Any) -> jax.Array:
        if self.is_fitting():
            return F.rrelu(x, self.lower, self.upper)
        return F.leaky_relu(x, (self.lower + self.upper) / 2)


class ReLU(Activation):
    """``functional.relu``."""

    def update(self, x: Any) -> jax.Array:
        return F.relu(x)


class ReLU6(Activation):
    """``functional.relu6``."""

    def update(self, x: Any) -> jax.Array:
        return F.relu6(x)


class LeakyReLU(Activation):
    """``functional.leaky_relu``.

    Args:
      negative_slope: the slope where the input is negative.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def update(self, x: Any) -> jax.Array:
        return F.leaky_relu(x, self.negative_slope)


class PReLU(ElementWiseBlock):
    """``functional.prelu`` with slopes that are learned.

    Args:
      num_parameters: how many slopes: one, or one for each element of the last axis.
      init: the first value of the slopes, or an initialiser.
      dtype: their dtype; None for that of ``init``.
    """

    def __init__(self, num_parameters: int = 1, init: Any = 0.25, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight: State[Any] = ParamState(jnp.asarray(_slopes(init, num_parameters), dtype))

    def update(self, x: Any) -> jax.Array:
        return F.prelu(x, self.weight.value)


def _slopes(value: Any, count: int) -> Any:
    return init.param(
        init.Constant(value) if isinstance(value, (int, float)) else value, count, allow_none=False
    )


class ELU(Activation):
    """``functional.elu``.

    Args:
      alpha: minus the limit of the output for negative inputs.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def update(self, x: Any) -> jax.Array:
        return F.elu(x, self.alpha)


class CELU(Activation):
    """``functional.celu``.

    Args:
      alpha: minus the limit of the output for negative inputs.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def update(self, x: Any) -> jax.Array:
        return F.celu(x, self.alpha)


class SELU(Activation):
    """``functional.selu``."""

    def update(self, x: Any) -> jax.Array:
        return F.selu(x)


class GELU(Activation):
    """``functional.gelu``.

    Args:
      approximate: whether to use the approximation by ``tanh``.

    Example:

    >>> import stategraph as sg
    >>> sg.nn.GELU()
    GELU(approximate=False)
    """

    def __init__(self, approximate: bool = False) -> None:
        super().__init__()
        self.approximate = approximate

    def update(self, x: Any) -> jax.Array:
        return F.gelu(x, self.approximate)


class SiLU(Activation):
    """``functional.silu``."""

    def update(self, x: Any) -> jax.Array:
        return F.silu(x)


class Mish(Activation):
    """``functional.mish``."""

    def update(self, x: Any) -> jax.Array:
        return F.mish(x)


class Hardswish(Activation):
    """``functional.hard_swish``."""

    def update(self, x: Any) -> jax.Array:
        return F.hard_swish(x)


class Sigmoid(Activation):
    """``functional.sigmoid``."""

    def update(self, x: Any) -> jax.Array:
        return F.sigmoid(x)


class Hardsigmoid(Activation):
    """``functional.hard_sigmoid``."""

    def update(self, x: Any) -> jax.Array:
        return F.hard_sigmoid(x)


class LogSigmoid(Activation):
    """``functional.log_sigmoid``."""

    def update(self, x: Any) -> jax.Array:
        return F.log_sigmoid(x)


class Tanh(Activation):
    """``functional.tanh``."""

    def update(self, x: Any) -> jax.Array:
        return F.tanh(x)


class Tanhshrink(Activation):
    """``functional.tanh_shrink``."""

    def update(self, x: Any) -> jax.Array:
        return F.tanh_shrink(x)


class Hardshrink(Activation):
    """``functional.hard_shrink``.

    Args:
      lambd: the magnitude up to which the output is zero.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def update(self, x: Any) -> jax.Array:
        return F.hard_shrink(x, self.lambd)


class Softshrink(Activation):
    """``functional.soft_shrink``.

    Args:
      lambd: how far the input is moved towards zero.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def update(self, x: Any) -> jax.Array:
        return F.soft_shrink(x, self.lambd)


class Softplus(Activation):
    """``functional.softplus``."""

    def update(self, x: Any) -> jax.Array:
        return F.softplus(x)


class Softsign(Activation):
    """``functional.soft_sign``."""

    def update(self, x: Any) -> jax.Array:
        return F.soft_sign(x)


class _AlongAxis(Activation):
    """A function along one axis.

    Args:
      dim: the axis; the last when None.
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    @property
    def _axis(self) -> int:
        return -1 if self.dim is None else self.dim


class Softmax(_AlongAxis):
    """``functional.softmax``.

    Args:
      dim: the axis; the last when None.
    """

    def update(self, x: Any) -> jax.Array:
        return F.softmax(x, axis=self._axis)


class LogSoftmax(_AlongAxis):
    """``functional.log_softmax``.

    Args:
      dim: the axis; the last when None.
    """

    def update(self, x: Any) -> jax.Array:
        return F.log_softmax(x, axis=self._axis)


class Softmin(_AlongAxis):
    """``functional.softmin``.

    Args:
      dim: the axis; the last when None.
    """

    def update(self, x: Any) -> jax.Array:
        return F.softmin(x, self._axis)


class GLU(Module):
    """``functional.glu``: one half of the input times the sigmoid of the other.

    Args:
      dim: the axis that is halved.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def update(self, x: Any) -> jax.Array:
        return F.glu(x, self.dim)


__all__ = [
    "ElementWiseBlock", "Activation", "Identity", "Threshold", "ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "CELU",
    "SELU", "GELU", "SiLU", "Mish", "Hardswish", "Sigmoid", "Hardsigmoid", "LogSigmoid", "Tanh", "Hardtanh", "Tanhshrink",
    "Hardshrink", "Softshrink", "Softplus", "Softsign", "Softmax", "LogSoftmax", "Softmin", "GLU",
]  # fmt: skip

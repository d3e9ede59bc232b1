"""Arguments of distributions: sizes, dtypes, and values that make no sense.

Values are checked where they are known: numbers and arrays in eager code. A value that is only traced is not.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.environ import dftype, ditype

Size = Any
"""None, a number, or a sequence of numbers."""

NUMBERS = (int, float)


def shape_of(size: Size, **parameters: Any) -> tuple[int, ...]:
    """The shape of the result: ``size``, or what the parameters broadcast to, which has to broadcast to
    ``size``.
    """
    shapes = [np.shape(value) for value in parameters.values() if type(value) not in NUMBERS]
    if size is None:
        return np.broadcast_shapes(*shapes) if shapes else ()
    shape = as_shape(size)
    for name, value in parameters.items():
        if type(value) not in NUMBERS:
            _check_broadcasts(name, np.shape(value), shape)
    return shape


def as_shape(size: Size) -> tuple[int, ...]:
    """``size`` as a tuple of numbers."""
    shape: tuple[int, ...]
    try:
        shape = (operator.index(size),)
    except TypeError:
        try:
            shape = tuple([operator.index(n) for n in size])
        except TypeError:
            raise TypeError(f"size has to be a number or a tuple of numbers, not {size!r}") from None
    for n in shape:
        if n < 0:
            raise ValueError(f"size: negative dimensions are not allowed, got {size!r}")
    return shape


def _check_broadcasts(name: str, inner: tuple[int, ...], shape: tuple[int, ...]) -> None:
    try:
        fits = np.broadcast_shapes(inner, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} has the shape {inner}, which does not fit size={shape}")


def float_dtype(dtype: Any) -> Any:
    """The dtype of floating-point samples: the environment's default when None."""
    return np.dtype(dftype()) if dtype is None else np.dtype(dtype)


def int_dtype(dtype: Any) -> Any:
    """The dtype of integer samples: the environment's default when None."""
    return np.dtype(ditype()) if dtype is None else np.dtype(dtype)


def as_float(value: Any, dtype: Any) -> Any:
    """A parameter that does not change the dtype of what it is combined with."""
    return value if type(value) in NUMBERS else jnp.asarray(value, dtype)


# ----------------------------------------------------------------------------------------------------- values


def _check(name: str, value: Any, fails: Callable[[Any], Any], rule: str) -> None:
    if type(value) not in NUMBERS:
        if _jax.is_tracer(value):
            return
        value = np.asarray(value)
    with np.errstate(invalid="ignore"):
        wrong = fails(value)
    if np.any(wrong):
        shown = (
            value if np.ndim(value) == 0 else np.asarray(value)[np.broadcast_to(wrong, np.shape(value))][0]
        )
        raise ValueError(f"{name} {rule}, but is {shown}{'' if np.ndim(value) == 0 else ' in one place'}")


def non_negative(**parameters: Any) -> None:
    """Each parameter is at least 0 (NaN passes, as in NumPy)."""
    for name, value in parameters.items():
        if type(value) in NUMBERS and value >= 0:
            continue
        _check(name, value, lambda v: v < 0, "has to be at least 0")


def positive(**parameters: Any) -> None:
    """Each parameter is greater than 0."""
    for name, value in parameters.items():
        if type(value) in NUMBERS and value > 0:
            continue
        _check(name, value, lambda v: v <= 0, "has to be greater than 0")


def above(bound: float, **parameters: Any) -> None:
    """Each parameter is greater than ``bound``."""
    for name, value in parameters.items():
        _check(name, value, lambda v: ~(np.asarray(v) > bound), f"has to be greater than {bound}")


def probability(**parameters: Any) -> None:
    """Each parameter is between 0 and 1."""
    for name, value in parameters.items():
        if type(value) in NUMBERS and 0 <= value <= 1:
            continue
        _check(
            name, value, lambda v: ~((np.asarray(v) >= 0) & (np.asarray(v) <= 1)), "has to be between 0 and 1"
        )


def probability_but(excluded: float, **parameters: Any) -> None:
    """Each parameter is between 0 and 1 and not ``excluded``."""
    probability(**parameters)
    for name, value in parameters.items():
        _check(
            name,
            value,
            lambda v: np.asarray(v) == excluded,
            f"has to be between 0 and 1 and not {excluded:g}",
        )


def counts(**parameters: Any) -> None:
    """Each parameter is at least 0 and no NaN."""
    for name, value in parameters.items():
        if type(value) is int and value >= 0:
            continue
        _check(name, value, lambda v: ~(np.asarray(v) >= 0), "has to be at least 0")


def ordered(low_name: str, low: Any, high_name: str, high: Any, *, strictly: bool) -> None:
    """``low`` is less than ``high`` (or equal, unless ``strictly``)."""
    if type(low) in NUMBERS and type(high) in NUMBERS:
        wrong: Any = low >= high if strictly else low > high
    else:
        if _jax.is_tracer(low) or _jax.is_tracer(high):
            return
        low, high = np.asarray(low), np.asarray(high)
        wrong = np.any(low >= high if strictly else low > high)
    if wrong:
        relation = "less than" if strictly else "at most"
        raise ValueError(
            f"{low_name} has to be {relation} {high_name}, but {low_name}={low} and {high_name}={high}"
        )


def distribution(name: str, value: Any, tolerance: float = 1e-3) -> None:
    """A parameter holds probabilities that sum to 1."""
    if _jax.is_tracer(value):
        return
    array = np.asarray(value, np.float64)
    if not ((array >= 0).all() and np.isfinite(array).all()):
        raise ValueError(f"{name}: probabilities are not between 0 and 1: {array}")
    if np.any(np.abs(array.sum(-1) - 1) > tolerance):
        raise ValueError(f"{name}: probabilities do not sum to 1, but to {array.sum(-1)}")

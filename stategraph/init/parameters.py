"""``param``: the first value of a parameter or a State, from whatever stands for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import environ
from stategraph.errors import describe
from stategraph.init.initializer import Initializer
from stategraph.random import default_rng
from stategraph.random.checks import as_shape
from stategraph.state import State
from stategraph.typing import Size

Initial = Any
"""What a layer takes for a parameter: an initialiser, a function of a shape, an array, a number, or None."""


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
        value = function(shape)
    else:
        value = function(default_rng().split_key(), shape, np.dtype(environ.dftype()))
    given = getattr(value, "shape", ())
    if given not in ((), shape):
        raise ValueError(
            describe(
                f"{getattr(function, '__name__', type(function).__name__)}({shape}) gave an array of the shape {given}.",
                why="what makes a parameter is called with its shape",
                fix="return an array of that shape, or one number",
            )
        )
    return value

"""One step of an ordinary differential equation ``dx/dt = f(x, ...)``, of the length ``dt`` of ``stategraph.environ``.

``f`` takes what is integrated first, then any other arguments, and gives the derivative (per ms, with ``dt`` in ms). What is
integrated may be a quantity: then the derivative is one per time, and the result a quantity again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stategraph.errors import describe
from stategraph.nn.units import in_plain_numbers, step

Derivative = Callable[..., Any]


def exp_euler_step(fn: Derivative, *args: Any, **kwargs: Any) -> jax.Array:
    """One step of the exponential Euler method: exact where ``f`` is linear in ``x``.

    With the derivative ``J`` of ``f`` at ``x``, ``x + dt f(x) (exp(dt J) - 1) / (dt J)``: the solution of the equation
    linearised at ``x``. Hochbruck and Ostermann, "Exponential integrators" (Acta Numerica 2010). Growth within one step is
    limited to the square root of the largest number of the dtype, so that a diverging model stays finite.

    Args:
      fn: the derivative of ``x``, computed element by element: element ``i`` depends on no other element of ``x``.
      *args: ``x``, a floating-point array, then the other arguments of ``fn``.
      **kwargs: more arguments of ``fn``.

    Returns:
      ``x`` after ``dt``.

    Raises:
      TypeError: when ``x`` is missing, is not floating-point, or is several variables.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> with sg.environ.context(dt=1.0):
    ...     sg.nn.exp_euler_step(lambda x, tau: -x / tau, jnp.array([1.0, 2.0]), 2.0)
    Array([0.60653067, 1.2130613 ], dtype=float32)
    """
    given, rest = _split("exp_euler_step", args)
    if isinstance(given, (tuple, list, dict)):
        raise TypeError(
            describe(
                f"exp_euler_step integrates one array, not a {type(given).__name__}.",
                why="it takes the derivative element by element, and variables that depend on each other are not seen",
                fix="one exp_euler_step for each variable, or rk4_step, which takes several together",
            )
        )
    fn, given, measured = in_plain_numbers(fn, given)
    x = jnp.asarray(given)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            describe(
                f"exp_euler_step integrates a value of the type {x.dtype}.",
                why="it needs the derivative of the function, so the value is floating-point",
                fix="give the State a floating-point initial value",
            )
        )
    slope, jacobian = jax.jvp(lambda y: jnp.asarray(fn(y, *rest, **kwargs)), (x,), (jnp.ones_like(x),))
    dt = step()
    following: jax.Array = measured(x + dt * slope * _phi(dt * jacobian))
    return following


def _phi(z: jax.Array) -> jax.Array:
    """``(exp(z) - 1) / z``, also near 0, where it is ``1 + z / 2``."""
    largest = float(jnp.finfo(z.dtype).max)  # type: ignore[no-untyped-call]
    z = jnp.minimum(z, math.log(largest) / 2)
    near = jnp.abs(z) < 1e-5
    safe = jnp.where(near, 1, z)
    found: jax.Array = jnp.where(near, 1 + z / 2, jnp.expm1(safe) / safe)
    return found


def euler_step(fn: Derivative, *args: Any, **kwargs: Any) -> Any:
    """One step of Euler's method: ``x + dt f(x)``. First order.

    Args:
      fn: the derivative of ``x``, of the same structure.
      *args: ``x``, an array or a pytree of arrays, then the other arguments of ``fn``.
      **kwargs: more arguments of ``fn``.

    Returns:
      ``x`` after ``dt``.

    Example:

    >>> import stategraph as sg
    >>> with sg.environ.context(dt=0.5):
    ...     sg.nn.euler_step(lambda x: -x, 1.0)
    0.5
    """
    x, rest = _split("euler_step", args)
    fn, x, measured = in_plain_numbers(fn, x)
    return measured(_moved(x, step(), fn(x, *rest, **kwargs)))


def rk2_step(fn: Derivative, *args: Any, **kwargs: Any) -> Any:
    """One step of the midpoint method: the slope at the middle of an Euler step. Second order; Runge, "Über die
    numerische Auflösung von Differentialgleichungen" (1895).

    Args and returns as for ``euler_step``.

    Example:

    >>> import stategraph as sg
    >>> with sg.environ.context(dt=0.5):
    ...     sg.nn.rk2_step(lambda x: -x, 1.0)
    0.625
    """
    x, rest = _split("rk2_step", args)
    fn, x, measured = in_plain_numbers(fn, x)
    dt = step()
    middle = _moved(x, dt / 2, fn(x, *rest, **kwargs))
    return measured(_moved(x, dt, fn(middle, *rest, **kwargs)))


def rk4_step(fn: Derivative, *args: Any, **kwargs: Any) -> Any:
    """One step of the classical Runge-Kutta method. Fourth order; Kutta, "Beitrag zur näherungsweisen Integration
    totaler Differentialgleichungen" (1901).

    Args and returns as for ``euler_step``.

    Example:

    >>> import stategraph as sg
    >>> with sg.environ.context(dt=0.5):
    ...     round(sg.nn.rk4_step(lambda x: -x, 1.0), 4)
    0.6068
    """
    x, rest = _split("rk4_step", args)
    fn, x, measured = in_plain_numbers(fn, x)
    dt = step()
    first = fn(x, *rest, **kwargs)
    second = fn(_moved(x, dt / 2, first), *rest, **kwargs)
    third = fn(_moved(x, dt / 2, second), *rest, **kwargs)
    fourth = fn(_moved(x, dt, third), *rest, **kwargs)
    slope = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, first, second, third, fourth)
    return measured(_moved(x, dt, slope))


def _moved(x: Any, dt: Any, slope: Any) -> Any:
    return jax.tree.map(lambda value, rate: value + dt * rate, x, slope)


def _split(name: str, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    if not args:
        raise TypeError(f"{name}(fn, x, ...) needs the value to integrate")
    return args[0], args[1:]

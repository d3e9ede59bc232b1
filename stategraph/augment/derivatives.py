"""Derivatives beyond the gradient of a scalar: ``vector_grad``, ``fwd_grad``, Jacobians, Hessians.

Each kind of derivative (``derivative_kinds``) is applied to one run of the function.
Conventions are those of ``augment.grad``: States and ``argnums``, ``has_aux``, ``return_value``, results in
the structure that was asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from stategraph import _jax
from stategraph.augment.derivative_kinds import (
    Derivative,
    ForwardGradient,
    ForwardJacobian,
    ReverseJacobian,
    VectorGradient,
)
from stategraph.augment.eager import EagerProduct
from stategraph.augment.grad import GradientFunction
from stategraph.augment.products import Product, Recording
from stategraph.augment.unit_aware import UnitsOf
from stategraph.augment.wanted import (
    Wanted,
    positions_of,
    reading,
    selected_and_read,
    split_aux,
    states_key,
    wanted_of,
)
from stategraph.compile.cached import run_cached
from stategraph.compile.identity import ByValue, looked_into
from stategraph.recording import LOCAL

_MISSING: Any = object()


@looked_into
class DerivativeFunction:
    """A function that returns derivatives, made by ``jacrev`` and the like."""

    def __init__(
        self,
        function: Callable[..., Any],
        wanted: Wanted,
        derivative: Derivative,
        with_value: bool,
        *,
        extra: Callable[[], Any] | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"a derivative needs a function, not a {type(function).__name__}")
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.wanted = wanted
        self.derivative = derivative
        self.with_value = with_value
        self._extra = extra

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        wanted = self.wanted.for_call(args)
        positions = positions_of(wanted, args)
        extra = self._extra() if self._extra is not None else None
        if LOCAL.recorder is not None or _jax.under_disable_jit() or _jax.current_trace() is not None:
            return self._run(self.function, wanted, positions, args, kwargs, extra)

        def body_of(function: Callable[..., Any]) -> Callable[..., Any]:
            def body(arguments: Any, others: Any, extra: Any) -> Any:
                return self._run(function, wanted, positions, arguments, others, extra)

            return body

        name, operands = type(self.derivative).__name__, (args, kwargs, extra)
        return run_cached(name, (self.function,), (), body_of, operands, also=self._said())

    def _said(self) -> tuple[Any, ...]:
        """What the derivative is, besides the function's, for the cache of eager calls."""
        flags = (self.derivative, self.with_value, attrs.astuple(attrs.evolve(self.wanted, states=None)))
        return (ByValue(flags), states_key(self.wanted.states), self._extra)

    def _run(
        self,
        function: Callable[..., Any],
        wanted: Wanted,
        positions: Sequence[int],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        extra: Any,
    ) -> Any:
        units = UnitsOf(wanted)
        function = units.taken_off(reading(function, wanted))
        part = functools.partial(_parted, wanted, self.derivative)
        product = product_of(function, wanted, positions, args, kwargs, part, self.derivative.mode())
        found = self.derivative.of(product, wanted, extra)
        found = units.of_gradient(found) if self.derivative.sums else units.of_rows(found)
        return self._arrange(found, units.put_on(product.value), product.aux)

    def _arrange(self, derivative: Any, value: Any, aux: Any) -> Any:
        found = (derivative, *((value,) if self.with_value else ()), *((aux,) if self.wanted.has_aux else ()))
        return found if len(found) > 1 else derivative

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        return f"<{type(self.derivative).__name__} of {name}>"


@looked_into
class HessianFunction(DerivativeFunction):
    """The forward Jacobian of the gradient."""

    def __init__(self, function: Callable[..., Any], wanted: Wanted, with_value: bool) -> None:
        inner = GradientFunction(function, wanted, False, True)

        @functools.wraps(function)
        def gradient(*args: Any, **kwargs: Any) -> Any:
            grads, *rest = inner(*args, **kwargs)
            return grads, tuple(rest)

        outer = attrs.evolve(wanted, has_aux=True)
        super().__init__(gradient, outer, ForwardJacobian(), with_value)
        self.has_aux = wanted.has_aux

    def _arrange(self, derivative: Any, value: Any, aux: Any) -> Any:
        found = (derivative, *((aux[0],) if self.with_value else ()), *((aux[1],) if self.has_aux else ()))
        return found if len(found) > 1 else derivative


def product_of(
    function: Callable[..., Any],
    wanted: Wanted,
    positions: Sequence[int],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    part: Callable[[Any], tuple[Any, Any]],
    mode: str,
) -> Product:
    """One run of the function: recorded inside a trace, else as eager Python."""
    recorder = LOCAL.recorder
    if recorder is not None:
        return Recording(recorder, function, wanted, positions, args, kwargs, part, mode)
    select = functools.partial(selected_and_read, wanted)
    return EagerProduct(function, wanted, positions, args, kwargs, select, part, mode)


def _parted(wanted: Wanted, derivative: Derivative, result: Any) -> tuple[Any, Any]:
    value, aux = split_aux(result, wanted.has_aux)
    derivative.check(value, wanted)
    return value, aux


# ----------------------------------------------------------------------------------------------- public names


def _make(
    function: Any,
    wanted: Wanted,
    derivative: Derivative,
    with_value: bool,
    extra: Callable[[], Any] | None = None,
) -> Any:
    if function is _MISSING:
        return lambda f: DerivativeFunction(f, wanted, derivative, with_value, extra=extra)
    return DerivativeFunction(function, wanted, derivative, with_value, extra=extra)


def vector_grad(
    func: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    return_value: bool = False,
    has_aux: bool | None = None,
    unit_aware: bool = False,
    check_states: bool = True,
) -> Any:
    """The gradient of the sum of all outputs: for a function that works element by element, the derivative of
    every element.

    Args:
      func: returns floats of any shape and structure, or ``(value, aux)`` with ``has_aux=True``.
      grad_states, argnums, return_value, unit_aware, check_states: as in ``grad``.

    Returns:
      A function giving what ``grad`` gives; each gradient has the shape of what it belongs to.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> gain = sg.ParamState(2.)
    >>> x = jnp.array([1., 2., 3.])
    >>> states, args = sg.augment.vector_grad(lambda x: gain.value * x ** 2, gain, argnums=0)(x)
    >>> float(states), args
    (14.0, Array([ 4.,  8., 12.], dtype=float32))
    """
    wanted = wanted_of(grad_states, argnums, has_aux, unit_aware=unit_aware, check_states=check_states)
    return _make(func, wanted, VectorGradient(), return_value)


def fwd_grad(
    func: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    return_value: bool = False,
    has_aux: bool | None = None,
    tangent_size: int | None = None,
    drct_der_clip: float | None = None,
    key: Any = None,
    unit_aware: bool = False,
    check_states: bool = True,
) -> Any:
    """An unbiased estimate of the gradient from forward mode alone: no memory for a backward pass, loops of
    any kind.

    The derivative along a random direction, times that direction (Baydin et al., Gradients without
    Backpropagation, 2022).

    Args:
      func: returns a scalar float, or ``(scalar, aux)`` with ``has_aux=True``.
      grad_states, argnums, return_value, unit_aware, check_states: as in ``grad``.
      tangent_size: how many directions to average over; one when not given.
      drct_der_clip: the largest size of the directional derivative; larger ones are cut.
      key: of the random directions, a JAX key; without it each call splits one off ``stategraph.random``.

    Example:

    >>> import jax
    >>> import stategraph as sg
    >>> w = sg.ParamState(3.)
    >>> estimate = sg.augment.fwd_grad(lambda: w.value ** 2, w, tangent_size=4000, key=jax.random.key(0))()
    >>> abs(float(estimate) - 6) < 0.5
    True
    """
    if tangent_size is not None and tangent_size < 1:
        raise ValueError(f"tangent_size is the number of directions, at least 1, not {tangent_size}")

    def drawn() -> Any:
        if key is not None:
            return key
        from stategraph import random

        return random.split_key()

    wanted = wanted_of(grad_states, argnums, has_aux, unit_aware=unit_aware, check_states=check_states)
    return _make(func, wanted, ForwardGradient(tangent_size, drct_der_clip), return_value, drawn)


def jacrev(
    fun: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool | None = None,
    return_value: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    unit_aware: bool = False,
    check_states: bool = True,
) -> Any:
    """The Jacobian of a function of State and arguments, by reverse mode: the choice when it has fewer
    outputs than inputs.

    Args:
      fun: returns floats of any shape and structure, or ``(value, aux)`` with ``has_aux=True``. It runs once;
        State that it writes is written once.
      grad_states, argnums, return_value, unit_aware, check_states: as in ``grad``.

    Returns:
      A function giving, in the structure of the value, for every output what ``grad`` gives; each array has
      the output's shape followed by the shape of the State or argument.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> w = sg.ParamState(jnp.array([1., 2.]))
    >>> sg.augment.jacrev(lambda x: w.value ** 2 * x, w)(3.)
    Array([[ 6.,  0.],
           [ 0., 12.]], dtype=float32)
    """
    wanted = wanted_of(
        grad_states,
        argnums,
        has_aux,
        holomorphic,
        allow_int,
        unit_aware=unit_aware,
        check_states=check_states,
    )
    return _make(fun, wanted, ReverseJacobian(), return_value)


jacobian = jacrev


def jacfwd(
    func: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool | None = None,
    return_value: bool = False,
    holomorphic: bool = False,
    unit_aware: bool = False,
    check_states: bool = True,
) -> Any:
    """Like ``jacrev``, by forward mode: the choice when there are fewer inputs than outputs, and through
    ``while_loop``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> gain = sg.ParamState(2.)
    >>> sg.augment.jacfwd(lambda x: gain.value * x, gain)(jnp.array([3., 4.]))
    Array([3., 4.], dtype=float32)
    """
    wanted = wanted_of(
        grad_states, argnums, has_aux, holomorphic, unit_aware=unit_aware, check_states=check_states
    )
    return _make(func, wanted, ForwardJacobian(), return_value)


def hessian(
    func: Callable[..., Any] = _MISSING,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    return_value: bool = False,
    holomorphic: bool = False,
    has_aux: bool | None = None,
    unit_aware: bool = False,
    check_states: bool = True,
) -> Any:
    """The second derivatives of a scalar function of State and arguments: forward mode over reverse mode.

    Args:
      func: returns a scalar float, or ``(scalar, aux)`` with ``has_aux=True``. It runs once; State that it
        writes is written once.
      grad_states, argnums, return_value, unit_aware, check_states: as in ``grad``.

    Returns:
      A function giving, in the structure of the gradient, the Jacobian of each gradient: for a mapping of
        States, ``result[a][b]``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> w = sg.ParamState(jnp.array([1., 2.]))
    >>> sg.augment.hessian(lambda: w.value[0] * w.value[1] ** 2, w)()
    Array([[0., 4.],
           [4., 2.]], dtype=float32)
    """
    wanted = wanted_of(
        grad_states, argnums, has_aux, holomorphic, unit_aware=unit_aware, check_states=check_states
    )
    if func is _MISSING:
        return lambda f: HessianFunction(f, wanted, return_value)
    return HessianFunction(func, wanted, return_value)

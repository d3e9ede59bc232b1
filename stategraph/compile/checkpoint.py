"""Recomputation instead of memory: ``checkpoint``, and loops whose gradient needs memory for few of their
trips.

A checkpointed loop of ``n`` trips is a nest of loops of about ``base`` trips each, every inner one recomputed
in reverse mode: the gradient holds about ``base * log(n, base)`` carries instead of ``n`` and computes each
trip about ``log(n, base)`` times (Griewank, Achieving logarithmic growth of temporal and spatial complexity
in reverse automatic differentiation, 1992). The trips are exactly those of the plain loop, in order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.compile.control import _length, _run, trip_count
from stategraph.compile.progress import ProgressBar, Step, with_bar
from stategraph.graph.node import Node
from stategraph.recording import LOCAL

_MISSING: Any = object()


def checkpoint(
    fun: Callable[..., Any] = _MISSING,
    *,
    prevent_cse: bool = True,
    policy: Callable[..., bool] | None = None,
    static_argnums: int | Sequence[int] = (),
) -> Any:
    """``fun``, whose intermediate values are computed again in reverse mode instead of kept; it may read and
    write State.

    Args:
      fun: any function. Without it, a decorator is returned.
      prevent_cse: keep XLA from merging the second computation with the first.
      policy: which values to keep all the same, one of ``jax.checkpoint_policies``.
      static_argnums: positions of arguments that are no arrays. Nodes, such as the model of a method, always
        are.

    Returns:
      A function with the same arguments. Called eagerly, where no gradient is taken, it is ``fun`` itself.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> w = sg.ParamState(2.)
    >>> @sg.compile.checkpoint
    ... def layer(x): return jnp.sin(w.value * x)
    >>> round(float(sg.augment.grad(lambda: layer(1.), w)()), 4)
    -0.4161
    """
    options: dict[str, Any] = {"prevent_cse": prevent_cse, "policy": policy, "static_argnums": static_argnums}
    if fun is _MISSING:
        return functools.partial(checkpoint, **options)
    if not callable(fun):
        raise TypeError(f"checkpoint needs a function, not a {type(fun).__name__}")
    rematerialized = jax.checkpoint(fun, **options)

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not _is_traced():
            return fun(*args, **kwargs)
        nodes = {i: arg for i, arg in enumerate(args) if isinstance(arg, Node)}
        if not nodes:
            return rematerialized(*args, **kwargs)
        others = [i for i in range(len(args)) if i not in nodes]

        def bound(*given: Any, **named: Any) -> Any:
            full = {**nodes, **dict(zip(others, given, strict=True))}
            return fun(*(full[i] for i in range(len(args))), **named)

        declared = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
        static = tuple(others.index(i % len(args)) for i in declared if i % len(args) in others)
        return jax.checkpoint(bound, **{**options, "static_argnums": static})(
            *(args[i] for i in others), **kwargs
        )

    return wrapped


remat = checkpoint


def _is_traced() -> bool:
    """Whether JAX records or differentiates what is done now (``jax.checkpoint`` would trace even under
    ``disable_jit``).
    """
    if _jax.under_disable_jit():
        return False
    return LOCAL.recorder is not None or _jax.current_trace() is not None


def checkpointed_scan(
    f: Callable[[Any, Any], Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    base: int = 16,
    pbar: ProgressBar | int | None = None,
) -> Any:
    """``scan`` for long sequences: its gradient needs memory for about ``base * log(length, base)`` trips.

    Args:
      f: ``f(carry, x) -> (carry, y)``; it may read and write State.
      init: the first carry.
      xs: arrays, or a pytree of arrays, looped over along their first axis.
      length: number of trips, needed without ``xs``.
      base: trips of each of the nested loops, at least 2.
      pbar: a ``ProgressBar`` over the trips, or how many trips lie between two moves of one.

    Returns:
      ``(carry, ys)``, as ``scan`` does.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> decay, h = sg.ParamState(0.5), sg.State(0.)
    >>> def step(total, x):
    ...     h.value = decay.value * h.value + x
    ...     return total + h.value, h.value
    >>> total, hs = sg.compile.checkpointed_scan(step, 0., jnp.ones(5), base=2)
    >>> hs
    Array([1.    , 1.5   , 1.75  , 1.875 , 1.9375], dtype=float32)
    """
    _check_base("checkpointed_scan", base)
    _length("checkpointed_scan", (xs,), length)

    def body_of(f: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        return lambda start, arrays: _with_bar(pbar, f, start, arrays, trip_count(arrays, length), base)

    return _run("checkpointed_scan", (f,), (length, base, pbar), body_of, (init, xs))


def _with_bar(
    pbar: ProgressBar | int | None, step: Step, start: Any, xs: Any, trips: int, base: int
) -> tuple[Any, Any]:
    def loop(step: Step, carry: Any) -> Any:
        return _nested(_once(step), carry, xs, trips, base, _levels(trips, base))

    return with_bar(pbar, loop, step, start, trips)


def checkpointed_for_loop(
    f: Callable[..., Any],
    *xs: Any,
    length: int | None = None,
    base: int = 16,
    pbar: ProgressBar | int | None = None,
) -> Any:
    """``for_loop`` for long sequences, with the memory of ``checkpointed_scan``: the results of ``f``,
    stacked.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> w, h = sg.ParamState(0.9), sg.State(1.)
    >>> def step(x):
    ...     h.value = w.value * h.value + x
    ...     return h.value
    >>> loss = lambda xs: sg.compile.checkpointed_for_loop(step, xs, base=4)[-1]
    >>> round(float(sg.augment.grad(loss, w)(jnp.zeros(20))), 4)
    2.7017
    """
    _check_base("checkpointed_for_loop", base)
    _length("checkpointed_for_loop", xs, length)

    def body_of(f: Callable[..., Any]) -> Callable[..., Any]:
        def body(*arrays: Any) -> Any:
            def step(carry: None, slices: Any) -> tuple[None, Any]:
                return None, f(*slices)

            return _with_bar(pbar, step, None, arrays, trip_count(arrays, length), base)[1]

        return body

    return _run("checkpointed_for_loop", (f,), (length, base, pbar), body_of, xs)


def bounded_while_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    max_steps: int,
    base: int = 16,
) -> Any:
    """``while_loop`` of at most ``max_steps`` trips, which has a gradient in reverse mode too.

    What plain Python says: ``for _ in range(max_steps): if not cond_fun(val): break; val = body_fun(val)``.
      Trips that do not happen cost little: whole
    inner loops are skipped.

    Args:
      cond_fun, body_fun: functions of the loop's value; both may read and write State.
      init_val: the first value.
      max_steps: the largest number of trips.
      base: trips of each of the nested loops, at least 2; see ``checkpointed_scan``.

    Example:

    >>> import stategraph as sg
    >>> rate, steps = sg.ParamState(2.), sg.State(0)
    >>> def grow(x):
    ...     steps.value += 1
    ...     return x * rate.value
    >>> loss = lambda x: sg.compile.bounded_while_loop(lambda x: x < 10, grow, x, max_steps=100)
    >>> gradient, value = sg.augment.grad(loss, rate, return_value=True)(1.)
    >>> float(value), float(gradient), int(steps.value)
    (16.0, 32.0, 4)
    """
    _check_base("bounded_while_loop", base)
    if not isinstance(max_steps, int) or isinstance(max_steps, bool) or max_steps < 0:
        raise ValueError(f"max_steps of bounded_while_loop is a number of trips, not {max_steps!r}")

    def body_of(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any]) -> Callable[..., Any]:
        def body(start: Any) -> Any:
            def attempt(value: Any) -> Any:
                going = jnp.asarray(cond_fun(value)).astype(bool)
                return going, jax.lax.cond(going, body_fun, lambda same: same, value)

            def trip(carry: Any, _: None) -> tuple[Any, None]:
                return _while_going(attempt, carry), None

            value = jax.tree.map(jnp.asarray, start)
            if max_steps == 0:
                return value
            return _nested(
                _once(trip),
                (jnp.asarray(True), value),
                None,
                max_steps,
                base,
                _levels(max_steps, base),
                _while_going,
            )[0][1]

        return body

    return _run("bounded_while_loop", (cond_fun, body_fun), (max_steps, base), body_of, (init_val,))


def _while_going(then: Callable[[Any], Any], carry: Any) -> Any:
    """``then(value)`` as long as the loop has not ended; the carry is (whether it goes on, value)."""
    going, value = carry
    return jax.lax.cond(going, then, lambda same: (jnp.asarray(False), same), value)


def _check_base(name: str, base: int) -> None:
    if not isinstance(base, int) or isinstance(base, bool) or base < 2:
        raise ValueError(
            f"base of {name} is the number of trips of each inner loop, at least 2, not {base!r}"
        )


def _once(step: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A step that JAX traces once however many loops of the nest contain it."""
    call: Callable[[Any, Any], Any] = jax.jit(step)
    return call


Guard = Callable[[Callable[[Any], Any], Any], Any]
"""Runs a function of the carry's value, or not."""


def _levels(length: int, base: int) -> int:
    """How many loops of ``base`` trips in each other make ``length`` trips."""
    levels = 1
    while base**levels < length:
        levels += 1
    return levels


def _nested(
    step: Callable[[Any, Any], Any],
    carry: Any,
    xs: Any,
    length: int,
    base: int,
    levels: int,
    guard: Guard | None = None,
) -> Any:
    """A scan as ``levels`` scans in each other: whole chunks of ``base ** (levels - 1)`` trips, then one
    chunk with what remains.

    Wherever the step stands it stands in as many loops, so it is the same body. A guard (which needs ``ys``
    to be None) may skip chunks.
    """
    if levels == 1:
        return jax.lax.scan(step, carry, xs, length=length)
    size = base ** (levels - 1)
    whole = length - length % size
    results = []
    for start, stop, trips in ((0, whole, size), (whole, length, length % size)):
        if start == stop:
            continue
        part = jax.tree.map(functools.partial(_chunked, start=start, stop=stop, trips=trips), xs)
        chunk = functools.partial(_chunk, step, trips, base, levels - 1, guard)
        run = jax.checkpoint(chunk, prevent_cse=False) if _is_traced() else chunk
        carry, ys = jax.lax.scan(run, carry, part, length=(stop - start) // trips)
        results.append(jax.tree.map(lambda y: y.reshape(y.shape[0] * y.shape[1], *y.shape[2:]), ys))
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *results) if len(results) > 1 else results[0]
    return carry, joined


def _chunked(x: Any, *, start: int, stop: int, trips: int) -> Any:
    """Rows ``start`` to ``stop`` in chunks of ``trips``."""
    return x[start:stop].reshape((stop - start) // trips, trips, *x.shape[1:])


def _chunk(
    step: Callable[[Any, Any], Any],
    trips: int,
    base: int,
    levels: int,
    guard: Guard | None,
    carry: Any,
    xs: Any,
) -> Any:
    """One chunk of a nest, as a step of the loop around it."""
    if guard is None:
        return _nested(step, carry, xs, trips, base, levels)

    def then(value: Any) -> Any:
        return _nested(step, (jnp.asarray(True), value), xs, trips, base, levels, guard)[0]

    return guard(then, carry), None

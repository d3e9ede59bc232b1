"""Control flow over State: ``cond``, ``switch``, ``ifelse``, ``for_loop``, ``scan``, ``while_loop``.

Inside a trace they are ``jax.lax`` with conveniences: the bodies may read, write and create State either way.
Called eagerly they are compiled like ``jit`` and kept, by the code and the closure of their functions, so
that a loop in a loop of plain Python is traced once, over another batch each time too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.compile.cached import run_cached
from stategraph.compile.progress import ProgressBar, Step, with_bar
from stategraph.errors import TraceError, describe
from stategraph.recording import LOCAL


def _run(
    name: str,
    functions: Sequence[Any],
    options: tuple[Any, ...],
    body_of: Callable[..., Callable[..., Any]],
    operands: Sequence[Any],
) -> Any:
    """Inside a trace (or with jit disabled) just do it; eagerly, compile it once per functions and options."""
    if LOCAL.recorder is not None or _jax.current_trace() is not None or _jax.DISABLE_JIT.value:
        return body_of(*functions)(*operands)
    return run_cached(name, functions, options, body_of, operands)


def _branch(branch: Any) -> Callable[..., Any]:
    return branch if callable(branch) else lambda *operands: branch


@_jax.boundary
def cond(pred: Any, true_fun: Any, false_fun: Any, *operands: Any) -> Any:
    """``true_fun(*operands)`` if ``pred`` else ``false_fun(*operands)``; both may read and write State.

    Args:
      pred: a scalar, true when nonzero.
      true_fun, false_fun: functions of the operands, or plain values. Their results have the same structure
        and types.

    Example:

    >>> import stategraph as sg
    >>> s = sg.State(1.)
    >>> def double(): s.value = s.value * 2
    >>> sg.compile.cond(True, double, lambda: None)
    >>> float(s.value)
    2.0
    """

    def body_of(true_fun: Any, false_fun: Any) -> Callable[..., Any]:
        true, false = _branch(true_fun), _branch(false_fun)

        def body(p: Any, *ops: Any) -> Any:
            return jax.lax.cond(p, true, false, *ops)

        return body

    return _run("cond", (true_fun, false_fun), (), body_of, (pred, *operands))


@_jax.boundary
def switch(index: Any, branches: Sequence[Any], *operands: Any) -> Any:
    """Run one of ``branches``, ``index`` clamped to the valid range; all may read and write State."""
    if not len(branches):
        raise ValueError("switch needs at least one branch")

    def body_of(*branches: Any) -> Callable[..., Any]:
        functions = [_branch(branch) for branch in branches]

        def body(i: Any, *ops: Any) -> Any:
            return jax.lax.switch(i, functions, *ops)

        return body

    return _run("switch", tuple(branches), (), body_of, (index, *operands))


@_jax.boundary
def ifelse(conditions: Any, branches: Sequence[Any], *operands: Any, check_cond: bool = True) -> Any:
    """The branch of the first condition that holds, like ``if``/``elif``/``else``.

    Args:
      conditions: scalars, one per branch; with one more branch than conditions the last is the ``else``.
      branches: functions of the operands, or plain values.
      check_cond: whether it is an error, for known conditions, that none holds. Conditions that are known
        only when the program runs
        are not checked: then the last branch runs.
    """
    flags = list(conditions) if isinstance(conditions, (list, tuple)) else [conditions]
    if len(branches) not in (len(flags), len(flags) + 1):
        raise ValueError(
            f"ifelse has {len(flags)} conditions and needs as many branches or one more (the else), not {len(branches)}"
        )
    if (
        check_cond
        and len(branches) == len(flags)
        and not any(_jax.is_tracer(flag) for flag in flags)
        and not any(map(bool, flags))
    ):
        raise ValueError(
            "no condition of ifelse holds and there is no else branch; make the last condition True or add a branch"
        )

    def body_of(*branches: Any) -> Callable[..., Any]:
        functions = [_branch(branch) for branch in branches]

        def body(given: Any, *ops: Any) -> Any:
            last = [jnp.asarray(True)] if len(functions) == len(given) + 1 else []
            stacked = jnp.stack([jnp.asarray(flag).astype(bool) for flag in given] + last)
            index = jnp.where(stacked.any(), jnp.argmax(stacked), len(functions) - 1)
            return jax.lax.switch(index, functions, *ops)

        return body

    return _run("ifelse", tuple(branches), (check_cond,), body_of, (flags, *operands))


def _length(name: str, xs: Sequence[Any], length: int | None) -> int | None:
    leaves = jax.tree.leaves(xs)
    if not leaves and length is None:
        raise TraceError(
            describe(
                f"{name} does not know how often to loop.",
                why="there are no inputs to loop over",
                fix=f"{name}(..., length=n)",
            )
        )
    for leaf in leaves:
        if not getattr(leaf, "ndim", 0):
            raise TraceError(
                describe(
                    f"{name} loops over a scalar.",
                    why="inputs are taken apart along their first axis",
                    fix="give an array, for example jnp.arange(n)",
                )
            )
    sizes = {leaf.shape[0] for leaf in leaves} | ({length} if length is not None else set())
    if len(sizes) > 1:
        raise TraceError(
            describe(
                f"{name} has inputs of different lengths: {sorted(map(int, sizes))}.",
                fix="give arrays with equal first axes",
            )
        )
    return length


def trip_count(xs: Any, length: int | None) -> int:
    """How many trips a loop over ``xs`` makes."""
    if length is not None:
        return length
    return int(jnp.shape(jax.tree.leaves(xs)[0])[0])


@_jax.boundary
def for_loop(
    f: Callable[..., Any],
    *xs: Any,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    pbar: ProgressBar | int | None = None,
) -> Any:
    """Call ``f`` on each slice of ``xs`` in turn; ``f`` may read and write State.

    Args:
      f: a function of one slice of every input (of nothing, with ``length``).
      *xs: arrays, or pytrees of arrays, looped over along their first axis.
      length: number of trips, needed without inputs.
      reverse: from the last slice to the first; results stand where their slice stood.
      unroll: trips to lay out in one go.
      pbar: a ``ProgressBar`` over the trips, or how many trips lie between two moves of one.

    Returns:
      The results of ``f``, stacked along a new first axis.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> total = sg.State(0)
    >>> def add(i):
    ...     total.value += i
    ...     return total.value
    >>> sg.compile.for_loop(add, jnp.arange(4))
    Array([0, 1, 3, 6], dtype=int32)
    """
    _length("for_loop", xs, length)

    def body_of(f: Callable[..., Any]) -> Callable[..., Any]:
        def body(*arrays: Any) -> Any:
            def step(carry: None, slices: Any) -> tuple[None, Any]:
                return None, f(*slices)

            def loop(step: Step, carry: Any) -> Any:
                return jax.lax.scan(step, carry, arrays, length=length, reverse=reverse, unroll=unroll)

            return with_bar(pbar, loop, step, None, trip_count(arrays, length))[1]

        return body

    return _run("for_loop", (f,), (length, reverse, unroll, pbar), body_of, xs)


@_jax.boundary
def scan(
    f: Callable[[Any, Any], Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    pbar: ProgressBar | int | None = None,
) -> Any:
    """``jax.lax.scan`` whose body may read and write State: ``f(carry, x) -> (carry, y)``; returns ``(carry,
    ys)``. ``pbar`` is that of ``for_loop``.
    """
    _length("scan", (xs,), length)

    def body_of(f: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        def body(start: Any, arrays: Any) -> Any:
            def loop(step: Step, carry: Any) -> Any:
                return jax.lax.scan(step, carry, arrays, length=length, reverse=reverse, unroll=unroll)

            return with_bar(pbar, loop, f, start, trip_count(arrays, length))

        return body

    return _run("scan", (f,), (length, reverse, unroll, pbar), body_of, (init, xs))


_NOTHING: Any = object()


@_jax.boundary
def while_loop(cond_fun: Callable[..., Any], body_fun: Callable[..., Any], init_val: Any = _NOTHING) -> Any:
    """Repeat ``body_fun`` while ``cond_fun`` holds; both may read and write State.

    Args:
      cond_fun: a function of the loop's value to a scalar, true when nonzero.
      body_fun: a function of the loop's value to the next one, of the same structure and types.
      init_val: the first value, an array or a pytree of arrays. Without it the loop is over State alone: both
        functions take nothing, and what ``body_fun`` returns is dropped.

    Returns:
      The value for which ``cond_fun`` did not hold; None without ``init_val``.

    Example:

    >>> import stategraph as sg
    >>> x = sg.State(1.)
    >>> def double(): x.value *= 2
    >>> sg.compile.while_loop(lambda: x.value < 100, double)
    >>> float(x.value)
    128.0
    """
    alone = init_val is _NOTHING
    start = None if alone else init_val

    def body_of(cond_fun: Callable[..., Any], body_fun: Callable[..., Any]) -> Callable[..., Any]:
        def going(value: Any) -> Any:
            return cond_fun() if alone else cond_fun(value)

        def trip(value: Any) -> Any:
            if not alone:
                return body_fun(value)
            body_fun()
            return None

        return lambda first: jax.lax.while_loop(going, trip, first)

    return _run("while_loop", (cond_fun, body_fun), (alone,), body_of, (start,))

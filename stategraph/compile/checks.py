"""Runtime checks: ``jit_error_if``, and JAX's ``checkify`` over State.

A check is part of the program: no callback, so a program with checks can be exported, donated to, differentiated
and mapped. A failure is an output. The call commits State first, as if the check were not there, and raises then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify as jax_checkify

from stategraph import _jax, environ
from stategraph.backends.checks import Check, check_p
from stategraph.compile.cached import run_cached
from stategraph.errors import StateAccessError, describe
from stategraph.recording import LOCAL


def jit_error_if(pred: Any, error: Any, *err_args: Any, **err_kwargs: Any) -> None:
    """Raise an error if ``pred`` holds, in eager and in compiled code, in loops, branches, lanes and gradients.

    Eagerly it raises at once. In a compiled program the call finishes, its States are committed, and the error
    of the check that failed first is raised then; of the lanes of a ``vmap`` the first that fails counts. Looking
    at the outcome makes every call of a program with checks wait for its end. Setting ``jit_error_check`` of
    ``environ`` to False leaves checks out.

    Args:
      pred: a bool, or an array: the check fails if any element is true.
      error: what is raised: a message, formatted with the values (``"{0} < {x:.2f}"``), as a ``CheckError``; an
        exception; a class of exceptions, made from the values; or a function of the values that raises or
        returns an exception. The values come as NumPy arrays, as they were when the check failed.
      *err_args, **err_kwargs: values for the message: arrays, and anything else that is known while tracing.

    Raises:
      CheckError: with the formatted message and the line of the check, if ``error`` is a message.
      StateAccessError: inside a ``jax.jit`` that StateGraph does not trace.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> @sg.compile.jit
    ... def root(x):
    ...     sg.compile.jit_error_if(x < 0, "no root of {x:.1f}", x=x)
    ...     return jnp.sqrt(x)
    >>> float(root(4.))
    2.0
    >>> try: root(-1.)
    ... except sg.errors.CheckError as error: print(str(error).splitlines()[0])
    no root of -1.0
    """
    if not isinstance(error, str) and not callable(error) and not isinstance(error, BaseException):
        raise TypeError(
            f"the error of a check is a message, an exception or a function that raises, not a {type(error).__name__}"
        )
    if not environ.get(environ.JIT_ERROR_CHECK, True):
        return
    leaves, tree = jax.tree.flatten((err_args, err_kwargs))
    given = [jax.lax.stop_gradient(_array(leaf)) for leaf in leaves if _is_array(leaf)]
    fixed = tuple((i, leaf) for i, leaf in enumerate(leaves) if not _is_array(leaf))
    message = error if isinstance(error, str) else ""
    check = Check(message, None if isinstance(error, str) else error, tree, fixed, _jax.here())
    flag = jnp.asarray(pred).astype(bool)
    failed = flag.any() if flag.ndim else flag
    if _under_checkify():
        _hand_to_checkify(failed, check, given)
        return
    if LOCAL.recorder is None and _jax.records_here():
        raise StateAccessError(
            describe(
                "A runtime check stands inside a JAX transformation that StateGraph does not trace.",
                at=_jax.here(),
                why="jax.jit has no place for the outcome of a check",
                fix="use stategraph.compile.jit, or stategraph.compile.checkify around the function",
            )
        )
    check_p.bind(failed, *given, check=check)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def _array(leaf: Any) -> Any:
    """A value that a program can carry: keys as their numbers, no weak types."""
    if _jax.is_key_array(leaf):
        return jax.random.key_data(leaf)
    array = jnp.asarray(leaf)
    return jax.lax.convert_element_type(array, array.dtype)


def _under_checkify() -> bool:
    """Whether ``checkify`` collects the errors of the code that runs now."""
    frames = filter(None, map(_jax.frame_of, _jax.trace_chain(_root())))
    return any(_jax.traced_for(frame).startswith("checkify") for frame in frames)


def _root() -> Any:
    recorder = LOCAL.recorder
    return recorder.root() if recorder is not None and recorder.root is not None else None


def _hand_to_checkify(failed: Any, check: Check, given: list[Any]) -> None:
    """The same check as one of JAX's, whose message can only hold arrays."""
    message = check.message or repr(check.error)
    if check.fixed:
        message, given = message.replace("{", "{{").replace("}", "}}"), []
    args, kwargs = ((), {}) if check.fixed else jax.tree.unflatten(check.tree, given)
    jax_checkify.check(~failed, message, *args, **kwargs)


def checkify(
    fun: Callable[..., Any], errors: frozenset[Any] = jax_checkify.user_checks
) -> Callable[..., tuple[jax_checkify.Error, Any]]:
    """``fun`` with its errors as a value: a function that returns ``(error, result)``; State is committed.

    Args:
      fun: any function; it may read and write State. Its own checks are those of ``jit_error_if`` and of
        ``jax.experimental.checkify.check``.
      errors: what counts: any union of the sets of ``jax.experimental.checkify``: ``user_checks``,
        ``nan_checks``, ``div_checks``, ``index_checks``, ``float_checks``, ``automatic_checks``, ``all_checks``.

    Returns:
      A function with the arguments of ``fun``. ``error.get()`` is the message, None if nothing failed;
      ``error.throw()`` raises.

    Example:

    >>> import jax.numpy as jnp
    >>> from jax.experimental import checkify
    >>> import stategraph as sg
    >>> calls = sg.State(0)
    >>> def log(x):
    ...     calls.value += 1
    ...     return jnp.log(x)
    >>> error, y = sg.compile.checkify(log, checkify.nan_checks)(-1.)
    >>> error.get() is None, int(calls.value)
    (False, 1)
    """
    if not callable(fun):
        raise TypeError(f"checkify needs a function, not a {type(fun).__name__}")

    @functools.wraps(fun)
    def checked(*args: Any, **kwargs: Any) -> tuple[jax_checkify.Error, Any]:
        def body_of(fun: Callable[..., Any]) -> Callable[..., Any]:
            def body(arguments: Any, named: Any) -> Any:
                return jax_checkify.checkify(fun, errors=errors)(*arguments, **named)

            return body

        if LOCAL.recorder is not None or _jax.current_trace() is not None:
            return body_of(fun)(args, kwargs)  # type: ignore[no-any-return]
        with jax.disable_jit(False):  # checkify works on what was traced
            return run_cached("checkify", (fun,), (errors,), body_of, (args, kwargs))  # type: ignore[no-any-return]

    return checked

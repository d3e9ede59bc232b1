"""Hunting NaN: which op made it, on which line, from what, and which State it reached first.

``debug_nan`` runs a function op by op. ``jit(..., debug_nans=True)``, and every compiled call while
``jax_debug_nans`` or ``jax_debug_infs`` is set, runs compiled; only when NaN comes out it is run again, op by op,
from the State as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from stategraph import _jax
from stategraph.errors import TraceError, describe
from stategraph.recording import LOCAL
from stategraph.tracing.entry import trace
from stategraph.tracing.nans import raise_if_found


def debug_nan(fn: Callable[..., Any], *args: Any, phase: str = "", **kwargs: Any) -> None:
    """Run a function op by op, and raise an error about the op that made NaN or infinity, if that reaches a
    result or a State.

    Nothing is left behind: States keep their values. Gradients are followed op by op too.

    Args:
      fn: a function or model.
      *args, **kwargs: what it is called with.
      phase: what the message begins with.

    Raises:
      NanError: names the op, the line, its operands, the trip of each loop around it, and the State that the
        value reached first.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> v = sg.State(1.)
    >>> def step(x):
    ...     v.value = v.value - x
    ...     return jnp.log(v.value)
    >>> sg.compile.debug_nan(step, 0.5)
    >>> try: sg.compile.debug_nan(step, 3.)
    ... except sg.errors.NanError as error: print(str(error).splitlines()[0])
    NaN arises in jax.log in @step, and reaches result.
    """
    if LOCAL.recorder is not None or _jax.current_trace() is not None:
        raise TraceError(
            describe(
                "debug_nan is used in code that is being traced.",
                at=_jax.here(),
                why="it runs a function op by op, on values that are not known yet",
                fix="call it outside, or compile with stategraph.compile.jit(..., debug_nans=True)",
            )
        )
    with jax.disable_jit(False), _jax.unwatched_numbers():
        traced = trace(fn, *args, **kwargs)
        states = {path: state.value for path, state in traced.trace.states.items()}
        raise_if_found(traced.trace, args, kwargs, states, phase=phase)

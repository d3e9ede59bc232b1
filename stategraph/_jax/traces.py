"""JAX's current trace: what operations go to, and what surrounds them."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from typing import Any

import jax
from jax._src import config, core
from jax._src.interpreters import ad, batching
from jax._src.interpreters import partial_eval as pe

TRACE_STATE = core.trace_state_strong_ref
"""``TRACE_STATE.value is EAGER``: operations run now. For the one path where a function call is too much."""
EAGER = core.eval_trace
DISABLE_JIT = config.disable_jit


def current_trace() -> Any | None:
    """The trace that operations go to right now; None when they run eagerly."""
    trace = core.trace_ctx.trace
    return None if trace is core.eval_trace else trace


def trace_chain(root: Any = None) -> list[Any]:
    """The current trace and those it is nested in, innermost first, down to ``root``; empty when operations
    run eagerly.

    While JAX binds a ``custom_jvp``, ``custom_vjp`` or ``shard_map`` function it puts the current trace
    aside, so the trace of that function does not know the one it is nested in. Then the chain goes on with
    the trace that is processing the call, found on the Python stack.
    """
    chain: list[Any] = []
    trace = core.trace_ctx.trace
    stack: Any = None
    while trace is not None and trace is not core.eval_trace:
        chain.append(trace)
        if trace is root:
            break
        trace = getattr(trace, "parent_trace", None)
        if (trace is None or trace is core.eval_trace) and root is not None:
            trace, stack = _processing(stack or sys._getframe(), chain)
    return chain


_CUSTOM_CALLS = {
    "process_custom_jvp_call": "self",
    "process_custom_vjp_call": "self",
    "_shard_map_staging": "trace",
}
"""JAX's functions that put the current trace aside, and what they call it."""


def _processing(frame: Any, known: Sequence[Any]) -> tuple[Any, Any]:
    """The innermost trace on the stack that processes a function with a derivative rule and is not ``known``,
    and its frame.
    """
    while frame is not None:
        if frame.f_code.co_name in _CUSTOM_CALLS:
            trace = frame.f_locals.get(_CUSTOM_CALLS[frame.f_code.co_name])
            if isinstance(trace, core.Trace) and all(trace is not other for other in known):
                return trace, frame.f_back
        frame = frame.f_back
    return None, None


def frame_of(trace: Any) -> Any | None:
    """``trace`` if it records a body, which it then identifies; None for other traces (AD, batching)."""
    return trace if isinstance(trace, pe.DynamicJaxprTrace) else None


def recording_trace() -> Any | None:
    """The innermost trace that records a body; None where nothing is recorded."""
    return next((trace for trace in trace_chain() if frame_of(trace) is not None), None)


def weak(trace: Any) -> Any:
    """A weak reference to a trace: ``weak(trace)() is trace`` while it lives. Holding traces would be a leak."""
    return trace._weakref if hasattr(trace, "_weakref") else weakref.ref(trace)


def is_batching(trace: Any) -> bool:
    return isinstance(trace, batching.BatchTrace)


def is_differentiating(trace: Any) -> bool:
    return isinstance(trace, (ad.JVPTrace, ad.LinearizeTrace))


def traced_for(frame: Any) -> str:
    """What the body of ``frame`` is traced for: ``jit``, ``scan``, ``while_body``, ``cond``, …"""
    info = frame.frame.debug_info
    return info.traced_for if info is not None else ""


def records_here() -> bool:
    """Whether the current trace, or one around it, records what is done: a value read now may be kept as a
    constant.
    """
    return recording_trace() is not None


def folds_eagerly() -> bool:
    """Whether operations on constants run at once, past the trace (``jax.ensure_compile_time_eval``)."""
    return bool(config.eager_constant_folding.value)


def under_disable_jit() -> bool:
    return bool(jax.config.jax_disable_jit)


def is_tracer(x: Any) -> bool:
    return isinstance(x, core.Tracer)


def tracer_frame(x: Any) -> Any | None:
    """The body that a tracer belongs to, None when it is no recording tracer."""
    return frame_of(x._trace) if isinstance(x, core.Tracer) else None


trace_context = jax.make_user_context(default_value=0)
"""Part of the key of JAX's trace caches: (trace number, epoch) as one int while user code is traced."""


def set_trace_context(value: int) -> None:
    """Change the context in the middle of a trace; the surrounding ``with trace_context(...)`` restores it."""
    trace_context._obj.set_local(value)

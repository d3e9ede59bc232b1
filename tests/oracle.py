"""The oracle of the tracing tests: the same code as plain eager Python, under ``jax.disable_jit()``; and three ways to run a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from stategraph.compile import jit
from stategraph.state import State
from tests.support import assert_same, interpret
from tests.support import build as build_trace

Made = tuple[Callable[..., Any], Sequence[State[Any]]]


def values(states: Sequence[State[Any]]) -> list[Any]:
    """The values of States as NumPy arrays."""
    return [jax.tree.map(np.asarray, state.value) for state in states]


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.checkpoint``, which traces even under ``disable_jit``: plain Python there."""
    return function if jax.config.jax_disable_jit else jax.checkpoint(function)


def agree(
    make: Callable[[], Made], *calls: Sequence[Any], tolerance: float = 1e-5, reference: bool = True
) -> list[Any]:
    """Check that compiled code does what plain Python does, and return what the calls gave.

    ``make()`` gives ``(function, states)``, new ones each time; ``calls`` are the argument tuples of one call
    after another.
    """
    calls = calls or ((),)
    with jax.disable_jit():
        function, states = make()
        expected = [(function(*args), values(states)) for args in calls]
    function, states = make()
    compiled = jit(function)
    for args, (result, after) in zip(calls, expected, strict=True):
        assert_same((compiled(*args), values(states)), (result, after), exact=False, tolerance=tolerance)
    results = [result for result, _ in expected]
    if not reference:
        return results
    function, states = make()
    trace = build_trace(function, *calls[0])
    result, _ = interpret(trace, *calls[0])
    assert_same(result, results[0], exact=False, tolerance=tolerance)
    return results


WAYS = ("eager", "jit", "disable_jit")


def run(way: str, call: Callable[..., Any], *args: Any) -> Any:
    """``call``, which gives nothing or arrays: eagerly (compiled and cached), inside jit, or as plain Python."""
    if way == "disable_jit":
        with jax.disable_jit():
            return call(*args)
    return (jit(lambda *a: call(*a)) if way == "jit" else call)(*args)

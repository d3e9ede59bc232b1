"""Tracebacks show the user's code, not this package's and JAX's, unless JAX is told to show all."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg

pytestmark = pytest.mark.core


def functions_in(run: Callable[[], Any]) -> list[str]:
    """The functions of the traceback that a failing call leaves, outermost first, without the test's own."""
    with pytest.raises(TypeError) as caught:
        run()
    return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][2:]


def mismatched(state: sg.State[Any]) -> Callable[[], Any]:
    def body(i: Any) -> None:
        state.value = jnp.dot(state.value, jnp.ones((4, 4)))

    def loop() -> None:
        sg.compile.for_loop(body, jnp.arange(3))

    return loop


@pytest.mark.parametrize("call", [lambda f: sg.compile.jit(f)(), lambda f: sg.trace(f), lambda f: f()])
def test_between_the_call_and_the_line_that_failed_stand_only_user_functions(
    call: Callable[..., Any],
) -> None:
    frames = functions_in(lambda: call(mismatched(sg.State(jnp.zeros(3)))))
    assert "loop" in frames and frames.index("body") == frames.index("loop") + 1
    assert "trace_flat" not in frames and "scan" not in frames


def test_all_frames_are_there_when_jax_is_told_to_show_them() -> None:
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    try:
        frames = functions_in(lambda: sg.compile.jit(mismatched(sg.State(jnp.zeros(3))))())
    finally:
        jax.config.update("jax_traceback_filtering", before)
    assert "trace_flat" in frames and "body" in frames


def test_the_error_behind_an_error_of_stategraph_is_short_too() -> None:
    state = sg.State(jnp.zeros(3))

    def branching() -> None:
        if state.value.sum() > 0:
            state.value = jnp.ones(3)

    with pytest.raises(sg.errors.ConcretizationError) as caught:
        sg.compile.jit(branching)()
    cause = caught.value.__cause__
    assert cause is not None
    assert [frame.name for frame in traceback.extract_tb(cause.__traceback__)] == ["branching"]

"""Calls that cannot be made, and what the errors say."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import _jax
from stategraph.errors import CallError
from tests.compile.counting import increment


@pytest.mark.core
@pytest.mark.parametrize("kind", ["pure", "io", "debug"])
def test_a_callback_that_raises_leaves_the_model_usable(kind: str) -> None:
    s, t = sg.State(jnp.zeros(3)), sg.State(jnp.zeros(3))
    fail = [False]

    def look(x: Any) -> Any:
        if fail[0]:
            raise RuntimeError("from the callback")
        return np.asarray(x)

    @sg.compile.jit
    def step() -> Any:
        s.value = s.value + 1
        shape = jax.ShapeDtypeStruct((3,), jnp.float32)
        if kind == "pure":
            y = jax.pure_callback(look, shape, s.value)
        elif kind == "io":
            y = jax.experimental.io_callback(look, shape, s.value, ordered=True)
        else:
            jax.debug.callback(look, s.value)
            y = s.value
        t.value = t.value + y
        return y

    other = sg.compile.jit(lambda: setattr(s, "value", s.value * 1 + 1))
    step()
    other()
    other()
    before = float(s.value[0])
    fail[0] = True
    with pytest.raises(Exception):  # noqa: B017 - JAX chooses the class
        jax.block_until_ready(step())
        jax.block_until_ready((s.value, t.value))
        jax.effects_barrier()
    fail[0] = False
    after = float(s.value[0])
    assert after in (before, before + 1)
    float(t.value[0])
    step()
    other()
    jax.effects_barrier()
    assert float(s.value[0]) == after + 2


def test_jax_forgets_programs_that_failed_and_keeps_those_that_run() -> None:
    """Where calls return before their callbacks ran, it would raise their errors at every barrier."""
    from jax._src.dispatch import runtime_tokens

    class Token:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def block_until_ready(self) -> None:
            if self.fails:
                raise RuntimeError("from the callback")

    kept, failed = Token(False), Token(True)
    jax.effects_barrier()
    runtime_tokens.current_tokens.update(ours=kept, theirs=failed)
    runtime_tokens.output_runtime_tokens.update(ours=failed, theirs=kept)
    try:
        with pytest.raises(RuntimeError, match="from the callback"):
            jax.effects_barrier()
        _jax.forget_failed_effects()
        assert runtime_tokens.current_tokens == {"ours": kept}
        assert runtime_tokens.output_runtime_tokens == {"theirs": kept}
        jax.effects_barrier()
    finally:
        runtime_tokens.clear()


def test_a_call_that_fails_after_donation_says_which_one_and_a_new_value_cures_it() -> None:
    s = sg.State(jnp.zeros(3), name="lost")
    step = increment(s)
    step()
    step()
    (made,) = next(iter(step.plans.plans.values()))
    real = made.jitted

    def broken(donated: Any, *rest: Any) -> Any:
        real(donated, *rest)
        raise KeyboardInterrupt

    made.jitted = broken
    made.run = made._runner()
    with pytest.raises(KeyboardInterrupt):
        step()
    made.jitted = real
    made.run = made._runner()
    for use in (lambda: s.value, step, lambda: repr(s.value)):
        with pytest.raises(CallError) as error:
            use()
        text = str(error.value)
        assert (
            "created at" in text
            and "test_call_errors.py" in text
            and "failed (KeyboardInterrupt)" in text
            and "fix:" in text
        )
        assert "deleted" not in text
    repr(s)
    s.value = jnp.zeros(3)
    step()
    assert float(s.value[0]) == 1


def test_a_refused_call_changes_nothing() -> None:
    s = sg.State(jnp.zeros(3))
    step = sg.compile.jit(lambda x: setattr(s, "value", s.value + x))
    step(1.0)
    for bad in ("text", jnp.ones((2, 2)), object()):
        with pytest.raises(Exception):  # noqa: B017 - whatever tracing says
            step(bad)
    step(1.0)
    assert np.allclose(s.value, 2)


def test_a_callback_may_read_the_model_while_the_program_runs() -> None:
    s, t = sg.State(jnp.zeros(3)), sg.State(jnp.full(3, 5.0))
    touch = increment(t)
    touch()
    touch()  # t is owned by the runtime now
    seen: list[float] = []

    @sg.compile.jit
    def step() -> None:
        s.value = s.value + 1
        jax.experimental.io_callback(lambda: seen.append(float(t.value[0])), None, ordered=True)

    done = threading.Thread(target=lambda: (step(), jax.effects_barrier()))
    done.start()
    done.join(30)
    assert not done.is_alive() and seen == [7.0]


def test_programs_with_callbacks_and_donating_programs_share_states_on_two_threads() -> None:
    s = sg.State(jnp.zeros(1000))
    seen: list[float] = []
    problems: list[Any] = []

    @sg.compile.jit
    def watch() -> Any:
        jax.debug.callback(lambda x: seen.append(float(x[0])), s.value)
        return s.value[0]

    step = increment(s)

    def run(call: Any) -> None:
        try:
            for _ in range(150):
                jax.block_until_ready(call())
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in (watch, step, step)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    jax.effects_barrier()
    assert not problems
    assert float(s.value[0]) == 300 and len(seen) == 150

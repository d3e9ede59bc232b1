"""Settings: lookup, contexts, what compiled functions notice, and what may not be set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import environ
from stategraph.errors import TraceError


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    environ.reset()
    yield
    environ.reset()


# -------------------------------------------------------------------------------------------------- lookup


def test_set_get_pop_all_reset() -> None:
    environ.set(dt=0.1, learning_rate=0.01)
    assert environ.get("dt") == environ.get(environ.DT) == environ.get_dt() == 0.1
    assert environ.all() == {"dt": 0.1, "learning_rate": 0.01, "precision": 32}
    assert environ.pop("learning_rate") == 0.01
    assert environ.pop("learning_rate", None) is None
    assert environ.get("learning_rate", 5) == 5
    environ.reset()
    assert environ.all() == {"precision": 32}


def test_a_missing_setting_says_how_to_set_it() -> None:
    with pytest.raises(KeyError) as caught:
        environ.get_dt()
    text = str(caught.value)
    assert "'dt' (the time step) is not set" in text
    assert "stategraph.environ.set(dt=0.1)" in text and "with stategraph.environ.context(dt=0.1):" in text
    with pytest.raises(environ.EnvironError, match=r"'rate' \(of learning\)"):
        environ.get("rate", desc="of learning")
    with pytest.raises(environ.EnvironError, match="not set"):
        environ.pop("rate")


def test_contexts_nest_and_end() -> None:
    environ.set(dt=0.1)
    with environ.context(dt=0.2, t=1.0) as settings:
        assert dict(settings) == {"dt": 0.2, "t": 1.0, "precision": 32}
        with environ.context(dt=0.3):
            assert environ.get_dt() == settings["dt"] == 0.3
            with pytest.raises(ValueError, match="open context"):
                environ.pop("dt")
        assert environ.get_dt() == 0.2
    assert environ.get_dt() == 0.1 and environ.get("t", None) is None
    with pytest.raises(ZeroDivisionError), environ.context(dt=0.4):
        raise ZeroDivisionError
    assert environ.get_dt() == 0.1
    for key in ("platform", "host_device_count"):
        with pytest.raises(ValueError, match="whole process"), environ.context(**{key: "cpu"}):
            pass


def test_contexts_belong_to_their_thread_and_settings_to_all() -> None:
    seen: list[Any] = []
    environ.set(dt=0.1)
    with environ.context(dt=0.2):
        thread = threading.Thread(target=lambda: seen.append(environ.get_dt()))
        thread.start()
        thread.join()
    assert seen == [0.1]


def test_an_environment_of_ones_own() -> None:
    mine = environ.EnvironmentState()
    environ.set(dt=0.1)
    environ.set(dt=0.5, env=mine)
    with environ.context(t=3, env=mine):
        assert environ.get("t", env=mine) == 3 and environ.get("t", None) is None
    assert environ.get_dt(env=mine) == 0.5 and environ.get_dt() == 0.1
    environ.reset(env=mine)
    assert environ.get("dt", None, env=mine) is None and environ.get_dt() == 0.1


def test_registered_behaviours() -> None:
    told: list[Any] = []
    environ.register_default_behavior("gain", told.append)
    try:
        environ.set(gain=1)
        with environ.context(gain=2):
            pass
        assert told == [1, 2, 1]
        with pytest.raises(ValueError, match="replace_if_exist"):
            environ.register_default_behavior("gain", print)
        environ.register_default_behavior("gain", lambda value: told.append(-value), replace_if_exist=True)
        environ.set(gain=3)
        assert told[-1] == -3 and environ.list_registered_behaviors() == ["gain"]
        with pytest.raises(TypeError):
            environ.register_default_behavior("other", 3)  # type: ignore[arg-type]
    finally:
        assert environ.unregister_default_behavior("gain")
    assert not environ.unregister_default_behavior("gain")


def test_an_environment_begins_with_settings_and_functions() -> None:
    told: list[Any] = []
    apart = environ.EnvironmentState({"gain": 1}, functions={"gain": told.append})
    environ.set(gain=2, env=apart)
    with environ.context(gain=3, env=apart):
        assert environ.get("gain", env=apart) == 3
    assert told == [1, 2, 3, 2]
    assert (
        environ.list_registered_behaviors(env=apart) == ["gain"] and not environ.list_registered_behaviors()
    )


def test_a_behaviour_that_fails_leaves_no_context_behind() -> None:
    def fails(value: Any) -> None:
        if value == 2:
            raise RuntimeError

    environ.register_default_behavior("gain", fails)
    try:
        with pytest.raises(RuntimeError), environ.context(gain=2):
            pass
        assert environ.get("gain", None) is None
    finally:
        environ.unregister_default_behavior("gain")


# -------------------------------------------------------------------------- what compiled functions notice


@pytest.mark.core
def test_a_compiled_function_follows_the_time_step() -> None:
    step = sg.compile.jit(lambda x: x * environ.get_dt())
    environ.set(dt=0.5)
    assert step(2.0) == 1.0
    environ.set(dt=0.25)
    assert step(2.0) == 0.5 and step.trace_count == 2
    environ.set(dt=0.5)
    assert step(2.0) == 1.0 and step.trace_count == 2
    with environ.context(dt=2.0):
        assert step(2.0) == 4.0 and step.trace_count == 3
    assert step(2.0) == 1.0 and step.trace_count == 3
    with environ.context(dt=2.0):
        assert step(2.0) == 4.0 and step.trace_count == 3


def test_eager_loops_and_gradients_follow_too() -> None:
    def f(x: Any) -> Any:
        return x * environ.get_dt()

    for dt in (0.5, 0.25, 0.5):
        with environ.context(dt=dt):
            np.testing.assert_array_equal(sg.compile.for_loop(f, jnp.ones(2)), [dt, dt])
            assert sg.augment.grad(f)(1.0) == dt


def test_absent_settings_and_defaults_are_noticed() -> None:
    f = sg.compile.jit(lambda: jnp.asarray(environ.get("gain", 1.0)))
    g = sg.compile.jit(lambda: len(environ.all()) + jnp.zeros(()))
    assert f() == 1.0 and g() == 1
    environ.set(gain=3.0)
    assert f() == 3.0 and g() == 2
    environ.pop("gain")
    assert f() == 1.0 and g() == 1
    assert f.trace_count == 2 and g.trace_count == 2


def test_all_settings_are_read_inside_a_context_of_the_traced_function() -> None:
    def settings(x: Any) -> Any:
        with environ.context(t=x) as found:
            every = environ.all()
            return every["t"] * len(every) + 0.0 * len(found)

    f = sg.compile.jit(settings)
    loop = sg.compile.jit(lambda: sg.compile.for_loop(settings, jnp.arange(2.0)))
    assert f(2.0) == 4.0 and f(3.0) == 6.0 and loop().tolist() == [0.0, 2.0]
    with environ.context(t=1.0, gain=1.0):
        assert f(2.0) == 6.0 and loop().tolist() == [0.0, 3.0]
    assert f(2.0) == 4.0 and f.trace_count == 2


@pytest.mark.parametrize(
    "a, b", [(1, True), (0.0, -0.0), (1, 1.0), ("x", "y"), (np.float32(1), np.float32(2))]
)
def test_values_count_by_type_and_content(a: Any, b: Any) -> None:
    seen: list[Any] = []
    f = sg.compile.jit(lambda: (seen.append(environ.get("v")), jnp.zeros(()))[1])
    for value in (a, b, a, b):
        with environ.context(v=value):
            f()
    assert [(type(v), repr(v)) for v in seen] == [(type(v), repr(v)) for v in (a, b)]


def test_small_arrays_count_by_content_and_nan_is_nan() -> None:
    f = sg.compile.jit(lambda: jnp.asarray(environ.get("v")) + 0)
    for _ in range(3):
        for value in (jnp.arange(3.0), np.arange(3.0), jnp.ones(3), float("nan")):
            with environ.context(v=value):
                np.testing.assert_array_equal(f(), value)
    assert f.trace_count == 4


def test_unrelated_settings_do_not_cost_anything() -> None:
    from stategraph.recording import EPOCHS

    mine = environ.EnvironmentState()
    f = sg.compile.jit(lambda x: x * environ.get_dt(env=mine))
    environ.set(dt=1.0, env=mine)
    f(1.0)
    before = EPOCHS.structure
    environ.set(colour="red", dt=1.0, env=mine)
    with environ.context(shape="round", dt=1.0, env=mine):
        f(1.0)
    assert EPOCHS.structure == before and f.trace_count == 1


def test_threads_with_different_contexts_share_a_compiled_function() -> None:
    f = sg.compile.jit(lambda: jnp.asarray(environ.get_dt()))
    environ.set(dt=0.5)
    f()
    entered, called = threading.Event(), threading.Event()
    seen: list[float] = []

    def other() -> None:
        with environ.context(dt=0.25):
            entered.set()
            called.wait(10)
            seen.append(float(f()))

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    assert f() == 0.5
    called.set()
    thread.join()
    assert seen == [0.25]


# ------------------------------------------------------------------------------------------- traced values


@pytest.mark.core
def test_the_time_of_a_step_is_an_ordinary_value() -> None:
    def run(xs: Any) -> Any:
        def step(i: Any, x: Any) -> Any:
            with environ.context(i=i, t=i * environ.get_dt()):
                return i + 1, x * environ.get("t") + environ.get("i")

        return jax.lax.scan(step, 0, xs)[1]

    environ.set(dt=0.5)
    compiled = sg.compile.jit(run)
    xs = jnp.arange(4.0)
    np.testing.assert_allclose(compiled(xs), [x * i * 0.5 + i for i, x in enumerate(range(4))])
    with jax.disable_jit():
        np.testing.assert_allclose(run(xs), compiled(xs))
    assert environ.get("t", None) is None
    environ.set(t=7.0, i=3)  # settings of the same name outside do not matter
    compiled(xs)
    assert compiled.trace_count == 1
    environ.set(dt=1.0)
    np.testing.assert_allclose(compiled(xs), [x * i + i for i, x in enumerate(range(4))])


def test_inner_jitted_functions_see_the_context_around_them() -> None:
    inner = jax.jit(lambda x: x * environ.get("t"))

    @sg.compile.jit
    def f(x: Any) -> Any:
        parts = []
        for t in (1.0, 2.0, x):
            with environ.context(t=t):
                parts.append(inner(x))
        return parts

    assert [float(v) for v in f(3.0)] == [3.0, 6.0, 9.0]


def test_a_context_inside_of_a_trace_is_no_dependency() -> None:
    def f(x: Any) -> Any:
        with environ.context(dt=0.5):
            return x * environ.get_dt()

    compiled = sg.compile.jit(f)
    for dt in (1.0, 2.0, 3.0):
        environ.set(dt=dt)
        assert compiled(1.0) == 0.5
    assert compiled.trace_count == 1


def test_a_traced_value_cannot_become_a_global_setting() -> None:
    for compile in (sg.compile.jit, jax.jit):
        with pytest.raises(TraceError, match=r"context\(t=t\)"):
            compile(lambda t: environ.set(t=t))(1.0)
        with pytest.raises(TraceError, match="global setting 'points'"):
            compile(lambda t: environ.set(points={"a": t}))(1.0)
    assert environ.get("t", None) is None


def test_nothing_of_a_failed_trace_stays() -> None:
    def f(t: Any) -> None:
        with environ.context(t=t):
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        sg.compile.jit(f)(1.0)
    assert environ.get("t", None) is None and not environ.EnvironmentState().contexts


def test_setting_in_traced_code_happens_while_tracing() -> None:
    def f() -> Any:
        before = environ.get("gain", 1.0)
        environ.set(other=2.0)
        return jnp.asarray(before * environ.get("other"))

    compiled = sg.compile.jit(f)
    assert compiled() == 2.0 and environ.get("other") == 2.0
    environ.set(other=3.0)
    assert compiled() == 2.0  # traced again, which sets it again
    assert environ.get("other") == 2.0


def test_an_environment_begins_with_settings_that_are_checked() -> None:
    mine = environ.EnvironmentState({"dt": 0.5, "colour": "red"})
    assert environ.all(env=mine)["colour"] == "red" and environ.get_dt(env=mine) == 0.5
    with pytest.raises(ValueError):
        environ.EnvironmentState({"precision": 12})

"""The stages of a compiled function, and the States that its program has."""

from __future__ import annotations

import copy
import threading
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.backends.xla import Executable
from stategraph.errors import CallError
from tests.compile.models import Net

# ----------------------------------------------------------------------------------------------------- stages


@pytest.mark.core
def test_a_jitted_function_shows_its_stages() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x))
    shape = step.eval_shape(jax.ShapeDtypeStruct((3,), jnp.float32))
    assert shape.shape == (3,) and shape.dtype == jnp.float32
    assert int(net.count.value) == 0
    assert "net.w" in step.trace(jnp.ones(3)).program.states
    assert step.lower(jnp.ones(3)).program.functional
    compiled = step.compile(jnp.ones(3))
    assert np.allclose(compiled(jnp.ones(3)), 6.5)
    assert int(net.count.value) == 1
    assert any("net.count" in str(record) for record in step.explain(jnp.ones(3)))


def test_passes_and_exactness_are_options() -> None:
    s = sg.State(1.0)
    f = lambda x: s.value * x + s.value * x
    plain = sg.compile.jit(f, passes="inline-calls,hoist-state,forward-state,eliminate-local-state")
    default = sg.compile.jit(f)
    assert len(list(plain.lower(2.0).program.walk("jax.mul"))) == 2
    assert len(list(default.lower(2.0).program.walk("jax.mul"))) == 1
    assert float(plain(2.0)) == float(default(2.0)) == 4
    assert float(sg.compile.jit(f, exactness="exact")(2.0)) == 4
    with pytest.raises(Exception, match="no-such-pass"):
        sg.compile.jit(f, passes="no-such-pass")(2.0)


def test_jit_is_a_decorator_with_and_without_options_and_keeps_the_names() -> None:
    @sg.compile.jit
    def one(x: Any) -> Any:
        """One."""
        return x

    @sg.compile.jit(static_argnums=0)
    def two(n: int) -> Any:
        return jnp.zeros(n)

    assert one.__name__ == "one" and one.__doc__ == "One." and "one" in repr(one)
    assert two(3).shape == (3,)
    with pytest.raises(TypeError):
        sg.compile.jit(3)  # type: ignore[arg-type]


def test_jit_inside_jit_is_part_of_the_outer_program() -> None:
    s = sg.State(1.0)
    inner = sg.compile.jit(lambda x: (setattr(s, "value", s.value + x), s.value)[1])
    outer = sg.compile.jit(lambda x: inner(x) * inner(x))
    assert float(outer(1.0)) == 6 and float(s.value) == 3
    assert inner.trace_count == 0


def test_a_program_is_named_as_was_said_copies_and_methods_too() -> None:
    class Net(sg.nn.Module):
        @sg.compile.jit(name="advance")
        def step(self, x: Any) -> Any:
            return x + 1

    named = sg.compile.jit(fun=lambda x: x, name="identity")
    assert named.trace(1.0).program.name == copy.copy(named).trace(1.0).program.name == "identity"
    assert Net().step.trace(1.0).program.name == "advance"


def test_options_of_jax_that_are_none_here_say_what_to_write() -> None:
    f = sg.compile.jit(jnp.sin, keep_unused=False, inline=False, device=None, backend=None)
    assert f.origin_fun is jnp.sin
    for option, fix in {
        "keep_unused": "leave it out",
        "inline": "leave it out",
        "backend": "in_shardings",
    }.items():
        with pytest.raises(TypeError, match=f"no option {option}(.|\n)*{fix}"):
            sg.compile.jit(jnp.sin, **{option: "cpu"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'in_line'"):
        sg.compile.jit(jnp.sin, in_line=True)
    with pytest.raises(AttributeError, match=r"\.compile\(\*args\)"):
        f.jitted_fun
    assert not hasattr(f, "no_such_thing")


def test_clear_cache_forgets_programs() -> None:
    f = sg.compile.jit(lambda x: x)
    f(1.0)
    f.clear_cache()
    f(1.0)
    assert f.trace_count == 2


# -------------------------------------------------------------------------------------- States of the program


@pytest.mark.core
def test_captured_arrays_are_operands_not_constants() -> None:
    big = jnp.arange(1000.0)
    f = sg.compile.jit(lambda x: (big * x).sum())
    assert float(f(2.0)) == 999000
    program = f.trace(2.0).program
    assert list(program.captured) == ["big"]
    assert f.lower(2.0).signature.names("captured") == ["big"]
    assert "1.0" not in program.to_text(locations=False)


def test_states_are_named_by_path_name_or_line() -> None:
    net = Net()
    named = [sg.State(0.0, name="alone")]

    def f(x: Any, extra: Any = named) -> Any:
        return net(x) + extra[0].value

    assert {"net.w", "net.count", "net.layers[0]", "net.table.a"} <= set(sg.trace(f, 1.0).program.states)
    assert {"w", "count"} <= set(sg.trace(net, 1.0).program.states)


def test_two_python_names_of_one_state_are_one_symbol() -> None:
    s = sg.State(1.0)
    t = s

    def f() -> Any:
        s.value = s.value + 1
        t.value = t.value * 2
        return s.value

    assert len(sg.trace(f).program.states) == 1
    assert float(sg.compile.jit(f)()) == 4


def test_a_state_of_one_trace_used_in_another_is_a_clear_error() -> None:
    kept: list[Any] = []
    sg.compile.jit(lambda x: kept.append(sg.State(x)))(1.0)
    with pytest.raises(sg.errors.StateAccessError) as error:
        sg.compile.jit(lambda: kept[0].value)()
    assert "created inside a trace" in str(error.value) and "fix:" in str(error.value)
    with pytest.raises(sg.errors.StateAccessError, match="created inside a trace"):
        kept[0].value


def test_reading_while_another_thread_runs_compiled_calls() -> None:
    s = sg.State({"a": jnp.zeros(1000), "b": jnp.zeros(1000)})

    @sg.compile.jit
    def step() -> None:
        s.value = {"a": s.value["a"] + 1, "b": s.value["b"] + 1}

    step()
    stop = threading.Event()
    problems: list[Any] = []

    def reader() -> None:
        while not stop.is_set():
            try:
                value = s.value
                if float(value["a"][0]) != float(value["b"][-1]):
                    problems.append("torn")
            except Exception as error:
                problems.append(error)
                return

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        step()
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert float(s.value["a"][0]) == 301


@pytest.mark.core
def test_two_compiled_functions_share_states_on_two_threads() -> None:
    s, t = sg.State(jnp.zeros(100)), sg.State(jnp.zeros(100))
    one = sg.compile.jit(
        lambda: (setattr(s, "value", s.value + 1), setattr(t, "value", t.value + s.value[0] * 0 + 1))[0]
    )
    two = sg.compile.jit(lambda x: setattr(s, "value", s.value + x))
    problems: list[Any] = []

    def run(call: Any) -> None:
        try:
            for _ in range(200):
                call()
        except Exception as error:
            problems.append(error)

    threads = [
        threading.Thread(target=run, args=(c,)) for c in (one, lambda: two(2.0), one, lambda: two(2.0))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert np.allclose(s.value, 2 * 200 + 2 * 2 * 200) and np.allclose(t.value, 400)


def test_compiling_on_one_thread_does_not_stop_calls_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    s, t = sg.State(0.0), sg.State(0.0)
    quick = sg.compile.jit(lambda: setattr(s, "value", s.value + 1))
    quick()
    begun, done, waited = threading.Event(), threading.Event(), []
    jit_of = Executable.jit.fget  # type: ignore[attr-defined]

    class Slow:
        """A function for which XLA needs until another thread has made a call."""

        def __init__(self, jitted: Any) -> None:
            self.jitted = jitted
            self.compiled = False

        def trace(self, *args: Any, **kwargs: Any) -> Any:
            self.compile()
            return self.jitted.trace(*args, **kwargs)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.compile()
            return self.jitted(*args, **kwargs)

        def compile(self) -> None:
            if not self.compiled:
                begun.set()
                waited.append(done.wait(10))
                self.compiled = True

    monkeypatch.setattr(Executable, "jit", property(lambda self: Slow(jit_of(self))))
    slow = sg.compile.jit(lambda: setattr(t, "value", t.value + 2))
    thread = threading.Thread(target=slow)
    thread.start()
    assert begun.wait(60)
    quick()
    assert float(s.value) == 2
    done.set()
    thread.join()
    assert waited == [True] and float(t.value) == 2


def test_a_first_call_compiles_once(caplog: pytest.LogCaptureFixture) -> None:
    s = sg.State(jnp.zeros(3))
    call = sg.compile.jit(lambda x, y: (setattr(s, "value", s.value * x + y), y * 2)[1], donate_argnames="y")
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for _ in range(3):
            call(2.0, jnp.ones(3))
    compilations = [text for text in caplog.messages if "Finished XLA compilation of jit(call)" in text]
    assert len(compilations) == 1, caplog.messages


def test_xla_is_given_one_function_without_arguments_that_nobody_uses() -> None:
    s, x = sg.State(jnp.zeros(3)), jnp.arange(3.0)

    def step(x: Any, unused: Any) -> Any:
        s.value = s.value + x
        return jnp.sin(x)

    lowered = sg.compile.jit(step, donate_argnums=1).lower(x, jnp.ones(5))
    text = lowered.as_text("stablehlo")
    assert text.count("func.func") == 1 and "tensor<5xf32>" not in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a donated argument that nobody uses JAX says nothing
        compiled = lowered.compile()
    assert "jit(step)/sin" in compiled.as_text("hlo")
    np.testing.assert_array_equal(compiled(x, jnp.ones(5)), jnp.sin(x))
    np.testing.assert_array_equal(s.value, x)


def test_a_compiled_function_says_when_it_changes_what_it_depends_on() -> None:
    class Model(sg.Node):
        def __init__(self) -> None:
            self.__dict__["sneaky"] = 1

    model = Model()

    def f() -> Any:
        value = model.sneaky
        model.__dict__["sneaky"] = value + 1
        return jnp.zeros(value)

    with pytest.raises(CallError, match="keep what changes in a State"):
        sg.compile.jit(f)()


def test_a_model_that_holds_a_compiled_function_is_copied_with_it() -> None:
    class Counter(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n = sg.State(jnp.zeros(()))
            self.step = sg.compile.jit(self.add, static_argnums=0)

        def add(self, by: int) -> Any:
            self.n.value += by
            return self.n.value

    model = Counter()
    assert float(model.step(2)) == 2.0
    other = copy.deepcopy(model)
    assert float(other.step(3)) == 5.0 and float(other.n.value) == 5.0
    assert float(model.n.value) == 2.0 and float(model.step(1)) == 3.0

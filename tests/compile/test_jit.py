"""``compile.jit``: when it traces, what it notices, how arguments are treated."""

from __future__ import annotations

import copy
import functools
import gc
import threading
import warnings
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.backends.xla import Executable
from stategraph.errors import CallError, TraceError

XS = jnp.arange(4, dtype=jnp.float32) + 1


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.ones(3))
        self.count = sg.State(0)
        self.rate = 0.5
        self.layers = [sg.State(1.0), sg.State(2.0)]
        self.table = {"a": sg.State(3.0)}
        self.sizes = (1, 2)

    def update(self, x: Any) -> Any:
        self.count.value += 1
        total = sum(s.value for s in self.layers) + self.table["a"].value
        return self.w.value * x * self.rate + total * self.sizes[0]


# -------------------------------------------------------------------------------------------------- retracing


@pytest.mark.core
def test_calls_with_the_same_types_trace_once() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x))
    for k in range(5):
        step(float(k))
    assert step.trace_count == 1 and int(net.count.value) == 5


@pytest.mark.core
def test_alternating_shapes_do_not_retrace() -> None:
    s = sg.State(jnp.zeros(3))
    step = sg.compile.jit(lambda x: (setattr(s, "value", s.value + x.sum()), x * 2)[1])
    for _ in range(4):
        for n in (1, 2, 3):
            assert step(jnp.ones(n)).shape == (n,)
    assert step.trace_count == 3
    assert np.allclose(s.value, 4 * 6)


def test_alternating_state_types_do_not_retrace() -> None:
    s = sg.State(jnp.zeros(2))
    step = sg.compile.jit(lambda: s.value.sum())
    for _ in range(3):
        for n in (2, 5):
            s.value = jnp.ones(n)
            assert float(step()) == n
        s.value = {"a": jnp.ones(3)}
        with pytest.raises(AttributeError):
            step()
    assert step.trace_count == 2 + 3


def test_alternating_structures_of_arguments_and_states_do_not_retrace() -> None:
    s = sg.State({"a": jnp.ones(2)})
    step = sg.compile.jit(lambda t: sum(jax.tree.leaves(t)) + sum(x.sum() for x in jax.tree.leaves(s.value)))
    for _ in range(3):
        s.value = {"a": jnp.ones(2)}
        assert float(step({"p": 1.0})) == 3 and float(step([1.0, 2.0])) == 5
        s.value = [jnp.ones(2), jnp.ones(2)]
        assert float(step({"p": 1.0})) == 5 and float(step([1.0, 2.0])) == 7
    assert step.trace_count == 4


def test_weak_and_strong_arguments_are_different_programs_as_in_jax() -> None:
    step = sg.compile.jit(lambda x: x * jnp.bfloat16(2))
    reference = jax.jit(lambda x: x * jnp.bfloat16(2))
    for x in (1.0, jnp.float32(1), 1, np.float32(1), True):
        assert step(x).dtype == reference(x).dtype


@pytest.mark.core
def test_an_attribute_set_every_step_does_not_retrace() -> None:
    net = Net()

    @sg.compile.jit
    def step(x: Any) -> Any:
        net.unused_inside = 1
        return net(x)

    for k in range(6):
        net.steps = k
        net.note = [k]
        other = Net()
        other.w = sg.State(1.0)
        step(1.0)
    assert step.trace_count == 1


@pytest.mark.core
def test_setting_an_attribute_that_was_read_is_noticed_and_its_old_value_found_again() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x).sum())
    seen = []
    for rate in (0.5, 1.0, 0.5, 1.0):
        net.rate = rate
        seen.append(float(step(2.0)))
    assert seen == [21, 24, 21, 24]
    assert step.trace_count == 2


@pytest.mark.core
def test_a_replaced_state_is_noticed() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x))
    step(1.0)
    old = net.count
    net.count = sg.State(100)
    step(1.0)
    assert int(net.count.value) == 101 and int(old.value) == 1
    net.w = sg.ParamState(jnp.full(3, 5.0))
    assert np.allclose(step(1.0), 2.5 + 6)


@pytest.mark.core
@pytest.mark.parametrize("change", ["append", "item", "dict item", "dict new", "delete", "tuple", "nested"])
def test_changes_of_lists_dicts_and_tuples_of_nodes_are_noticed(change: str) -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x).sum())
    assert float(step(2.0)) == 3 + 18
    if change == "append":
        net.layers.append(sg.State(10.0))
    elif change == "item":
        net.layers[0] = sg.State(11.0)
    elif change == "dict item":
        net.table["a"] = sg.State(13.0)
    elif change == "dict new":
        net.table = {"a": sg.State(13.0)}
    elif change == "delete":
        del net.layers[0]
    elif change == "tuple":
        net.sizes = (5, 2)
    else:
        net.layers = [*net.layers, sg.State(10.0)]
    expected = {
        "append": 16,
        "item": 16,
        "dict item": 16,
        "dict new": 16,
        "delete": 5,
        "tuple": 30,
        "nested": 16,
    }[change]
    assert float(step(2.0)) == 3 + 3 * expected


def test_a_deleted_attribute_falls_back_to_the_class_and_is_noticed() -> None:
    class Model(sg.Node):
        rate = 7.0

    model = Model()
    step = sg.compile.jit(lambda: jnp.float32(model.rate))
    assert float(step()) == 7
    model.rate = 8.0
    assert float(step()) == 8
    del model.rate
    assert float(step()) == 7


def test_equal_tuples_assigned_every_step_do_not_retrace() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x))
    for _ in range(3):
        net.sizes = tuple([1, 2])
        net.rate = float("0.5")
        step(1.0)
    assert step.trace_count == 1


def test_one_and_true_and_zero_and_minus_zero_are_different_settings() -> None:
    net = Net()
    net.rate = 0.0
    step = sg.compile.jit(
        lambda: jnp.copysign(1.0, jnp.float32(net.rate)) if isinstance(net.rate, float) else net.rate
    )
    assert float(step()) == 1
    net.rate = -0.0
    assert float(step()) == -1
    net.rate = 1
    assert step().dtype == jnp.int32
    net.rate = True
    assert step().dtype == jnp.bool_
    net.layers = [1]
    listed = sg.compile.jit(lambda: jnp.asarray(net.layers[0]).dtype.itemsize)
    assert int(listed()) == 4
    net.layers[0] = True
    assert int(listed()) == 1


def test_arrays_in_lists_of_nodes_may_be_replaced() -> None:
    class Model(sg.Node):
        def __init__(self) -> None:
            self.arrays = [np.ones(3), jnp.ones(2)]

    model = Model()
    step = sg.compile.jit(lambda: model.arrays[0].sum() + model.arrays[1].sum())
    assert float(step()) == 5
    model.arrays[0] = np.full(3, 2.0)
    assert float(step()) == 8
    model.arrays[1] = jnp.full(2, 3.0)
    assert float(step()) == 12


@pytest.mark.core
def test_states_found_by_walking_the_model_are_noticed() -> None:
    """``model.states()`` in the traced code looks at every attribute without reading one by name."""

    class Model(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = sg.ParamState(1.0)
            self.sub = Net()

    model = Model()
    step = sg.compile.jit(lambda: sum(s.value.sum() for s in model.states(sg.ParamState).values()))
    assert float(step()) == 4
    model.b = sg.ParamState(10.0)
    assert float(step()) == 14
    model.sub.extra = [sg.ParamState(100.0)]
    assert float(step()) == 114
    model.sub.extra.append(sg.ParamState(1000.0))
    assert float(step()) == 1114
    count = step.trace_count
    for k in range(3):
        model.steps = k
        model.sub.note = str(k)
        step()
    assert step.trace_count == count


def test_a_model_given_as_argument_is_static_by_identity() -> None:
    @sg.compile.jit
    def step(net: Any, x: Any) -> Any:
        return net(x)

    one, two = Net(), Net()
    for _ in range(3):
        step(one, 1.0)
        step(two, x=1.0)
    assert step.trace_count == 2
    assert int(one.count.value) == int(two.count.value) == 3
    program = step.trace(one, 1.0).program
    assert "net.w" in program.states


@pytest.mark.core
def test_a_jitted_method_is_compiled_per_object() -> None:
    class Model(Net):
        @sg.compile.jit
        def step(self, x: Any) -> Any:
            return self.update(x)

        @sg.compile.jit(static_argnames="twice", donate_argnums=1)
        def scaled(self, x: Any, twice: bool) -> Any:
            return self.w.value * x * (2 if twice else 1)

    one, two = Model(), Model()
    assert "layers[0]" in one.step.trace(1.0).program.states
    for _ in range(3):
        one.step(1.0)
    two.step(1.0)
    assert int(one.count.value) == 3 and int(two.count.value) == 1
    assert one.step.trace_count == 2  # .trace() above is one
    assert np.allclose(one.scaled(jnp.ones(3), True), 2) and np.allclose(
        one.scaled(jnp.ones(3), twice=False), 1
    )


def test_a_compiled_method_keeps_its_object_as_bound_methods_do() -> None:
    traced = []

    class Model(Net):
        @sg.compile.jit
        def step(self, x: Any) -> Any:
            traced.append(x)
            return self.update(x)

    model = Model()
    seen = weakref.ref(model)
    step = model.step
    assert step == model.step and hash(step) == hash(model.step) and step != Model().step
    step(1.0)
    del model
    gc.collect()
    assert step.__self__ is seen() and np.allclose(copy.copy(step)(1.0), step(1.0)) and len(traced) == 2
    del step
    gc.collect()
    assert seen() is None
    assert Model().step(1.0).shape == (3,) and len(traced) == 3

    model = Model()
    for _ in range(3):
        sg.compile.for_loop(model.step, jnp.ones(4))
    assert len(traced) == 4, "the loop knows the method again"


# -------------------------------------------------------------------------------------------------- arguments


@pytest.mark.core
@pytest.mark.parametrize(
    "declared", [{"static_argnums": 1}, {"static_argnames": "mode"}, {"static_argnums": -2}]
)
def test_static_arguments_by_position_and_name_follow_jax(declared: dict[str, Any]) -> None:
    def f(x: Any, mode: str, scale: float = 1.0) -> Any:
        assert isinstance(mode, str)
        return x * scale if mode == "scale" else x + scale

    ours, theirs = sg.compile.jit(f, **declared), jax.jit(f, **declared)
    for args, kwargs in [
        ((2.0, "scale"), {}),
        ((2.0, "add"), {}),
        ((2.0,), {"mode": "scale", "scale": 3.0}),
        ((2.0, "add", 3.0), {}),
    ]:
        if declared == {"static_argnums": -2} and len(args) < 3:
            continue  # counted from the end of the arguments that are given
        assert float(ours(*args, **kwargs)) == float(theirs(*args, **kwargs))
    count = ours.trace_count
    ours(5.0, "add", 1.0)
    assert ours.trace_count == count


def test_static_arguments_must_be_hashable_and_exist() -> None:
    f = sg.compile.jit(lambda x, sizes: x * len(sizes), static_argnames="sizes")
    with pytest.raises(TraceError, match="not hashable"):
        f(1.0, [1, 2])
    assert float(f(2.0, (1, 2))) == 4
    with pytest.raises(ValueError, match="does not exist"):
        sg.compile.jit(lambda x: x, static_argnames="y")
    with pytest.raises(ValueError, match="does not exist"):
        sg.compile.jit(lambda x: x, static_argnums=3)
    with pytest.raises(ValueError, match="static and donated"):
        sg.compile.jit(lambda x: x, static_argnums=0, donate_argnames="x")


def test_static_values_of_different_types_are_different_programs() -> None:
    f = sg.compile.jit(lambda n: jnp.asarray(n).dtype.name == "bool", static_argnums=0)
    assert not bool(f(1)) and bool(f(True)) and not bool(f(1.0))


@pytest.mark.core
@pytest.mark.parametrize("declared", [{"donate_argnums": 0}, {"donate_argnames": "x"}])
def test_donated_arguments_are_taken_over_and_others_are_not(declared: dict[str, Any]) -> None:
    s = sg.State(jnp.zeros(4))

    def f(x: Any, y: Any) -> Any:
        s.value = s.value + y
        return x * 2 + y

    step = sg.compile.jit(f, **declared)
    y = jnp.ones(4)
    for call in (lambda x: step(x, y), lambda x: step(x=x, y=y), lambda x: step(x, y=y)):
        x = jnp.full(4, 3.0)
        assert np.allclose(call(x), 7)
        assert x.is_deleted() and not y.is_deleted()
    assert np.allclose(s.value, 3)


def test_keyword_arguments_defaults_and_varargs() -> None:
    def f(x: Any, *rest: Any, scale: Any = 2.0, **named: Any) -> Any:
        return (x + sum(rest)) * scale + sum(named.values())

    ours, theirs = sg.compile.jit(f), jax.jit(f)
    assert float(ours(1.0)) == float(theirs(1.0))
    assert float(ours(1.0, 2.0, 3.0, scale=4.0, a=5.0)) == float(theirs(1.0, 2.0, 3.0, scale=4.0, a=5.0))
    assert float(ours(1.0, b=1.0, a=2.0)) == 5.0
    assert ours.trace(1.0, 2.0, scale=3.0, a=4.0).program.argument_names == ["x", "rest[0]", "a", "scale"]


def test_arguments_keep_their_names_beside_static_and_donated_ones() -> None:
    @functools.partial(sg.compile.jit, static_argnums=(1,), donate_argnums=(2,))
    def f(x: Any, n: int, y: Any, *rest: Any, k: Any = 2.0) -> Any:
        return x * n + y + sum(rest) * k

    assert f.trace(1.0, 3, 1.0, 2.0, k=4.0).program.argument_names == ["x", "y", "rest[0]", "k"]


def test_an_argument_that_is_no_array_is_an_error_with_the_fix() -> None:
    f = sg.compile.jit(lambda x: x)
    with pytest.raises(TraceError, match="static_argnums"):
        f("text")
    with pytest.raises(TraceError, match="static_argnums"):
        f(object())
    assert f(None) is None


def test_pytree_arguments_and_results_keep_their_structure() -> None:
    from collections import namedtuple

    Point = namedtuple("Point", "x y")
    s = sg.State(Point(jnp.zeros(2), {"k": [jnp.ones(1)]}))

    @sg.compile.jit
    def f(p: Any) -> Any:
        s.value = Point(s.value.x + p.x, s.value.y)
        return {"p": p, "s": s.value, "none": None, "t": (p.y,)}

    out = f(Point(jnp.ones(2), 3.0))
    assert isinstance(out["p"], Point) and out["none"] is None and isinstance(out["t"], tuple)
    assert isinstance(s.value, Point) and np.allclose(s.value.x, 1)
    f(Point(jnp.ones(2), 3.0))
    assert np.allclose(s.value.x, 2) and f.trace_count == 1


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

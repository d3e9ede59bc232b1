"""Programs that people write and that break tracers: aliasing, closures, nesting, odd values."""

from __future__ import annotations

import functools
import itertools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import StateGraphError, StateTypeError
from tests.oracle import Made, agree, checkpoint
from tests.tracing.models import XS


def test_weakly_typed_captured_arrays() -> None:
    """``jnp.full(2, 3.0)`` is weakly typed, and so is an operand of the program made from it."""
    weak = jnp.full(2, 3.0)
    assert weak.weak_type
    s = sg.State(weak)
    f = sg.compile.jit(lambda x: (setattr(s, "value", s.value + weak * x), weak * x)[1])
    reference = jax.jit(lambda x: weak * x)
    for x in (2.0, jnp.bfloat16(2), jnp.float32(2)):
        assert f(x).dtype == reference(x).dtype and np.allclose(f(x), 6)
    compiled = sg.trace(lambda x: weak * x, 2.0).lower().compile()
    assert np.allclose(compiled(2.0), 6)


def test_a_weakly_typed_result_stays_weak_as_in_jax() -> None:
    for x in (2.0, jnp.float32(2)):
        assert sg.compile.jit(lambda x: x * 2)(x).weak_type == jax.jit(lambda x: x * 2)(x).weak_type


@pytest.mark.core
def test_one_function_traced_under_several_loops_and_models() -> None:
    def body(state: Any, c: Any, x: Any) -> Any:
        state.value = state.value * x + c
        return c + 1, state.value

    def make() -> Made:
        a, b = sg.State(1.0), sg.State(2.0)

        def f(xs: Any) -> Any:
            one = jax.lax.scan(functools.partial(body, a), 0.0, xs)
            two = jax.lax.scan(functools.partial(body, b), 0.0, xs)
            three = jax.lax.scan(functools.partial(body, a), 1.0, xs)
            return one, two, three

        return f, [a, b]

    agree(make, (XS,), (XS,))


def test_a_scan_body_that_jax_caches_sees_states_changed_between_two_uses() -> None:
    """The same body function twice: JAX may reuse the first trace only if nothing changed."""

    class Model(sg.Node):
        def __init__(self) -> None:
            self.s, self.t = sg.State(1.0), sg.State(10.0)
            self.gain = 1.0

    def make() -> Made:
        model = Model()

        def body(c: Any, x: Any) -> Any:
            model.s.value = model.s.value + model.gain * x
            return c, model.s.value

        def f(xs: Any) -> Any:
            one = jax.lax.scan(body, 0.0, xs)[1]
            model.gain = 5.0
            two = jax.lax.scan(body, 0.0, xs)[1]
            model.s, model.t = model.t, model.s
            three = jax.lax.scan(body, 0.0, xs)[1]
            model.s, model.t = model.t, model.s
            model.gain = 1.0
            return one, two, three

        return f, [model.s, model.t]

    agree(make, (XS,), (XS,))


def test_a_python_value_that_changes_between_two_uses_of_one_body_follows_jax() -> None:
    """JAX's own caches know functions by identity; a nonlocal that moves is frozen there, in plain jax.jit as
    well.
    """
    factor = [1.0]

    def run(trace: Any) -> Any:
        @jax.jit
        def inner(x: Any) -> Any:
            return x * factor[0]

        def f(x: Any) -> Any:
            factor[0] = 1.0
            a = inner(x)
            factor[0] = 2.0
            return a, inner(x)

        return [float(v) for v in trace(f)(3.0)]

    assert run(sg.compile.jit) == run(jax.jit)


@pytest.mark.core
def test_states_in_nested_closures_partials_and_bound_methods() -> None:
    class Model(sg.nn.Module):
        def __init__(self, start: float) -> None:
            super().__init__()
            self.s = sg.State(start)

        def add(self, k: float, x: Any) -> Any:
            self.s.value += k * x
            return self.s.value

    def make() -> Made:
        models = [Model(float(k)) for k in range(3)]
        calls = [functools.partial(model.add, float(k)) for k, model in enumerate(models)]
        return lambda x: sum(call(x) for call in calls), [model.s for model in models]

    agree(make, (2.0,), (3.0,))


def test_forty_levels_of_nested_bodies() -> None:
    def make() -> Made:
        s = sg.State(0.0)

        def nest(depth: int, x: Any) -> Any:
            if depth == 0:
                s.value = s.value + x
                return s.value
            return jax.lax.cond(x > 0, lambda y: nest(depth - 1, y), lambda y: y, x)

        return lambda x: nest(40, x), [s]

    agree(make, (2.0,), reference=False)


def test_a_hundred_states_in_one_loop() -> None:
    def make() -> Made:
        states = [sg.State(float(k)) for k in range(100)]

        def f(xs: Any) -> Any:
            def step(x: Any) -> None:
                for s, t in itertools.pairwise(states):
                    s.value = s.value * 0.5 + t.value * x

            sg.compile.for_loop(step, xs)

        return f, states

    agree(make, (XS,), reference=False)


@pytest.mark.core
def test_pytree_states_where_one_leaf_is_written_in_a_branch() -> None:
    def make() -> Made:
        s = sg.State({"a": jnp.zeros(2), "b": [jnp.ones(3), jnp.int32(1)]})

        def f(xs: Any) -> Any:
            def step(c: Any, x: Any) -> Any:
                def write() -> None:
                    s.value = {**s.value, "a": s.value["a"] + x}

                jax.lax.cond(x > 2, write, lambda: None)
                s.value["b"].append(5)  # a fresh container: changes nothing
                return c, len(s.value["b"])

            return jax.lax.scan(step, 0, xs)[1]

        return f, [s]

    agree(make, (XS,), (XS,))


def test_prng_keys_and_integers_as_states_in_loops() -> None:
    def make() -> Made:
        key, count = sg.State(jax.random.PRNGKey(0)), sg.State(jnp.uint8(250))

        def f() -> Any:
            def step() -> Any:
                key.value, sub = jax.random.split(key.value)
                count.value = count.value + jnp.uint8(1)
                return jax.random.normal(sub, (2,))

            return sg.compile.for_loop(step, length=8)

        return f, [key, count]

    agree(make, (), ())


def test_typed_keys_are_carried() -> None:
    key = sg.State(jax.random.key(3))

    @sg.compile.jit
    def f() -> Any:
        def step() -> Any:
            key.value, sub = jax.random.split(key.value)
            return jax.random.uniform(sub)

        return sg.compile.for_loop(step, length=3)

    expected, k = [], jax.random.key(3)
    for _ in range(6):
        k, sub = jax.random.split(k)
        expected.append(float(jax.random.uniform(sub)))
    assert np.allclose([*f(), *f()], expected)
    assert jnp.array_equal(jax.random.key_data(key.value), jax.random.key_data(k))


def test_empty_states_and_zero_sized_arrays() -> None:
    def make() -> Made:
        s, t = sg.State(jnp.zeros((0, 3))), sg.State({})

        def f(x: Any) -> Any:
            s.value = s.value * x
            t.value = {}
            return s.value.sum()

        return f, [s, t]

    agree(make, (2.0,), (2.0,))


def test_a_function_without_state_arguments_or_results() -> None:
    assert sg.compile.jit(lambda: None)() is None
    assert sg.compile.jit(lambda: {"a": 1})()["a"] == 1
    assert str(sg.trace(lambda: None).program)


def test_results_that_are_arguments_states_and_constants() -> None:
    s = sg.State(jnp.ones(3))
    given = jnp.arange(3.0)
    f = sg.compile.jit(lambda x: (x, s.value, given, 1.5, x))
    a, b, c, d, e = f(XS)
    assert (
        np.allclose(a, XS)
        and np.allclose(b, 1)
        and np.allclose(c, given)
        and float(d) == 1.5
        and np.allclose(e, XS)
    )
    bump = sg.compile.jit(lambda: setattr(s, "value", s.value + 1))
    bump()
    _, b, *_ = f(XS)
    bump()
    bump()
    assert np.allclose(b, 2) and np.allclose(s.value, 4)


@pytest.mark.core
def test_a_write_of_the_value_read_changes_nothing_and_later_reads_see_earlier_writes() -> None:
    def make() -> Made:
        s, t = sg.State(1.0), sg.State(2.0)

        def f(x: Any) -> Any:
            s.value = s.value
            a = s.value
            s.value = x
            b = s.value
            s.value = t.value
            t.value = b
            s.value += a
            return a, b, s.value, t.value

        return f, [s, t]

    agree(make, (5.0,), (6.0,))


def test_checkpoint_inside_scan_inside_grad_with_local_states() -> None:
    w = sg.ParamState(jnp.float32(0.9))
    h = sg.State(jnp.float32(0))

    def loss(xs: Any) -> Any:
        @jax.checkpoint
        def step(c: Any, x: Any) -> Any:
            local = sg.State(x)
            local.value = jnp.sin(local.value * w.value)
            h.value = h.value * w.value + local.value
            return c + h.value**2, None

        return jax.lax.scan(step, jnp.float32(0), xs)[0]

    def pure(w: Any, xs: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            h, total = c
            h = h * w + jnp.sin(x * w)
            return (h, total + h**2), None

        (h, total), _ = jax.lax.scan(step, (jnp.float32(0), jnp.float32(0)), xs)
        return total, h

    got = sg.compile.jit(lambda xs: sg.augment.grad(loss, w)(xs))(XS)
    expected, last = jax.grad(pure, has_aux=True)(w.value, XS)
    assert np.allclose(got, expected, rtol=1e-5) and np.allclose(h.value, last, rtol=1e-5)


@pytest.mark.parametrize("name", ["s", "carry", "%0", "a b", "net.x", "x'y\"z", "état", ""])
def test_any_name_of_a_state_survives_text(name: str) -> None:
    states = {name: sg.State(1.0, name=name), "other": sg.State(2.0, name=name)}
    f = lambda: [setattr(s, "value", s.value + 1) for s in states.values()] and None
    program = sg.trace(f).program
    assert len(program.states) == 2
    assert sg.ir.parse(str(program)) == program
    sg.compile.jit(f)()
    assert float(states[name].value) == 2


def test_errors_in_user_code_keep_their_type_and_traceback() -> None:
    s = sg.State(1.0)

    def f(x: Any) -> Any:
        def body(c: Any, _: Any) -> Any:
            s.value = s.value + 1
            return {}["missing"], None

        return jax.lax.scan(body, x, length=2)

    with pytest.raises(KeyError, match="missing"):
        sg.compile.jit(f)(1.0)
    assert float(s.value) == 1


def test_a_shape_error_after_a_type_changing_write_in_a_loop_is_told_as_the_type_change() -> None:
    s = sg.State(jnp.zeros(3))

    def f() -> Any:
        def body() -> Any:
            s.value = jnp.zeros((2, 5))
            return s.value @ jnp.ones(5)

        return sg.compile.for_loop(body, length=2)

    with pytest.raises(StateTypeError, match=r"f32\[3\]") as error:
        sg.compile.jit(f)()
    assert error.value.__cause__ is not None


def test_state_in_a_callback_is_the_state_at_that_moment_outside_of_the_program() -> None:
    s = sg.State(0.0)
    seen: list[float] = []

    @sg.compile.jit
    def f() -> None:
        s.value = s.value + 1
        jax.debug.callback(lambda: seen.append(float(s.value)))

    f()
    jax.effects_barrier()
    assert seen in ([0.0], [1.0])


def test_tracing_inside_tracing() -> None:
    s = sg.State(jnp.float32(2))

    def outer(x: Any) -> Any:
        s.value = s.value + x
        program = sg.trace(lambda y: s.value * y, 1.0).program
        assert "s" in program.states
        return s.value

    assert float(sg.compile.jit(outer)(1.0)) == 3


def test_compiled_functions_called_in_callbacks_of_other_threads_do_not_deadlock() -> None:
    s = sg.State(jnp.float32(0))
    bump = sg.compile.jit(lambda: setattr(s, "value", s.value + 1))
    bump()
    done = threading.Event()

    def note() -> None:
        bump()
        done.set()

    @sg.compile.jit
    def f(x: Any) -> Any:
        jax.debug.callback(note)
        return x

    thread = threading.Thread(target=lambda: (f(1.0), jax.effects_barrier()))
    thread.start()
    thread.join(30)
    assert done.is_set() and float(s.value) == 2


def test_vmap_of_a_function_around_compiled_control_flow_that_only_reads() -> None:
    s = sg.State(jnp.float32(2))

    def f(xs: Any) -> Any:
        return jax.vmap(lambda x: sg.compile.cond(x > 2, lambda: x * s.value, lambda: x))(xs)

    assert np.allclose(sg.compile.jit(f)(XS), jnp.where(XS > 2, XS * 2, XS))
    assert np.allclose(f(XS), jnp.where(XS > 2, XS * 2, XS))


def test_while_loops_with_batched_predicates_next_to_state() -> None:
    def make() -> Made:
        s = sg.State(jnp.float32(1))

        def f(xs: Any) -> Any:
            s.value = s.value + 1
            return jax.vmap(lambda x: jax.lax.while_loop(lambda c: c < 10, lambda c: c * s.value, x))(xs)

        return f, [s]

    function, _ = make()
    assert np.allclose(sg.compile.jit(function)(XS), [16, 16, 12, 16])


@pytest.mark.parametrize("where", ["jit", "checkpoint"])
def test_a_type_change_inside_a_straight_inner_body(where: str) -> None:
    def make() -> Made:
        s = sg.State(jnp.float32(1))
        wrap = jax.jit if where == "jit" else checkpoint

        def f(x: Any) -> Any:
            def inner(y: Any) -> Any:
                s.value = jnp.stack([s.value, y]) if s.value.ndim == 0 else s.value.sum()
                return s.value.sum()

            return wrap(inner)(x), wrap(inner)(x), wrap(lambda y: inner(y))(x)

        return f, [s]

    agree(make, (2.0,), (3.0,))


def test_deleting_or_replacing_the_model_while_traced_code_holds_states() -> None:
    class Model(sg.Node):
        def __init__(self) -> None:
            self.s = sg.State(1.0)

    model = Model()

    def f(x: Any) -> Any:
        s = model.s
        model.s = sg.State(x)
        del model.s
        s.value = s.value + x
        return s.value

    compiled = sg.compile.jit(f)
    assert float(compiled(2.0)) == 3 and float(model.s.value) == 3
    assert float(compiled(2.0)) == 5 and float(model.s.value) == 5


def test_stategraph_errors_are_of_one_family() -> None:
    for name in (
        "TraceError",
        "StateTypeError",
        "StateAccessError",
        "ConcretizationError",
        "LoweringError",
        "CallError",
        "ExportError",
    ):
        assert issubclass(getattr(sg.errors, name), StateGraphError)

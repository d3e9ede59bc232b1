"""``cond, switch, ifelse, for_loop, scan, while_loop``: in a trace, eagerly (cached), and as plain Python."""

from __future__ import annotations

import gc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.compile import cached
from stategraph.errors import StateTypeError, TraceError
from tests.oracle import Made, agree, values
from tests.support import assert_same

XS = jnp.arange(4, dtype=jnp.float32) + 1


def three_ways(make: Any, *calls: Any) -> None:
    """Compiled, eager and cached, and plain Python do the same."""
    agree(make, *calls)
    with jax.disable_jit():
        function, states = make()
        expected = [(function(*args), values(states)) for args in (calls or ((),))]
    function, states = make()
    for args, want in zip(calls or ((),), expected, strict=True):
        assert_same((function(*args), values(states)), want, exact=False)


@pytest.mark.core
def test_for_loop_over_arrays_and_without_arguments() -> None:
    def make() -> Made:
        s = sg.State(0.0)

        def count() -> Any:
            s.value += 1
            return s.value

        def f(xs: Any) -> Any:
            ys = sg.compile.for_loop(
                lambda x, t: (setattr(s, "value", s.value + x * t["a"]), s.value)[1], xs, {"a": xs * 2}
            )
            return (
                ys,
                sg.compile.for_loop(count, length=3),
                sg.compile.for_loop(lambda x: s.value * x, xs, reverse=True, unroll=2),
            )

        return f, [s]

    three_ways(make, (XS,), (XS,))


@pytest.mark.core
def test_scan_carries_and_stacks() -> None:
    def make() -> Made:
        s = sg.State(jnp.ones(2))

        def step(c: Any, x: Any) -> Any:
            s.value = s.value * 0.5 + c
            return c + (0 if x is None else x), s.value

        def f(xs: Any) -> Any:
            return (
                sg.compile.scan(step, 1.0, xs),
                sg.compile.scan(step, 1.0, length=2),
                sg.compile.scan(step, 0.0, xs, reverse=True),
            )

        return f, [s]

    three_ways(make, (XS,))


@pytest.mark.core
def test_while_loop_conditions_may_read_and_write_state() -> None:
    def make() -> Made:
        s, asked = sg.State(1.0), sg.State(0)

        def f(limit: Any) -> Any:
            def condition(c: Any) -> Any:
                asked.value += 1
                return s.value * c < limit

            def body(c: Any) -> Any:
                s.value = s.value * 2
                return c + 1

            return sg.compile.while_loop(condition, body, 1.0), asked.value

        return f, [s, asked]

    three_ways(make, (100.0,), (1.0,))


def test_a_while_loop_over_state_alone_takes_no_value() -> None:
    def make() -> Made:
        s, trips = sg.State(1.0), sg.State(0)

        def body() -> Any:
            s.value = s.value * 2
            trips.value += 1
            return s.value

        return lambda limit: sg.compile.while_loop(lambda: s.value < limit, body), [s, trips]

    three_ways(make, (100.0,), (1.0,))


def test_a_condition_that_writes_what_the_body_reads() -> None:
    def make() -> Made:
        a, b = sg.State(0), sg.State({"x": jnp.zeros(2), "y": jnp.int32(0)})

        def f() -> Any:
            def condition(c: Any) -> Any:
                a.value += c
                b.value = {"x": b.value["x"] + a.value, "y": b.value["y"]}
                return a.value < 10

            def body(c: Any) -> Any:
                b.value = {"x": b.value["x"], "y": b.value["y"] + a.value}
                return c + 1

            return sg.compile.while_loop(condition, body, 1)

        return f, [a, b]

    three_ways(make, (), ())


@pytest.mark.core
@pytest.mark.parametrize("p", [True, False])
def test_cond_takes_functions_and_plain_values(p: bool) -> None:
    def make() -> Made:
        s = sg.State(1.0)

        def f(flag: Any, x: Any) -> Any:
            def add(y: Any) -> Any:
                s.value += y
                return s.value

            return sg.compile.cond(flag, add, lambda y: y, x), sg.compile.cond(flag, 1.0, 2.0)

        return f, [s]

    three_ways(make, (jnp.asarray(p), 3.0))
    three_ways(make, (p, 3.0))


@pytest.mark.parametrize("index", [-5, 0, 1, 2, 9])
def test_switch_clamps_its_index(index: int) -> None:
    def make() -> Made:
        s = sg.State(0)
        branches = [lambda x, k=k: (setattr(s, "value", s.value + k), x * k)[1] for k in (1, 10, 100)]
        return lambda i: sg.compile.switch(i, branches, 2.0), [s]

    three_ways(make, (jnp.int32(index),))
    with pytest.raises(ValueError, match="at least one branch"):
        sg.compile.switch(0, [])


@pytest.mark.core
@pytest.mark.parametrize("x", [-1.0, 0.5, 1.5, 5.0])
def test_ifelse_is_if_elif_else(x: float) -> None:
    def make() -> Made:
        s = sg.State(0)

        def mark(k: int) -> Any:
            return lambda: (setattr(s, "value", s.value + k), k)[1]

        def f(v: Any) -> Any:
            return sg.compile.ifelse([v < 0, v < 1, v < 2], [mark(1), mark(2), mark(3), mark(4)])

        return f, [s]

    three_ways(make, (jnp.float32(x),))
    expected = 1 if x < 0 else 2 if x < 1 else 3 if x < 2 else 4
    function, states = make()
    assert int(sg.compile.jit(function)(x)) == expected and int(states[0].value) == expected


def test_ifelse_with_a_last_condition_and_wrong_numbers() -> None:
    assert sg.compile.ifelse([False, True], [1.0, 2.0]) == 2
    assert sg.compile.ifelse(True, [1.0, 2.0]) == 1
    with pytest.raises(ValueError, match="no condition"):
        sg.compile.ifelse([False, False], [1.0, 2.0])
    with pytest.raises(ValueError, match="as many branches"):
        sg.compile.ifelse([True], [1.0, 2.0, 3.0])


@pytest.mark.core
def test_zero_trip_loops_leave_state_alone() -> None:
    def make() -> Made:
        s = sg.State(5.0)

        def f(xs: Any) -> Any:
            def step(x: Any) -> Any:
                s.value = s.value * 0 + x
                local = sg.State(x)
                return local.value

            ys = sg.compile.for_loop(step, xs)
            sg.compile.for_loop(lambda: setattr(s, "value", s.value * 0), length=0)
            c = sg.compile.while_loop(
                lambda c: c < 0, lambda c: (setattr(s, "value", s.value * 0), c + 1)[1], 1.0
            )
            return ys.shape[0], c, s.value

        return f, [s]

    for wrap in (lambda f: f, sg.compile.jit):
        function, (s,) = make()
        length, c, value = wrap(function)(jnp.zeros((0,)))
        assert (int(length), float(c), float(value), float(s.value)) == (0, 1, 5, 5)


def test_loops_that_write_before_they_read_leave_the_last_value() -> None:
    def make() -> Made:
        a, b = sg.State(0.0), sg.State(jnp.zeros(3))

        def f(xs: Any) -> Any:
            def step(x: Any) -> None:
                a.value = x * 2
                b.value = jnp.full(3, a.value)

            sg.compile.for_loop(step, xs)
            return a.value, b.value

        return f, [a, b]

    three_ways(make, (XS,), (XS[:1],))


@pytest.mark.core
def test_errors_of_loops_say_what_to_write() -> None:
    s = sg.State(jnp.zeros(3))
    with pytest.raises(TraceError, match="length=n"):
        sg.compile.for_loop(lambda: None)
    with pytest.raises(TraceError, match="different lengths"):
        sg.compile.for_loop(lambda a, b: None, jnp.zeros(2), jnp.zeros(3))
    with pytest.raises(TraceError, match="different lengths"):
        sg.compile.for_loop(lambda a: None, jnp.zeros(2), length=3)
    with pytest.raises(TraceError, match="scalar"):
        sg.compile.for_loop(lambda a: None, 3.0)
    with pytest.raises(StateTypeError) as error:
        sg.compile.for_loop(lambda x: setattr(s, "value", s.value.astype(jnp.int32)), XS)
    for part in ("'s'", "f32[3]", "i32[3]", "created at", "test_control.py", "fix:"):
        assert part in str(error.value)
    assert s.value.dtype == jnp.float32


def test_a_carry_of_another_type_is_an_error_and_changes_nothing() -> None:
    s = sg.State(0.0)

    def step(c: Any, x: Any) -> Any:
        s.value += 1
        return jnp.zeros(2), None

    with pytest.raises(TypeError, match="carry"):
        sg.compile.scan(step, 0.0, XS)
    assert float(s.value) == 0


# -------------------------------------------------------------------------------------------- eagerly, cached


def traces(call: Any, times: int = 4) -> int:
    """How often the functions of an eager loop run while it is called several times."""
    counter = Counter()
    for k in range(times):
        call(k, counter.note)
    return counter.runs


class Counter:
    """Counts runs of Python code; not a list, since loops follow the lists that they close over."""

    runs = 0

    def note(self) -> None:
        self.runs += 1


@pytest.mark.core
@pytest.mark.parametrize("kind", ["for_loop", "scan", "while_loop", "cond", "switch", "ifelse", "grad"])
def test_eager_calls_with_fresh_lambdas_do_not_retrace(kind: str) -> None:
    s = sg.State(0.0)

    def call(k: int, note: Any) -> None:
        def body(x: Any) -> Any:
            note()
            s.value = s.value + x
            return x

        x = float(k)
        if kind == "for_loop":
            sg.compile.for_loop(lambda x: body(x), XS * k)
        elif kind == "scan":
            sg.compile.scan(lambda c, x: (body(c), None), x, length=2)
        elif kind == "while_loop":
            sg.compile.while_loop(lambda c: c < 3, lambda c: body(c) + 1, x)
        elif kind == "cond":
            sg.compile.cond(k % 2 == 0, lambda x: body(x), lambda x: x, x)
        elif kind == "switch":
            sg.compile.switch(k, [lambda x: body(x), lambda x: x], x)
        elif kind == "ifelse":
            sg.compile.ifelse([k % 2 == 0], [lambda x: body(x), lambda x: x], x)
        else:
            sg.augment.grad(lambda x: body(x) * s.value)(x)

    assert traces(call) == 1


@pytest.mark.core
def test_eager_loops_follow_what_they_close_over() -> None:
    s, t = sg.State(0.0), sg.State(0.0)

    def run(state: Any, k: float, items: Any) -> None:
        sg.compile.for_loop(lambda: setattr(state, "value", state.value + k + sum(items)), length=1)

    run(s, 1.0, [1.0])
    run(t, 1.0, [1.0])
    run(s, 2.0, [1.0])
    items = [1.0]
    run(s, 1.0, items)
    items.append(10.0)
    run(s, 1.0, items)
    assert float(s.value) == 2 + 3 + 2 + 12 and float(t.value) == 2


RATE = 1.0
GLOBAL_STATE = sg.State(0.0)


def helper(x: Any) -> Any:
    return x * RATE


def test_eager_loops_follow_the_globals_that_they_mention() -> None:
    global RATE, GLOBAL_STATE
    RATE, GLOBAL_STATE = 1.0, sg.State(0.0)

    def run() -> float:
        sg.compile.for_loop(
            lambda x: setattr(GLOBAL_STATE, "value", GLOBAL_STATE.value + helper(x)), jnp.ones(2)
        )
        return float(GLOBAL_STATE.value)

    assert run() == 2
    RATE = 10.0
    assert run() == 22
    GLOBAL_STATE = sg.State(100.0)
    assert run() == 120
    RATE = 1.0
    assert run() == 122


def test_minus_zero_and_one_and_true_are_different_constants() -> None:
    def run(k: Any) -> Any:
        return sg.compile.for_loop(
            lambda x: jnp.copysign(x, k) if isinstance(k, float) else x * k, jnp.ones(1)
        )[0]

    assert float(run(0.0)) == 1 and float(run(-0.0)) == -1
    assert run(1).dtype == jnp.float32 and float(run(True)) == 1


def test_recursive_and_mutually_recursive_functions_can_be_looped() -> None:
    s = sg.State(0.0)

    def down(k: int) -> None:
        s.value += 1
        if k:
            up(k - 1)

    def up(k: int) -> None:
        down(k)

    for _ in range(2):
        sg.compile.for_loop(lambda: down(2), length=2)
    assert float(s.value) == 12


def test_entries_of_the_eager_cache_go_with_their_models() -> None:
    def use() -> None:
        s = sg.State(0.0)
        sg.compile.for_loop(lambda: setattr(s, "value", s.value + 1), length=2)

    use()
    gc.collect()
    before = len(cached._CACHE)
    for _ in range(20):
        use()
    gc.collect()
    assert len(cached._CACHE) <= before


def test_eager_loops_of_changing_lengths_and_types() -> None:
    s = sg.State(0.0)
    for n in (1, 3, 0, 2):
        sg.compile.for_loop(lambda x: setattr(s, "value", s.value + 1), jnp.zeros(n))
    assert float(s.value) == 6
    s.value = jnp.zeros(3)
    sg.compile.for_loop(lambda x: setattr(s, "value", s.value + x), jnp.ones(2))
    assert np.allclose(s.value, 2)


def test_loops_nested_in_eager_python() -> None:
    def make() -> Made:
        s = sg.State(jnp.float32(1))

        def f(xs: Any) -> Any:
            out = []
            for k in range(3):
                out.append(
                    sg.compile.for_loop(
                        lambda x, k=k: sg.compile.cond(
                            x > k, lambda: (setattr(s, "value", s.value + x), s.value)[1], lambda: s.value
                        ),
                        xs,
                    )
                )
            return out

        return f, [s]

    three_ways(make, (XS,))

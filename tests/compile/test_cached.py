"""Eager loops, branches and gradients over fresh arrays: traced once, and as plain Python would have it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.compile import cached
from tests.support import assert_same

N = 4


class Counter:
    """Counts runs of Python code; no list, since loops follow the lists that they close over."""

    runs = 0

    def note(self) -> None:
        self.runs += 1


def batch(k: int) -> Any:
    return jnp.arange(N, dtype=jnp.float32) + k


LOOPS: dict[str, Any] = {
    "for_loop": lambda body, x: sg.compile.for_loop(lambda i: body(i, x), jnp.arange(N)),
    "scan": lambda body, x: sg.compile.scan(lambda c, i: (c + body(i, x), c), 0.0, jnp.arange(N)),
    "while_loop": lambda body, x: sg.compile.while_loop(
        lambda c: c[0] < N, lambda c: (c[0] + 1, c[1] + body(c[0], x)), (0, 0.0)
    ),
    "checkpointed_for_loop": lambda body, x: sg.compile.checkpointed_for_loop(
        lambda i: body(i, x), jnp.arange(N)
    ),
    "checkpointed_scan": lambda body, x: sg.compile.checkpointed_scan(
        lambda c, i: (c + body(i, x), c), 0.0, jnp.arange(N)
    ),
    "bounded_while_loop": lambda body, x: sg.compile.bounded_while_loop(
        lambda c: c[0] < N, lambda c: (c[0] + 1, c[1] + body(c[0], x)), (0, 0.0), max_steps=N
    ),
    "cond": lambda body, x: sg.compile.cond(x[0] > 1, lambda: body(0, x), lambda: x[2]),
    "switch": lambda body, x: sg.compile.switch(1, [lambda: x[0], lambda: body(1, x)]),
    "ifelse": lambda body, x: sg.compile.ifelse([x[0] > 1], [lambda: body(0, x), x[2]]),
    "grad": lambda body, x: sg.augment.grad(lambda y: body(0, x) * y * x.sum())(2.0),
    "vmap": lambda body, x: sg.augment.vmap(lambda i, y: x[i] * y)(jnp.arange(N), x),
    "map": lambda body, x: sg.augment.map(lambda i: body(i, x), jnp.arange(N)),
    "map in batches": lambda body, x: sg.augment.map(lambda i: x[i] * 2, jnp.arange(N), batch_size=2),
    "jacfwd": lambda body, x: sg.augment.jacfwd(lambda y: y * x * body(1, x))(x),
    "hessian": lambda body, x: sg.augment.hessian(lambda y: (y**3).sum() * body(1, x))(x),
    "jvp": lambda body, x: sg.augment.jvp(lambda y: y * body(1, x), (2.0,), (1.0,)),
    "checkify": lambda body, x: sg.compile.checkify(lambda: body(1, x))()[1],
}


@pytest.mark.core
@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_over_another_array_each_time_is_traced_once(kind: str) -> None:
    counter = Counter()
    total = sg.State(0.0)

    def body(i: Any, x: Any) -> Any:
        counter.note()
        total.value = total.value + x[i]
        return x[i] * 2

    def run() -> Any:
        total.value = 0.0
        return [(LOOPS[kind](body, batch(k)), total.value) for k in (0, 5)]

    found = run()
    runs, entries = counter.runs, len(cached._CACHE)
    for k in range(3):
        LOOPS[kind](body, batch(k))
    assert counter.runs == runs
    assert len(cached._CACHE) == entries
    with jax.disable_jit():
        assert_same(found, run(), exact=False)


@pytest.mark.core
def test_arrays_in_containers_partials_defaults_and_functions_of_functions_are_operands() -> None:
    import functools

    counter = Counter()
    s = sg.State(0.0)

    def run(k: int) -> float:
        x, pair, named = batch(k), (batch(2 * k), [batch(3 * k)]), {"x": batch(4 * k)}

        by, plus = batch(5 * k), batch(6 * k)

        def scaled(i: Any, by: Any = by, *, plus: Any = plus) -> Any:
            counter.note()
            return inner(i) * by[i] + plus[i]

        def inner(i: Any) -> Any:
            return x[i] + pair[0][i] + pair[1][0][i] + named["x"][i]

        step = functools.partial(
            lambda y, i: (setattr(s, "value", s.value + scaled(i)), y[i])[1], batch(7 * k)
        )
        return float(sg.compile.for_loop(step, jnp.arange(N)).sum())

    run(0)
    found = [(run(k), float(s.value)) for k in (1, 2)]
    assert counter.runs == 1
    s.value = 0.0
    with jax.disable_jit():
        run(0)
        assert_same(found, [(run(k), float(s.value)) for k in (1, 2)], exact=False)


TABLE = jnp.arange(3.0)


def lookup(i: Any) -> Any:
    return TABLE[i]


@pytest.mark.core
def test_arrays_that_are_globals_are_operands() -> None:
    global TABLE
    counter = Counter()

    def run() -> float:
        return float(
            sg.compile.for_loop(lambda i: (counter.note(), lookup(i) + TABLE[0])[1], jnp.arange(3)).sum()
        )

    TABLE = jnp.arange(3.0)
    assert run() == 3
    TABLE = jnp.arange(3.0) + 1
    assert run() == 9
    assert counter.runs == 1


@pytest.mark.core
def test_old_arrays_are_not_kept() -> None:
    s = sg.State(0.0)

    def run(k: int) -> Any:
        x = batch(k)
        sg.compile.for_loop(lambda i: setattr(s, "value", s.value + x[i]), jnp.arange(N))
        return weakref.ref(x)

    gone = [run(k) for k in range(3)]
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


@pytest.mark.core
def test_where_python_needs_the_values_they_are_constants() -> None:
    counter = Counter()

    def run(x: Any) -> Any:
        def body(i: Any) -> Any:
            counter.note()
            n = int(x)  # a number of Python's
            return i * n

        return sg.compile.for_loop(body, jnp.arange(3)).tolist()

    one, two = jnp.int32(1), jnp.int32(2)
    assert run(one) == [0, 1, 2]
    assert run(two) == [0, 2, 4]
    assert run(one) == [0, 1, 2]
    assert counter.runs == 3  # once with a placeholder, then once for each array


def test_constants_of_many_calls_do_not_pile_up() -> None:
    def run(x: Any) -> float:
        return float(sg.compile.cond(True, lambda: float(x), lambda: 0.0))

    before = len(cached._CACHE)
    for k in range(cached.MOST_CONSTANTS + 5):
        assert run(jnp.float32(k)) == k
    assert len(cached._CACHE) <= before + cached.MOST_CONSTANTS + 1


@pytest.mark.core
def test_code_that_assigns_what_it_closes_over_sees_its_own_values() -> None:
    def run(k: float) -> tuple[float, float]:
        x = jnp.float32(k)
        items = [jnp.float32(k)]

        def body() -> Any:
            nonlocal x
            before = x + items[0]
            x = jnp.float32(10)
            items.append(x)
            return before

        found = float(sg.compile.for_loop(body, length=1)[0])
        return found, len(items)

    with jax.disable_jit():
        expected = [run(1.0), run(2.0)]
    assert [run(1.0), run(2.0)] == expected


@pytest.mark.core
def test_a_method_that_knows_the_same_array_is_not_stale() -> None:
    def run(k: int) -> float:
        x = batch(k)

        class Reader:
            def read(self) -> Any:
                return x[1]

        reader = READERS.setdefault("one", Reader())
        reader.read = Reader().read  # type: ignore[method-assign]
        return float(sg.compile.for_loop(lambda i: reader.read() + x[i], jnp.arange(2)).sum())

    assert [run(k) for k in (0, 1, 2)] == [3, 7, 11]


READERS: dict[str, Any] = {}


@pytest.mark.core
def test_one_array_in_two_places_and_two_arrays() -> None:
    x, y = batch(0), batch(1)

    def run(a: Any, b: Any) -> list[float]:
        return sg.compile.for_loop(lambda i: a[i] - b[i] + (a is b), jnp.arange(2)).tolist()

    assert [run(x, x), run(x, y), run(y, y), run(y, x)] == [[1, 1], [-1, -1], [1, 1], [1, 1]]


@pytest.mark.core
def test_an_array_that_is_also_the_value_of_a_state_stays_whole() -> None:
    s = sg.State(jnp.zeros(2))

    def step(x: Any) -> None:
        sg.compile.for_loop(lambda: setattr(s, "value", s.value + x + 1), length=2)

    for _ in range(3):
        x = s.value
        before = np.array(x)
        step(x)
        assert np.array_equal(x, before)
    assert s.value.tolist() == [26, 26]


def test_types_and_keys_among_the_arrays() -> None:
    counter = Counter()

    def run(x: Any, key: Any) -> Any:
        return sg.compile.for_loop(lambda: (counter.note(), x * 2 + jax.random.bits(key) % 2)[1], length=1)[0]

    for x in (jnp.ones(2), jnp.ones(2, jnp.int8), jnp.asarray(1.5) * 1, jnp.ones(3)):
        for seed in (0, 1):
            key = jax.random.key(seed)
            assert_same(run(x, key), x * 2 + jax.random.bits(key) % 2)
    assert counter.runs == 4


def test_numpy_arrays_count_by_what_they_hold() -> None:
    counter = Counter()
    x = np.arange(3)

    def run(x: Any) -> list[int]:
        return sg.compile.for_loop(lambda i: (counter.note(), i + int(x.sum()))[1], jnp.arange(2)).tolist()  # type: ignore[no-any-return]

    assert run(x) == [3, 4]
    assert run(x.copy()) == [3, 4] and counter.runs == 1
    x[0] = 10
    assert run(x) == [13, 14] and counter.runs == 2


def test_attributes_that_a_function_gives_itself_stay() -> None:
    x = jnp.ones(2)

    def body() -> Any:
        body.traced = True  # type: ignore[attr-defined]
        return x

    sg.compile.for_loop(body, length=1)
    assert body.traced  # type: ignore[attr-defined]


def test_an_error_of_the_function_itself_is_what_is_raised() -> None:
    x = jnp.ones(2)
    with pytest.raises(ZeroDivisionError):
        sg.compile.for_loop(lambda: x * (1 // 0), length=1)
    with pytest.raises(TypeError):
        sg.compile.for_loop(lambda: x + "a", length=1)


def test_a_callback_that_raises_is_not_called_again() -> None:
    x, calls, s = jnp.ones(2), Counter(), sg.State(0.0)

    def fail(_: Any) -> None:
        calls.note()
        raise ValueError("stop")

    def body() -> None:
        s.value = s.value + x[0]
        jax.debug.callback(fail, x)

    with pytest.raises(Exception, match="stop"):
        sg.compile.for_loop(body, length=1)
        jax.effects_barrier()
    assert calls.runs == 1


def test_a_run_with_other_functions_of_fresh_arrays_is_compiled_once() -> None:
    counter = Counter()
    neurons = sg.nn.init_all_states(sg.nn.LIF(2, tau=20.0))

    def run(k: float) -> Any:
        current, offset = jnp.full(2, k), jnp.full(2, 2 * k)

        def given(t: Any) -> Any:
            counter.note()
            return current

        sg.nn.reset_all_states(neurons)
        rec = sg.nn.run(neurons, 3.0, given, {"V": lambda: neurons.V.value + offset}, dt=1.0)
        return rec["V"]

    found = [run(k) for k in (1.0, 2.0)]
    runs = counter.runs
    found.append(run(3.0))
    assert counter.runs == runs
    with jax.disable_jit():
        assert_same(found, [run(k) for k in (1.0, 2.0, 3.0)], exact=False)


def test_loops_over_transformed_functions_made_anew_are_traced_once() -> None:
    counter = Counter()

    def run(k: int) -> Any:
        x = batch(k)

        def f(y: Any) -> Any:
            counter.note()
            return (x * y**3).sum()

        return [
            sg.compile.for_loop(wrap(f), jnp.arange(2.0) + 1)
            for wrap in (sg.augment.grad, sg.augment.jacfwd, sg.augment.hessian)
        ] + [sg.compile.for_loop(sg.augment.vmap(f), jnp.ones((2, 3)))]

    found = [run(0)]
    runs = counter.runs
    found.append(run(1))
    assert counter.runs == runs
    with jax.disable_jit():
        assert_same(found, [run(0), run(1)], exact=False)

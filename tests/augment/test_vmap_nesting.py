"""Lanes in lanes, gradients and control flow, and lanes that talk, print and draw random numbers, against plain Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from tests.augment.lanes import GRID, WAYS, XS, close, run
from tests.oracle import Made, agree

vmap, grad = sg.augment.vmap, sg.augment.grad


def nested_vmap() -> Made:
    s, t, n = sg.State(GRID), sg.State(XS), sg.State(0)

    def inner(x: Any) -> Any:
        s.value = s.value + x * t.value
        return s.value

    def outer(row: Any) -> Any:
        n.value += 1
        t.value = t.value * 2
        return vmap(inner, in_states=s)(row)

    return vmap(outer, in_states=[s, t]), [s, t, n]


def vmap_of_grad() -> Made:
    w, seen = sg.ParamState(jnp.array([1.0, 2.0])), sg.State(XS)

    def loss(x: Any) -> Any:
        seen.value = seen.value + x
        return jnp.tanh(w.value * x).sum() + jax.nn.relu(x - 2) ** 2

    return vmap(lambda x: grad(loss, w, 0)(x), in_states=seen), [w, seen]


def grad_of_vmap() -> Made:
    w, seen = sg.ParamState(jnp.array([1.0, 2.0])), sg.State(XS)

    def lane(x: Any) -> Any:
        seen.value = seen.value * 2 + x
        return (jnp.tanh(w.value * x) * seen.value).sum() + jax.nn.relu(x - 2)

    return grad(lambda xs: vmap(lane, in_states=seen)(xs).sum(), w, 0), [w, seen]


def grad_of_mapped_state() -> Made:
    w = sg.ParamState(XS)
    return grad(lambda xs: vmap(lambda x: jnp.sin(w.value * x), in_states=w)(xs).sum(), w), [w]


def second_derivative_over_lanes() -> Made:
    w = sg.ParamState(2.0)
    return vmap(grad(grad(lambda x: jnp.sin(x * w.value), 0), 0)), [w]


def vmap_in_scan() -> Made:
    v, n = sg.State(jnp.zeros(3)), sg.State(0)

    def lane(x: Any, k: Any) -> Any:
        v.value = v.value * 0.5 + x * k
        n.value += 1
        return v.value

    f = vmap(lane, in_axes=(0, None), in_states=v)
    return lambda xs: sg.compile.for_loop(lambda k: f(xs, k), jnp.arange(4.0)), [v, n]


def scan_in_vmap() -> Made:
    v, w = sg.State(jnp.zeros(3)), sg.State(jnp.array([1.0, 2.0]))

    def lane(x: Any) -> Any:
        def step(k: Any) -> Any:
            v.value = v.value * 0.5 + x * k * w.value.sum()
            return v.value

        return sg.compile.for_loop(step, jnp.arange(4.0))

    return vmap(lane, in_states=v), [v, w]


def while_in_vmap() -> Made:
    v = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        def more(i: Any) -> Any:
            v.value = v.value + x
            return i + 1

        return sg.compile.while_loop(lambda i: (v.value < 5) & (i < 9), more, 0)

    return vmap(lane, in_states=v), [v]


def cond_in_vmap() -> Made:
    v, n = sg.State(jnp.zeros(3)), sg.State(0)

    def lane(x: Any) -> Any:
        def spike() -> Any:
            v.value = -1.0
            return x * 10

        n.value += 1
        v.value = v.value + x
        return sg.compile.cond(v.value > 1.5, spike, lambda: x)

    return vmap(lane, in_states=v), [v, n]


def cond_around_vmap() -> Made:
    v = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        v.value = v.value + x
        return x

    f = vmap(lane, in_states=v)
    return lambda xs: sg.compile.cond(xs.sum() > 7, lambda: f(xs), lambda: xs), [v]


def checkpoint_in_grad_of_vmap() -> Made:
    from tests.oracle import checkpoint

    w = sg.ParamState(2.0)
    return grad(lambda xs: vmap(lambda x: checkpoint(lambda y: jnp.sin(y * w.value))(x))(xs).sum(), w, 0), [w]


def inner_jit_in_vmap() -> Made:
    v = sg.State(jnp.zeros(3))

    @jax.jit
    def add(x: Any) -> Any:
        v.value = v.value + x
        return v.value

    return vmap(lambda x: add(x) + add(x * 2), in_states=v), [v]


def custom_rules_in_vmap() -> Made:
    w = sg.ParamState(2.0)

    @jax.custom_vjp
    def spike(x: Any) -> Any:
        return (x > 0).astype(x.dtype)

    spike.defvjp(lambda x: (spike(x), x), lambda x, g: (g / (1 + x * x),))
    return grad(lambda xs: vmap(lambda x: spike(x * w.value - 3) * x)(xs).sum(), w, 0), [w]


NESTED = [
    nested_vmap,
    vmap_of_grad,
    grad_of_vmap,
    grad_of_mapped_state,
    second_derivative_over_lanes,
    vmap_in_scan,
    scan_in_vmap,
    while_in_vmap,
    cond_in_vmap,
    cond_around_vmap,
    checkpoint_in_grad_of_vmap,
    inner_jit_in_vmap,
    custom_rules_in_vmap,
]


@pytest.mark.parametrize("make", NESTED, ids=lambda make: make.__name__)
def test_nesting_agrees_with_the_loop_over_lanes(make: Callable[[], Made]) -> None:
    xs = GRID if make is nested_vmap else XS
    agree(make, (xs,), (xs + 1,))


@pytest.mark.parametrize("make", NESTED, ids=lambda make: make.__name__)
def test_nesting_called_eagerly_agrees_too(make: Callable[[], Made]) -> None:
    xs = GRID if make is nested_vmap else XS
    f, states = make()
    g, same = make()
    compiled = sg.compile.jit(g)
    for x in (xs, xs + 1):
        assert close(f(x), compiled(x)) and close([s.value for s in states], [s.value for s in same])


# -------------------------------------------------------------------------------- collectives, prints, random


@pytest.mark.parametrize("way", WAYS)
def test_lanes_talk_over_a_named_axis(way: str) -> None:
    k = sg.State(2.0)

    def lane(x: Any) -> Any:
        return (
            x / jax.lax.psum(x * k.value, "lanes")
            + jax.lax.axis_index("lanes")
            + jax.lax.all_gather(x, "lanes").max()
        )

    assert close(
        run(way, vmap(lane, axis_name="lanes"), XS),
        jax.vmap(lambda x: x / 12 + jax.lax.axis_index("i") + 3, axis_name="i")(XS),
    )


def test_what_all_lanes_agreed_on_is_written_once() -> None:
    mean, v = sg.State(0.0), sg.State(jnp.zeros(3))

    def lane(x: Any) -> None:
        v.value += x
        mean.value = jax.lax.pmean(v.value, "lanes")

    for call in (
        vmap(lane, axis_name="lanes", in_states=v),
        sg.compile.jit(vmap(lane, axis_name="lanes", in_states=v)),
    ):
        call(XS)
    assert float(mean.value) == 4 and mean.value.shape == ()


def test_named_axes_reach_through_lanes_loops_and_gradients() -> None:
    w = sg.ParamState(2.0)

    def inner(x: Any) -> Any:
        total = jax.lax.psum(x * w.value, "rows") + jax.lax.psum(x, "columns")
        return sg.compile.for_loop(
            lambda k: jax.lax.psum(k * x, ("rows", "columns")) + total, jnp.arange(2.0)
        ).sum()

    def outer(row: Any) -> Any:
        return vmap(grad(inner, 0), axis_name="columns")(row), vmap(inner, axis_name="columns")(row)

    def pure(x: Any) -> Any:
        total = jax.lax.psum(x * 2.0, "rows") + jax.lax.psum(x, "columns")
        return sum(jax.lax.psum(k * x, ("rows", "columns")) + total for k in (0.0, 1.0))

    found = sg.compile.jit(vmap(outer, axis_name="rows"))(GRID)
    expected = jax.vmap(
        lambda row: (
            jax.vmap(jax.grad(pure), axis_name="columns")(row),
            jax.vmap(pure, axis_name="columns")(row),
        ),
        axis_name="rows",
    )(GRID)
    assert close(found, expected)


def test_the_reference_interpreter_runs_collectives() -> None:
    from tests.support import build, interpret

    v = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        v.value += jax.lax.psum(x, "lanes")
        return v.value

    trace = build(vmap(lane, axis_name="lanes", in_states=v), XS)
    result, _ = interpret(trace, XS)
    assert close(result, jnp.full(3, 6.0))


def test_lanes_that_talk_behave_the_same_in_plain_python() -> None:
    def make() -> Made:
        v, mean, rng = sg.State(jnp.zeros(3)), sg.State(0.0), sg.random.RandomState(1)

        def lane(x: Any) -> Any:
            v.value += x + rng.uniform()
            mean.value = jax.lax.pmean(v.value, "lanes")
            return sg.compile.for_loop(lambda k: k * jax.lax.psum(v.value, "lanes"), jnp.arange(2.0))

        return vmap(lane, axis_name="lanes", in_states=v), [v, mean]

    agree(make, (XS,), (XS + 1,), reference=False)


def test_prints_come_once_per_lane(capsys: pytest.CaptureFixture[str]) -> None:
    s = sg.State(2.0)

    def lane(x: Any) -> Any:
        jax.debug.print("x = {}", x * s.value)
        return x

    sg.compile.jit(vmap(lane))(XS)
    jax.effects_barrier()
    assert sorted(capsys.readouterr().out.split("\n")) == ["", "x = 2.0", "x = 4.0", "x = 6.0"]


def random_lanes() -> Made:
    rng = sg.random.RandomState(7)
    total = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        a = rng.normal(size=2)
        b = sg.compile.for_loop(lambda _: rng.uniform(), jnp.arange(2))
        total.value += a.sum()
        return a, b, x

    return vmap(lane, in_states=total), [rng, total]


def nested_random_lanes() -> Made:
    rng = sg.random.RandomState(7)

    def outer(row: Any) -> Any:
        return rng.uniform(), vmap(lambda x: x + rng.uniform())(row), rng.uniform()

    return vmap(outer), [rng]


def isolated_random_lanes() -> Made:
    rng, s = sg.random.RandomState(7), sg.State(0.0)

    def lane(x: Any) -> Any:
        s.value += x
        return s.value + rng.uniform()

    return vmap(lane, isolated=True), [rng, s]


def random_lanes_in_a_loop() -> Made:
    rng = sg.random.RandomState(3)
    f = vmap(lambda x: x * rng.uniform())
    return lambda xs: sg.compile.for_loop(lambda k: f(xs + k), jnp.arange(3.0)), [rng]


def keys(states: Sequence[Any]) -> list[Any]:
    return [
        jax.random.key_data(s.value) if jax.dtypes.issubdtype(s.value.dtype, jax.dtypes.prng_key) else s.value
        for s in states
    ]


@pytest.mark.parametrize(
    "make",
    [random_lanes, nested_random_lanes, isolated_random_lanes, random_lanes_in_a_loop],
    ids=lambda make: make.__name__,
)
def test_every_lane_draws_from_a_key_of_its_own(make: Callable[[], Made]) -> None:
    xs = GRID if make is nested_random_lanes else XS
    f, states = make()
    with jax.disable_jit():
        first, second = f(xs), f(xs)
    expected, after = (first, second), keys(states)
    assert not close(first, second)
    for wrap in (lambda f: f, sg.compile.jit):
        f, states = make()
        call = wrap(f)
        assert close((call(xs), call(xs)), expected) and close(keys(states), after)


def test_lanes_differ() -> None:
    rng = sg.random.RandomState(0)
    drawn = np.asarray(vmap(lambda: rng.normal(), axis_size=100)())
    assert len(np.unique(drawn)) == 100

"""Prints and callbacks of JAX under everything: what eager Python shows, compiled code shows, none lost, in order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import stategraph as sg

pytestmark = pytest.mark.core
SEEN = []


def note(x):
    SEEN.append(round(float(x), 4))


def answer(x):
    note(x)
    return np.float32(x)


def unordered(x):
    jax.debug.callback(note, x)
    return x


def ordered(x):
    jax.debug.callback(note, x, ordered=True)
    return x


def ordered_io(x):
    io_callback(note_nothing, None, x, ordered=True)
    return x


def note_nothing(x):
    note(x)


def unordered_io(x):
    io_callback(note_nothing, None, x)
    return x


def pure(x):
    return jax.pure_callback(answer, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential")


KINDS = {f.__name__: f for f in (unordered, ordered, ordered_io, unordered_io, pure)}


def places(log):
    """Functions of a vector that log in different places, with State in between."""
    s, w = sg.State(0.0), sg.ParamState(2.0)

    def step(x):
        s.value = s.value + x
        return log(s.value)

    def straight(xs):
        return log(xs[0]) + log(xs[1]) + step(xs[2])

    def loop(xs):
        return sg.compile.for_loop(step, xs)

    def raw_loop(xs):
        return jax.lax.scan(lambda c, x: (c + step(x), c), 0.0, xs)

    def nested(xs):
        return sg.compile.for_loop(lambda x: sg.compile.for_loop(lambda y: step(x * y), xs).sum(), xs)

    def while_loop(xs):
        return sg.compile.while_loop(lambda i: i < 3, lambda i: i + 1 + (step(xs[0]) < 0), 0)

    def branch(xs):
        return sg.compile.cond(xs[0] > 0, lambda: step(xs[1]), lambda: step(xs[2]))

    def skipped_branch(xs):
        return sg.compile.for_loop(lambda x: sg.compile.cond(x > 1.5, lambda: step(x), lambda: 0.0), xs)

    def inner_jit(xs):
        return jax.jit(log)(xs[0]) + jax.jit(step)(xs[1])

    def gradient(xs):
        return sg.augment.grad(lambda: log(xs[0]) * w.value + w.value * step(xs[1]), w)()

    def gradient_of_loop(xs):
        return sg.augment.grad(lambda: sg.compile.for_loop(lambda x: w.value * step(x), xs).sum(), w)()

    def loop_of_gradients(xs):
        return sg.compile.for_loop(lambda x: sg.augment.grad(lambda: w.value * step(x), w)(), xs)

    def forward(xs):
        return sg.augment.jvp(lambda x: x * log(jax.lax.stop_gradient(x)), (xs[0],), (1.0,))

    def lanes(xs):
        return sg.augment.vmap(lambda x: log(x) * 2)(xs)

    def lanes_in_loop(xs):
        return sg.compile.for_loop(lambda x: sg.augment.vmap(lambda y: log(x * y))(xs), xs)

    def unused(xs):
        log(xs[0])
        sg.compile.for_loop(lambda x: (log(x), None)[1], xs)

    return {name: f for name, f in locals().items() if callable(f) and name not in ("log", "step")}


IMPOSSIBLE = {(kind, place) for kind in ("ordered", "ordered_io") for place in ("lanes", "lanes_in_loop")}
"""JAX has no lanes for ordered effects."""
IMPOSSIBLE |= {
    ("ordered_io", "forward"),
    ("unordered_io", "forward"),
    ("pure", "forward"),
    ("pure", "unused"),
}
CASES = [(k, p) for k in KINDS for p in places(lambda x: x) if (k, p) not in IMPOSSIBLE]


def seen(function, *args):
    SEEN.clear()
    result = function(*args)
    jax.block_until_ready(result)
    jax.effects_barrier()
    return list(SEEN)


@pytest.mark.parametrize(("kind", "place"), CASES)
def test_the_host_sees_what_it_sees_in_eager_python(kind, place):
    xs = jnp.array([1.0, 2.0, 3.0])
    with jax.disable_jit():
        expected = seen(places(KINDS[kind])[place], xs)
    compiled = sg.compile.jit(places(KINDS[kind])[place])
    found = seen(compiled, xs)
    assert expected and found.count(expected[0])
    if kind.startswith("ordered"):
        assert found == expected
    else:
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("place", list(places(lambda x: x)))
def test_prints_are_those_of_eager_python(place, capsys):
    def show(x):
        jax.debug.print("{x:.4f}", x=x)
        return x

    def printed(function):
        capsys.readouterr()
        seen(function, jnp.array([1.0, 2.0, 3.0]))
        return capsys.readouterr().out.split()

    with jax.disable_jit():
        expected = printed(places(show)[place])
    assert expected
    assert sorted(printed(sg.compile.jit(places(show)[place]))) == sorted(expected)

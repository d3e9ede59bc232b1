"""The reference interpreter against plain JAX, op family by op family, and against plain Python under
``jax.disable_jit``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph.state import State
from tests.backends.interpreted import V, X, calls
from tests.support import assert_same, build, eagerly, interpret

pytestmark = pytest.mark.core


def dot_general(x: Any) -> Any:
    return x @ x.T, jnp.einsum("ij,kj->ik", x, x)


def linear_algebra(x: Any) -> Any:
    a = x @ x.T + 3 * jnp.eye(2)
    return jnp.linalg.cholesky(a), jnp.linalg.solve(a, x), jnp.linalg.eigh(a)[0]


def elementwise(x: Any) -> Any:
    return (
        jnp.sin(x) * jnp.exp(x) / (1 + x**2),
        jnp.maximum(x, 0),
        jnp.sign(x),
        jnp.where(x > 0, x, -x),
        jnp.isnan(jnp.log(x)),
    )


def shapes(x: Any) -> Any:
    return (
        x.reshape(3, 2).T,
        jnp.concatenate([x, x], 1),
        jnp.pad(x, 1),
        x[::-1, 1:],
        jnp.broadcast_to(x, (2, 2, 3)),
        jnp.tile(x, 2),
    )


def reductions(x: Any) -> Any:
    return (
        x.sum(0),
        x.prod(),
        x.max(1),
        jnp.argmax(x, 1),
        jnp.cumsum(x, 1),
        jnp.any(x > 0),
        jnp.sort(x, 1),
        jax.lax.top_k(x, 2),
    )


def general_reduce(x: Any) -> Any:
    return jax.lax.reduce(x, np.float32(1.0), lambda a, b: a * b + 0 * a, (1,)), jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2), (1, 1), "VALID"
    )


def gather_scatter(x: Any) -> Any:
    i = jnp.array([2, 0])
    return (
        x[:, i],
        x.at[:, i].add(1.0),
        x.at[0].set(7.0),
        jnp.take_along_axis(x, i[:, None], 1),
        x.at[1, i].max(0.1),
    )


def integers(x: Any) -> Any:
    i = jnp.asarray(x * 4, jnp.int32)
    return (
        i // 3,
        i % 3,
        i << 1,
        i ^ 5,
        jnp.bitwise_count(i),
        i.astype(jnp.float16),
        (i > 0) & (i < 3),
        jax.lax.clz(i),
    )


def dtypes(x: Any) -> Any:
    return (
        x.astype(jnp.bfloat16) * 3,
        x.astype(jnp.float16) / 3,
        (x + 1j * x) ** 2,
        jax.lax.bitcast_convert_type(x, jnp.int32),
    )


def random_bits(x: Any) -> Any:
    key = jax.random.key(3)
    keys = jax.random.split(key, 3)
    return (
        keys,
        jax.random.normal(keys[1], x.shape),
        jax.random.permutation(keys[2], x),
        jax.random.PRNGKey(1),
        jax.random.bernoulli(key, 0.3, (3,)),
    )


def convolution(x: Any) -> Any:
    return jnp.convolve(x[0], V), jax.lax.conv_general_dilated(
        x[None, None], jnp.ones((1, 1, 2, 2)), (1, 1), "SAME"
    )


def fourier(x: Any) -> Any:
    return jnp.fft.fft(x), jnp.fft.irfft(jnp.fft.rfft(x, axis=1), axis=1)


def scans(x: Any) -> Any:
    def body(c: Any, row: Any) -> Any:
        return c * 1.5 + row, (c, row.sum())

    return jax.lax.scan(body, V, x), jax.lax.scan(body, V, x, reverse=True), jax.lax.map(jnp.sin, x)


def loops(x: Any) -> Any:
    grow = jax.lax.while_loop(lambda c: c[0].sum() < 50, lambda c: (c[0] * 1.5 + 1, c[1] + 1), (x, 0))
    never = jax.lax.while_loop(lambda c: c.sum() > 1e6, lambda c: c + 1, x)
    return grow, never, jax.lax.fori_loop(0, 5, lambda i, c: c + i, x), jax.lax.associative_scan(jnp.add, x)


def branches(x: Any) -> Any:
    pick = [
        jax.lax.switch(i, [lambda: x, lambda: x * 2, lambda: -x])
        for i in (jnp.int32(-5), jnp.int32(1), jnp.int32(9))
    ]
    return pick, jax.lax.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, x)


def weak_types(x: Any) -> Any:
    y = jax.lax.cond(True, lambda: 1.0, lambda: 2.0)
    return y * x.astype(jnp.float16), jax.lax.while_loop(lambda i: i < 3, lambda i: i + 1, 0) * x.astype(
        jnp.bfloat16
    )


def vmapped(x: Any) -> Any:
    return jax.vmap(lambda row: jax.lax.cond(row.sum() > 0, jnp.sin, jnp.cos, row))(x), jax.vmap(
        lambda r: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, r)
    )(x)


def plain_gradients(x: Any) -> Any:
    return (
        jax.grad(lambda y: (jnp.sin(y) ** 2).sum())(x),
        jax.jvp(jnp.tanh, (x,), (x,)),
        jax.hessian(lambda y: (y**3).sum())(V),
    )


FAMILIES = [
    elementwise, shapes, reductions, general_reduce, gather_scatter, integers, dtypes, random_bits,
    dot_general, linear_algebra, convolution, fourier, scans, loops, branches, calls, weak_types,
    vmapped, plain_gradients,
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_op_family_computes_what_jax_computes_op_by_op(family: Any) -> None:
    trace = build(family, X)
    result, _ = interpret(trace, X)
    with jax.disable_jit():
        expected = family(X)
    assert_same(
        expected, result, exact=family not in (linear_algebra, fourier, convolution, plain_gradients, calls)
    )
    for a, b in zip(jax.tree.leaves(jax.jit(family)(X)), jax.tree.leaves(result), strict=True):
        assert jax.typeof(a) == jax.typeof(b)


def test_state_nested_three_deep_equals_plain_python() -> None:
    s, n, d = State(V), State(0), State({"a": jnp.zeros(3), "b": (jnp.int32(1), jnp.array(True))})

    def f(x: Any) -> Any:
        def outer(c: Any, row: Any) -> Any:
            local = State(c * 2)

            def middle(i: Any, acc: Any) -> Any:
                def inner(carry: Any) -> Any:
                    n.value += 1
                    local.value = local.value * 0.5 + row
                    value = d.value
                    d.value = {"a": value["a"] + local.value, "b": (value["b"][0] + n.value, ~value["b"][1])}
                    return carry + 1

                jax.lax.while_loop(lambda k: k < n.value % 3, inner, 0)
                s.value = jax.lax.cond(d.value["b"][1], lambda: s.value + local.value, lambda: s.value)
                return acc + s.value.sum() + i

            return jax.lax.fori_loop(0, 2, middle, c), local.value

        return jax.lax.scan(outer, V, x)

    trace = build(f, X)
    expected, after = eagerly(f, X, states=trace.states)
    result, states = interpret(trace, X)
    assert_same(expected, result)
    assert_same(after, states)
    assert_same(s.value, V)  # nothing was written back


def test_two_names_for_one_state_and_a_swap() -> None:
    a, b = State(jnp.float32(1)), State(jnp.float32(2))
    alias = a

    def f() -> Any:
        alias.value = a.value + 10
        a.value, b.value = b.value, alias.value
        return a.value - b.value

    trace = build(f)
    expected, after = eagerly(f, states=trace.states)
    result, states = interpret(trace)
    assert_same((expected, after), (result, states))


def test_a_state_that_changes_its_type_in_straight_line_code() -> None:
    s = State(jnp.zeros(2))

    def f() -> Any:
        s.value = jnp.arange(3)
        return s.value + 1

    result, states = interpret(build(f))
    assert_same(result, jnp.arange(3) + 1)
    assert_same(states["s"], (jnp.arange(3),))


def test_states_born_in_the_trace_are_among_the_new_states() -> None:
    from stategraph.graph.node import Node

    class Model(Node):
        def start(self) -> Any:
            self.h = State(jnp.ones(2))
            self.h.value += 1

    trace = build(Model().start)
    _, states = interpret(trace)
    assert [jnp.asarray(leaf).tolist() for (leaf,) in states.values()] == [[2.0, 2.0]]
    assert set(states) == set(trace.born)


def test_a_scan_without_trips_gives_its_carry_and_empty_stacks() -> None:
    def f(x: Any) -> Any:
        return jax.lax.scan(lambda c, row: (c + row, (c, jax.random.key(0))), V, x)

    result, _ = interpret(build(f, X[:0]), X[:0])
    assert_same(jax.jit(f)(X[:0]), result)


def test_local_states_live_for_one_run_of_their_region() -> None:
    def f(x: Any) -> Any:
        def body(c: Any, _: Any) -> Any:
            t = State(jnp.float32(0))
            t.value += c
            return t.value + 1, t.value

        return jax.lax.scan(body, x, length=3)

    result, states = interpret(build(f, jnp.float32(1)), jnp.float32(1))
    assert_same(result, (jnp.float32(4), jnp.array([1.0, 2.0, 3.0])))
    assert states == {}


def test_host_effects_come_in_order(capfd: Any) -> None:
    seen = []

    def f(x: Any) -> Any:
        def body(c: Any, _: Any) -> Any:
            jax.debug.print("c = {}", c)
            jax.debug.callback(lambda v: seen.append(float(v)), c)
            return c * 2, None

        out, _ = jax.lax.scan(body, x, length=3)
        y = jax.pure_callback(lambda v: np.asarray(v) + 1, jax.ShapeDtypeStruct((), jnp.float32), out)
        z = jax.experimental.io_callback(
            lambda v: np.asarray(v) * 2, jax.ShapeDtypeStruct((), jnp.float32), y, ordered=True
        )
        return y, z

    result, _ = interpret(build(f, jnp.float32(1)), jnp.float32(1))
    assert [float(r) for r in result] == [9.0, 18.0]
    assert seen == [1.0, 2.0, 4.0]
    assert capfd.readouterr().out.split() == ["c", "=", "1.0", "c", "=", "2.0", "c", "=", "4.0"]

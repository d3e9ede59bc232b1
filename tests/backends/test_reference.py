"""The reference interpreter against plain JAX, op family by op family, and against plain Python under
``jax.disable_jit``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph import ir
from stategraph.backends import reference
from stategraph.backends.reference import ExecutionError, TooManyTrips
from stategraph.state import ParamState, State
from tests.support import assert_same, build, eagerly, interpret, leaves_of, program

pytestmark = pytest.mark.core

X = jnp.linspace(-2.0, 3.0, 6).reshape(2, 3)
V = jnp.array([0.5, -1.0, 2.0])


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


def calls(x: Any) -> Any:
    inner = jax.jit(lambda y: y * 2)
    return (
        inner(x) + inner(x + 1),
        jax.checkpoint(jnp.sin)(x),
        jax.nn.relu(x),
        jax.nn.softmax(x),
        jax.nn.gelu(x),
        jax.numpy.linalg.norm(x),
    )


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


# ---------------------------------------------------------------------------------------------------- errors


def test_an_error_names_the_op_its_line_and_the_values() -> None:
    def boom(x: Any) -> Any:
        raise ValueError("no luck")

    def f(x: Any) -> Any:
        def body(c: Any, _: Any) -> Any:
            return jax.pure_callback(boom, jax.ShapeDtypeStruct((3,), jnp.float32), c), None

        return jax.lax.scan(body, x, length=2)[0]

    with pytest.raises(ExecutionError) as caught:
        interpret(build(f, V), V)
    message = str(caught.value)
    assert message.startswith("While executing %")
    assert (
        "host.pure_callback" in message
        and "test_reference.py" in message
        and "f32[3]" in message
        and "no luck" in message
    )
    assert any("inside flow.scan" in note for note in caught.value.__notes__)


def test_wrong_inputs_are_refused() -> None:
    s = State(jnp.float32(0))
    trace = build(lambda x: x + s.value, jnp.float32(1))
    states = leaves_of(trace.states)
    for arguments, given, words in (
        ([], states, "takes 1 arguments and was given 0"),
        ([jnp.int32(1)], states, "has type i32[], the program says f32[]"),
        ([jnp.float32(1)], {}, "needs a value for State @"),
        ([jnp.float32(1)], {path: (jnp.zeros(3),) for path in states}, "f32[3]"),
    ):
        with pytest.raises(ExecutionError, match=None) as caught:
            reference.run(trace.program, arguments, given)
        assert words in str(caught.value)


def test_inputs_are_never_changed() -> None:
    s = State(jnp.float32(0))

    def f() -> None:
        s.value += 1

    trace = build(f)
    states = leaves_of(trace.states)
    before = dict(states)
    reference.run(trace.program, [], states)
    assert states == before


def test_a_trip_limit_stops_endless_loops() -> None:
    trace = build(lambda x: jax.lax.while_loop(lambda c: c == c, lambda c: c, x), jnp.float32(0))
    with pytest.raises(TooManyTrips):
        reference.run(trace.program, [jnp.float32(0)], {}, trip_limit=10)


def test_unknown_ops_and_missing_primitives_are_named() -> None:
    for text, words in (
        ("jax.no_such_thing", "no primitive 'no_such_thing'"),
        ("acme.op", "no meaning for this op"),
    ):
        body = ir.Region([])
        op = ir.Op(text, (), [ir.TensorType("f32")])
        body.append(op)
        body.yield_([op.result])
        broken = ir.Program("p", body, result_names=["r"], result_tree=ir.tuple_tree(ir.LEAF))
        with pytest.raises(ExecutionError, match=words):
            reference.run(broken, [], {})


def test_a_program_read_from_text_runs() -> None:
    found = program("""
        program @count(%x : f32[]) -> (r : f32[]) {
          state @s : State<f32[]>
          %0 = state.read @s : f32[]
          %1 = jax.add %0, %x : f32[]
          state.write @s, %1
          flow.yield %1
        }
    """)
    results, states = reference.run(found, [jnp.float32(2)], {"s": (jnp.float32(1),)})
    assert_same(results, [jnp.float32(3)])
    assert_same(states, {"s": (jnp.float32(3),)})


def test_evaluate_gives_constants_bit_for_bit() -> None:
    op = ir.Op(
        "jax.add", [ir.Constant(np.float32(0.1)), ir.Constant(np.float32(0.2))], [ir.TensorType("f32")]
    )
    (found,) = reference.evaluate(op)
    assert found.tobytes() == (np.float32(0.1) + np.float32(0.2)).tobytes()
    assert reference.evaluate(ir.Op("state.read", (), [ir.TensorType("f32")], {"symbol": "s"})) is None
    assert reference.evaluate(ir.Op("jax.nothing", (), [ir.TensorType("f32")])) is None


# ------------------------------------------------------------------------------------------------- gradients


def gradient(function: Any, *args: Any, states: tuple[State[Any], ...] = ()) -> Any:
    """(value, *others), (argument gradients, State gradients by path), new States, from an ``xform.grad``
    around a traced function."""
    trace = build(function, *args)
    inner = trace.program
    paths = [path for state in states for path, live in trace.states.items() if live is state]
    count = len(jax.tree.leaves(args))
    body = ir.Region([arg.type for arg in inner.body.args])
    region = ir.clone_region(inner.body, {})
    for old, new in zip(region.args[count:], body.args[count:], strict=True):
        ir.Rewriter().replace_uses(old, new)
    region.args = region.args[:count]
    wanted = [type for path in paths for type in inner.states[path].types]
    types = [*(v.type for v in inner.body.yielded), *(a.type for a in body.args[:count]), *wanted]
    attributes = {"states": tuple(map(ir.Symbol, paths)), "allow_int": False, "holomorphic": False}
    op = body.append(ir.Op("xform.grad", body.args[:count], types, attributes, [region]))
    body.yield_(op.results)
    whole = ir.Program(
        "g",
        body,
        inner.states,
        inner.argument_names,
        inner.argument_tree,
        inner.captured,
        [f"r{i}" for i in range(len(types))],
    )
    whole.result_tree = ir.tuple_tree(*[ir.LEAF] * len(types))
    results, new = reference.run(whole, jax.tree.leaves(args), leaves_of(trace.states))
    outs = len(inner.body.yielded)
    return results[:outs], results[outs : outs + count], results[outs + count :], new


def test_gradient_of_a_model_with_state_equals_jax_grad_of_the_purified_function() -> None:
    w, h, seen = ParamState(jnp.eye(3) * 0.5), State(V), State(0)

    def loss(x: Any) -> Any:
        def step(c: Any, row: Any) -> Any:
            h.value = jnp.tanh(h.value @ w.value + row)
            seen.value += 1
            return c + (h.value**2).sum(), h.value

        total, hs = jax.lax.scan(step, 0.0, x)
        return total, hs

    def pure(x: Any, w: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            c, h = carry
            h = jnp.tanh(h @ w + row)
            return (c + (h**2).sum(), h), h

        (total, last), hs = jax.lax.scan(step, (0.0, V), x)
        return total, (hs, last)

    (value, hs), (gx,), (gw,), new = gradient(loss, X, states=(w,))
    (expected, (ehs, last)), grads = jax.value_and_grad(pure, argnums=(0, 1), has_aux=True)(X, w.value)
    assert_same((expected, ehs, *grads), (value, hs, gx, gw), exact=False)
    assert_same(last, new["h"][0], exact=False)
    assert int(new["seen"][0]) == 2


def test_gradient_through_a_while_loop_and_a_branch_whose_conditions_depend_on_state() -> None:
    w, n = ParamState(jnp.float32(1.3)), State(0)

    def loss(x: Any) -> Any:
        def body(c: Any) -> Any:
            n.value += 1
            return c * w.value

        y = jax.lax.while_loop(lambda c: c < 10, body, x)
        return jax.lax.cond(y > 11, lambda: y * 2, lambda: y * w.value)

    def unrolled(x: Any, w: Any) -> Any:
        while x < 10:
            x = x * w
        return x * 2 if x > 11 else x * w

    for x in (jnp.float32(2.0), jnp.float32(2.2)):
        (value,), (gx,), (gw,), _ = gradient(loss, x, states=(w,))
        expected, grads = jax.value_and_grad(unrolled, argnums=(0, 1))(x, w.value)
        assert_same((expected, *grads), (value, gx, gw), exact=False)


def test_gradients_nest() -> None:
    w = ParamState(jnp.float32(2.0))
    inner = build(lambda x: jnp.sin(x) * w.value**3, jnp.float32(0.7))
    path = next(iter(inner.states))

    # d/dx, then d/dw of that, as two nested xform.grad ops
    def grad_op(region: ir.Region, states: tuple[str, ...], extra: int) -> ir.Region:
        outer = ir.Region([ir.TensorType("f32")])
        types = [*(v.type for v in region.yielded), ir.TensorType("f32"), *[ir.TensorType("f32")] * extra]
        op = outer.append(
            ir.Op("xform.grad", outer.args, types, {"states": tuple(map(ir.Symbol, states))}, [region])
        )
        outer.yield_([op.results[1 + len(region.yielded) - 1]] if not states else op.results)
        return outer

    first = grad_op(ir.clone_region(inner.program.body, {}), (), 0)
    second = grad_op(first, (path,), 1)
    names = [f"r{i}" for i in range(3)]
    whole = ir.Program(
        "g",
        second,
        inner.program.states,
        ["x"],
        inner.program.argument_tree,
        {},
        names,
        ir.tuple_tree(*[ir.LEAF] * 3),
    )
    (dx, dxx, dxw), _ = reference.run(whole, [jnp.float32(0.7)], leaves_of(inner.states))
    x, v = 0.7, 2.0
    np.testing.assert_allclose(
        [dx, dxx, dxw], [np.cos(x) * v**3, -np.sin(x) * v**3, np.cos(x) * 3 * v**2], rtol=1e-5
    )


def test_custom_rules_are_honoured_under_a_gradient_and_ignored_elsewhere() -> None:
    scale = State(jnp.float32(3.0))

    @jax.custom_jvp
    def fake(x: Any, k: Any) -> Any:
        return jnp.sin(x) * k

    @fake.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        (x, k), (dx, _) = primals, tangents
        return fake(x, k) * scale.value, dx * 100.0 * scale.value  # calls itself, reads State

    @jax.custom_vjp
    def clip(x: Any) -> Any:
        return x * scale.value

    clip.defvjp(lambda x: (x * 3.0, (x > 0,)), lambda kept, g: (jnp.where(kept[0], g, 7.0),))

    def loss(x: Any) -> Any:
        return (fake(x, 2) + clip(x)).sum(), jax.nn.relu(x)

    (value, _), (gx,), _, _ = gradient(loss, V)
    assert_same(value, (jnp.sin(V) * 6.0 + V * 3.0).sum(), exact=False)
    assert_same(gx, jnp.where(V > 0, 301.0, 307.0), exact=False)
    assert_same(interpret(build(loss, V), V)[0][0], (jnp.sin(V) * 2 + V * 3).sum(), exact=False)


def test_second_derivative_of_a_function_with_a_recursive_rule() -> None:
    k = jnp.float32(2.0)

    @jax.custom_jvp
    def cube(x: Any) -> Any:
        return x * x * x * k

    cube.defjvp(lambda primals, tangents: (cube(primals[0]), 3 * primals[0] ** 2 * k * tangents[0]))

    def loss(x: Any) -> Any:
        return cube(x) * 1.0

    (value,), (g,), _, _ = gradient(loss, jnp.float32(3.0))
    assert_same((value, g), (jnp.float32(54.0), jnp.float32(54.0)), exact=False)


def test_state_written_by_a_function_with_a_rule() -> None:
    calls = State(0)

    @jax.custom_jvp
    def f(x: Any) -> Any:
        calls.value += 1
        return x * 2

    f.defjvp(lambda primals, tangents: (primals[0] * 2, tangents[0] * 5))
    _, states = interpret(build(lambda x: f(x), V), V)
    assert int(states["calls"][0]) == 1
    _, (g,), _, new = gradient(lambda x: f(x).sum(), V)
    assert_same(g, jnp.full(3, 5.0))
    assert int(new["calls"][0]) == 0  # under its rule the function does not run, as in JAX


def test_debug_prints_under_a_gradient_come_once(capfd: Any) -> None:
    def loss(x: Any) -> Any:
        jax.debug.print("x = {}", x)
        return (x**2).sum()

    gradient(loss, jnp.float32(2.0))
    assert capfd.readouterr().out.split("\n") == ["x = 2.0", ""]

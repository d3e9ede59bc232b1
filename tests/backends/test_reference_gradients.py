"""Gradients in the reference interpreter, and its errors."""

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
from tests.backends.interpreted import V, X
from tests.support import assert_same, build, interpret, leaves_of, program

pytestmark = pytest.mark.core


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
        and "test_reference_gradients.py" in message
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

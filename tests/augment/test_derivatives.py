"""``vector_grad``, ``fwd_grad``, Jacobians and Hessians over State.

Three ways to run each call (compiled when called eagerly, inside ``jit``, as plain Python) against JAX on
hand-purified functions.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import ir
from stategraph.errors import LoweringError, StateGraphError, TraceError
from tests.augment.derivatives import Net, Way, X, augment, close, pure_net
from tests.oracle import checkpoint
from tests.support import build, interpret, roundtrip

# ------------------------------------------------------------------------------------------------ conventions


@pytest.mark.core
@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
def test_jacobians_equal_those_of_the_hand_purified_function(name: str, way: Way) -> None:
    net = Net()
    jac = getattr(augment, name)
    plain: Any = jax.jacfwd if name == "jacfwd" else jax.jacrev
    w, b = net.w.value, net.b.value["b"]
    by_w, by_b, by_x = plain(pure_net, (0, 1, 2))(w, b, X)
    f = lambda x: net(x)
    assert close(way(lambda: jac(f)(X)), by_x)
    assert close(way(lambda: jac(f, net.w)(X)), by_w)
    one, two, three, four = way(
        lambda: (
            jac(f, [net.w, net.b])(X),
            jac(f, ...)(X),
            jac(f, net.states(sg.ParamState))(X),
            jac(f, net.b, argnums=(0,))(X),
        )
    )
    assert close(one, [by_w, {"b": by_b}])
    assert set(two) == {"net.w", "net.b"} and set(three) == {("w",), ("b",)} and close(three["w",], by_w)
    states, args = four
    assert close(states["b"], by_b) and isinstance(args, tuple) and close(args[0], by_x)
    assert (
        augment.jacobian is augment.jacrev
        and int(net.count.value) == 6
        and close(net.last.value * 2, pure_net(w, b, X))
    )


@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
def test_results_of_any_structure_give_that_structure(name: str, way: Way) -> None:
    w = sg.ParamState(jnp.array([1.0, 2.0]))
    jac, plain = getattr(augment, name), getattr(jax, name)

    def pure(w: Any, p: Any) -> Any:
        return {"a": w[:, None] * p["x"], "b": (w.sum() * p["y"], p["y"] ** 2)}

    p = {"x": X, "y": jnp.float32(2)}
    expected = plain(pure, (0, 1))(w.value, p)
    found = way(lambda: jac(lambda p: pure(w.value, p), w, argnums=0)(p))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert close(found, expected)


def test_value_and_aux_come_in_the_documented_order(way: Way) -> None:
    net = Net()
    w, b = net.w.value, net.b.value["b"]
    value = pure_net(w, b, X)
    plain, aux_f = (lambda x: net(x)), (lambda x: (net(x), {"n": net.count.value}))
    for name in ("jacrev", "vector_grad"):
        make = getattr(augment, name)
        derivative, found = way(lambda make=make: make(plain, net.w, return_value=True)(X))
        assert close(found, value)
        again, aux = way(lambda make=make: make(aux_f, net.w, has_aux=True)(X))
        assert close(again, derivative) and set(aux) == {"n"}
        third, found, aux = way(lambda make=make: make(aux_f, net.w, has_aux=True, return_value=True)(X))
        assert close(third, derivative) and close(found, value) and int(aux["n"]) == int(net.count.value)


def test_vector_grad_is_the_gradient_of_the_sum(way: Way) -> None:
    net = Net()
    w, b = net.w.value, net.b.value["b"]
    expected = jax.grad(lambda w, x: pure_net(w, b, x).sum(), (0, 1))(w, X)
    assert close(way(lambda: augment.vector_grad(lambda x: net(x), net.w, argnums=0)(X)), expected)
    assert close(way(lambda: augment.vector_grad(lambda x: {"a": x**2, "b": x**3})(X)), 2 * X + 3 * X**2)


def test_derivatives_are_decorators_and_take_keywords(way: Way) -> None:
    @augment.jacfwd(argnums=1)
    def f(x: Any, y: Any, *, scale: Any) -> Any:
        return x * y * scale

    assert close(way(lambda: f(X, 2.0, scale=3.0)), 3 * X)
    assert close(way(lambda: augment.jacrev(lambda x: x * 2, 0)(X)), 2 * jnp.eye(3))
    for make in (augment.vector_grad, augment.jacrev, augment.jacfwd, augment.hessian, augment.fwd_grad):
        with pytest.raises(TypeError):
            make(3)


# ----------------------------------------------------------------------------------------------- second order


def test_hessian_of_states_and_arguments_has_all_mixed_blocks(way: Way) -> None:
    v, s, n = sg.ParamState(jnp.array([0.5, -1.0])), sg.ParamState(2.0), sg.State(0)

    def loss(x: Any) -> Any:
        n.value += 1
        return (jnp.sin(v.value * x) * s.value**2).sum()

    def pure(p: Any, x: Any) -> Any:
        return (jnp.sin(p["v"] * x) * p["s"] ** 2).sum()

    at = {"v": v.value, "s": s.value}
    expected = jax.hessian(pure, (0, 1))(at, 0.7)
    found = way(lambda: augment.hessian(loss, {"v": v, "s": s}, argnums=0)(0.7))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert close(found, expected, 1e-4)
    assert int(n.value) == 1
    found, value = way(lambda: augment.hessian(loss, v, return_value=True)(0.7))
    assert close(found, expected[0]["v"][0]["v"], 1e-4) and close(value, pure(at, 0.7))
    names = way(lambda: augment.hessian(loss, ...)(0.7))
    assert set(names) == {"v", "s"} and close(names["s"]["v"], expected[0]["s"][0]["v"], 1e-4)
    found, aux = way(lambda: augment.hessian(lambda x: (loss(x), n.value), has_aux=True)(0.7))
    assert close(found, expected[1][1], 1e-4) and int(aux) == 4


def test_hessian_agrees_with_finite_differences_through_a_stateful_loop() -> None:
    w, h = sg.ParamState(jnp.array([0.4, 0.9])), sg.State(jnp.float32(0.1))

    def loss() -> Any:
        def step(x: Any) -> None:
            h.value = jnp.tanh(h.value * w.value[0] + w.value[1] * x)

        sg.compile.for_loop(step, X)
        return h.value**2

    found = sg.compile.jit(lambda: augment.hessian(loss, w)())()
    w0, step = np.asarray(w.value), 1e-2

    def gradient(at: Any) -> Any:
        w.value, h.value = jnp.asarray(at), jnp.float32(0.1)
        return np.asarray(augment.grad(loss, w)())

    columns = [
        (gradient(w0 + step * e) - gradient(w0 - step * e)) / (2 * step) for e in np.eye(2, dtype=np.float32)
    ]
    assert np.allclose(found, np.stack(columns, 1), atol=2e-3)


# ------------------------------------------------------------------------------------------ through structure


def structured(where: str, w: Any, s: Any, n: Any, x: Any) -> Any:
    """A function of State (``value`` attributes) that reads and writes it inside ``where``."""

    def body(y: Any) -> Any:
        out = jnp.sin(s.value * w.value) * y
        s.value = s.value * w.value + y
        n.value = n.value + 1
        return out

    if where == "cond":
        return sg.compile.cond(x[0] > 0, lambda: body(x[1]), lambda: w.value * 1.0) * s.value
    if where == "for_loop":
        return sg.compile.for_loop(body, x) * s.value
    if where == "local":
        local = sg.State(jnp.float32(0))

        def step(y: Any) -> None:
            local.value = local.value * w.value + body(y)

        sg.compile.for_loop(step, x)
        return local.value * x
    if where == "remat":
        return checkpoint(lambda y: body(y))(x[0]) * s.value * x
    if where == "jit":
        return jax.jit(lambda y: body(y))(x[0]) * s.value * x
    if where == "custom_jvp":
        square: Any = jax.custom_jvp(lambda v: v * v)
        square.defjvp(lambda p, t: (p[0] * p[0], 3 * p[0] * t[0]))  # wrong on purpose: the rule must be used
        return square(w.value * x) * s.value
    sg.compile.while_loop(lambda _: s.value < 3, lambda _: (setattr(s, "value", s.value * 2), 0)[1], 0)
    return w.value * s.value * x


@pytest.mark.parametrize("where", ["cond", "for_loop", "local", "remat", "jit", "custom_jvp", "while"])
@pytest.mark.parametrize("kind", ["jacfwd", "jacrev", "vjp", "jvp", "hessian"])
def test_derivatives_through_structure_equal_eager_python(where: str, kind: str) -> None:
    def run(call: Callable[[Callable[[], Any]], Any], x: Any) -> Any:
        w, s, n = sg.ParamState(jnp.float32(1.2)), sg.State(jnp.float32(0.5)), sg.State(0)
        f = lambda x: structured(where, w, s, n, x)

        def derive() -> Any:
            if kind == "jvp":
                return augment.jvp(f, (x,), (X,))
            if kind == "hessian":
                return augment.hessian(lambda x: f(x).sum(), [w, s], argnums=0)(x)
            if kind == "vjp":
                value, pullback = augment.vjp(f, x, grad_states=[w, s])
                return value, pullback(jnp.ones_like(value)), pullback(value)
            return getattr(augment, kind)(f, [w, s], argnums=0)(x)

        return call(derive), (s.value, n.value)

    def plainly(call: Callable[[], Any]) -> Any:
        with jax.disable_jit():
            return call()

    if where == "while" and kind in ("jacrev", "vjp", "hessian"):
        with pytest.raises((LoweringError, ValueError)):
            run(lambda call: sg.compile.jit(call)(), X)
        return
    expected = run(plainly, X)
    assert close(run(lambda call: sg.compile.jit(call)(), X), expected, 1e-4)
    if kind == "vjp":  # called eagerly it goes another way
        assert close(run(lambda call: call(), X), expected, 1e-4)


def test_a_derivative_inside_a_loop_body_runs_per_trip() -> None:
    w, h = sg.ParamState(jnp.array([0.5, 0.2])), sg.State(jnp.zeros(2))

    def step(x: Any) -> Any:
        def f() -> Any:
            h.value = jnp.tanh(w.value * h.value + x)
            return h.value

        j = augment.jacrev(f, w)()
        w.value = w.value - 0.1 * j.sum(0)
        return j

    def pure(w: Any, h: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            w, h = c
            f = lambda w: (jnp.tanh(w * h + x),) * 2
            j, h = jax.jacrev(f, has_aux=True)(w)
            return (w - 0.1 * j.sum(0), h), j

        return jax.lax.scan(step, (w, h), X)

    (w1, h1), expected = pure(w.value, h.value)
    found = sg.compile.jit(lambda: sg.compile.for_loop(step, X))()
    assert close(found, expected) and close(w.value, w1) and close(h.value, h1)


# ------------------------------------------------------------------------------------------- forward gradient


def test_the_forward_gradient_is_the_derivative_along_a_random_direction_times_it(way: Way) -> None:
    w, s = sg.ParamState(jnp.array([1.0, -2.0])), sg.State(0)

    def loss(x: Any) -> Any:
        s.value += 1
        return (w.value**2).sum() * x

    key = jax.random.key(3)
    found, value = way(lambda: augment.fwd_grad(loss, w, key=key, return_value=True)(3.0))
    direction = jax.random.normal(jax.random.split(key, 1)[0], (2,))
    assert close(found, direction * (6 * w.value @ direction)) and float(value) == 15
    clipped = way(lambda: augment.fwd_grad(loss, w, key=key, drct_der_clip=0.5)(3.0))
    assert close(clipped, direction * np.clip(6 * w.value @ direction, -0.5, 0.5))
    mean = way(lambda: augment.fwd_grad(loss, [w], key=key, tangent_size=20)(3.0))
    assert mean[0].shape == (2,) and int(s.value) == 3
    with pytest.raises(ValueError, match="tangent_size"):
        augment.fwd_grad(loss, w, tangent_size=0)


def test_the_forward_gradient_is_unbiased_and_draws_a_new_direction_each_call() -> None:
    w = sg.ParamState(jnp.array([1.0, -2.0]))
    loss = lambda: (w.value**2).sum()
    assert np.allclose(
        augment.fwd_grad(loss, w, key=jax.random.key(0), tangent_size=20_000)(), [2, -4], atol=0.2
    )
    estimate = sg.compile.jit(augment.fwd_grad(loss, w))
    assert not close(estimate(), estimate())


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["jacrev", "jacfwd", "vector_grad", "hessian", "fwd_grad"])
def test_a_state_that_is_never_read_is_an_error(name: str, way: Way) -> None:
    net, other = Net(), sg.ParamState(1.0, name="lonely")
    make = getattr(augment, name)
    with pytest.raises(TraceError, match="never reads"):
        way(lambda: make(lambda x: net(x).sum(), [net.w, other])(X))
    assert int(net.count.value) == 0


def test_results_and_arguments_without_derivatives_are_errors(way: Way) -> None:
    for make in (augment.jacrev, augment.jacfwd, augment.vector_grad):
        with pytest.raises(TypeError, match="must return floats"):
            way(lambda make=make: make(lambda x: (x > 0).astype(jnp.int32))(X))
        with pytest.raises(TypeError, match="allow_int"):
            way(lambda make=make: make(lambda x: x * 2.0)(3))
        with pytest.raises(TypeError, match="has_aux"):
            way(lambda make=make: make(lambda x: x * 2.0, has_aux=True)(3.0))
    with pytest.raises(TypeError, match="holomorphic"):
        way(lambda: augment.jacrev(lambda x: x * 1j)(2.0))
    with pytest.raises(TypeError, match="scalar"):
        way(lambda: augment.hessian(lambda x: x * 2)(X))


def test_holomorphic_jacobians(way: Way) -> None:
    z = jnp.array([1.0 + 2j, 0.5 - 1j])
    for name in ("jacrev", "jacfwd"):
        expected = getattr(jax, name)(lambda z: z**3, holomorphic=True)(z)
        assert close(
            way(lambda name=name: getattr(augment, name)(lambda z: z**3, holomorphic=True)(z)), expected
        )


def test_forward_mode_of_a_reverse_rule_is_an_error_that_names_the_line() -> None:
    f: Any = jax.custom_vjp(lambda v: v * v)
    f.defvjp(lambda v: (v * v, v), lambda v, g: (2 * v * g,))
    with pytest.raises(LoweringError, match=r"test_derivatives\.py"):
        augment.jacfwd(lambda x: f(x))(X)
    assert close(augment.jacrev(lambda x: f(x))(X), jnp.diag(2 * X))


@pytest.mark.parametrize("raw", ["vmap", "grad"])
def test_a_raw_transformation_around_a_derivative_is_an_error_with_the_fix(raw: str) -> None:
    w = sg.ParamState(2.0)
    inner = augment.jacrev(lambda x: x * x * w.value)
    call = {"vmap": lambda: jax.vmap(inner)(X), "grad": lambda: jax.grad(inner)(2.0)}[raw]
    with pytest.raises(StateGraphError, match="augment"):
        sg.compile.jit(call)()


# ------------------------------------------------------------------------------------------------ the program


def test_the_program_shows_one_op_with_its_body_and_reads_back() -> None:
    net = Net()

    def everything(x: Any) -> Any:
        value, pullback = augment.vjp(lambda x: net(x), x, grad_states=net.w)
        return (
            augment.jacrev(lambda x: net(x), net.w)(x),
            augment.jacfwd(lambda x: net(x), argnums=0)(x),
            pullback(value),
            augment.jvp(lambda x: net(x), (x,), (x,)),
        )

    trace = build(everything, X)
    names = [op.name for op in trace.program.body.ops if op.name.startswith("xform.")]
    assert sorted(names) == ["xform.jvp", "xform.jvp", "xform.vjp", "xform.vjp"]
    roundtrip(trace.program)
    assert "lanes = 2" in str(trace.program) and "states = (@net.w,)" in str(trace.program)
    before, _ = interpret(trace, X)
    lowered = sg.trace(everything, X).lower(passes="default").program
    assert not any(op.name.startswith("xform.") for op in lowered.walk())
    after, _ = interpret(trace, X, program=lowered)
    assert close(before, after) and close(sg.compile.jit(everything)(X), before)


@pytest.mark.no_program_checks
def test_the_verifier_knows_what_goes_in_and_comes_out() -> None:
    text = str(build(lambda x: augment.jvp(lambda x: x * 2.0, (x,), (x,)), X).program)
    assert ir.parse(text) is not None
    with pytest.raises(ir.VerifyError, match="tangents"):
        ir.verify(ir.parse(text.replace("lanes = none", "lanes = 3").replace("lanes = None", "lanes = 3")))


def test_the_user_s_python_runs_once_per_trace() -> None:
    w, runs = sg.ParamState(jnp.float32(2.0)), []

    def f(x: Any) -> Any:
        runs.append(1)
        return jnp.sin(w.value * x)

    def call(x: Any) -> Any:
        value, pullback = augment.vjp(f, x)
        return pullback(value), pullback(2 * value)

    for derive in (call, augment.jacrev(f, w), augment.jacfwd(f), augment.hessian(f, w)):
        runs.clear()
        sg.compile.jit(derive)(jnp.float32(0.5))
        assert len(runs) == 1


def test_transform_holds_the_names_of_both() -> None:
    for module in (sg.compile, sg.augment):
        for name in module.__all__:
            assert getattr(sg.transform, name) is getattr(module, name)
    assert sorted(sg.transform.__all__) == sorted({*sg.compile.__all__, *sg.augment.__all__})


def test_transform_says_what_other_names_of_brainstate_are_here() -> None:
    for name in (
        "vmap2",
        "pmap2",
        "StatefulMapping",
        "StatefulFunction",
        "GradientTransform",
        "constant_fold",
    ):
        with pytest.raises(AttributeError) as caught:
            getattr(sg.transform, name)
        assert f"stategraph.transform has no {name}." in str(caught.value)
        (path,) = re.findall(r"fix: +stategraph\.([\w.]+)", str(caught.value))
        assert callable(operator.attrgetter(path)(sg))
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        sg.transform.no_such_name  # type: ignore[attr-defined]

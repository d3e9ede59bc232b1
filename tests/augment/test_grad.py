"""``augment.grad`` and ``value_and_grad``: conventions, values against hand-purified JAX, nesting."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from tests.augment.gradients import XS, Net, grad, value_and_grad
from tests.oracle import Made, agree


def close(a: Any, b: Any) -> bool:
    la, lb = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(la) == len(lb) and all(np.allclose(x, y, rtol=1e-5) for x, y in zip(la, lb, strict=True))


# ------------------------------------------------------------------------------------------------ conventions


@pytest.mark.core
def test_neither_states_nor_argnums_means_argument_0(way: Any) -> None:
    net = Net()
    assert np.allclose(way(lambda: grad(lambda x: net(x))(2.0)), 12)
    assert int(net.count.value) == 1


@pytest.mark.core
def test_a_zero_argument_function_takes_the_trainable_states_it_touches(way: Any) -> None:
    net = Net()
    other = sg.ParamState(9.0)
    found = way(lambda: grad(lambda: net(2.0))())
    assert set(found) == {"net.w", "net.b"}
    assert np.allclose(found["net.w"], 4) and np.allclose(found["net.b"]["b"], 1)
    assert float(other.value) == 9


@pytest.mark.core
def test_ellipsis_means_all_trainable_states(way: Any) -> None:
    net = Net()
    found = way(lambda: grad(lambda x: net(x), ...)(2.0))
    assert set(found) == {"net.w", "net.b"} and np.allclose(found["net.w"], 4)


@pytest.mark.core
def test_states_as_one_a_list_a_tuple_a_mapping_and_a_filter(way: Any) -> None:
    net = Net()
    f = lambda x: net(x)
    assert np.allclose(way(lambda: grad(f, net.w)(2.0)), 4)
    one, two = way(lambda: grad(f, [net.w, net.scale])(2.0))
    assert np.allclose(one, 4) and np.allclose(two, 12)
    assert isinstance(way(lambda: grad(f, (net.w,))(2.0)), tuple)
    by_name = way(lambda: grad(f, {"weights": net.w, "bias": net.b})(2.0))
    assert np.allclose(by_name["weights"], 4) and np.allclose(by_name["bias"]["b"], 1)
    by_path = way(lambda: grad(f, net.states(sg.ParamState))(2.0))
    assert set(by_path) == {("w",), ("b",)}
    assert set(way(lambda: grad(f, sg.ParamState)(2.0))) == {"net.w", "net.b"}


@pytest.mark.core
def test_all_states_of_a_model_with_a_counter_and_a_random_stream(way: Any) -> None:
    class Counting(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.scale = sg.ParamState(jnp.ones(2)), sg.State(3.0)
            self.n, self.rng = sg.State(0), sg.random.RandomState(0)

        def update(self, x: Any) -> Any:
            self.n.value += 1
            return jnp.sum(self.w.value) * x * self.scale.value + 0.0 * self.rng.rand()

    net = Counting()
    grads = way(lambda: grad(net, net.states())(2.0))
    assert set(grads) == {("w",), ("scale",)} and grads["w",].tolist() == [6.0, 6.0]
    with pytest.raises(TypeError, match=r"of type int32\[\]; only floats have one"):
        way(lambda: grad(net, {"n": net.n})(2.0))


@pytest.mark.core
def test_a_second_positional_int_is_argnums(way: Any) -> None:
    f = lambda x, y: (x * y**2).sum()
    assert np.allclose(way(lambda: grad(f, 1)(2.0, 3.0)), 12)
    one, two = way(lambda: grad(f, (0, 1))(2.0, 3.0))
    assert np.allclose(one, 9) and np.allclose(two, 12)
    assert np.allclose(way(lambda: grad(f, argnums=-1)(2.0, 3.0)), 12)
    (only,) = way(lambda: grad(f, argnums=[1])(2.0, 3.0))
    assert np.allclose(only, 12)


@pytest.mark.core
def test_states_and_argnums_give_both(way: Any) -> None:
    net = Net()
    states, args = way(lambda: grad(lambda x, y: net(x) * y, net.w, argnums=1)(2.0, 3.0))
    assert np.allclose(states, 12) and np.allclose(args, 24.5)
    states, args = way(lambda: grad(lambda x, y: net(x) * y, [net.w], argnums=(0, 1))(2.0, 3.0))
    assert np.allclose(states[0], 12) and np.allclose(args[0], 36) and np.allclose(args[1], 24.5)


@pytest.mark.core
def test_return_value_and_aux_in_the_documented_order(way: Any) -> None:
    net = Net()
    f = lambda x: (net(x), {"x": x, "n": net.count.value})
    g = lambda x: net(x)
    grads, value = way(lambda: grad(g, net.w, return_value=True)(2.0))
    assert np.allclose(grads, 4) and np.allclose(value, 24.5)
    grads, aux = way(lambda: grad(f, net.w, has_aux=True)(2.0))
    assert np.allclose(grads, 4) and float(aux["x"]) == 2 and int(aux["n"]) == 2
    grads, value, aux = way(lambda: grad(f, net.w, has_aux=True, return_value=True)(2.0))
    assert np.allclose(value, 24.5) and int(aux["n"]) == 3
    value, grads = way(lambda: value_and_grad(g, net.w)(2.0))
    assert np.allclose(value, 24.5) and np.allclose(grads, 4)
    (value, aux), grads = way(lambda: value_and_grad(f, net.w, has_aux=True)(2.0))
    assert np.allclose(value, 24.5) and np.allclose(grads, 4) and int(aux["n"]) == 5


def test_grad_is_a_decorator_and_takes_keywords_and_pytrees(way: Any) -> None:
    @grad(argnums=0)
    def f(p: Any, *, scale: Any) -> Any:
        return (p["a"] * p["b"][0]).sum() * scale

    found = way(lambda: f({"a": XS, "b": [2.0]}, scale=3.0))
    assert np.allclose(found["a"], 6) and np.allclose(found["b"][0], 30)
    with pytest.raises(TypeError):
        grad(3)


# ----------------------------------------------------------------------------------------------------- values


@pytest.mark.core
def test_writes_inside_happen_once_and_are_differentiated_through() -> None:
    def make() -> Made:
        h, w, n = sg.State(1.0), sg.ParamState(2.0), sg.State(0)

        def loss(x: Any) -> Any:
            h.value = h.value * w.value + x
            h.value = jnp.tanh(h.value)
            n.value += 1
            return h.value**2

        def f(x: Any) -> Any:
            g = grad(loss, [w, h], argnums=0, return_value=True)(x)
            return g, h.value, n.value

        return f, [h, w, n]

    agree(make, (0.5,), (-0.25,))


@pytest.mark.core
def test_a_whole_training_loop_equals_hand_purified_jax() -> None:
    """Gradient inside a scan, State written in the loss, local State in an inner scan."""
    w, h, steps = sg.ParamState(jnp.array([0.3, -0.2])), sg.State(jnp.zeros(2)), sg.State(0)

    def loss(x: Any) -> Any:
        local = sg.State(jnp.float32(0))

        def inner(c: Any, y: Any) -> Any:
            local.value = local.value + jnp.sin(w.value * y).sum()
            h.value = h.value * 0.9 + w.value * y
            return c, None

        jax.lax.scan(inner, 0, x)
        steps.value += 1
        return (h.value**2).sum() + local.value

    def train(xs: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            g, value = grad(loss, w, return_value=True)(x)
            w.value = w.value - 0.01 * g
            return c + 1, value

        return jax.lax.scan(step, 0, xs)

    def pure(w0: Any, h0: Any, xs: Any) -> Any:
        def loss(w: Any, h: Any, x: Any) -> Any:
            def inner(c: Any, y: Any) -> Any:
                local, h = c
                return (local + jnp.sin(w * y).sum(), h * 0.9 + w * y), None

            (local, h), _ = jax.lax.scan(inner, (jnp.float32(0), h), x)
            return (h**2).sum() + local, h

        def step(c: Any, x: Any) -> Any:
            w, h = c
            (value, h), g = jax.value_and_grad(loss, has_aux=True)(w, h, x)
            return (w - 0.01 * g, h), value

        return jax.lax.scan(step, (w0, h0), xs)

    xs = jax.random.normal(jax.random.key(0), (5, 3))
    (w1, h1), expected = jax.jit(pure)(w.value, h.value, xs)
    c, got = sg.compile.jit(train)(xs)
    assert int(c) == 5 and int(steps.value) == 5
    assert (
        np.allclose(got, expected, rtol=1e-5)
        and np.allclose(w.value, w1, rtol=1e-5)
        and np.allclose(h.value, h1, rtol=1e-5)
    )


@pytest.mark.core
def test_second_order() -> None:
    def make() -> Made:
        w, n = sg.ParamState(1.5), sg.State(0)

        def f(x: Any) -> Any:
            n.value += 1
            return jnp.sin(w.value * x) * w.value

        def outer(x: Any) -> Any:
            return (
                grad(lambda y: grad(f)(y))(x),
                grad(lambda y: grad(f, w)(y), w)(x),
                grad(lambda y: grad(f, w)(y))(x),
            )

        return outer, [w, n]

    function, (_, n) = make()
    xx, ww, xw = sg.compile.jit(function)(0.7)
    pure = lambda w, x: jnp.sin(w * x) * w
    assert np.allclose(xx, jax.grad(jax.grad(pure, 1), 1)(1.5, 0.7), rtol=1e-4)
    assert np.allclose(ww, jax.grad(jax.grad(pure, 0), 0)(1.5, 0.7), rtol=1e-4)
    assert np.allclose(xw, jax.grad(jax.grad(pure, 0), 1)(1.5, 0.7), rtol=1e-4)
    assert int(n.value) == 3


@pytest.mark.core
@pytest.mark.parametrize(
    "where", ["cond", "while", "jit", "checkpoint", "custom_vjp", "custom_jvp", "for_loop"]
)
def test_gradients_through_structure_equal_hand_purified_jax(where: str) -> None:
    w, s = sg.ParamState(jnp.float32(1.2)), sg.State(jnp.float32(0.5))

    def square(v: Any) -> Any:
        return v * v

    vjp: Any = jax.custom_vjp(square)
    vjp.defvjp(
        lambda v: (v * v, (v,)), lambda res, g: (3 * res[0] * g,)
    )  # wrong on purpose: the rule must be used
    jvp: Any = jax.custom_jvp(square)
    jvp.defjvp(lambda p, t: (p[0] * p[0], 3 * p[0] * t[0]))

    def body(w: Any, s: Any, x: Any) -> tuple[Any, Any]:
        """(value, new s), pure."""
        if where == "cond":
            return jax.lax.cond(x > 0, lambda: (w * s * x, s * w), lambda: (w, s))
        if where == "while":
            s = jax.lax.while_loop(lambda s: s < 3, lambda s: s * 2, s)
            return w * s * x, s
        if where == "checkpoint":
            return jax.checkpoint(lambda s: (jnp.sin(s * w) * x, s * w))(s)
        if where == "custom_vjp":
            return vjp(w * x) * s, s * w
        if where == "custom_jvp":
            return jvp(w * x) * s, s * w
        if where == "for_loop":
            s, ys = jax.lax.scan(lambda s, y: (s * w + y, s), s, XS)
            return ys.sum() * x, s
        return jax.jit(lambda s: (w * s * x, s * w))(s)

    def stateful(x: Any) -> Any:
        if where == "cond":

            def yes() -> Any:
                out = w.value * s.value * x
                s.value = s.value * w.value
                return out

            return jax.lax.cond(x > 0, yes, lambda: w.value)
        if where == "while":
            sg.compile.while_loop(
                lambda _: s.value < 3, lambda _: (setattr(s, "value", s.value * 2), 0)[1], 0
            )
            return w.value * s.value * x
        if where == "for_loop":

            def step(y: Any) -> Any:
                out = s.value
                s.value = s.value * w.value + y
                return out

            return sg.compile.for_loop(step, XS).sum() * x

        def run(_: Any) -> Any:
            out = jnp.sin(s.value * w.value) * x if where == "checkpoint" else w.value * s.value * x
            if where in ("custom_vjp", "custom_jvp"):
                out = (vjp if where == "custom_vjp" else jvp)(w.value * x) * s.value
            s.value = s.value * w.value
            return out

        return (jax.checkpoint(run) if where == "checkpoint" else jax.jit(run) if where == "jit" else run)(0)

    f = sg.compile.jit(lambda x: grad(stateful, [w], argnums=0, return_value=True)(x))
    for x in (0.7, -0.4):
        before = s.value

        def pure(w: Any, x: Any, s: Any = before) -> Any:
            value, new = body(w, s, x)
            return value, new

        if (
            where == "while"
        ):  # reverse mode through a while loop does not exist; here only the State passes it

            def pure(w: Any, x: Any, s: Any = before) -> Any:
                s = jax.lax.stop_gradient(body(w, s, x)[1])
                return w * s * x, s

        (value, new), (gw, gx) = jax.value_and_grad(pure, (0, 1), has_aux=True)(w.value, x)
        (states, arg), got = f(x)
        assert (
            np.allclose(got, value, rtol=1e-5)
            and np.allclose(states[0], gw, rtol=1e-5)
            and np.allclose(arg, gx, rtol=1e-5)
        )
        assert np.allclose(s.value, new, rtol=1e-5)
        s.value = jnp.float32(0.5)


def test_a_derivative_rule_that_reads_state() -> None:
    gain = sg.State(jnp.float32(3))

    @jax.custom_vjp
    def spike(v: Any) -> Any:
        return (v > 0).astype(jnp.float32)

    spike.defvjp(lambda v: (spike(v), (v,)), lambda res, g: (g * gain.value * jnp.exp(-jnp.abs(res[0])),))
    step = sg.compile.jit(lambda x: grad(lambda v: spike(v) * 2.0)(x))
    assert np.allclose(step(0.5), 2 * 3 * np.exp(-0.5))
    gain.value = jnp.float32(1)
    assert np.allclose(step(0.5), 2 * np.exp(-0.5)) and step.trace_count == 1


def test_the_gradient_with_respect_to_a_state_that_is_written_first() -> None:
    """The derivative is taken at the value that the State has on entry."""
    s = sg.State(2.0)

    def f(x: Any) -> Any:
        y = s.value * x
        s.value = s.value * 10 + y
        return s.value * y

    found = sg.compile.jit(lambda x: grad(f, s)(x))(3.0)
    assert np.allclose(found, jax.grad(lambda v, x: (v * 10 + v * x) * v * x)(2.0, 3.0))


def test_derivatives_take_their_options_in_the_order_of_brainstate() -> None:
    """``brainstate.transform`` 0.5.4, by position."""
    w = sg.ParamState(jnp.array(3.0))

    def loss(x: Any) -> Any:
        return w.value**2 * x, 7.0

    transform = sg.transform
    options = (
        w,
        None,
        False,
        False,
        True,
        True,
    )  # States, argnums, holomorphic, allow_int, has_aux, return_value
    assert transform.grad(loss, *options)(2.0) == (12.0, 18.0, 7.0)
    assert transform.vector_grad(loss, w, None, True, True)(2.0) == (12.0, 18.0, 7.0)
    assert transform.jacrev(loss, w, None, True, True)(2.0) == (12.0, 18.0, 7.0)
    assert transform.jacfwd(loss, w, None, True, True)(2.0) == (12.0, 18.0, 7.0)
    assert transform.hessian(loss, w, None, True, False, True)(2.0) == (4.0, 18.0, 7.0)
    key = jax.random.key(0)
    one = transform.fwd_grad(loss, w, None, True, True, 3, 0.5, key)(2.0)
    named = transform.fwd_grad(
        loss, w, return_value=True, has_aux=True, tangent_size=3, drct_der_clip=0.5, key=key
    )(2.0)
    assert one == named and one[1:] == (18.0, 7.0)

"""``vjp`` and ``jvp`` over State, against JAX on hand-purified functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from tests.augment.derivatives import Net, Way, X, augment, close, pure_net


@pytest.mark.core
def test_a_pullback_keeps_the_states_as_they_were_and_may_be_called_again(way: Way) -> None:
    w, s, n = sg.ParamState(jnp.array([2.0, 3.0])), sg.State(1.0), sg.State(0)

    def f(x: Any) -> Any:
        n.value += 1
        s.value = s.value * 2
        return w.value * x * s.value

    def call() -> Any:
        value, pullback = augment.vjp(f, 5.0, grad_states=w)
        first = pullback(jnp.array([1.0, 0.0]))
        w.value, s.value = w.value * 100, s.value + 7
        return value, first, pullback(value), w.value

    value, first, second, after = way(call)
    assert np.allclose(value, [20, 30]) and np.allclose(after, [200, 300])
    assert np.allclose(first[0], [10, 0]) and np.allclose(first[1], 4)
    assert np.allclose(second[0], [200, 300]) and np.allclose(second[1], 2 * (2 * 20 + 3 * 30))
    assert float(s.value) == 9 and int(n.value) == 1


def test_vjp_arranges_like_grad_and_returns_aux(way: Way) -> None:
    net = Net()
    w, b = net.w.value, net.b.value["b"]
    _, pull = jax.vjp(pure_net, w, b, X)
    ct = jnp.array([0.5, -2.0])
    gw, gb, gx = pull(ct)
    f = lambda x: net(x)
    assert close(way(lambda: augment.vjp(f, X)[1](ct)), gx)
    assert close(way(lambda: augment.vjp(f, X, grad_states=[net.w, net.b])[1](ct)), ([gw, {"b": gb}], gx))
    assert close(way(lambda: augment.vjp(f, X, grad_states=net.b, argnums=None)[1](ct)), {"b": gb})
    assert set(way(lambda: augment.vjp(lambda: net(X))[1](ct))) == {"net.w", "net.b"}
    (only,) = way(lambda: augment.vjp(lambda x, y: x * y, 2.0, 3.0, argnums=(1,))[1](1.0))
    assert float(only) == 2

    def with_aux() -> Any:
        value, pullback, aux = augment.vjp(lambda x: (net(x), net.count.value), X, has_aux=True)
        return value, pullback(ct), aux

    value, gradient, aux = way(with_aux)
    assert close(value, pure_net(w, b, X)) and close(gradient, gx) and int(aux) == int(net.count.value)


def test_an_eager_pullback_is_a_plain_jax_function() -> None:
    w = sg.ParamState(jnp.array([2.0, 3.0]))
    value, pullback = augment.vjp(
        lambda x: jnp.array([(w.value * x).sum(), (x**2).sum()]), X[:2], grad_states=w
    )
    states, args = jax.jit(jax.vmap(pullback))(jnp.eye(2))
    assert (
        np.allclose(states, [[0.3, -0.7], [0, 0]])
        and np.allclose(args, [[2, 3], [0.6, -1.4]])
        and value.shape == (2,)
    )


def test_jax_vmap_of_a_pullback_inside_a_trace_gives_the_jacobian() -> None:
    net = Net()
    w, b = net.w.value, net.b.value["b"]

    def call(x: Any) -> Any:
        _, pullback = augment.vjp(lambda x: net(x), x, grad_states=net.w)
        return jax.vmap(pullback)(jnp.eye(2)), net.count.value

    (by_w, by_x), count = sg.compile.jit(call)(X)
    assert close((by_w, by_x), jax.jacrev(pure_net, (0, 2))(w, b, X)) and int(count) == 1


def test_a_pullback_inside_a_loop_and_inside_another_gradient() -> None:
    w, s = sg.ParamState(jnp.float32(1.5)), sg.State(jnp.float32(0.5))

    def f(x: Any) -> Any:
        s.value = s.value * w.value
        return jnp.sin(w.value * x) * s.value

    def call(x: Any) -> Any:
        def loss() -> Any:
            value, pullback = augment.vjp(f, x, grad_states=w)
            rows = sg.compile.for_loop(lambda ct: pullback(ct * value)[0], X)
            return (rows**2).sum()

        return augment.grad(loss, w, return_value=True)()

    def pure(w: Any, x: Any) -> Any:
        value, pull = jax.vjp(lambda w: jnp.sin(w * x) * (0.5 * w), w)
        return (jax.vmap(lambda ct: pull(ct * value)[0])(X) ** 2).sum()

    expected = jax.grad(pure)(1.5, 0.7), pure(1.5, 0.7)
    assert close(sg.compile.jit(call)(jnp.float32(0.7)), expected, 1e-4) and close(s.value, 0.75)


def test_vjp_and_jvp_of_integers(way: Way) -> None:
    f = lambda x, k: {"y": x * k, "k": k + 1}
    value, tangent = way(lambda: augment.jvp(f, (2.0, 3.0), (1.0, 0.5)))
    assert float(tangent["y"]) == 4 and float(value["k"]) == 4
    (moved, fixed) = augment.jvp(f, (2.0, 3), (1.0, np.zeros((), jax.dtypes.float0)))[1], jax.dtypes.float0
    assert float(moved["y"]) == 3 and moved["k"].dtype == fixed
    value, pullback = augment.vjp(f, 2.0, 3, argnums=(0, 1))
    x, k = pullback({"y": 1.0, "k": np.zeros((), jax.dtypes.float0)})
    assert float(x) == 3 and k.dtype == fixed


def test_wrong_cotangents_and_tangents_are_errors(way: Way) -> None:
    f = lambda x: {"a": x * 2}
    for wrong in (1.0, {"a": jnp.ones(2)}, {"b": X}):
        with pytest.raises(TypeError, match="cotangent"):
            way(lambda wrong=wrong: augment.vjp(f, X)[1](wrong))
    with pytest.raises(TypeError, match="tangents"):
        way(lambda: augment.jvp(f, (X,), (X, X)))
    with pytest.raises(TypeError, match="shape"):
        way(lambda: augment.jvp(f, (X,), (1.0,)))
    with pytest.raises(TypeError, match="primals of jvp"):
        augment.jvp(f, X, (X,))

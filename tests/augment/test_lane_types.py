"""The types that States have inside lanes, and after a change of type, where code runs later than it was
called: derivative rules, gradients of what is overwritten, bodies that JAX traces twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from tests.oracle import Made, agree

vmap, grad = sg.augment.vmap, sg.augment.grad
XS = jnp.arange(3, dtype=jnp.float32) + 1
pytestmark = pytest.mark.core


def ruled(gain: sg.State[Any], kind: str) -> Callable[[Any], Any]:
    """A function whose derivative rule reads a State, and depends on its shape."""
    if kind == "jvp":
        f = jax.custom_jvp(lambda x: x * 2)
        f.defjvp(lambda p, t: (f(p[0]), t[0] * jnp.broadcast_to(gain.value, jnp.shape(p[0]))))
        return f
    g = jax.custom_vjp(lambda x: x * 2)
    g.defvjp(lambda x: (g(x), None), lambda _, ct: (ct * jnp.broadcast_to(gain.value, jnp.shape(ct)),))
    return g


@pytest.mark.parametrize("kind", ["jvp", "vjp"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_derivative_rule_sees_the_lane_s_slice(kind: str, axis: int) -> None:
    def make() -> Made:
        gain = sg.State(jnp.arange(6.0).reshape((3, 2) if axis == 0 else (2, 3)))
        f = ruled(gain, kind)
        return vmap(grad(lambda x: f(x * jnp.ones(2)).sum()), in_states={axis: gain}), [gain]

    agree(make, (XS,))


@pytest.mark.parametrize("kind", ["jvp", "vjp"])
def test_a_derivative_rule_sees_the_type_from_before_a_later_change(kind: str) -> None:
    def make() -> Made:
        gain = sg.State(3.0)
        f = ruled(gain, kind)

        def outer(x: Any) -> Any:
            first = grad(f)(x)
            gain.value = jnp.ones(4)
            return first + gain.value

        return outer, [gain]

    agree(make, (2.0,))


@pytest.mark.parametrize("kind", ["jvp", "vjp"])
def test_a_derivative_rule_sees_what_lanes_before_it_left(kind: str) -> None:
    def make() -> Made:
        gain = sg.State(3.0)
        f = ruled(gain, kind)

        def lane(x: Any) -> None:
            gain.value = gain.value + x

        def outer(xs: Any) -> Any:
            vmap(lane, out_states=gain)(xs)
            return grad(lambda x: f(x).sum())(xs)

        return outer, [gain]

    agree(make, (XS,))


def test_a_derivative_rule_sees_a_state_created_in_the_trace() -> None:
    def make() -> Made:
        def outer(xs: Any) -> Any:
            gain = sg.State(xs)
            f = ruled(gain, "jvp")
            first = vmap(grad(f), in_states=gain)(xs)
            gain.value = 2.0
            return first, grad(f)(1.0)

        return outer, []

    agree(make, (XS,))


def test_a_gradient_with_respect_to_what_every_lane_overwrites() -> None:
    def make() -> Made:
        w = sg.ParamState(XS)

        def lane(x: Any) -> Any:
            def loss(y: Any) -> Any:
                w.value = x * 0.5
                return jnp.sum(w.value) * y

            return grad(loss, w, argnums=0)(x)

        return vmap(lane, in_states=w), [w]

    agree(make, (XS,))


def test_a_gradient_with_respect_to_an_overwritten_state_of_another_type() -> None:
    def make() -> Made:
        w = sg.ParamState(1.0)

        def outer(xs: Any) -> Any:
            def loss(y: Any) -> Any:
                w.value = y * 0.5
                return jnp.sum(w.value * y)

            w.value = xs
            return grad(loss, w, argnums=0)(xs)

        return outer, [w]

    agree(make, (XS,))


def test_lanes_in_a_loop_body_that_jax_traces_twice() -> None:
    def make() -> Made:
        s = sg.State(jnp.zeros(3))

        def lane(x: Any) -> Any:
            s.value = x * 2
            return s.value

        def body(carry: Any, _: Any) -> Any:  # the carry begins as an int and becomes a float
            return carry * 0.5 + vmap(lane, out_states=s)(XS + carry).sum(), None

        return lambda: jax.lax.scan(body, 0, None, length=2)[0], [s]

    agree(make)

"""Functions with derivative rules inside gradients: what they close over, recursion, second order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import LoweringError

grad = sg.augment.grad


def cube(scale: Any) -> Any:
    """x ** 3 * scale with a rule that calls the function itself."""
    function = jax.custom_vjp(lambda x: x**3 * scale())
    function.defvjp(lambda x: (function(x), x), lambda x, g: (g * 3 * x**2 * scale(),))
    return function


def cube_jvp(scale: Any) -> Any:
    function = jax.custom_jvp(lambda x: x**3 * scale())
    function.defjvp(lambda p, t: (function(p[0]), 3 * p[0] ** 2 * scale() * t[0]))
    return function


@pytest.mark.core
@pytest.mark.parametrize("make", [cube, cube_jvp])
def test_second_order_uses_the_rule_of_a_function_that_reads_state(make: Any) -> None:
    state = sg.State(2.0)
    function = make(lambda: state.value)

    def twice(y: Any) -> Any:
        return jax.lax.scan(lambda c, _: (function(c) * 0.1, None), y, None, length=2)[0]

    def plain(y: Any) -> Any:
        return ((y**3 * 2.0) * 0.1) ** 3 * 2.0 * 0.1

    second = sg.compile.jit(lambda x: grad(lambda y: grad(twice)(y))(x))
    np.testing.assert_allclose(second(2.0), jax.grad(jax.grad(plain))(2.0), rtol=1e-5)


@pytest.mark.parametrize("make", [cube, cube_jvp])
def test_a_captured_array_is_a_constant_of_the_rule(make: Any) -> None:
    k = jnp.float32(2)
    function = make(lambda: k)
    assert float(grad(grad(function))(2.0)) == float(jax.grad(jax.grad(function))(2.0)) == 24.0


@pytest.mark.parametrize("make", [cube, cube_jvp])
def test_a_differentiated_state_inside_such_a_function_is_refused(make: Any) -> None:
    weight = sg.ParamState(2.0)
    function = make(lambda: weight.value)
    with pytest.raises(LoweringError, match="differentiated value that is no argument") as error:
        grad(lambda x: function(x), weight)(3.0)
    assert "fix:" in str(error.value)
    assert float(grad(lambda x: function(x), argnums=0)(3.0)) == 54.0


def test_a_rule_may_close_over_an_intermediate_value() -> None:
    def f(x: Any, z: Any) -> Any:
        y = z * 2
        h = jax.custom_jvp(lambda q: q)
        h.defjvp(lambda p, t: (h(p[0]), t[0] * y))
        return h(x)

    assert float(sg.compile.jit(lambda x, z: grad(f)(x, z))(1.0, 5.0)) == 10.0


def test_a_rule_may_read_a_local_state() -> None:
    def f(x: Any) -> Any:
        def branch(a: Any) -> Any:
            factor = sg.State(2.0)
            h = jax.custom_jvp(lambda q: q)
            h.defjvp(lambda p, t: (h(p[0]), t[0] * factor.value))
            return h(a)

        return jax.lax.cond(x > 0, branch, lambda a: a, x)

    assert float(grad(f)(1.0)) == 2.0
    assert float(grad(f)(-1.0)) == 1.0


def test_integer_arguments_need_no_rule() -> None:
    np.testing.assert_array_equal(sg.compile.jit(jax.nn.relu)(jnp.arange(3) - 1), [0, 0, 1])


@jax.custom_jvp
def step_function(x: Any) -> Any:
    return (x >= 0).astype(x.dtype)


@step_function.defjvp
def _step_rule(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    y = step_function(x)
    return y, dx * jax.nn.sigmoid(3 * x) * (1.5 - y)  # the rule needs its own function


def recurrent(spike: Any) -> Any:
    w, h = sg.State(jnp.array([[0.5, 0.1], [-0.3, 0.4]])), sg.State(jnp.zeros(2))

    def loss(x: Any) -> Any:
        def step(i: Any) -> Any:
            h.value = spike(h.value @ w.value + x - 0.3)
            return jax.lax.cond(i > 0, lambda: 2 * spike(h.value - x).sum(), lambda: h.value.sum())

        h.value = jnp.zeros(2)
        inner = jax.lax.scan(lambda c, _: (spike(c + x - 0.1), None), x, None, length=2)[0]
        return (sg.compile.for_loop(step, jnp.arange(3)).sum() + inner.sum()) ** 2

    return loss


@pytest.mark.core
@pytest.mark.parametrize("spike", [sg.surrogate.Sigmoid(), step_function])
def test_second_derivatives_of_spikes_in_loops_and_branches(spike: Any) -> None:
    """JAX alone loses the rule in loops: its second derivatives are 0."""
    x, loss = jnp.array([0.2, 0.5]), recurrent(spike)
    lanes = sg.augment.vmap(sg.augment.hessian(loss), isolated=True)

    def third(x: Any) -> Any:
        return grad(lambda x: sg.augment.hessian(loss)(x).sum())(x)

    with jax.disable_jit():
        expected, then = sg.augment.hessian(loss)(x), third(x)
    assert np.abs(expected).max() > 0.1 and np.abs(then).max() > 0.1
    np.testing.assert_allclose(sg.augment.hessian(loss)(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(lanes(x[None])[0], expected, rtol=1e-5, atol=1e-5)
    if spike is step_function:
        np.testing.assert_allclose(third(x), then, rtol=1e-4, atol=1e-4)


def smooth(how: str, function: Any, slope: Any) -> Any:
    """A function with a rule: a factory, so that many functions stand at one place."""
    if how == "jvp":
        ruled: Any = jax.custom_jvp(lambda x: function(x))
        ruled.defjvp(lambda primals, tangents: (ruled(*primals), slope(*primals) * tangents[0]))
    else:
        ruled = jax.custom_vjp(lambda x: function(x))
        ruled.defvjp(lambda x: (ruled(x), x), lambda x, g: (g * slope(x),))
    return ruled


@pytest.mark.parametrize("how", ["jvp", "vjp"])
def test_functions_of_one_factory_in_the_rules_of_each_other_are_told_apart(how: str) -> None:
    sine = smooth(how, jnp.sin, lambda x: cosine(x))
    cosine = smooth(how, jnp.cos, lambda x: -sine(x))
    narrow = smooth(how, jnp.sign, lambda x: 2 * x)
    wide = smooth(how, jnp.sign, lambda x: narrow(x) * x)  # the same value, another rule
    x = jnp.float32(0.7)

    def orders(slope: Any) -> list[Any]:
        found = []
        for function in (sine, wide):
            for _ in range(3):
                function = slope(function)
                found.append(function(x))
        return found

    found = sg.compile.jit(lambda: orders(grad))()
    np.testing.assert_allclose(found, orders(jax.grad), rtol=1e-6)


def test_rules_that_lead_to_ever_new_functions_are_refused() -> None:
    def narrower(width: float) -> Any:
        return smooth("jvp", lambda x: width * x, lambda x: narrower(width / 2)(x))

    with pytest.raises(sg.errors.TraceError, match="let the rule call its own function"):
        grad(narrower(1.0))(jnp.float32(1.0))

"""Steps of differential equations, against exact solutions and their order of convergence."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn


def test_exponential_euler_is_exact_for_a_linear_equation() -> None:
    x, tau = jnp.array([1.0, -2.0, 0.5]), np.array([1.0, 5.0, 0.1])
    with sg.environ.context(dt=0.7):
        found = nn.exp_euler_step(lambda x, tau, to: (to - x) / tau, x, tau, to=3.0)
    np.testing.assert_allclose(found, 3 + (x - 3) * np.exp(-0.7 / tau), rtol=1e-6)


@pytest.mark.core
def test_exponential_euler_of_a_constant_slope_is_euler_and_has_its_gradient() -> None:
    with sg.environ.context(dt=0.5):
        assert float(nn.exp_euler_step(lambda x: 3.0 + 0.0 * x, 1.0)) == 2.5

        def after(rate: Any) -> Any:
            return nn.exp_euler_step(lambda x: rate * x, 2.0)

        np.testing.assert_allclose(jax.grad(after)(0.0), 2 * 0.5, rtol=1e-5)  # of 2 exp(rate dt)
        np.testing.assert_allclose(jax.grad(jax.grad(after))(0.0), 2 * 0.25, rtol=1e-5)


def test_exponential_euler_of_a_diverging_equation_stays_finite() -> None:
    with sg.environ.context(dt=1.0):
        found, slope = jax.value_and_grad(lambda x: nn.exp_euler_step(lambda x: x**3, x))(1e3)
    assert np.isfinite(found) and np.isfinite(slope) and found > 1e9


@pytest.mark.parametrize(
    ("step", "order"), [(nn.euler_step, 1), (nn.exp_euler_step, 2), (nn.rk2_step, 2), (nn.rk4_step, 4)]
)
def test_order_of_convergence(step: Any, order: int) -> None:
    """Of the logistic equation, from 0.1 to t = 2."""
    exact = 1 / (1 + 9 * math.exp(-2))
    errors = []
    with jax.enable_x64(True):
        for count in (8, 16):
            x = jnp.asarray(0.1)
            with sg.environ.context(dt=2.0 / count):
                for _ in range(count):
                    x = step(lambda x: x * (1 - x), x)
            errors.append(abs(float(x) - exact))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.3


@pytest.mark.core
@pytest.mark.parametrize("step", [nn.euler_step, nn.rk2_step, nn.rk4_step])
def test_steps_of_a_pytree(step: Any) -> None:
    def rotation(z: Any, speed: float) -> Any:
        return {"x": -speed * z["y"], "y": speed * z["x"]}

    with sg.environ.context(dt=0.01):
        z = step(rotation, {"x": jnp.ones(2), "y": jnp.zeros(2)}, 2.0)
    np.testing.assert_allclose(z["y"], math.sin(0.02), atol=2e-6)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="needs the value"):
        nn.rk4_step(lambda x: x)
    with sg.environ.context(dt=0.1), pytest.raises(TypeError, match="floating-point"):
        nn.exp_euler_step(lambda x: x, jnp.arange(3))


def test_the_exponential_step_refuses_variables_that_depend_on_each_other() -> None:
    with sg.environ.context(dt=0.1), pytest.raises(TypeError, match=r"one array, not a tuple[\s\S]*rk4_step"):
        nn.exp_euler_step(lambda y: (y[1], -y[0]), (jnp.array(1.0), jnp.array(0.0)))

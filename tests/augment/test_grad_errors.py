"""What has no gradient, and what the errors say."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import StateAccessError, StateGraphError, TraceError
from tests.augment.gradients import XS, Net, grad


@pytest.mark.core
def test_a_state_that_is_never_read_is_an_error_naming_those_that_were(way: Any) -> None:
    net, other = Net(), sg.ParamState(1.0, name="lonely")
    with pytest.raises(TraceError) as error:
        way(lambda: grad(lambda x: net(x), [net.w, other])(2.0))
    text = str(error.value)
    for part in ("never reads", "net.w", "net.b", "created at", "test_grad_errors.py", "fix:"):
        assert part in text, text
    assert "way(lambda: grad(lambda x: net(x), [net.w, other])(2.0))" in text, text
    with pytest.raises(TraceError, match="no State to differentiate"):
        way(lambda: grad(lambda x: x * net.scale.value, ...)(2.0))
    assert int(net.count.value) == 0


@pytest.mark.core
@pytest.mark.parametrize("loss", ["vector", "int", "none", "complex"])
def test_a_loss_that_is_no_real_scalar_is_an_error(loss: str, way: Any) -> None:
    f = {"vector": lambda x: x * XS, "int": lambda x: 3, "none": lambda x: None, "complex": lambda x: x * 1j}[
        loss
    ]
    with pytest.raises((TypeError, StateGraphError)):
        way(lambda: grad(f)(2.0))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_integers_have_gradients_of_no_type(shape: tuple[int, ...], way: Any) -> None:
    x, n = jnp.full(shape, 3.0), jnp.full(shape, 2)

    def f(x: Any, n: Any) -> Any:
        return (x * n).sum()

    of_x, of_n = way(lambda: grad(f, argnums=(0, 1), allow_int=True)(x, n))
    assert np.array_equal(of_x, n)
    assert of_n.dtype == jax.dtypes.float0 and of_n.shape == shape


def test_integer_and_complex_arguments_and_states(way: Any) -> None:
    n = sg.State(3)
    with pytest.raises(TypeError, match="allow_int"):
        way(lambda: grad(lambda x: x * 2.0)(3))
    with pytest.raises(TypeError, match="allow_int"):
        way(lambda: grad(lambda x: n.value * x, n)(3.0))
    with pytest.raises(TypeError, match="holomorphic"):
        way(lambda: grad(lambda x: jnp.real(x * x))(1j))
    assert np.allclose(way(lambda: grad(lambda x: x**2, holomorphic=True)(1.0 + 2j)), 2 + 4j)


def test_argnums_out_of_range_and_missing_aux_are_errors(way: Any) -> None:
    with pytest.raises(TypeError):
        way(lambda: grad(lambda x: x, argnums=3)(1.0))
    with pytest.raises(TypeError):
        way(lambda: grad(lambda x: x, has_aux=True)(1.0))


@pytest.mark.core
def test_a_function_that_fails_leaves_the_model_as_it_was(way: Any) -> None:
    net = Net()

    def f(x: Any) -> Any:
        net.w.value = net.w.value * 0
        net(x)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        way(lambda: grad(f, net.w)(2.0))
    assert np.allclose(net.w.value, [1, 2, 3]) and int(net.count.value) == 0


@pytest.mark.parametrize("raw", ["vmap", "grad"])
def test_a_raw_transformation_around_our_gradient_is_an_error_with_the_fix(raw: str) -> None:
    w = sg.ParamState(2.0)
    inner = grad(lambda x: x * x * w.value)
    call = {"vmap": lambda: jax.vmap(inner)(XS), "grad": lambda: jax.grad(inner)(2.0)}[raw]
    with pytest.raises(StateGraphError, match="augment"):
        sg.compile.jit(call)()


def test_the_gradient_with_respect_to_a_state_that_changed_its_type_before() -> None:
    s = sg.State(1.0)

    def f(x: Any) -> Any:
        s.value = jnp.stack([s.value, s.value * 2])
        local = sg.State(jnp.ones(3))
        g, h = grad(lambda: (s.value**2).sum() * x + (local.value * 3).sum(), [s, local])()
        s.value = jnp.float32(1)
        return g, h

    g, h = sg.compile.jit(f)(3.0)
    assert np.allclose(g, [6, 12]) and np.allclose(h, 3)


def test_inside_a_foreign_trace_a_gradient_may_read_but_not_write_outer_states() -> None:
    w, n = sg.ParamState(2.0), sg.State(0.0)
    assert float(jax.jit(grad(lambda x: x * x * w.value))(3.0)) == 12

    def writes(x: Any) -> Any:
        n.value = x
        return x * w.value

    with pytest.raises(StateGraphError, match="written inside"):
        jax.jit(grad(writes))(3.0)
    assert float(n.value) == 0 and float(w.value) == 2


def test_a_raw_checkpoint_run_as_plain_python_leaves_no_tracer_in_a_state() -> None:
    """JAX traces ``jax.checkpoint`` even under ``disable_jit``: what its body writes exists only there."""
    w, s = sg.ParamState(jnp.arange(3.0)), sg.State(jnp.ones(3))

    def layer(x: Any) -> Any:
        s.value = s.value * x
        return (s.value * w.value).sum()

    def gradient(wrap: Any) -> Any:
        return sg.augment.grad(lambda: wrap(layer)(w.value), w)()

    with jax.disable_jit():
        with pytest.raises(StateAccessError, match="checkpoint"):
            gradient(jax.checkpoint)
        assert np.array_equal(s.value, [1, 1, 1])
        assert np.array_equal(gradient(sg.compile.checkpoint), [0, 2, 4])
    assert np.array_equal(s.value, [0, 1, 2])


@pytest.mark.parametrize("name", ["grad", "vector_grad", "jacrev", "jacfwd", "hessian"])
def test_a_state_that_is_not_read_has_a_zero_derivative_when_nothing_is_checked(name: str) -> None:
    w, unused = sg.ParamState(3.0), sg.ParamState(jnp.ones(2))
    derive, wanted = getattr(sg.augment, name), {"w": w, "unused": unused}

    def loss() -> Any:
        return w.value**3

    with pytest.raises(TraceError, match="check_states=False"):
        derive(loss, wanted)()
    derivative = derive(loss, wanted, check_states=False)
    expected: Any = {"w": 27.0, "unused": np.zeros(2)}
    if name == "hessian":
        expected = {
            "w": {"w": 18.0, "unused": np.zeros(2)},
            "unused": {"w": np.zeros(2), "unused": np.zeros((2, 2))},
        }
    for found in (derivative(), sg.compile.jit(derivative)()):
        jax.tree.map(np.testing.assert_allclose, found, expected)
    with jax.disable_jit():
        jax.tree.map(np.testing.assert_allclose, derivative(), expected)

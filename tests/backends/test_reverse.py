"""Reverse mode op by op against ``jax.grad`` of the same function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.backends import reverse
from stategraph.errors import LoweringError

pytestmark = pytest.mark.core

X = np.linspace(-1.5, 2.0, 6).astype(np.float32).reshape(2, 3)
Y = np.linspace(0.5, 1.5, 6).astype(np.float32).reshape(2, 3)


def loop(x: Any, y: Any) -> Any:
    def body(carry: Any, row: Any) -> Any:
        total, unused = carry
        return (total * row.sum() + y[0, 0], jnp.floor(unused) + row), (row * total, row * 2)

    (total, _), (rows, _) = jax.lax.scan(body, (jnp.float32(1.0), jnp.zeros(3)), x)
    return total + (rows * x).sum()


@jax.custom_vjp
def ten(x: Any) -> Any:
    return x


ten.defvjp(lambda x: (x, None), lambda _, ct: (10 * ct,))

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "a product of a value with itself": lambda x, y: (x * x * y).sum(),
    "a value used many times": lambda x, y: (x * y + jnp.sin(x) * x - x / y + x).sum(),
    "an argument as the result": lambda x, y: x[0, 0],
    "an unused argument": lambda x, y: (y * 3).sum(),
    "a constant": lambda x, y: jnp.float32(3.0),
    "steps in between": lambda x, y: (jnp.floor(x) * y + jnp.sign(x) * x).sum(),
    "a stopped gradient": lambda x, y: (jax.lax.stop_gradient(x) * x * y).sum(),
    "whole numbers in between": lambda x, y: (x * jnp.argmax(x).astype(jnp.float32) + y).sum(),
    "a matrix product": lambda x, y: jnp.tanh(x @ y.T).sum(),
    "several results": lambda x, y: (jnp.split(x, 3, axis=1)[1] * jnp.linalg.qr(y)[1][:, :1]).sum(),
    "a loop": loop,
    "a branch": lambda x, y: jax.lax.cond(x[0, 0] > 0, lambda: (x * y).sum(), lambda: (x / y).sum()),
    "a loop that no gradient reaches": lambda x, y: (
        x.sum() * jax.lax.stop_gradient(jax.lax.while_loop(lambda v: v < 3, lambda v: v + 1, y[0, 0]))
    ),
    "a loop whose result is dropped": lambda x, y: (
        jax.lax.while_loop(lambda v: v < 3, lambda v: v + 1, x[0, 0]),
        (x * y).sum(),
    )[1],
    "a rule of its own": lambda x, y: (ten(x * y) * x).sum(),
    "rematerialisation": lambda x, y: jax.checkpoint(lambda a: jnp.sin(a * y).sum())(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_jax(name: str) -> None:
    function = FUNCTIONS[name]
    value, grads = sg.compile.jit(sg.augment.value_and_grad(function, argnums=(0, 1)))(X, Y)
    expected, wanted = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(X, Y)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for grad, want in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(grad, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["a product of a value with itself", "a loop", "a rule of its own", "steps in between"]
)
def test_gradients_of_gradients_are_those_of_jax(name: str) -> None:
    function = FUNCTIONS[name]

    def length(grad: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: (grad(function)(x, Y) ** 2).sum()

    ours = sg.compile.jit(sg.augment.grad(length(sg.augment.grad)))(X)
    np.testing.assert_allclose(ours, jax.grad(length(jax.grad))(X), rtol=1e-5, atol=1e-6)


def test_a_value_that_is_argument_and_captured_is_differentiated_as_argument_only() -> None:
    @sg.compile.jit
    def run(x: Any) -> Any:
        return sg.augment.grad(lambda a: (a * x).sum())(x)

    np.testing.assert_array_equal(run(X), X)


def test_whole_number_arguments_have_gradients_without_content() -> None:
    def function(x: Any, n: Any) -> Any:
        return (x * n).sum()

    program = sg.compile.jit(sg.augment.grad(function, argnums=(0, 1), allow_int=True))
    moved, nothing = program(X, np.arange(3, dtype=np.int32))
    np.testing.assert_array_equal(moved, np.broadcast_to(np.arange(3, dtype=np.float32), (2, 3)))
    assert nothing.dtype == jax.dtypes.float0 and nothing.shape == (3,)


def test_each_distinct_op_is_differentiated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = reverse.differentiate

    def counted(op: Any, *rest: Any) -> Any:
        seen.append(op.name)
        return real(op, *rest)

    monkeypatch.setattr(reverse, "differentiate", counted)
    weights = [sg.ParamState(jnp.eye(3) * i) for i in range(1, 20)]

    def loss(x: Any) -> Any:
        for weight in weights:
            x = jnp.tanh(x @ weight.value)
        return x.sum()

    sg.compile.jit(sg.augment.grad(loss, weights))(X)
    # the first product alone has an operand that no gradient goes to
    assert sorted(seen) == ["jax.dot_general", "jax.dot_general", "jax.reduce_sum", "jax.tanh"]


def test_what_has_no_gradient_is_an_error_that_names_the_op_and_its_line() -> None:
    def function(x: Any) -> Any:
        return jax.lax.while_loop(lambda v: v.sum() < 3, lambda v: v + 1, x).sum()

    with pytest.raises(LoweringError, match=r"gradient through flow\.while.*\n.*test_reverse\.py:\d+"):
        sg.compile.jit(sg.augment.grad(function))(X)

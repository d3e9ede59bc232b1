"""Raw transformations of JAX around State, and runs of user code that JAX discards."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import StateGraphError, StateTypeError
from tests.oracle import Made, agree
from tests.tracing.models import XS


@pytest.mark.core
def test_a_counter_in_a_scan_under_a_raw_gradient_is_refused() -> None:
    """JAX moves accesses that do not depend on the loop out of it: three trips would count once."""
    s = sg.State(0.0)

    def loss(v: Any) -> Any:
        def step(c: Any, _: Any) -> Any:
            s.value = s.value + 1
            return c * s.value * v, None

        return jax.lax.scan(step, v, length=3)[0]

    with pytest.raises(StateGraphError, match="JAX moved an access") as error:
        sg.compile.jit(lambda x: jax.grad(loss)(x))(2.0)
    assert "augment.grad" in str(error.value) and "test_discarded_runs.py" in str(error.value)
    assert (
        float(sg.compile.jit(lambda x: sg.augment.grad(loss)(x))(2.0)) == 6 * 4 * 2.0**3
        and float(s.value) == 3
    )


@pytest.mark.parametrize("wrap", ["checkpoint", "jit twice"])
def test_a_counter_that_a_raw_gradient_would_count_twice_is_refused(wrap: str) -> None:
    s = sg.State(0.0)

    def step(v: Any) -> Any:
        s.value = s.value + 1
        return jnp.sin(v) * s.value

    inner = jax.checkpoint(step) if wrap == "checkpoint" else jax.jit(step)
    with pytest.raises(StateGraphError, match=r"augment\.grad"):
        sg.compile.jit(lambda x: jax.grad(lambda v: inner(v) + inner(v))(x))(2.0)
    got = sg.compile.jit(lambda x: sg.augment.grad(lambda v: inner(v) + inner(v))(x))(2.0)
    assert np.allclose(got, 3 * np.cos(2.0)) and float(s.value) == 2


@pytest.mark.core
def test_counters_that_a_raw_gradient_leaves_in_place_are_right() -> None:
    s = sg.State(0.0)

    def step(v: Any) -> Any:
        s.value = s.value + 1
        return jnp.sin(v) * s.value

    f = sg.compile.jit(
        lambda x: jax.grad(lambda v: jax.lax.cond(v > 0, step, lambda v: v, v) + jax.jit(step)(v))(x)
    )
    assert np.allclose(f(2.0), 3 * np.cos(2.0)) and float(s.value) == 2


def test_reads_of_unwritten_state_may_stand_anywhere() -> None:
    s = sg.State(2.0)

    def f(x: Any) -> Any:
        by_hessian = jax.hessian(lambda y: s.value * y**3)(x)
        scanned = jax.grad(lambda v: jax.lax.scan(lambda c, y: (c * s.value * v, None), v, length=2)[0])(x)
        pull = jax.vjp(lambda v: v * s.value, x)[1]
        selected = jax.vmap(lambda v: jax.lax.cond(v > 2, lambda: v * s.value, lambda: v))(XS)
        return by_hessian, scanned, pull(1.0)[0], selected

    hess, scanned, pulled, selected = sg.compile.jit(f)(2.0)
    assert (float(hess), float(scanned), float(pulled)) == (24, 48, 2) and np.allclose(selected, [1, 2, 6, 8])


@pytest.mark.core
def test_functions_traced_for_their_shapes_only_leave_nothing() -> None:
    s, node = sg.State(jnp.zeros(3)), sg.Node()

    def f(x: Any) -> Any:
        shape = jax.eval_shape(lambda: (setattr(s, "value", s.value + 1), sg.State(x).value, s.value)[2])
        jaxpr = jax.make_jaxpr(lambda: setattr(s, "value", s.value * 2))()
        return s.value + x + shape.shape[0] + 0 * len(jaxpr.eqns)

    assert np.allclose(sg.compile.jit(f)(1.0), 4) and np.allclose(s.value, 0)
    with pytest.raises(StateTypeError, match="discards"):
        sg.compile.jit(lambda: (jax.eval_shape(lambda: setattr(s, "value", jnp.ones(5))), s.value)[1])()
    with pytest.raises(StateGraphError, match="discards") as error:
        sg.compile.jit(lambda x: jax.eval_shape(lambda: setattr(node, "h", sg.State(x))))(1.0)
    assert "created at" in str(error.value) and not hasattr(node, "h")


def test_checkify_inside_a_program() -> None:
    from jax.experimental import checkify

    s = sg.State(0.0)

    def g(x: Any) -> Any:
        def body(i: Any, c: Any) -> Any:
            s.value = s.value + 1
            checkify.check(c >= 0, "negative")
            return c + s.value

        return jax.lax.fori_loop(0, 3, body, x)

    assert float(sg.compile.jit(lambda x: checkify.checkify(g)(x)[1])(1.0)) == 7 and float(s.value) == 3


def test_type_changes_in_functions_with_derivative_rules_are_errors() -> None:
    s = sg.State(jnp.float32(1))
    f: Any = jax.custom_vjp(lambda x: (setattr(s, "value", jnp.stack([s.value, x])), x * x)[1])
    f.defvjp(lambda x: (x * x, x), lambda res, g: (2 * res * g,))
    with pytest.raises(StateTypeError, match="derivative rule"):
        sg.compile.jit(lambda x: sg.augment.grad(f)(x))(2.0)


@pytest.mark.core
def test_inner_jits_with_options_may_write_state() -> None:
    def make() -> Made:
        s = sg.State(jnp.ones(3))

        @jax.jit
        def g(x: Any) -> Any:
            s.value = s.value * x
            return s.value

        h = jax.jit(lambda x, n: g(x) * n, static_argnums=1, donate_argnums=0)
        return lambda x: h(x, 2) + h(x, 3), [s]

    agree(make, (2.0,), (3.0,))


def test_a_donated_argument_that_is_also_a_states_array_or_another_argument() -> None:
    s = sg.State(jnp.ones(4))
    bump = sg.compile.jit(lambda: setattr(s, "value", s.value + 1))
    f = sg.compile.jit(lambda x, y: x * 2 + s.value + y, donate_argnums=0)
    bump()
    bump()
    y = jnp.ones(4)
    assert np.allclose(f(s.value, y), 10) and np.allclose(s.value, 3)
    assert np.allclose(f(y, y), 6) and np.allclose(y, 1)


def test_a_module_itself_can_be_compiled() -> None:
    class Net(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.s = sg.State(0.0)

        def update(self, x: Any, mode: str = "a") -> Any:
            self.s.value += 1
            return x * (2 if mode == "a" else 3)

    net = Net()
    f = sg.compile.jit(net, static_argnames="mode")
    assert (float(f(1.0)), float(f(1.0, mode="b")), float(f(1.0, "b"))) == (2, 3, 3) and float(
        net.s.value
    ) == 3
    program = f.trace(1.0).program
    assert program.argument_names == ["x"] and list(program.states) == ["s"] and program.name == "Net"

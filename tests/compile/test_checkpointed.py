"""``checkpoint`` and the loops whose gradient recomputes: values, gradients, State, memory.

The oracle is the plain loop, and the same code as eager Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import TraceError
from tests.support import assert_same

grad = sg.augment.grad


class Cells:
    """A parameter, a State carried through the loop, and a counter."""

    def __init__(self) -> None:
        self.w, self.h, self.n = sg.ParamState(0.9), sg.State(1.0), sg.State(0)

    def step(self, x: Any) -> Any:
        self.h.value = self.w.value * jnp.sin(self.h.value) + x
        self.n.value += 1
        return self.h.value * 2

    def values(self) -> tuple[float, int]:
        return float(self.h.value), int(self.n.value)


def plainly(call: Callable[[], Any]) -> Any:
    with jax.disable_jit():
        return call()


# --------------------------------------------------------------------------------------------- the long loops


@pytest.mark.core
@pytest.mark.parametrize("length, base", [(1, 2), (11, 2), (37, 4)])
def test_a_checkpointed_loop_is_the_plain_loop_and_is_traced_once(length: int, base: int) -> None:
    xs = jnp.arange(length) / 10.0

    def run(loop: Callable[..., Any], way: Callable[[Callable[[], Any]], Any]) -> Any:
        cells, runs = Cells(), []

        def step(x: Any) -> Any:
            runs.append(1)
            return cells.step(x)

        def loss(xs: Any) -> Any:
            ys = loop(step, xs)
            return (ys * jnp.arange(length)).sum() + cells.h.value, ys

        found = way(lambda: grad(loss, cells.w, argnums=0, has_aux=True, return_value=True)(xs))
        return found, cells.values(), len(runs)

    nested = lambda f, xs: sg.compile.checkpointed_for_loop(f, xs, base=base)
    jitted = lambda call: sg.compile.jit(call)()
    *found, runs = run(nested, jitted)
    assert runs == 1
    assert_same(found, run(sg.compile.for_loop, jitted)[:2], exact=False)
    assert_same(found, run(nested, plainly)[:2], exact=False)


@pytest.mark.core
def test_a_checkpointed_scan_carries_and_stacks(base: int = 2) -> None:
    xs = {"a": jnp.arange(5.0), "b": jnp.ones((5, 2))}

    def run(scan: Callable[..., Any], way: Callable[[Callable[[], Any]], Any]) -> Any:
        cells = Cells()

        def f(carry: Any, x: Any) -> Any:
            y = cells.step(x["a"])
            return (carry[0] + y, carry[1] + 1), {"y": y, "b": x["b"] * y}

        return way(lambda: scan(f, (jnp.float32(0), 0), xs)), cells.values()

    nested = lambda f, init, xs: sg.compile.checkpointed_scan(f, init, xs, base=base)
    expected = run(sg.compile.scan, lambda call: sg.compile.jit(call)())
    assert jax.tree.structure(run(nested, lambda call: call())) == jax.tree.structure(expected)
    for way in (lambda call: call(), lambda call: sg.compile.jit(call)(), plainly):
        assert_same(run(nested, way), expected, exact=False)


def test_loops_of_no_inputs_take_a_length() -> None:
    cells = Cells()
    carry, ys = sg.compile.checkpointed_scan(lambda c, _: (c + 1, cells.step(0.0)), 0, length=5, base=2)
    assert int(carry) == 5 and ys.shape == (5,) and cells.values()[1] == 5
    assert sg.compile.checkpointed_for_loop(lambda: cells.step(0.0), length=3).shape == (3,)
    assert sg.compile.checkpointed_for_loop(lambda x: x, jnp.zeros((0, 2))).shape == (0, 2)
    with pytest.raises(TraceError, match="how often"):
        sg.compile.checkpointed_for_loop(cells.step)
    with pytest.raises(TraceError, match="scalar"):
        sg.compile.checkpointed_scan(lambda c, x: (c, x), 0, 3.0)


def test_the_gradient_of_a_checkpointed_loop_needs_less_memory() -> None:
    w = sg.ParamState(jnp.full((64,), 0.9))
    h = sg.State(jnp.ones((64,)))

    def step(x: Any) -> None:
        h.value = jnp.sin(h.value * w.value + x)

    def memory(loop: Callable[..., Any]) -> int:
        def loss(xs: Any) -> Any:
            loop(step, xs)
            return h.value.sum()

        analysis = sg.compile.jit(grad(loss, w)).compile(jnp.zeros(1024)).memory_analysis()
        return int(analysis.temp_size_in_bytes)

    plain, nested = memory(sg.compile.for_loop), memory(sg.compile.checkpointed_for_loop)
    assert plain > 1024 * 64 * 4 and nested < plain / 5


# ----------------------------------------------------------------------------------------- bounded_while_loop


@pytest.mark.parametrize("most, base", [(1, 2), (7, 3), (40, 4)])
def test_a_bounded_while_loop_is_what_plain_python_says(most: int, base: int) -> None:
    def pure(w: Any, x: Any) -> tuple[Any, tuple[int, int]]:
        trips = tests = 0
        for _ in range(most):
            tests += 1
            if not x < 10:
                break
            trips += 1
            x = x * w + 0.1 * trips
        return x, (trips, tests)

    expected, (trips, tests) = jax.grad(pure, (0, 1), has_aux=True)(1.3, 1.0)
    for way in (lambda call: sg.compile.jit(call)(), plainly):
        w, runs, checks = sg.ParamState(1.3), sg.State(0), sg.State(0)

        def cond(v: Any, checks: sg.State[Any] = checks) -> Any:
            checks.value += 1
            return v["x"] < 10

        def body(v: Any, runs: sg.State[Any] = runs, w: sg.State[Any] = w) -> Any:
            runs.value += 1
            return {"x": v["x"] * w.value + 0.1 * runs.value, "k": v["k"] + 1}

        def loss(x: Any, cond: Any = cond, body: Any = body) -> Any:
            v = sg.compile.bounded_while_loop(cond, body, {"x": x, "k": 0}, most, base=base)
            return v["x"], v["k"]

        found, k = way(lambda loss=loss, w=w: grad(loss, w, argnums=0, has_aux=True)(1.0))
        assert_same(found, expected, exact=False)
        assert int(k) == int(runs.value) == trips and int(checks.value) == tests


def test_a_bounded_while_loop_runs_eagerly_and_in_forward_mode() -> None:
    s = sg.State(0.0)

    def body(x: Any) -> Any:
        s.value += x
        return x * 2

    loop = lambda x: sg.compile.bounded_while_loop(lambda x: x < 10, body, x, 100)
    assert float(loop(1.0)) == 16 and float(s.value) == 15
    assert float(sg.augment.jvp(loop, (1.0,), (1.0,))[1]) == 16 and float(s.value) == 30
    assert float(sg.compile.bounded_while_loop(lambda x: x < 10, body, 1.0, 0)) == 1
    for wrong in (-1, 2.5, True):
        with pytest.raises(ValueError, match="max_steps"):
            sg.compile.bounded_while_loop(lambda x: x < 1, body, 1.0, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="base"):
        sg.compile.checkpointed_for_loop(body, jnp.ones(3), base=1)


def test_second_derivatives_of_the_loops() -> None:
    w = sg.ParamState(jnp.float32(0.7))
    xs = jnp.arange(5, dtype=jnp.float32)

    def loss() -> Any:
        h = sg.State(jnp.float32(0.1))

        def step(x: Any) -> None:
            h.value = jnp.sin(h.value * w.value + x)

        sg.compile.checkpointed_for_loop(step, xs, base=2)
        return sg.compile.bounded_while_loop(
            lambda v: v < 5, lambda v: v * 2 + w.value, h.value**2, 9, base=2
        )

    def pure(w: Any) -> Any:
        h = jnp.float32(0.1)
        for x in xs:
            h = jnp.sin(h * w + x)
        v = h**2
        while v < 5:
            v = v * 2 + w
        return v

    first, second = sg.compile.jit(lambda: (grad(loss, w)(), sg.augment.hessian(loss, w)()))()
    assert np.allclose(first, jax.grad(pure)(0.7), rtol=1e-4)
    assert np.allclose(second, jax.grad(jax.grad(pure))(0.7), rtol=1e-4)


# ------------------------------------------------------------------------------------------------- checkpoint


def test_checkpoint_is_a_decorator_for_functions_and_methods_with_state() -> None:
    class Layer(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.n = sg.ParamState(jnp.float32(2)), sg.State(0)

        @sg.compile.checkpoint(policy=jax.checkpoint_policies.everything_saveable)
        def update(self, x: Any) -> Any:
            self.n.value += 1
            return jnp.sin(self.w.value * x)

    layer = Layer()
    assert np.allclose(layer.update(0.5), np.sin(1)) and int(layer.n.value) == 1
    for way in (lambda call: call(), lambda call: sg.compile.jit(call)(), plainly):
        g = way(lambda: grad(lambda: layer.update(0.5), layer.w)())
        assert np.allclose(g, 0.5 * np.cos(1))
    assert int(layer.n.value) == 4
    assert np.allclose(jax.grad(sg.compile.remat(jnp.sin))(0.5), np.cos(0.5))
    with pytest.raises(TypeError):
        sg.compile.checkpoint(3)


def test_checkpoint_recomputes_in_reverse_mode() -> None:
    w = sg.ParamState(jnp.float32(0.5))
    layer = sg.compile.remat(lambda x, times: jnp.sin(w.value * x) * times, static_argnums=1)
    program = sg.trace(lambda x: grad(lambda: layer(x, 3), w)(), jnp.float32(1)).program
    assert next(program.walk("xform.remat"), None) is not None
    found = sg.compile.jit(lambda x: grad(lambda: layer(x, 3), w)())(jnp.float32(1))
    assert np.allclose(found, 3 * np.cos(0.5))

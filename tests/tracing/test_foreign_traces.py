"""Raw transformations of JAX, and code that no trace records."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import (
    StateAccessError,
    StateGraphError,
)
from tests.oracle import Made, agree
from tests.tracing.models import XS, Net, told

# ---------------------------------------------------------------------------------------- raw transformations


@pytest.mark.core
def test_raw_vmap_may_read_state() -> None:
    s = sg.State(jnp.float32(3))

    def f(xs: Any) -> Any:
        s.value = s.value + 1
        return jax.vmap(lambda x: x * s.value)(xs)

    assert np.allclose(sg.compile.jit(f)(XS), XS * 4)


@pytest.mark.core
@pytest.mark.parametrize("what", ["write", "batched write", "alloc", "write in scan", "write in jit"])
def test_raw_vmap_refuses_to_write_or_create_state(what: str) -> None:
    net = Net()

    def lane(x: Any) -> Any:
        if what == "write":
            net.count.value = net.count.value + 1
        elif what == "batched write":
            net.w.value = net.w.value * x
        elif what == "alloc":
            return sg.State(x).value
        elif what == "write in jit":
            jax.jit(lambda y: setattr(net.w, "value", net.w.value * y))(x)
        else:
            jax.lax.fori_loop(0, 2, lambda i, c: (setattr(net.w, "value", net.w.value * x), c)[1], 0)
        return x

    with pytest.raises(StateAccessError) as error:
        sg.trace(lambda xs: (net.w.value, jax.vmap(lane)(xs)), XS)
    told(error, "vmap", "augment.vmap")


@pytest.mark.core
def test_raw_grad_of_a_function_that_reads_state_is_right() -> None:
    def make() -> Made:
        s = sg.State(jnp.float32(3))

        def f(x: Any) -> Any:
            s.value = s.value + 1
            g = jax.grad(lambda y: (y * s.value) ** 2)(x)
            s.value = s.value * 2
            return g, s.value

        return f, [s]

    agree(make, (2.0,), (3.0,))


@pytest.mark.core
@pytest.mark.parametrize("where", ["straight", "scan", "cond", "counter in scan", "jit", "while"])
def test_raw_grad_is_right_or_refused_when_state_is_written(where: str) -> None:
    """Never a wrong number: the write of a differentiated value, or a moved access, is an error that names
    the fix.
    """

    def make() -> Made:
        s, count = sg.State(jnp.float32(1)), sg.State(0)

        def loss(x: Any) -> Any:
            def step(c: Any, y: Any) -> Any:
                if where == "counter in scan":
                    count.value = count.value + 1
                    return c * x * count.value, None
                s.value = s.value * x
                return c + s.value, None

            if where in ("scan", "counter in scan"):
                return jax.lax.scan(step, jnp.float32(1), XS)[0]
            if where == "cond":
                jax.lax.cond(x > 0, lambda: setattr(s, "value", s.value * x), lambda: None)
            elif where == "jit":
                jax.jit(lambda: setattr(s, "value", s.value * x))()
            elif where == "while":
                return jax.lax.while_loop(lambda c: c < 5, lambda c: step(c, None)[0], x) * 0 + x
            else:
                s.value = s.value * x
            return s.value * x

        return lambda x: (jax.grad(loss)(x), s.value, count.value), [s, count]

    try:
        agree(make, (jnp.float32(2),), (jnp.float32(3),), reference=False)
    except StateGraphError as error:
        assert "augment" in str(error) and "fix:" in str(error)


def test_raw_grad_that_moves_a_read_out_of_its_place_is_refused() -> None:
    s = sg.State(jnp.float32(1), name="moved")

    def loss(x: Any) -> Any:
        def step(c: Any, y: Any) -> Any:
            return c * x * s.value * y, None

        return jax.lax.scan(step, jnp.float32(1), XS)[0]

    def f(x: Any) -> Any:
        g = jax.grad(loss)(x)
        s.value = s.value + 1
        return g

    try:
        out = sg.compile.jit(f)(jnp.float32(2))
    except StateGraphError as error:
        assert "augment.grad" in str(error)
    else:
        expected = jax.grad(lambda x: jax.lax.scan(lambda c, y: (c * x * y, None), jnp.float32(1), XS)[0])(
            jnp.float32(2)
        )
        assert np.allclose(out, expected)


def test_state_used_where_no_trace_sees_it_is_refused() -> None:
    s = sg.State(1.0)

    def f(x: Any) -> Any:
        with jax.ensure_compile_time_eval():
            s.value = s.value + 1
        return x

    with pytest.raises(StateAccessError) as error:
        sg.trace(f, 1.0)
    told(error, "'s'")


def test_a_state_created_in_a_body_and_used_outside_is_an_error() -> None:
    kept: list[Any] = []

    def f(x: Any) -> Any:
        def body(i: Any, c: Any) -> Any:
            kept.append(sg.State(c))
            return c

        jax.lax.fori_loop(0, 2, body, x)
        return kept[0].value

    with pytest.raises(StateAccessError) as error:
        sg.trace(f, 1.0)
    told(error, "created at", "inside a loop body")


@pytest.mark.parametrize("where", ["scan", "cond", "twice"])
def test_a_state_kept_on_the_model_from_a_body_that_is_reused_is_an_error(where: str) -> None:
    net = Net()

    def f(x: Any) -> Any:
        @jax.jit
        def once(c: Any) -> Any:
            net.extra = sg.State(c)
            return c

        if where == "twice":
            first = once(x)
            jax.lax.scan(lambda c, _: (once(c), None), x, length=2)
            return first
        if where == "cond":
            return jax.lax.cond(x > 0, once, lambda c: c, x)
        return jax.lax.scan(lambda c, _: (once(c), None), x, length=2)[0]

    with pytest.raises(StateAccessError) as error:
        sg.trace(f, jnp.float32(1))
    told(error, "created inside a loop")
    assert not hasattr(net, "extra")


# --------------------------------------------------------------------------------------------------- no trace


@pytest.mark.core
def test_eager_code_runs_on_concrete_arrays() -> None:
    net = Net()
    net.count.value += 2
    if net.count.value > 1:
        net.w.value = net.w.value * int(net.count.value)
    assert np.array_equal(net.w.value, [2, 2, 2])


@pytest.mark.core
def test_writing_a_state_inside_a_foreign_jit_is_an_error_with_both_fixes() -> None:
    net = Net()
    net.w.name = "weights"

    @jax.jit
    def f(x: Any) -> Any:
        net.w.value = net.w.value * x
        return x

    with pytest.raises(StateAccessError) as error:
        f(2.0)
    told(error, "weights", "stategraph.compile", "compile.jit")
    assert np.array_equal(net.w.value, [1, 1, 1])


@pytest.mark.parametrize("raw", ["scan", "while_loop", "cond", "fori_loop"])
def test_a_raw_loop_called_eagerly_refuses_writes_and_compile_works(raw: str) -> None:
    s = sg.State(jnp.float32(0))

    def write(*_: Any) -> Any:
        s.value = s.value + 1
        return _[0] if len(_) == 1 else (_[0], None) if raw == "scan" else _[-1]

    with pytest.raises(StateAccessError, match="compile"):
        if raw == "scan":
            jax.lax.scan(write, 0, length=2)
        elif raw == "while_loop":
            jax.lax.while_loop(lambda c: c < 3, write, 0)
        elif raw == "cond":
            jax.lax.cond(jnp.asarray(True), write, lambda c: c, 0)
        else:
            jax.lax.fori_loop(0, 2, write, 0)
    sg.compile.for_loop(lambda: setattr(s, "value", s.value + 1), length=2)
    assert float(s.value) == 2


@pytest.mark.core
def test_a_captured_value_warns_when_it_is_written_later_naming_both_places() -> None:
    s = sg.State(1.0, name="rate")

    @jax.jit
    def f(x: Any) -> Any:
        return x * s.value  # captured here

    assert float(f(2.0)) == 2.0
    with pytest.warns(UserWarning) as caught:
        s.value = 5.0
    text = str(caught[0].message)
    assert "rate" in text and text.count("test_foreign_traces.py:") >= 3 and "keeps its old value" in text
    assert caught[0].filename.endswith("test_foreign_traces.py")
    assert float(f(2.0)) == 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s.value = 6.0


def test_an_eager_vmap_or_grad_that_reads_state_does_not_warn() -> None:
    s = sg.State(1.0)
    assert float(jax.grad(lambda x: x * s.value)(2.0)) == 1.0
    assert np.allclose(jax.vmap(lambda x: x * s.value)(XS), XS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s.value = 2.0


@pytest.mark.core
def test_a_state_created_inside_a_foreign_trace_works_freely_there() -> None:
    @jax.jit
    def f(x: Any) -> Any:
        s = sg.State(x)
        s.value = s.value * 2
        s.value += 1
        net = Net()
        net.w.value = net.w.value * s.value
        return net.w.value

    assert np.allclose(f(3.0), 7.0)
    grad = jax.grad(lambda x: f(x).sum())(3.0)
    assert np.allclose(grad, 6.0)
    assert np.allclose(jax.vmap(f)(XS), (XS * 2 + 1)[:, None] * jnp.ones(3))


@pytest.mark.core
def test_compiled_functions_run_as_plain_code_under_disable_jit() -> None:
    s = sg.State(1.0)
    seen: list[Any] = []

    @sg.compile.jit
    def f(x: Any) -> Any:
        def body(i: Any) -> Any:
            s.value = s.value + i
            seen.append(float(s.value))
            return s.value

        return sg.compile.for_loop(body, x)

    with jax.disable_jit():
        assert np.allclose(f(jnp.arange(3.0)), [1, 2, 4])
    assert seen == [1, 2, 4]

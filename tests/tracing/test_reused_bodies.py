"""Bodies that JAX runs again, with other types, or shares: each use counts once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from tests.oracle import Made, agree
from tests.tracing.models import XS


@pytest.mark.core
def test_loop_carries_that_jax_promotes() -> None:
    """JAX traces the body again when the carry's weak type changes: only the last run counts."""
    runs = 0

    def make() -> Made:
        s = sg.State(0.0)

        def f() -> Any:
            def step(c: Any, _: Any) -> Any:
                nonlocal runs
                runs += 1
                local = sg.State(1.0)
                s.value = s.value + local.value
                return c + 0.5, s.value

            return jax.lax.scan(step, 0, length=3)

        return f, [s]

    agree(make)
    function, _states = make()
    runs = 0
    traced = sg.trace(function)
    assert runs == 2
    assert sorted(traced.program.states) == ["s"]
    assert [op.name for op in traced.program.walk("state.alloc")] == ["state.alloc"]
    assert next(traced.program.walk("state.alloc")).symbol == "local"


def test_a_promoted_carry_written_to_a_state_is_judged_by_the_run_that_counts() -> None:
    """In the run that JAX discards the carry is still an int; that write is no type change."""
    s = sg.State(0.0)

    def f() -> Any:
        def step(c: Any, _: Any) -> Any:
            s.value = c
            return c + 0.5, None

        return jax.lax.scan(step, 0, length=3)[0]

    assert float(sg.compile.jit(f)()) == 1.5
    assert float(s.value) == 1.0


def test_one_body_used_twice_has_fresh_local_states() -> None:
    def make() -> Made:
        s = sg.State(0.0)

        @jax.jit
        def inner(x: Any) -> Any:
            local = sg.State(x)
            local.value = local.value + s.value
            s.value = local.value
            return local.value

        def body(c: Any, x: Any) -> Any:
            return c + inner(x), None

        def f(xs: Any) -> Any:
            first, _ = jax.lax.scan(body, 0.0, xs)
            second, _ = jax.lax.scan(body, 0.0, xs)
            return first, second, inner(1.0), inner(1.0)

        return f, [s]

    agree(make, (XS,))
    traced = sg.trace(make()[0], XS)
    names = [op.symbol for op in traced.program.walk("state.alloc")]
    assert len(names) == len(set(names)) == 4


@pytest.mark.core
def test_a_type_change_between_two_calls_of_one_inner_jit() -> None:
    """JAX caches the inner trace by function and argument types; the State's type is part of the key."""

    def make() -> Made:
        s = sg.State(jnp.float32(2))

        @jax.jit
        def inner(x: Any) -> Any:
            return x * s.value

        def f(x: Any) -> Any:
            first = inner(x)
            s.value = jnp.arange(3.0)
            second = inner(x)
            s.value = jnp.float32(1.5)
            return first, second, inner(x)

        return f, [s]

    agree(make, (2.0,), (3.0,))


def test_a_replaced_state_between_two_calls_of_one_inner_jit() -> None:
    class Model(sg.Node):
        def __init__(self) -> None:
            self.a = sg.State(1.0)
            self.b = sg.State(10.0)
            self.current = self.a

    def make() -> Made:
        model = Model()

        @jax.jit
        def inner(x: Any) -> Any:
            model.current.value = model.current.value + x
            return model.current.value

        def f(x: Any) -> Any:
            model.current = model.a
            first = inner(x)
            model.current = model.b
            return first, inner(x)

        return f, [model.a, model.b]

    agree(make, (2.0,))


def test_an_inner_jit_is_not_shared_between_traces() -> None:
    """Two models, one cached inner function: each trace records its own States."""
    holder: dict[str, sg.State[Any]] = {}

    @jax.jit
    def inner(x: Any) -> Any:
        holder["s"].value = holder["s"].value + x
        return holder["s"].value

    for start in (1.0, 5.0):
        holder["s"] = sg.State(start)
        assert float(sg.compile.jit(lambda x: inner(x))(2.0)) == start + 2
        assert float(holder["s"].value) == start + 2

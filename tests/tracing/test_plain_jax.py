"""State inside plain JAX control flow and transformations, while StateGraph traces."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from tests.oracle import Made, agree, checkpoint
from tests.tracing.models import XS


@pytest.mark.core
def test_scan_reads_and_writes_state() -> None:
    def make() -> Made:
        s = sg.State(1.0)

        def f(xs: Any) -> Any:
            def step(c: Any, x: Any) -> Any:
                s.value = s.value * x + c
                return c + s.value, s.value

            return jax.lax.scan(step, jnp.float32(0.5), xs)

        return f, [s]

    agree(make, (XS,), (XS * 2,))


@pytest.mark.core
@pytest.mark.parametrize("flag", [True, False])
def test_cond_branches_read_and_write_different_states(flag: bool) -> None:
    def make() -> Made:
        a, b = sg.State(1.0), sg.State(jnp.ones(3))

        def f(p: Any, x: Any) -> Any:
            def yes(x: Any) -> Any:
                a.value = a.value + x
                return a.value

            def no(x: Any) -> Any:
                b.value = b.value * x
                return b.value.sum() + a.value

            return jax.lax.cond(p, yes, no, x), a.value, b.value

        return f, [a, b]

    agree(make, (jnp.asarray(flag), 2.0), (jnp.asarray(not flag), 3.0))


@pytest.mark.parametrize("index", [-1, 0, 1, 2, 7])
def test_switch_branches_write_state(index: int) -> None:
    def make() -> Made:
        s = sg.State(1.0)

        def branch(k: int) -> Any:
            def run(x: Any) -> Any:
                s.value = s.value + k * x
                return s.value * k

            return run

        def nothing(x: Any) -> Any:
            return x

        return lambda i, x: jax.lax.switch(i, [branch(1), nothing, branch(3)], x), [s]

    agree(make, (jnp.int32(index), 2.0))


@pytest.mark.core
def test_while_loop_condition_and_body_use_state() -> None:
    def make() -> Made:
        s, count = sg.State(1.0), sg.State(0)

        def f(limit: Any) -> Any:
            def condition(c: Any) -> Any:
                count.value = count.value + 1
                return s.value < limit

            def body(c: Any) -> Any:
                s.value = s.value * 2
                return c + s.value

            return jax.lax.while_loop(condition, body, 0.0)

        return f, [s, count]

    agree(make, (jnp.float32(20),), (jnp.float32(10),))


def test_fori_loop_with_known_and_unknown_bounds() -> None:
    def make() -> Made:
        s = sg.State(jnp.zeros(2))

        def body(i: Any, c: Any) -> Any:
            s.value = s.value + i * c
            return c + 1

        def f(n: Any) -> Any:
            return jax.lax.fori_loop(0, 5, body, 1.0), jax.lax.fori_loop(0, n, body, 1.0)

        return f, [s]

    agree(make, (jnp.int32(3),), (jnp.int32(0),))


def test_map_runs_its_function_in_order_on_state() -> None:
    def make() -> Made:
        s = sg.State(0.0)

        def f(xs: Any) -> Any:
            def one(x: Any) -> Any:
                s.value = s.value * 0.5 + x
                return s.value

            return jax.lax.map(one, xs)

        return f, [s]

    agree(make, (XS,))


@pytest.mark.core
def test_three_levels_of_loops_with_local_states() -> None:
    """The program of the text form with one level more."""

    def make() -> Made:
        total = sg.State(0.0)

        def f(xs: Any) -> Any:
            def outer(carry: Any, x: Any) -> Any:
                level1 = sg.State(x)

                def middle(i: Any, c: Any) -> Any:
                    level2 = sg.State(jnp.float32(0))

                    def inner(v: Any) -> Any:
                        level2.value = level2.value + 1
                        level1.value = level1.value + 0.25
                        total.value = total.value + level2.value * x
                        return v + level2.value

                    return c + jax.lax.while_loop(lambda v: v < 3, inner, jnp.float32(0)) + level2.value

                carry = carry + jax.lax.fori_loop(0, 2, middle, level1.value)
                return carry, level1.value

            return jax.lax.scan(outer, jnp.float32(0), xs)

        return f, [total]

    agree(make, (XS,), (XS,))


def test_cond_inside_scan_inside_while() -> None:
    def make() -> Made:
        s, hits = sg.State(jnp.float32(1)), sg.State(0)

        def f(limit: Any, xs: Any) -> Any:
            def step(c: Any, x: Any) -> Any:
                def hit(y: Any) -> Any:
                    hits.value = hits.value + 1
                    return y * 2

                out = jax.lax.cond(x > 2, hit, lambda y: y, x)
                s.value = s.value + out
                return c + 1, out

            def body(c: Any) -> Any:
                carry, _ = jax.lax.scan(step, c, xs)
                return carry

            return jax.lax.while_loop(lambda c: s.value < limit, body, 0)

        return f, [s, hits]

    agree(make, (jnp.float32(40), XS))


@pytest.mark.core
def test_inner_jit_and_checkpoint() -> None:
    def make() -> Made:
        s = sg.State(jnp.ones(3))

        @jax.jit
        def inner(x: Any) -> Any:
            s.value = s.value + x
            return s.value * 2

        @checkpoint
        def remat(x: Any) -> Any:
            s.value = jnp.sin(s.value) * x
            return s.value.sum()

        return lambda x: (inner(x), remat(x), inner(x), remat(x)), [s]

    agree(make, (2.0,), (3.0,))


@pytest.mark.core
def test_custom_jvp_function_reads_and_writes_state() -> None:
    def make() -> Made:
        s = sg.State(2.0)

        @jax.custom_jvp
        def f(x: Any) -> Any:
            s.value = s.value + 1
            return x * s.value

        f.defjvp(lambda primals, tangents: (f(primals[0]), tangents[0]))
        return lambda x: (f(x), f(x)), [s]

    with pytest.raises(sg.errors.StateAccessError, match="written in a derivative rule"):
        sg.trace(make()[0], 1.0)

    def reads() -> Made:
        s = sg.State(2.0)

        @jax.custom_jvp
        def f(x: Any) -> Any:
            s.value = s.value + 1
            return x * s.value

        f.defjvp(lambda primals, tangents: (primals[0] * s.value, tangents[0] * s.value))
        return lambda x: (f(x), f(x)), [s]

    agree(reads, (3.0,), (4.0,))


@pytest.mark.core
def test_custom_vjp_function_reads_and_writes_state() -> None:
    def make() -> Made:
        s = sg.State(2.0)

        @jax.custom_vjp
        def f(x: Any) -> Any:
            s.value = s.value + 1
            return x * s.value

        f.defvjp(lambda x: (x * s.value, (x,)), lambda res, g: (g * res[0],))
        return lambda x: (f(x), f(x)), [s]

    agree(make, (3.0,), (4.0,))


@pytest.mark.parametrize("kind", ["jvp", "vjp"])
def test_writing_state_in_a_derivative_rule_is_an_error_with_state_line_reason_and_fix(kind: str) -> None:
    s = sg.State(2.0, name="gain")

    def rule(x: Any) -> Any:
        s.value = s.value * 2
        return x

    if kind == "jvp":
        f: Any = jax.custom_jvp(lambda x: x)
        f.defjvp(lambda p, t: (rule(p[0]), t[0]))
    else:
        f = jax.custom_vjp(lambda x: x)
        f.defvjp(lambda x: (rule(x), ()), lambda res, g: (g,))
    with pytest.raises(sg.errors.StateAccessError) as error:
        sg.trace(lambda x: f(x), 1.0)
    text = str(error.value)
    for part in ("derivative rule", "gain", "test_plain_jax.py", "why:", "fix:"):
        assert part in text


def test_a_write_inside_a_nested_body_of_a_derivative_rule_is_refused_too() -> None:
    s = sg.State(2.0)

    def rule(x: Any) -> Any:
        def body(i: Any, c: Any) -> Any:
            s.value = s.value * 2
            return c

        return jax.lax.fori_loop(0, 2, body, x)

    f: Any = jax.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (rule(x), ()), lambda res, g: (g,))
    with pytest.raises(sg.errors.StateAccessError, match="derivative rule"):
        sg.trace(lambda x: f(x), 1.0)


@pytest.mark.core
def test_debug_prints_keep_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    s = sg.State(0)

    @sg.compile.jit
    def f() -> None:
        def step(i: Any, c: Any) -> Any:
            s.value = s.value + 1
            jax.debug.print("step {}", s.value, ordered=True)

            def again() -> None:
                jax.debug.print("even {}", s.value, ordered=True)

            jax.lax.cond(s.value % 2 == 0, again, lambda: None)
            return c

        jax.debug.print("start", ordered=True)
        jax.lax.fori_loop(0, 4, step, 0)
        jax.debug.print("end {}", s.value, ordered=True)

    for _ in range(2):
        f()
        jax.effects_barrier()
    printed = capfd.readouterr().out.split("\n")[:-1]
    steps = [
        ["start"],
        *[[f"step {i}"] + ([f"even {i}"] if i % 2 == 0 else []) for i in range(1, 5)],
        ["end 4"],
    ]
    first = [line for lines in steps for line in lines]
    assert printed[: len(first)] == first
    assert printed[-1] == "end 8"
    assert len(printed) == 2 * len(first)


def test_dead_code_elimination_keeps_prints_and_callbacks_in_nested_bodies(
    capfd: pytest.CaptureFixture[str],
) -> None:
    seen: list[int] = []
    s = sg.State(0)

    @sg.compile.jit
    def f(x: Any) -> Any:
        def step(i: Any, c: Any) -> Any:
            jax.debug.callback(lambda v: seen.append(int(v)), i, ordered=True)

            def inner(j: Any, d: Any) -> Any:
                jax.debug.print("inner {}", j, ordered=True)
                return d

            jax.lax.fori_loop(0, 1, inner, 0)
            return c

        jax.lax.fori_loop(0, 3, step, 0)
        jax.lax.fori_loop(0, 3, lambda i, c: (setattr(s, "value", s.value + 1), c)[1], 0)
        return x

    f(1.0)
    jax.effects_barrier()
    assert seen == [0, 1, 2]
    assert capfd.readouterr().out.split() == ["inner", "0"] * 3
    assert int(s.value) == 3


@pytest.mark.core
def test_nan_arithmetic_is_not_folded() -> None:
    s = sg.State(jnp.float32(np.nan))
    f = sg.compile.jit(lambda x: (s.value - s.value, s.value * 0, 0 + x, x * 1))
    out = f(jnp.float32(-0.0))
    assert np.isnan(out[0]) and np.isnan(out[1])
    names = [op.name for op in f.lower(jnp.float32(0)).program.walk()]
    assert "jax.sub" in names and "jax.add" in names and names.count("jax.mul") >= 1


def test_sort_reduce_and_linear_solve_take_functions_without_state() -> None:
    def make() -> Made:
        s = sg.State(jnp.float32(2))

        def f(x: Any) -> Any:
            s.value = s.value + 1
            total = jax.lax.reduce(x, jnp.float32(0), jax.lax.add, (0,))
            solved = jax.lax.custom_linear_solve(
                lambda v: v * 2.0, x, lambda matvec, b: b / 2.0, symmetric=True
            )
            return total, jnp.sort(x), solved * s.value

        return f, [s]

    agree(make, (XS,))


@pytest.mark.parametrize("where", ["reduce", "custom_linear_solve", "pure_callback", "reduce_window"])
def test_state_in_a_function_that_only_jax_understands_is_refused(where: str) -> None:
    s = sg.State(jnp.float32(2), name="hidden")

    def f(x: Any) -> Any:
        if where == "reduce":
            return jax.lax.reduce(x, jnp.float32(0), lambda a, b: a + b * s.value, (0,))
        if where == "reduce_window":
            return jax.lax.reduce_window(x, jnp.float32(0), lambda a, b: a + b * s.value, (2,), (1,), "VALID")
        if where == "pure_callback":
            return jax.pure_callback(lambda v: v * s.value, x, x)
        return jax.lax.custom_linear_solve(
            lambda v: v * s.value, x, lambda matvec, b: b / 2.0, symmetric=True
        )

    if where == "pure_callback":  # the callback runs later, eagerly: it sees the State as it is then
        assert np.allclose(sg.compile.jit(f)(XS), XS * 2)
        return
    with pytest.raises(sg.errors.StateGraphError) as error:
        sg.trace(f, XS)
    assert "fix:" in str(error.value) and "test_plain_jax.py" in str(error.value)


@pytest.mark.core
def test_a_root_finder_reads_state_or_is_refused_by_name() -> None:
    s = sg.State(jnp.float32(2))

    def newton(f: Any, y: Any) -> Any:
        return jax.lax.fori_loop(0, 20, lambda i, y: y - f(y) / (2 * y), y)

    def root(x: Any) -> Any:
        return jax.lax.custom_root(lambda y: y * y - x * s.value, x, newton, lambda g, y: y / g(1.0))

    try:
        found = sg.compile.jit(root)(jnp.float32(3))
    except sg.errors.StateAccessError as error:
        assert "given to custom_root" in str(error) and "fix:" in str(error)
        assert "test_plain_jax.py" in str(error)
    else:
        assert np.allclose(found, 6**0.5)


@pytest.mark.core
def test_shard_map_bodies_use_state() -> None:
    from jax.sharding import Mesh, PartitionSpec

    mesh = Mesh(np.array(jax.devices()[:1]), ("i",))
    s = sg.State(jnp.float32(2))

    def f(x: Any) -> Any:
        return jax.shard_map(
            lambda v: v * s.value, mesh=mesh, in_specs=PartitionSpec("i"), out_specs=PartitionSpec("i")
        )(x)

    assert np.allclose(sg.compile.jit(f)(XS), XS * 2)

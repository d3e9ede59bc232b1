"""State in ``jax.shard_map``; run by ``test_shard_map.py`` in a process with eight devices.

Oracles: the same code as eager Python, and plain ``jax.shard_map`` on functions purified by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import ir
from stategraph.augment import grad, vmap
from stategraph.errors import StateAccessError
from tests.augment.meshes import MESH, XS, P, four_ways, plain
from tests.support import build


def reads(w: Any, n: Any, x: Any) -> Any:
    return x * w.value + n.value


def writes_the_same(w: Any, n: Any, x: Any) -> Any:
    n.value += jax.lax.psum(x.sum() * w.value, "i")
    return x + n.value


def first_different_then_the_same(w: Any, n: Any, x: Any) -> Any:
    n.value = x.sum()
    n.value = jax.lax.pmean(n.value, "i")
    return x * n.value


def local_in_a_scan(w: Any, n: Any, x: Any) -> Any:
    c = sg.State(0.0)

    def step(carry: Any, _: Any) -> Any:
        c.value += carry.sum() * w.value
        return carry * w.value, c.value

    y, cs = jax.lax.scan(step, x, None, length=3)
    n.value += jax.lax.psum(cs[-1], "i")
    return y


def written_in_a_loop(w: Any, n: Any, x: Any) -> Any:
    def step(k: Any, y: Any) -> Any:
        n.value += jax.lax.pmax(y.max(), "i")
        return y * w.value

    return jax.lax.fori_loop(0, 3, step, x)


def written_in_a_branch(w: Any, n: Any, x: Any) -> Any:
    def yes(y: Any) -> Any:
        n.value = w.value * 3
        return y * 2

    return jax.lax.cond(w.value > 1, yes, lambda y: y, x)


def a_while_loop(w: Any, n: Any, x: Any) -> Any:
    def body(y: Any) -> Any:
        n.value += 1.0
        return y + 1

    return jax.lax.while_loop(lambda y: n.value < 3, body, x)


def a_kept_function(w: Any, n: Any, x: Any) -> Any:
    @jax.jit
    def inner(y: Any) -> Any:
        return jnp.where(y > 0, y * w.value, 0.0)

    return inner(x) + inner(x + 1)


def with_derivative_rules(w: Any, n: Any, x: Any) -> Any:
    return jax.nn.relu(x) * jax.nn.softplus(w.value)


def mapped(w: Any, n: Any, x: Any) -> Any:
    total = jax.lax.psum(x, "i").sum()
    return vmap(lambda v: v * w.value + total)(x)


def mapped_with_a_branch(w: Any, n: Any, x: Any) -> Any:
    return vmap(lambda v: jnp.where(v > 0, v * w.value, v))(x)


def recomputed(w: Any, n: Any, x: Any) -> Any:
    inner = (lambda f: f) if jax.config.jax_disable_jit else jax.checkpoint
    return inner(lambda y: jnp.sin(y * w.value) + jax.lax.psum(y, "i"))(x)


BODIES = [
    reads,
    recomputed,
    writes_the_same,
    first_different_then_the_same,
    local_in_a_scan,
    written_in_a_loop,
    written_in_a_branch,
    a_while_loop,
    a_kept_function,
    with_derivative_rules,
    mapped,
    mapped_with_a_branch,
]


@pytest.mark.parametrize("body", BODIES)
def test_jax_shard_map_may_use_state(body: Callable[..., Any]) -> None:
    w, n = sg.State(jnp.float32(2)), sg.State(jnp.float32(0))
    if body is first_different_then_the_same:  # only a whole trace shows what is left at the end
        x = XS.reshape(8, 2)
        result = sg.compile.jit(plain(lambda y: body(w, n, y)))(XS)
        assert np.allclose(n.value, x.sum(1).mean()) and np.allclose(result, XS * x.sum(1).mean())
        return
    loops = body in (a_while_loop, mapped)
    four_ways(plain(lambda x: body(w, n, x)), XS, reference=not loops)


@pytest.mark.parametrize(
    "body", [reads, with_derivative_rules, recomputed, local_in_a_scan, a_kept_function, mapped]
)
def test_gradients_around_shards_are_jax_s(body: Callable[..., Any]) -> None:
    """Against plain JAX on the function with State as an argument."""
    w, n = sg.State(jnp.float32(2)), sg.State(jnp.float32(0))

    def loss() -> Any:
        return (plain(lambda x: body(w, n, x))(XS) ** 2).sum()

    def pure(value: Any) -> Any:
        def local(v: Any, x: Any) -> Any:
            return body(sg.State(v), sg.State(jnp.float32(0)), x)

        mapped = jax.shard_map(local, mesh=MESH, in_specs=(P(), P("i")), out_specs=P("i"), check_vma=False)
        return (mapped(value, XS) ** 2).sum()

    found = sg.compile.jit(lambda: grad(loss, w)())()
    compiled, step, values = sg.compile.jit(loss), 1e-2, []
    for at in (2 - step, 2 + step):
        w.value, n.value = jnp.float32(at), jnp.float32(0)
        values.append(compiled())
    assert np.allclose(found, (values[1] - values[0]) / (2 * step), rtol=2e-2)
    if body in (reads, with_derivative_rules):
        assert np.allclose(found, jax.grad(pure)(jnp.float32(2)), rtol=1e-5)


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_on_a_shard_are_jax_s(check_vma: bool) -> None:
    """JAX sums the gradient of what all devices share, unless its types are switched off."""
    w = sg.State(jnp.float32(2))

    def cost(v: Any, x: Any) -> Any:
        def step(c: Any, y: Any) -> Any:
            return c + jax.nn.relu(y) * v**2, None

        return jax.lax.scan(step, v + 0 * x[0], x)[0]

    def local(x: Any) -> Any:
        return grad(lambda: cost(w.value, x), w)()[None] + 0 * x[:1]

    def on_shards(body: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
        return jax.shard_map(body, mesh=MESH, in_specs=specs, out_specs=P("i"), check_vma=check_vma)

    found = sg.compile.jit(lambda x: on_shards(local, P("i"))(x))(XS)
    pure = on_shards(lambda v, x: jax.grad(lambda u: cost(u, x))(v)[None] + 0 * x[:1], P(), P("i"))
    assert np.allclose(found, jax.jit(pure)(jnp.float32(2), XS), rtol=1e-5)
    each = jax.vmap(lambda x: jax.grad(lambda u: cost(u, x))(jnp.float32(2)))(XS.reshape(8, 2))
    assert np.allclose(found, np.full(8, each.sum()) if check_vma else each, rtol=1e-5)


def test_a_loop_around_shards_carries_state() -> None:
    n = sg.State(jnp.zeros(2))

    def local(x: Any) -> Any:
        n.value = n.value + jax.lax.psum(x, "i")
        return x * n.value.sum()

    def f(x: Any) -> Any:
        return jax.lax.scan(lambda c, _: (plain(local)(c) / 100, None), x, None, length=3)[0]

    four_ways(f, XS, tolerance=1e-4)


def test_a_write_is_kept_when_nobody_takes_a_result() -> None:
    n = sg.State(jnp.float32(0))

    def local(x: Any) -> Any:
        n.value = jax.lax.psum(x.sum(), "i")
        return x

    program = sg.trace(lambda x: (plain(local)(x), None)[1], XS).lower().program
    assert [op.symbol for op in program.walk("state.write")] == ["n"]
    assert any(True for _ in program.walk("xform.shard_map"))


def test_the_text_form_is_complete_and_runs() -> None:
    w, n = sg.State(jnp.float32(2)), sg.State(jnp.float32(0))
    trace = build(plain(lambda x: local_in_a_scan(w, n, x)), XS)
    again = ir.parse(str(trace.program))
    assert again == trace.program and "opaque" not in str(trace.program)
    result = sg.lower(again, states={"w": w, "n": n}).compile()(XS)
    assert np.allclose(result, XS * 8) and float(n.value) != 0


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("eager", [True, False])
def test_a_state_that_devices_leave_different_is_refused(check_vma: bool, eager: bool) -> None:
    w, n = sg.State(jnp.float32(2)), sg.State(jnp.float32(0))

    def local(x: Any) -> Any:
        w.value = w.value + 1
        n.value = x.sum()
        return x

    def f(x: Any) -> Any:
        return jax.shard_map(local, mesh=MESH, in_specs=P("i"), out_specs=P("i"), check_vma=check_vma)(x)

    with pytest.raises(StateAccessError) as error, jax.disable_jit(eager):
        sg.compile.jit(f)(XS)
    text = str(error.value)
    assert "fix:" in text and "state_out_specs" in text and "'i'" in text and "shards_on_devices.py" in text
    assert float(n.value) == 0


@pytest.mark.parametrize("eager", [True, False])
def test_without_jax_s_types_lanes_show_what_is_the_same(eager: bool) -> None:
    n = sg.State(jnp.float32(0))

    def local(x: Any) -> Any:
        n.value = n.value + jax.lax.pmean(jax.lax.scan(lambda c, y: (c + y, None), 0.0, x)[0], "i")
        return x

    def f(x: Any) -> Any:
        return jax.shard_map(local, mesh=MESH, in_specs=P("i"), out_specs=P("i"), check_vma=False)(x)

    with jax.disable_jit(eager):
        sg.compile.jit(f)(XS)
    assert np.allclose(n.value, XS.sum() / 8)


def test_an_exited_branch_or_loop_makes_values_differ() -> None:
    n = sg.State(jnp.float32(0))

    def local(x: Any) -> Any:
        return jax.lax.cond(x.sum() > 1, lambda: setattr(n, "value", 1.0) or x, lambda: x)  # type: ignore[func-returns-value]

    with pytest.raises(StateAccessError, match="may differ"):
        sg.compile.jit(plain(local))(XS)


def test_a_state_born_on_a_device_cannot_stay_on_the_model() -> None:
    class Model(sg.nn.Module):
        def update(self, x: Any) -> Any:
            self.h = sg.State(x)
            return x

    model = Model()
    with pytest.raises(StateAccessError, match="kept on the model"):
        sg.compile.jit(plain(model.update))(XS)

"""``augment.shard_map``, ``pmap`` and what goes with them; run by ``test_shard_map.py`` in a process with eight devices.

Oracles: the same code as eager Python, the same model without shards, and ``vmap`` for ``pmap``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding

import stategraph as sg
from stategraph import ir
from stategraph.augment import grad, pmap, shard_map, vmap
from stategraph.errors import StateAccessError, StateGraphError, StateTypeError
from tests.augment.meshes import MESH, XS, P, four_ways, plain
from tests.support import assert_same

GRID = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))


# --------------------------------------------------------------------------------------- augment.shard_map


def made() -> tuple[Any, Any, Any]:
    return sg.ParamState(jnp.float32(2)), sg.HiddenState(jnp.arange(16.0)), sg.State(jnp.zeros((2, 3)))


def body_of(w: Any, h: Any, k: Any) -> Callable[[Any], Any]:
    def body(x: Any) -> Any:
        h.value = h.value * w.value + x
        k.value = k.value + h.value.sum()
        w.value = w.value + jax.lax.pmean(x.sum(), "i")
        return x + h.value, jax.lax.psum(x, "i")

    return body


BY = {
    "state": lambda w, h, k: {h: P("i"), k: P()},
    "several": lambda w, h, k: {(h,): P("i")},
    "filter": lambda w, h, k: {sg.HiddenState: P("i")},
}


@pytest.mark.parametrize("by", BY)
def test_states_with_specs_are_cut_and_put_together(by: str) -> None:
    w, h, k = made()
    f = shard_map(body_of(w, h, k), MESH, P("i"), (P("i"), P()), BY[by](w, h, k), state_out_specs={k: P("i")})
    (result, _), _ = four_ways(f, XS)
    wanted = np.arange(16.0) * 2 + np.asarray(XS)
    assert np.allclose(h.value, wanted) and np.allclose(result, XS + wanted)
    assert k.value.shape == (16, 3) and np.allclose(k.value[::2, 0], wanted.reshape(8, 2).sum(1))
    assert h.value.sharding.spec == P("i")


def test_a_call_outside_of_a_program_is_compiled_once() -> None:
    w, h, k = made()
    f = shard_map(lambda x: body_of(w, h, k)(x)[0], MESH, P("i"), P("i"), {h: P("i"), k: P()}, {k: P("i")})
    before = h.value
    f(XS)
    assert np.allclose(h.value, before * 2 + XS)
    runs = itertools.count()
    g = shard_map(lambda x: x * w.value + 0 * next(runs), MESH, P("i"), P("i"))
    first = g(XS)
    assert_same((g(XS), g(XS)), (first, first))
    assert next(runs) == 1


def test_the_sharding_that_a_state_was_made_with_is_its_spec() -> None:
    h = sg.State(jnp.arange(16.0), sharding=NamedSharding(MESH, P("i")))
    k = sg.State(jnp.arange(8.0), sharding=P("i"))
    seen = []

    def body(x: Any) -> Any:
        seen.append((h.shape, k.shape))
        h.value = h.value + k.value.sum()
        return x

    sg.compile.jit(shard_map(body, MESH, P("i"), P("i")))(XS)
    assert seen == [((2,), (1,))] and np.allclose(h.value, np.arange(16.0) + np.repeat(np.arange(8.0), 2))


def test_trees_and_two_axes() -> None:
    s = sg.State({"a": jnp.arange(16.0).reshape(8, 2), "b": jnp.ones(3)})
    spec = {"a": P("data", "model"), "b": P()}

    def body(x: Any, y: Any) -> Any:
        value = s.value
        s.value = {"a": value["a"] + y, "b": value["b"] + jax.lax.psum(x, "data").sum()}
        return {"x": x * value["b"][0], "y": jax.lax.psum(value["a"], "model")}

    f = shard_map(body, GRID, (P("data"), P()), {"x": P("data"), "y": P("data")}, {s: spec})
    (result, _) = four_ways(f, jnp.ones((8, 3)), jnp.float32(2))
    assert result["y"].shape == (8, 1) and np.allclose(s.value["b"], 1 + 24)


def test_a_promise_is_taken_where_it_is_made() -> None:
    n = sg.State(jnp.float32(0))

    def body(x: Any) -> Any:
        n.value = jax.lax.all_gather(x, "i").sum()
        return x

    sg.compile.jit(shard_map(body, MESH, P("i"), P("i"), state_out_specs={n: P()}, check_vma=False))(XS)
    assert np.allclose(n.value, XS.sum())


@pytest.mark.parametrize("how", ["jvp", "vjp"])
def test_derivative_rules_see_shards(how: str) -> None:
    h, k = sg.State(jnp.arange(16.0)), sg.State(jnp.arange(16.0))

    if how == "jvp":
        rule: Any = jax.custom_jvp(lambda x: x * 3)
        rule.defjvp(lambda p, t: (rule(p[0]), t[0] * h.value * 2))
    else:
        rule = jax.custom_vjp(lambda x: x * 3)
        rule.defvjp(lambda x: (x * 3, None), lambda _, g: (g * h.value * 2,))

    def body(x: Any) -> Any:
        k.value = k.value + 1
        return sg.augment.vector_grad(lambda y: rule(y))(x)

    f = shard_map(body, MESH, P("i"), P("i"), {(h, k): P("i")})
    result, _ = four_ways(f, XS, reference=False)
    assert np.allclose(result, np.arange(16.0) * 2) and np.allclose(k.value, np.arange(16.0) + 1)


def test_devices_draw_numbers_of_their_own_as_lanes_do() -> None:
    def draws(transform: Callable[..., Any]) -> Any:
        rng = sg.random.RandomState(7)
        numbers = transform(lambda x: x + rng.normal())
        return jnp.ravel(numbers(jnp.zeros((8,)))), jax.random.key_data(rng.value)

    with_lanes = draws(vmap)
    on_devices = draws(lambda f: shard_map(f, MESH, P("i"), P("i")))
    assert_same(with_lanes, on_devices)
    rng = sg.random.RandomState(7)
    shared = shard_map(lambda x: x + rng.normal(), MESH, P("i"), P("i"), {rng: P()})
    four_ways(shared, jnp.zeros(8))
    assert len(set(np.asarray(shared(jnp.zeros(8))).tolist())) == 1
    with jax.disable_jit():
        assert_same(draws(lambda f: shard_map(f, MESH, P("i"), P("i"))), with_lanes)


def test_a_training_step_on_shards_of_the_data_is_the_step_on_all_of_it() -> None:
    class Model(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            keys = jax.random.split(jax.random.key(0), 2)
            self.w1 = sg.ParamState(jax.random.normal(keys[0], (4, 16)))
            self.w2 = sg.ParamState(jax.random.normal(keys[1], (16,)))
            self.seen = sg.LongTermState(jnp.float32(0))

        def update(self, x: Any) -> Any:
            return jax.nn.relu(x @ self.w1.value) @ self.w2.value

    x = jax.random.normal(jax.random.key(1), (32, 4))
    y = x.sum(1)

    def step(model: Model, mean: Callable[[Any], Any], x: Any, y: Any) -> Any:
        loss = grad(
            lambda: mean(((model(x) - y) ** 2).mean()), model.states(sg.ParamState), return_value=True
        )
        gradients, value = loss()
        for path, state in model.states(sg.ParamState).items():
            state.value = state.value - 0.01 * gradients[path]
        model.seen.value += mean(x.mean())
        return value

    alone, together = Model(), Model()
    spread = shard_map(
        lambda x, y: step(together, lambda v: jax.lax.pmean(v, "i"), x, y), MESH, (P("i"), P("i")), P()
    )
    one, many = sg.compile.jit(lambda x, y: step(alone, lambda v: v, x, y)), sg.compile.jit(spread)
    for _ in range(3):
        assert_same(one(x, y), many(x, y), exact=False, tolerance=1e-4)
    for path, state in alone.states().items():
        assert_same(state.value, together.states()[path].value, exact=False, tolerance=1e-4)


def test_what_is_wrong_is_said_with_the_fix() -> None:
    h, w = sg.State(jnp.arange(15.0)), sg.State(jnp.float32(1))
    touch = lambda x: x + h.value.sum()
    with pytest.raises(StateTypeError, match="cannot be cut into 8 equal parts") as error:
        sg.compile.jit(shard_map(touch, MESH, P("i"), P("i"), {h: P("i")}))(XS)
    assert "augmented_on_devices.py" in str(error.value)
    with pytest.raises(StateTypeError, match="cannot be cut"):
        shard_map(touch, MESH, P("i"), P("i"), P("i"))(XS)
    shard_map(lambda x: x * w.value, MESH, P("i"), P("i"), {sg.HiddenState: P("i")})(XS)  # h is not touched
    with pytest.raises(ValueError, match="no axis 'j'"):
        shard_map(touch, MESH, P("j"), P("i"))
    with pytest.raises(ValueError, match="cannot be cut into 8"):
        shard_map(touch, MESH, P("i"), P("i"))(jnp.ones(9))
    with pytest.raises(TypeError, match="2 entries"):
        shard_map(touch, MESH, (P("i"), P()), P("i"))(XS)
    with pytest.raises(TypeError, match="needs mesh"):
        shard_map(touch)
    with pytest.raises(TypeError, match=r"jax\.sharding\.Mesh"):
        shard_map(touch, "i", P("i"), P("i"))
    with pytest.raises(TypeError, match="PartitionSpec"):
        shard_map(touch, MESH, P("i"), P("i"), [h])(XS)
    with pytest.raises(StateGraphError, match="returns a str"):
        sg.compile.jit(shard_map(lambda x: "no", MESH, P("i"), P("i")))(XS)
    with pytest.raises(StateGraphError, match=r"out_specs|replication"):
        sg.compile.jit(shard_map(lambda x: x, MESH, P("i"), P()))(XS)
    with pytest.raises(StateGraphError, match="augment"):
        sg.compile.jit(lambda x: jax.vmap(shard_map(touch, MESH, P("i"), P("i")))(x))(jnp.ones((2, 16)))


def test_types_that_the_mesh_is_part_of_are_left_to_the_compiler() -> None:
    mesh = jax.make_mesh((8,), ("i",))  # its axes are explicit
    h = sg.State(jnp.arange(16.0))
    f = shard_map(lambda x: x * h.value, mesh, P("i"), P("i"), {h: P("i")})
    assert np.allclose(sg.compile.jit(f)(XS), XS * h.value)


def test_the_mesh_may_come_from_the_context() -> None:
    n = sg.State(jnp.float32(0))

    def body(x: Any) -> Any:
        n.value = n.value + jax.lax.psum(x.sum(), "i")
        return x

    f = sg.compile.jit(lambda x: jax.shard_map(body, in_specs=P("i"), out_specs=P("i"))(x))
    with jax.set_mesh(MESH):
        f(XS)
        program = sg.trace(f, XS).program
        sg.lower(ir.parse(str(program)), states={"n": n}).compile()(XS)
    assert np.allclose(n.value, 2 * XS.sum())
    with pytest.raises(StateGraphError, match="set_mesh"):
        sg.lower(program, states={"n": n})


def test_constraints_on_shardings_have_a_text_form() -> None:
    def f(x: Any) -> Any:
        return jax.lax.with_sharding_constraint(x * 2, NamedSharding(MESH, P("i")))

    text = str(sg.trace(f, XS).program)
    assert "opaque" not in text
    assert sg.lower(ir.parse(text)).compile()(XS).sharding.spec == P("i")


# ----------------------------------------------------------------------------------------------------- pmap


def lanes_step(transform: Callable[..., Any]) -> tuple[Callable[..., Any], list[Any]]:
    w, h, k = sg.ParamState(jnp.ones(3)), sg.State(jnp.zeros((2, 8))), sg.State(jnp.zeros(2))
    rng = sg.random.RandomState(3)

    def step(x: Any, s: Any, y: Any = None) -> Any:
        h.value = h.value + x.sum() * s
        g = grad(lambda: ((x * w.value).sum() - y) ** 2, w)()
        w.value = w.value - 0.01 * jax.lax.pmean(g, "b")
        k.value = k.value + x.sum() + rng.normal()
        return x * 2, jax.lax.psum(x, "b")

    options = dict(axis_name="b", in_axes=(0, None), out_axes=(0, None), in_states={1: h}, out_states=k)
    return transform(step, **options), [w, h, k, rng]


def test_pmap_is_vmap_on_devices() -> None:
    lanes, expected = lanes_step(vmap)
    devices, found = lanes_step(pmap)
    x, y = jnp.arange(24.0).reshape(8, 3) / 10, jnp.arange(8.0)
    assert_same(devices(x, 2.0, y=y), lanes(x, 2.0, y=y), exact=False)
    for a, b in zip(expected[:3], found[:3], strict=True):
        assert_same(a.value, b.value, exact=False)
    assert_same(*(jax.random.key_data(states[3].value) for states in (expected, found)))
    assert len(found[2].value.sharding.device_set) == 8
    with jax.disable_jit():
        devices, found = lanes_step(pmap)
        devices(x, 2.0, y=y)
    for a, b in zip(expected[:3], found[:3], strict=True):
        assert_same(a.value, b.value, exact=False)


def test_a_module_is_mapped_over_devices() -> None:
    class Noisy(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = sg.ParamState(jnp.arange(3.0))

        def init_state(self) -> None:
            self.h = sg.ShortTermState(sg.random.rand(3))

        def update(self, x: Any) -> Any:
            self.h.value = self.h.value + x * self.w.value
            return self.h.value, jax.lax.psum(x, "b")

    x, found = jnp.arange(24.0).reshape(8, 3), []
    for behavior in ("vmap", "pmap"):
        sg.random.seed(0)
        model = sg.nn.init_all_states(sg.nn.Map(Noisy(), 8, axis_name="b", behavior=behavior))
        found.append((model(x), model(x), model.module.h.value))
    assert_same(found[1], found[0], exact=False)
    assert len(found[1][0][0].sharding.device_set) == 8 > len(found[0][0][0].sharding.device_set)
    with pytest.raises(ValueError, match="behavior is 'vmap' or 'pmap'"):
        sg.nn.Map(Noisy(), 8, behavior="map")


def test_pmap_takes_fewer_lanes_than_devices_and_not_more() -> None:
    f = pmap(lambda x: x + jax.lax.axis_index("i"), axis_name="i")
    assert np.allclose(f(jnp.zeros(3)), [0, 1, 2])
    with pytest.raises(ValueError, match="9 lanes and has 8 devices"):
        f(jnp.zeros(9))
    n = sg.State(jnp.float32(0))
    with pytest.raises(StateAccessError, match="n is written"):
        pmap(lambda x: setattr(n, "value", x) or x)(jnp.zeros(4))  # type: ignore[func-returns-value]


# ------------------------------------------------------------------------------------------------- elsewhere


def test_lanes_around_shards() -> None:
    w, n = sg.State(jnp.float32(2)), sg.State(jnp.float32(0))

    def local(x: Any) -> Any:
        return jax.lax.psum(x * w.value, "i")

    def f(xs: Any) -> Any:
        n.value = n.value + 1
        return vmap(plain(local, P()))(xs)

    result, _ = four_ways(f, jnp.arange(32.0).reshape(2, 16), reference=False)
    assert np.allclose(result, jnp.arange(32.0).reshape(2, 8, 2).sum(1) * 2)


@pytest.mark.parametrize("names", ["data", ("data",), ("data", "model")])
def test_lanes_lie_along_the_axes_of_the_mesh_that_they_are_said_to(names: Any) -> None:
    inside = P("model") if names != ("data", "model") else P()

    def f(x: Any) -> Any:
        return jax.lax.with_sharding_constraint(x * 2, NamedSharding(GRID, inside))

    class Total(sg.nn.Module):
        def init_state(self) -> None:
            self.sum = sg.ShortTermState(jnp.zeros(4))

        def update(self, x: Any) -> Any:
            self.sum.value = f(self.sum.value + x)
            return self.sum.value

    xs = jnp.arange(32.0).reshape(8, 4)
    expected = jax.jit(jax.vmap(f, spmd_axis_name=names))(xs)
    result, _ = four_ways(vmap(f, spmd_axis_name=names), xs, reference=False)
    assert result.sharding == expected.sharding and result.sharding.spec[0] == (
        names if inside == P() else "data"
    )
    gradient = sg.compile.jit(grad(lambda x: vmap(f, spmd_axis_name=names)(x).sum(), argnums=0))(xs)
    assert np.allclose(gradient, 2) and gradient.sharding == expected.sharding
    total = sg.nn.init_all_states(sg.nn.Map(Total(), 8, spmd_axis_name=names))
    assert sg.compile.jit(total)(xs).sharding == total.module.sum.value.sharding == expected.sharding
    text = str(sg.trace(vmap(f, spmd_axis_name=names), xs).program)
    assert sg.lower(ir.parse(text)).compile()(xs).sharding == expected.sharding


def test_shards_over_some_axes_and_shards_of_shards() -> None:
    w, n = sg.State(jnp.float32(2)), sg.State(jnp.float32(0))

    def part(x: Any) -> Any:
        n.value = n.value + jax.lax.psum(x.sum(), "data")
        return x * w.value

    some = lambda x: jax.shard_map(
        part, mesh=GRID, in_specs=P("data"), out_specs=P("data"), axis_names={"data"}
    )(x)
    assert np.allclose(sg.compile.jit(some)(XS), XS * 2) and np.allclose(n.value, XS.sum())

    def outer(x: Any) -> Any:
        def inner(y: Any) -> Any:
            n.value = n.value + 1
            return y * w.value + jax.lax.psum(y, "model")

        return jax.shard_map(inner, in_specs=P("model"), out_specs=P("model"), axis_names={"model"})(x)

    both = lambda x: jax.shard_map(
        outer, mesh=GRID, in_specs=P("data"), out_specs=P("data"), axis_names={"data"}
    )(x)
    halves = np.asarray(XS).reshape(4, 2, 2)
    wanted = halves * 2 + halves.sum(1, keepdims=True)
    assert np.allclose(sg.compile.jit(both)(XS), wanted.reshape(16))
    assert np.allclose(n.value, XS.sum() + 1)


def test_a_program_over_shards_is_exported_for_its_devices(tmp_path: Any) -> None:
    h = sg.State(jnp.arange(16.0), sharding=NamedSharding(MESH, P("i")))

    def body(x: Any) -> Any:
        h.value = h.value + x
        return jax.lax.psum(h.value, "i")

    file = tmp_path / "shards.sgx"
    sg.export(shard_map(body, MESH, P("i"), P()), XS, path=file)
    loaded = sg.load_exported(file)
    wanted = (np.arange(16.0) + np.asarray(XS)).reshape(8, 2).sum(0)
    assert np.allclose(loaded(XS), wanted)
    assert np.allclose(loaded.states["h"], np.arange(16.0) + np.asarray(XS))
    assert np.allclose(loaded(XS), wanted + np.asarray(XS).reshape(8, 2).sum(0))


def test_a_program_for_missing_devices_says_which() -> None:
    text = str(sg.trace(plain(lambda x: x), XS).program).replace("5, 6, 7)", "5, 6, 99)")
    with pytest.raises(StateGraphError, match="no device 99 here"):
        sg.lower(ir.parse(text))

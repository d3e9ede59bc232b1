"""Shardings of arguments, results and States; run by ``test_shardings.py`` in a process with eight devices.

The oracle is the same program without any sharding.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import stategraph as sg
from stategraph import ir
from stategraph.nn import running_chunks
from tests.support import assert_same

P = PartitionSpec
MESH = Mesh(np.array(jax.devices()[:8]), ("i",))
CUT, WHOLE = NamedSharding(MESH, P("i")), NamedSharding(MESH, P())
GRID = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
XS = jnp.arange(16.0)


class Model(sg.nn.Module):
    def __init__(self, **declared: Any) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.arange(16.0), **declared)
        self.t = sg.ShortTermState({"a": jnp.ones((8, 2)), "b": jnp.float32(0)})

    def update(self, x: Any, scale: Any = 2.0) -> Any:
        self.w.value = self.w.value * scale + x
        value = self.t.value
        self.t.value = {"a": value["a"] + self.w.value.sum(), "b": value["b"] + 1}
        return {"sum": self.w.value.sum(), "twice": x * 2}


def addresses(array: Any) -> list[int]:
    return [shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards]


def test_states_are_moved_where_they_are_declared_and_stay_there() -> None:
    model, oracle = Model(), Model()
    tree = {"a": NamedSharding(GRID, P("data", "model")), "b": None}
    step = sg.compile.jit(
        model,
        in_shardings=CUT,
        out_shardings={"sum": None, "twice": CUT},
        state_shardings={sg.ParamState: CUT, model.t: tree},
    )
    plain = sg.compile.jit(oracle)
    for _ in range(3):
        found, expected = step(XS), plain(XS)
        assert_same(found, expected, exact=False)
        assert found["twice"].sharding == CUT and model.w.value.sharding == CUT
        assert model.t.value["a"].sharding == tree["a"]
    assert_same([s.value for s in model.states().values()], [s.value for s in oracle.states().values()])
    assert step.trace_count == 1
    model.w.value = np.zeros(16)  # somebody puts another array there
    step(XS)
    assert model.w.value.sharding == CUT and np.allclose(model.w.value, XS) and step.trace_count == 1
    model.w.value = jax.device_put(jnp.zeros(16), jax.devices()[3])
    step(XS)
    assert model.w.value.sharding == CUT and np.allclose(model.w.value, XS)


@pytest.mark.parametrize("kind", ["jit", "state", "shard_map"])
def test_a_cut_state_is_updated_in_place(kind: str) -> None:
    w = sg.State(jnp.zeros(1 << 16), **({"sharding": CUT} if kind == "state" else {}))

    def add(x: Any) -> Any:
        w.value = w.value + x

    if kind == "shard_map":
        inner = sg.augment.shard_map(add, MESH, P(), P(), {w: P("i")})
        step = sg.compile.jit(inner, state_shardings={w: CUT})
    else:
        step = sg.compile.jit(add, state_shardings={w: CUT} if kind == "jit" else None)
    for _ in range(3):
        step(1.0)
    (cell,) = w._cells
    before = [addresses(cell.v)]
    for _ in range(2):
        step(1.0)
        before.append(addresses(cell.v))
    assert before[0] == before[1] == before[2] and cell.owned
    kept = w.value
    step(1.0)
    assert float(kept[0]) == 5 and float(w.value[0]) == 6  # what was handed out is never taken


def test_a_sharding_is_declared_on_the_state() -> None:
    model = Model(sharding=CUT)
    assert model.w.value.sharding == CUT
    step = sg.compile.jit(model)
    step(XS)
    step(XS)
    assert model.w.value.sharding == CUT
    at_jit = sg.compile.jit(model, state_shardings={sg.ParamState: WHOLE})  # what jit says comes first
    at_jit(XS)
    assert model.w.value.sharding == WHOLE
    pair = sg.State((jnp.ones(8), jnp.ones(3)), sharding=(CUT, None))
    assert pair.value[0].sharding == CUT and len(pair.value[1].sharding.device_set) == 1


def test_the_program_says_where_states_lie() -> None:
    model = Model(sharding=CUT)
    traced = sg.trace(model, XS)
    text = str(traced.program)
    assert "sharding" in text and "opaque" not in text and ir.parse(text) == traced.program
    lowered = traced.lower()
    assert "f32[16] sharded (i)" in str(lowered.signature)
    assert any("sharded (i)" in str(record) for record in lowered.explain())
    again = sg.lower(ir.parse(text), states=model)
    again.compile()(XS)
    assert model.w.value.sharding == CUT


def test_the_stages_take_the_same_shardings() -> None:
    model, oracle = Model(), Model()
    jitted = sg.compile.jit(
        model, in_shardings=(CUT,), out_shardings={"sum": WHOLE, "twice": CUT}, state_shardings={...: WHOLE}
    )
    compiled = jitted.trace(XS).lower().compile()
    for _ in range(2):
        found = compiled(XS)
        assert found["twice"].sharding == CUT and model.w.value.sharding == WHOLE
        assert_same(found, sg.compile.jit(oracle)(XS), exact=False)


def test_a_compiled_program_takes_cut_states_again() -> None:
    h = sg.State(jnp.arange(16.0))

    def add(x: Any) -> Any:
        h.value = h.value + x
        return x

    f = sg.augment.shard_map(add, MESH, P("i"), P("i"), {h: P("i")})
    compiled = sg.trace(f, XS).lower().compile()
    for k in range(3):
        compiled(XS)
        assert np.allclose(h.value, jnp.arange(16.0) * (k + 2))


def test_donated_and_static_arguments_keep_their_shardings() -> None:
    s = sg.State(jnp.zeros(16))

    def f(x: Any, n: int, y: Any) -> Any:
        s.value = s.value + x * n
        return x + y

    step = sg.compile.jit(f, static_argnums=1, donate_argnums=0, in_shardings=(CUT, WHOLE), out_shardings=CUT)
    x = jax.device_put(XS, CUT)
    assert np.allclose(step(x, 3, jnp.ones(16)), np.arange(16.0) + 1)
    assert x.is_deleted() and np.allclose(s.value, np.arange(16.0) * 3)


def test_a_gradient_step_on_cut_data_is_the_step_on_whole_data() -> None:
    def make(**options: Any) -> tuple[Any, Any]:
        w = sg.ParamState(jnp.ones(4))

        def train(x: Any) -> Any:
            gradient = sg.augment.grad(lambda: ((x @ w.value) ** 2).mean(), w)()
            w.value = w.value - 0.1 * gradient

        return w, sg.compile.jit(train, **options)

    x = jax.random.normal(jax.random.key(0), (32, 4))
    alone, plain = make()
    spread, cut = make(in_shardings=CUT, state_shardings={sg.ParamState: WHOLE})
    for _ in range(3):
        plain(x)
        cut(x)
    assert_same(alone.value, spread.value, exact=False)


def test_copies_and_pickles_keep_the_sharding() -> None:
    model = Model(sharding=CUT)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.w.metadata["sharding"] == CUT and other.w.value.sharding == CUT
        assert np.allclose(other.w.value, model.w.value)


def test_what_is_wrong_is_said() -> None:
    model = Model()
    with pytest.raises(TypeError, match="NamedSharding"):
        sg.compile.jit(model, in_shardings=P("i"))
    with pytest.raises(TypeError, match="State or filter"):
        sg.compile.jit(model, state_shardings=CUT)
    with pytest.raises(TypeError, match="by position"):
        sg.compile.jit(model, in_shardings=CUT)(x=XS)
    with pytest.raises(TypeError, match="2 entries"):
        sg.compile.jit(model, in_shardings=(CUT, CUT))(XS)
    with pytest.raises(ValueError, match="no prefix"):
        sg.compile.jit(model, state_shardings={model.t: {"c": CUT}})(XS)
    with pytest.raises(TypeError, match="NamedSharding"):
        sg.State(jnp.ones(8), sharding="i")
    with pytest.raises(ValueError, match="no prefix"):
        sg.State(jnp.ones(8), sharding=(CUT, CUT))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_runs_record_rows_that_lie_on_several_devices(
    kind: AxisType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_chunks, "LONGEST", 10)
    monkeypatch.setattr(running_chunks, "SHORTEST", 1)
    mesh = jax.make_mesh((8,), ("i",), axis_types=(kind,))

    def recorded(cut: bool) -> sg.nn.Recording:
        net = sg.nn.init_all_states(sg.nn.LIF(16, tau=20.0))
        if cut:
            net.V.value = jax.device_put(net.V.value, NamedSharding(mesh, P("i")))
        looks = {"V": (net.V, None, 3), "twice": lambda: net.V.value * 2, "spk": net.spike}
        return sg.nn.run(net, 35.0, 1.5, looks, dt=1.0)

    found, expected = recorded(True), recorded(False)
    assert_same(found["V"], expected["V"])
    assert_same(found["twice"], expected["twice"])
    assert_same(found["spk"].ids, expected["spk"].ids)
    assert len(expected["spk"].ids) > 0

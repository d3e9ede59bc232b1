"""Ensembles: ``vmap_init_all_states`` and the others, ``Vmap`` and ``Map``, against one model per instance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import BatchAxisError, StateGraphError
from tests.oracle import WAYS, run

nn = sg.nn


class Cell(nn.Module):
    def __init__(self, n_in: int, n: int, scale: float = 1.0) -> None:
        super().__init__()
        self.n = n
        self.w = sg.ParamState({"weight": sg.random.randn(n_in, n) * scale, "bias": jnp.zeros(n)})
        self.steps = sg.LongTermState(0)

    def _start(self, batch_size: int | None) -> Any:
        return jnp.zeros((batch_size, self.n) if batch_size else (self.n,))

    def init_state(self, batch_size: int | None = None) -> None:
        self.h = sg.HiddenState(self._start(batch_size))

    def reset_state(self, batch_size: int | None = None) -> None:
        self.h.value = self._start(batch_size)

    def update(self, x: Any) -> Any:
        self.h.value = jnp.tanh(x @ self.w.value["weight"] + self.w.value["bias"] + self.h.value)
        return self.h.value


class Noisy(Cell):
    def _start(self, batch_size: int | None) -> Any:
        return sg.random.randn(*((batch_size, self.n) if batch_size else (self.n,)))


class Chain(nn.Module):
    def __init__(self, *layers: Any) -> None:
        super().__init__()
        self.layers = list(layers)

    def update(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def silent(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation on a model that returns no model, as a compiled function must not."""

    def call() -> None:
        operation(*args, **kwargs)

    return call


# ----------------------------------------------------------------------------------------- the documents


def test_the_documents_ensemble() -> None:
    gru = Cell(5, 10)
    assert nn.vmap_init_all_states(gru, batch_size=3, axis_size=20) is gru
    assert gru.h.value.shape == (20, 3, 10)
    gru.h.value = jnp.ones((20, 3, 10))
    nn.vmap_reset_all_states(gru, batch_size=3, axis_size=20)
    assert gru.h.value.shape == (20, 3, 10) and not np.any(gru.h.value)


def test_the_documents_policy_shares_its_weights_by_default() -> None:
    policy = Chain(Cell(4, 64), nn.Module(), Cell(64, 2))
    nn.vmap_init_all_states(policy, axis_size=8)
    assert policy.layers[0].w.value["weight"].shape == (4, 64)
    assert nn.vmap_reset_all_states(policy, axis_size=8) is policy
    nn.vmap_init_all_states(policy, axis_size=8, parameters=True)
    weights = policy.layers[0].w.value["weight"]
    assert weights.shape == (8, 4, 64) and policy.layers[2].w.value["weight"].shape == (8, 64, 2)
    assert len(np.unique(np.reshape(weights, (8, -1)), axis=0)) == 8  # every lane has draws of its own


def test_the_documents_rollout_calls_the_module_directly() -> None:
    rnn = Cell(4, 8)
    nn.vmap_init_all_states(rnn, axis_size=4)
    outputs = [rnn(x) for x in sg.random.randn(12, 4, 4)]
    assert outputs[-1].shape == (4, 8)
    nn.vmap_reset_all_states(rnn, axis_size=4)
    assert rnn.h.shape == (4, 8) and not np.any(rnn.h.value)
    nn.vmap_reset_all_states(rnn)
    nn.reset_all_states(rnn)
    assert rnn.h.shape == (4, 8)


@pytest.mark.parametrize("exclude", [sg.HiddenState, (sg.HiddenState,), sg.util.OfType(sg.HiddenState)])
def test_excluded_states_stay_shared(exclude: Any) -> None:
    model = Chain(Noisy(3, 4), Cell(4, 2))
    nn.vmap_init_all_states(model, axis_size=5, state_to_exclude=exclude, batch_size=2)
    assert model.layers[0].h.shape == (2, 4) and model.layers[1].h.shape == (2, 2)


def test_excluding_parameters_is_legal() -> None:
    model = nn.vmap_init_all_states(Cell(3, 4), axis_size=5, state_to_exclude=sg.ParamState)
    assert model.h.shape == (5, 4)


def test_any_method_over_lanes() -> None:
    class Part(nn.Module):
        count = 0

        def draw(self, n: int) -> None:
            self.count += 1
            self.x = sg.State(sg.random.rand(n))

    model = Chain(Part(), Part())
    nn.vmap_call_all_fns(model, "draw", 3, axis_size=4, fn_if_not_exist="pass", state_tag="drawn")
    assert [part.x.shape for part in model.layers] == [(4, 3)] * 2
    assert [part.count for part in model.layers] == [1, 1]
    assert len(sg.graph.states(model, "drawn")) == 2
    with pytest.raises(AttributeError, match="no method 'draw'"):
        nn.vmap_call_all_fns(model, "draw", 3, axis_size=4)
    with pytest.raises(TypeError, match="size"):
        nn.vmap_call_all_fns(model.layers[0], "draw", kwargs={"size": 3}, axis_size=4)
    with pytest.raises(ValueError, match="axis_size"):
        nn.vmap_call_all_fns(model.layers[0], "draw", 3)


def test_methods_over_lanes_write_states_as_declared() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = sg.State(jnp.arange(4.0))
            self.sum = sg.State(0.0)

        def double(self) -> None:
            self.v.value = self.v.value * 2
            self.sum.value = self.v.value + 1

    part = Part()
    nn.vmap_call_all_fns(part, "double", in_states=[part.v], out_states=[part.sum])
    assert part.v.value.tolist() == [0, 2, 4, 6] and part.sum.value.tolist() == [1, 3, 5, 7]


# --------------------------------------------------------------------------------------------- the values


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("parameters", [False, True])
def test_instances_are_those_that_a_loop_makes(way: str, parameters: bool) -> None:
    sg.random.seed(0)
    model = Chain(Noisy(3, 4), Cell(4, 2, scale=0.5))
    start = sg.random.DEFAULT.value
    run(way, silent(nn.vmap_init_all_states, model, axis_size=3, parameters=parameters))
    keys = jax.random.split(start, 4)
    for i in range(3):
        sg.random.set_key(keys[i + 1])
        one = Chain(Noisy(3, 4), Cell(4, 2, scale=0.5)) if parameters else copy.deepcopy(model)
        nn.init_all_states(one)
        for layer, single in zip(model.layers, one.layers, strict=True):
            np.testing.assert_allclose(layer.h.value[i], single.h.value, rtol=1e-6)
            mine = jax.tree.map(lambda x, i=i: x[i], layer.w.value) if parameters else layer.w.value
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mine, single.w.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("reset", [nn.reset_all_states, nn.vmap_reset_all_states])
def test_a_reset_keeps_batch_and_ensemble_axes_and_draws_per_instance(
    way: str, batch_size: int | None, reset: Any
) -> None:
    model = Chain(Noisy(3, 4), Cell(4, 2))
    nn.vmap_init_all_states(model, axis_size=5, batch_size=batch_size)
    before = np.asarray(model.layers[0].h.value)
    run(way, silent(reset, model))
    noisy, plain = (layer.h.value for layer in model.layers)
    assert noisy.shape == before.shape and plain.shape == (*noisy.shape[:-1], 2)
    assert not np.any(np.isclose(noisy, before)) and len(np.unique(noisy)) == noisy.size
    assert not np.any(plain)


def test_only_nodes_with_lanes_are_reset_per_lane() -> None:
    model = Chain(Noisy(3, 4), Noisy(4, 2))
    nn.init_all_states(model, batch_size=2)
    nn.vmap_init_all_states(model.layers[1], axis_size=5)
    nn.reset_all_states(model)
    assert model.layers[0].h.shape == (2, 4) and model.layers[1].h.shape == (5, 2)
    nn.reset_all_states(model, batch_size=3)
    assert model.layers[0].h.shape == (3, 4) and model.layers[1].h.shape == (5, 3, 2)


def test_a_copy_remembers_its_lanes() -> None:
    model = nn.vmap_init_all_states(Noisy(3, 4), axis_size=5)
    for other in (sg.graph.clone(model), copy.deepcopy(model)):
        assert nn.reset_all_states(other).h.shape == (5, 4)


def test_a_reset_by_hand_inside_lanes() -> None:
    model = nn.vmap_init_all_states(Noisy(3, 4), axis_size=5)

    def lane() -> Any:
        nn.reset_all_states(model)
        return model.h.value.sum()

    out = sg.augment.vmap(lane, in_states=sg.HiddenState)()
    np.testing.assert_allclose(out, model.h.value.sum(1), rtol=1e-5)


def test_initialising_again_gives_one_lane_axis() -> None:
    model = Cell(3, 4)
    for size in (5, 6):
        nn.vmap_init_all_states(model, axis_size=size, parameters=True)
        assert model.h.shape == (size, 4) and model.w.value["weight"].shape == (size, 3, 4)


# -------------------------------------------------------------------------------------------- parameters


def test_some_parameters_per_lane() -> None:
    model = Chain(Cell(3, 4), Cell(4, 2))
    nn.vmap_init_all_states(model, axis_size=5, parameters=lambda path, state: 0 in path)
    assert model.layers[0].w.value["weight"].shape == (5, 3, 4)
    assert model.layers[1].w.value["weight"].shape == (4, 2)


def test_tied_parameters_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self, w: sg.ParamState[Any]) -> None:
            super().__init__()
            self.w = w

    first = Cell(3, 4)
    model = Chain(first, Tied(first.w))
    nn.vmap_init_all_states(model, axis_size=5, parameters=True)
    assert model.layers[1].w is first.w and first.w.value["weight"].shape == (5, 3, 4)


def test_modules_added_later_are_drawn_too() -> None:
    model = Chain(Cell(3, 4))
    model.extra = Cell(4, 2)
    nn.vmap_init_all_states(model, axis_size=5, parameters=True)
    assert model.extra.w.value["bias"].shape == (5, 2)


def test_parameters_that_cannot_be_drawn_again_are_named() -> None:
    model = Cell(3, 4)
    model.extra = sg.ParamState(jnp.ones(2))
    with pytest.raises(StateGraphError, match="extra cannot be drawn again"):
        nn.vmap_init_all_states(model, axis_size=5, parameters=True)
    with pytest.raises(StateGraphError, match="w cannot be drawn again"):
        nn.vmap_init_all_states(sg.graph.clone(Cell(3, 4)), axis_size=5, parameters=True)


def test_an_array_given_to_a_module_is_not_kept_alive_for_it() -> None:
    class Given(nn.Module):
        def __init__(self, w: Any) -> None:
            super().__init__()
            self.w = sg.ParamState(w)

    w = jnp.arange(3.0)
    model = Given(w)
    nn.vmap_init_all_states(model, axis_size=2, parameters=True)
    assert model.w.value.tolist() == [[0, 1, 2]] * 2
    with pytest.raises(StateGraphError, match="cannot be made again"):
        nn.vmap_init_all_states(Given(np.arange(3.0)), axis_size=2, parameters=True)


# ------------------------------------------------------------------------------------------ Vmap and Map


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("parameters", [False, True])
def test_vmap_runs_the_instances(way: str, parameters: bool) -> None:
    model = Chain(Noisy(3, 4), Cell(4, 2))
    nn.vmap_init_all_states(model, axis_size=5, parameters=parameters)
    single = [copy.deepcopy(model) for _ in range(5)]
    for i, one in enumerate(single):
        for state in sg.graph.states(one).values():
            if "lanes" in state.metadata:
                state.value = jax.tree.map(lambda x, i=i: x[i], state.value)
    xs = sg.random.randn(5, 3)
    for _ in range(2):
        out = run(way, nn.Vmap(model), xs)
        np.testing.assert_allclose(
            out, np.stack([one(x) for one, x in zip(single, xs, strict=True)]), rtol=1e-5
        )
    np.testing.assert_allclose(
        model.layers[0].h.value, np.stack([one.layers[0].h.value for one in single]), rtol=1e-5
    )


def test_vmap_inside_a_model_is_initialised_and_reset_per_lane() -> None:
    lanes = nn.Vmap(Noisy(4, 2), axis_size=4)
    model = Chain(Cell(3, 4), lanes)
    nn.init_all_states(model, batch_size=2)
    assert model.layers[0].h.shape == (2, 4) and lanes.module.h.shape == (4, 2, 2)
    before = np.asarray(lanes.module.h.value)
    nn.reset_all_states(model)
    assert not np.any(np.isclose(before, lanes.module.h.value))
    nn.reset_all_states(model, batch_size=3, node_to_exclude=lambda path, node: node is lanes.module)
    assert model.layers[0].h.shape == (3, 4) and lanes.module.h.shape == (4, 2, 2)


def test_vmap_without_a_size_shares_what_a_plain_initialisation_makes() -> None:
    layer = nn.Vmap(Cell(3, 4), vmap_out_states=sg.HiddenState)
    nn.init_all_states(layer)
    assert layer.module.h.shape == (4,)
    assert layer(jnp.ones((2, 3))).shape == (2, 4) and layer.module.h.shape == (2, 4)


def test_states_by_axis() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = sg.State(jnp.arange(6.0).reshape(2, 3))

        def update(self, x: Any) -> Any:
            return x * self.k.value

    out = nn.Vmap(Scale(), vmap_states={1: sg.State}, out_axes=1)(jnp.ones(3))
    assert out.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_vmap_in_vmap() -> None:
    model = nn.Vmap(nn.Vmap(Noisy(3, 2), axis_size=4), axis_size=5)
    nn.init_all_states(model)
    inner = model.module.module
    assert inner.h.shape == (5, 4, 2) and len(np.unique(inner.h.value)) == 40
    start = inner.h.value
    x = sg.random.randn(5, 4, 3)
    w = inner.w.value["weight"]
    np.testing.assert_allclose(model(x), np.tanh(x @ w + start), rtol=1e-5)
    assert nn.reset_all_states(model).module.module.h.shape == (5, 4, 2)


@pytest.mark.parametrize(
    ("inner", "outer", "lanes"),
    [(True, True, (5, 2)), (True, False, (5, 2)), (False, True, (5,)), (False, False, ())],
)
def test_parameters_in_nested_ensembles(inner: bool, outer: bool, lanes: tuple[int, ...]) -> None:
    layer = nn.Linear(4, 3)
    model = nn.Map(nn.Map(layer, 2, parameters=inner), 5, parameters=outer)
    x = np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32)
    for _ in range(2):
        nn.init_all_states(model)
        w = np.asarray(layer.weight.value["weight"])
        assert w.shape == (*lanes, 4, 3) and len(np.unique(w)) == w.size
        each = np.broadcast_to(w[:, None] if len(lanes) == 1 else w, (5, 2, 4, 3))
        np.testing.assert_allclose(model(x), np.einsum("abi,abij->abj", x, each), rtol=1e-4, atol=1e-5)
    nn.reset_all_states(model)
    np.testing.assert_array_equal(layer.weight.value["weight"], w)


def test_an_initialisation_that_fails_leaves_the_lanes_as_they_were() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def init_state(self, fail: bool = False) -> None:
            nn.vmap_init_all_states(self.layer, axis_size=2, parameters=True)
            if fail:
                raise RuntimeError("no")

        def update(self, x: Any) -> Any:
            return nn.Vmap(self.layer)(x)

    model = nn.vmap_init_all_states(Picky(), axis_size=5, parameters=True)
    before = model.layer.weight.value["weight"]
    with pytest.raises(RuntimeError, match="no"):
        nn.vmap_init_all_states(model, axis_size=7, parameters=True, fail=True)
    np.testing.assert_array_equal(model.layer.weight.value["weight"], before)
    assert nn.Vmap(model)(jnp.ones((5, 2, 4))).shape == (5, 2, 3)


def test_map_makes_its_instances() -> None:
    model = nn.Map(Noisy(3, 2), 4, parameters=True, state_tag="mine", in_axes=None, axis_name="lanes")
    assert model.init_all_states(batch_size=2) is model and model.init_map_size == 4
    inner = model.module
    assert inner.h.shape == (4, 2, 2) and inner.w.value["weight"].shape == (4, 3, 2)
    assert list(sg.graph.states(model, "mine")) == [("module", "h")]
    x, h = jnp.ones((2, 3)), inner.h.value
    np.testing.assert_allclose(model(x), np.tanh(x @ inner.w.value["weight"] + h), rtol=1e-5)

    def spread(scale: Any) -> Any:
        return jax.lax.pmean(inner.h.value.sum(), "lanes") * scale

    assert model.map(spread, in_axes=None, axis_name="lanes")(2.0).shape == (4,)
    assert model.map("update", in_axes=0)(jnp.ones((4, 2, 3))).shape == (4, 2, 2)


def test_map_chooses_which_states_have_lanes() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = sg.ParamState(jnp.arange(3.0))

        def init_state(self) -> None:
            self.a, self.b = sg.HiddenState(sg.random.rand()), sg.ShortTermState(sg.random.rand())

        def update(self, x: Any) -> Any:
            return x * self.a.value + self.b.value + self.k.value

    model = nn.Map(
        Two(),
        3,
        init_state_axes={0: sg.HiddenState},
        call_state_axes={0: sg.ParamState},
    )
    nn.init_all_states(model)
    inner = model.module
    assert inner.a.shape == (3,) and inner.b.shape == ()
    np.testing.assert_allclose(model(jnp.ones(3)), inner.a.value + inner.b.value + jnp.arange(3.0), rtol=1e-6)
    with pytest.raises(ValueError, match="first axis"):
        nn.Map(Two(), 3, init_state_axes={1: sg.HiddenState})


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match="runs a Module"):
        nn.Vmap(lambda x: x)  # type: ignore[arg-type]


def test_what_an_ensemble_has_of_its_own_is_reset_once() -> None:
    """As the clock of a run, which belongs to no lane."""
    neurons = nn.LIF(3, tau=5.0)
    lanes = nn.init_all_states(nn.Vmap(neurons, axis_size=2))
    lanes.more = nn.init_all_states(nn.LIF(2))
    current = lambda t: jnp.full((2, 3), 2.0)
    first = nn.run(lanes, 5.0, current, {"spk": neurons.spike}, dt=0.5)
    lanes.more.V.value = jnp.ones(2)
    nn.reset_all_states(lanes)
    assert int(lanes.clock.i.value) == 0 and lanes.more.V.value.tolist() == [0, 0]
    again = nn.run(lanes, 5.0, current, {"spk": neurons.spike}, dt=0.5)
    assert len(first["spk"]) > 0
    np.testing.assert_array_equal(again["spk"].times, first["spk"].times)
    nn.init_all_states(lanes)
    assert int(lanes.clock.i.value) == 0 and lanes.more.V.shape == (2,) and neurons.V.shape == (2, 3)


class Total(sg.nn.Module):
    """A State from ``__init__`` that both methods give a value of the lane's own."""

    def __init__(self) -> None:
        super().__init__()
        self.h = sg.ShortTermState(jnp.zeros(()))

    def init_state(self) -> None:
        self.h.value = sg.random.rand()

    def update(self, x: Any) -> Any:
        self.h.value = self.h.value + x
        return self.h.value


def test_what_to_say_of_states_that_lanes_leave_different_are_arguments_that_there_are() -> None:
    net = Total()
    calls: dict[str, Callable[..., Any]] = {
        "nn.vmap_init_all_states": lambda **said: sg.nn.vmap_init_all_states(net, axis_size=3, **said),
        "nn.vmap_call_all_fns": lambda **said: sg.nn.vmap_call_all_fns(
            net, "init_state", axis_size=3, **said
        ),
        "nn.Vmap": lambda **said: sg.nn.Vmap(net, **said)(jnp.arange(3.0)),
    }
    for name, call in calls.items():
        net.h = sg.ShortTermState(jnp.zeros(()))
        with pytest.raises(BatchAxisError) as caught:
            call()
        assert f"written inside {name} with" in str(caught.value)
        argument, states = str(caught.value).split("along axis 0: ")[1].split("=", 1)
        call(**{argument: eval(states)})  # what the message says to write
        assert net.h.shape == (3,)


def test_map_says_where_the_states_of_its_lanes_are_made() -> None:
    net = Total()
    with pytest.raises(BatchAxisError, match=r"net\.h is written inside nn\.Map(.|\n)*init_state"):
        sg.nn.Map(net, 3)(jnp.arange(3.0))

"""Optimisers: what optax computes on values, computed over State, eager and compiled."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import optim
from tests.oracle import agree

optax = pytest.importorskip("optax")

X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
Y = X @ np.array([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]], np.float32) + 0.5


class Model(sg.nn.Module):
    """Two layers, with State of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(1)
        self.layers = [
            sg.nn.Param(jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)),
            sg.nn.Param(jnp.asarray(rng.normal(size=(4, 2)), jnp.float32)),
        ]
        self.bias = sg.ParamState({"b": jnp.zeros(2)})
        self.calls = sg.LongTermState(0)

    def update(self, x: Any) -> Any:
        self.calls.value += 1
        return jnp.tanh(x @ self.layers[0].value()) @ self.layers[1].value() + self.bias.value["b"]

    def loss(self) -> Any:
        return jnp.mean((self(X) - Y) ** 2)


def values(model: Model) -> dict[str, Any]:
    return {
        "layers[0].val": model.layers[0].val.value,
        "layers[1].val": model.layers[1].val.value,
        "bias": model.bias.value,
    }


def by_optax(tx: Any, steps: int) -> dict[str, Any]:
    """Training without State: the oracle."""
    params = values(Model())

    def loss(p: Any) -> Any:
        out = jnp.tanh(X @ p["layers[0].val"]) @ p["layers[1].val"] + p["bias"]["b"]
        return jnp.mean((out - Y) ** 2)

    @jax.jit
    def step(params: Any, memory: Any) -> Any:
        updates, memory = tx.update(jax.grad(loss)(params), memory, params)
        return optax.apply_updates(params, updates), memory

    memory = tx.init(params)
    for _ in range(steps):
        params, memory = step(params, memory)
    return params


RECIPES: list[tuple[Callable[[], Any], Any]] = [
    (lambda: optim.SGD(0.1), optax.sgd(0.1)),
    (lambda: optim.SGD(0.1, 0.8, nesterov=True), optax.sgd(0.1, 0.8, True)),
    (lambda: optim.Momentum(0.1), optax.sgd(0.1, 0.9)),
    (lambda: optim.MomentumNesterov(0.1), optax.sgd(0.1, 0.9, True)),
    (lambda: optim.Adam(lr=0.05), optax.adam(0.05)),
    (lambda: optim.Adam(0.05, 0.8, 0.99, 1e-6), optax.adam(0.05, 0.8, 0.99, 1e-6)),
    (
        lambda: optim.Adam(0.05, weight_decay=0.1),
        optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.05)),
    ),
    (lambda: optim.AdamW(0.05), optax.adamw(0.05, weight_decay=1e-2)),
    (lambda: optim.Adamax(0.05), optax.adamax(0.05)),
    (lambda: optim.Nadam(0.05), optax.nadam(0.05)),
    (lambda: optim.RAdam(0.05), optax.radam(0.05)),
    (lambda: optim.AdaBelief(0.05), optax.adabelief(0.05)),
    (lambda: optim.Adagrad(0.05), optax.adagrad(0.05)),
    (lambda: optim.Adadelta(), optax.adadelta(1.0)),
    (
        lambda: optim.RMSProp(0.01, momentum=0.5, centered=True),
        optax.rmsprop(0.01, 0.9, centered=True, momentum=0.5),
    ),
    (lambda: optim.Lamb(0.05, weight_decay=0.01), optax.lamb(0.05, weight_decay=0.01)),
    (lambda: optim.Lars(1.0), optax.lars(1.0)),
    (lambda: optim.Lion(0.01, weight_decay=0.1), optax.lion(0.01, weight_decay=0.1)),
    (
        lambda: optim.Adafactor(0.05, momentum=0.5, min_dim_size_to_factor=2),
        optax.adafactor(0.05, min_dim_size_to_factor=2, momentum=0.5),
    ),
    (lambda: optim.Rprop(0.05), optax.rprop(0.05)),
    (
        lambda: optim.SGD(0.1, grad_clip_value=0.2, grad_clip_norm=0.3),
        optax.chain(optax.clip(0.2), optax.clip_by_global_norm(0.3), optax.sgd(0.1)),
    ),
    (lambda: optim.SGD(optim.StepLR(0.1, 2, 0.5)), optax.sgd(lambda n: 0.1 * 0.5 ** (n // 2))),
    (lambda: optim.Adam(optax.linear_schedule(0.1, 0.0, 5)), optax.adam(optax.linear_schedule(0.1, 0.0, 5))),
    (lambda: optim.Optimizer(None, optax.lbfgs(0.1, linesearch=None)), optax.lbfgs(0.1, linesearch=None)),
    (
        lambda: optim.Optimizer(None, optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()),
        optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    ),
]


@pytest.mark.parametrize(("make", "tx"), RECIPES, ids=[str(i) for i in range(len(RECIPES))])
def test_five_steps_are_those_of_optax(make: Any, tx: Any) -> None:
    model, optimizer = Model(), make()
    weights = model.states(sg.ParamState)
    optimizer.register_trainable_weights(weights)
    step = sg.compile.jit(lambda: optimizer.update(sg.augment.grad(model.loss, weights)()))
    for _ in range(5):
        step()
    expected = by_optax(tx, 5)
    found = values(model)
    for name in expected:
        for a, b in zip(jax.tree.leaves(found[name]), jax.tree.leaves(expected[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    assert step.trace_count == 1 and int(optimizer.step.value) == 5 == int(model.calls.value)


@pytest.mark.core
def test_eager_compiled_and_in_a_loop_are_one() -> None:
    def make() -> Any:
        model = Model()
        optimizer = optim.Adam(optim.ExponentialLR(0.1, 0.9)).register_trainable_weights(
            model.states(sg.ParamState)
        )

        def step(_: Any = None) -> Any:
            grads, loss = sg.augment.grad(model.loss, model.states(sg.ParamState), return_value=True)()
            optimizer.update(grads)
            return loss

        def train() -> Any:
            return step(), sg.compile.for_loop(step, jnp.arange(3)), optimizer.lr

        return train, [*model.states().values(), optimizer.state, optimizer.step]

    agree(make, (), (), tolerance=1e-4)


@pytest.mark.core
def test_state_of_the_optimiser_is_state() -> None:
    model = Model()
    optimizer = optim.Adam(0.1).register_trainable_weights(model.states(sg.ParamState))
    own = sg.graph.states(optimizer, optim.OptimState)
    assert set(own) == {("lr_state",), ("state",), ("step",)} and isinstance(
        optimizer.state, sg.LongTermState
    )
    assert {id(s) for s in sg.graph.states(optimizer, sg.ParamState).values()} == {
        id(s) for s in model.states(sg.ParamState).values()
    }
    grads = sg.augment.grad(model.loss, model.states(sg.ParamState))
    text = str(sg.trace(lambda: (model, optimizer.update(grads()))[1]).program)
    for name in ("@model.layers[0].val", "@optimizer.state", "@optimizer.step", "@optimizer.lr_state"):
        assert f"state {name} :" in text, name

    trainer = sg.nn.Module()
    trainer.model, trainer.optimizer = model, optimizer  # type: ignore[attr-defined]
    twin = sg.graph.clone(trainer)
    twin.optimizer.update(sg.augment.grad(twin.model.loss, twin.model.states(sg.ParamState))())
    assert int(twin.optimizer.step.value) == 1 and int(optimizer.step.value) == 0
    assert not jnp.array_equal(twin.model.bias.value["b"], model.bias.value["b"])
    optimizer.update(grads())
    np.testing.assert_allclose(twin.model.bias.value["b"], model.bias.value["b"], rtol=1e-5)


@pytest.mark.core
def test_gradients_in_every_form_that_grad_gives() -> None:
    model = Model()
    weights = model.states(sg.ParamState)
    reference = optim.SGD(0.1).register_trainable_weights(weights)
    start = weights.to_dict_values()
    reference.update(sg.augment.grad(model.loss, weights)())
    expected = weights.to_dict_values()

    def again(optimizer: Any, grads: Any) -> None:
        weights.assign_dict_values(start)
        optimizer.update(grads())
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), weights.to_dict_values(), expected
        )

    again(optim.SGD(0.1).register_trainable_weights(weights), sg.augment.grad(lambda: model.loss(), ...))
    again(optim.SGD(0.1).register_trainable_weights(model), sg.augment.grad(model.loss, ...))
    again(
        optim.SGD(0.1).register_trainable_weights(list(weights.values())),
        sg.augment.grad(model.loss, list(weights.values())),
    )
    again(
        optim.SGD(0.1).register_trainable_weights(weights.to_nest()),
        lambda: sg.util.FlattedDict(sg.augment.grad(model.loss, weights)()).to_nest(),
    )
    again(optim.Optimizer(model, optax.sgd(0.1)), sg.augment.grad(model.loss, weights))
    single = sg.ParamState({"a": jnp.ones(2)})
    optim.SGD(0.5).register_trainable_weights(single).update(
        sg.augment.grad(lambda: jnp.sum(single.value["a"] ** 2), single)()
    )
    np.testing.assert_allclose(single.value["a"], [0, 0])


@pytest.mark.core
def test_what_is_wrong_with_gradients_is_said_by_path() -> None:
    model = Model()
    weights = model.states(sg.ParamState)
    optimizer = optim.Adam(0.1)
    with pytest.raises(sg.errors.TraceError, match=r"does not know what to train[\s\S]*register_trainable"):
        optimizer.update({})
    optimizer.register_trainable_weights(weights)
    grads = dict(sg.augment.grad(model.loss, weights)())
    before = weights.to_dict_values()
    with pytest.raises(ValueError, match=r"missing: layers\[1\]\.val"):
        optimizer.update({path: g for path, g in grads.items() if path != ("layers", 1, "val")})
    with pytest.raises(ValueError, match="not trained here: other"):
        optimizer.update({**grads, "other": 1.0})
    with pytest.raises(
        sg.errors.StateTypeError, match=r"for 'bias' is f32\[2\], and the State \{'b': f32\[2\]\}"
    ):
        optimizer.update({**grads, ("bias",): jnp.zeros(2)})
    with pytest.raises(sg.errors.StateTypeError, match=r"is f32\[4\], and the State f32\[3,4\]"):
        optimizer.update({**grads, ("layers", 0, "val"): jnp.zeros(4)})
    with pytest.raises(TypeError, match="gradients come by path"):
        optimizer.update(jnp.zeros(3))
    assert int(optimizer.step.value) == 0
    jax.tree.map(np.testing.assert_array_equal, weights.to_dict_values(), before)


def test_what_is_wrong_with_weights_and_options_is_said() -> None:
    model = Model()
    weights = model.states(sg.ParamState)
    optimizer = optim.Adam(0.1).register_trainable_weights(weights)
    with pytest.raises(ValueError, match="trained by this optimiser already"):
        optimizer.register_trainable_weights(weights)
    with pytest.raises(ValueError, match="no State to train"):
        optim.Adam(0.1).register_trainable_weights({})
    with pytest.raises(TypeError, match=r"'w' is a float.*"):
        optim.Adam(0.1).register_trainable_weights({"w": 1.0})
    with pytest.raises(TypeError, match=r"optax\.GradientTransformation"):
        optim.Optimizer(model, 0.1)
    with pytest.raises(ValueError, match="grad_clip_norm is positive"):
        optim.Adam(0.1, grad_clip_norm=-1.0)
    with pytest.raises(TypeError, match="Rprop adapts"):
        optim.Rprop(optim.StepLR(0.1, 1))  # type: ignore[arg-type]
    with pytest.raises(sg.errors.StateGraphError, match="follows a schedule"):
        optim.Adam(optim.StepLR(0.1, 1)).lr = 0.1


@pytest.mark.core
def test_the_learning_rate_can_change_without_a_new_trace() -> None:
    w = sg.ParamState(jnp.ones(2))
    optimizer = optim.SGD(0.5).register_trainable_weights({"w": w})
    step = sg.compile.jit(lambda: optimizer.update({"w": jnp.ones(2)}))
    step()
    optimizer.lr = 0.25
    step()
    np.testing.assert_allclose(w.value, [0.25, 0.25])
    assert step.trace_count == 1

    @sg.compile.jit
    def halve() -> None:
        optimizer.lr = optimizer.lr / 2

    halve()
    assert float(optimizer.lr) == 0.125


def test_more_weights_keep_what_is_remembered_of_the_others() -> None:
    a, b, c = (sg.ParamState(jnp.ones(2)) for _ in range(3))
    optimizer = optim.Adam(0.1).register_trainable_weights({"a": a})
    both = optim.Adam(0.1).register_trainable_weights({"a": b})
    optimizer.update({"a": jnp.ones(2)})
    both.update({"a": jnp.ones(2)})
    both.register_trainable_weights({"c": c})
    for _ in range(2):
        optimizer.update({"a": jnp.full(2, -3.0)})
        both.update({"a": jnp.full(2, -3.0), "c": jnp.zeros(2)})
    np.testing.assert_array_equal(a.value, b.value)
    np.testing.assert_array_equal(c.value, [1, 1])


def test_types_stay_under_mixed_precision() -> None:
    w = sg.ParamState(jnp.ones(4, jnp.bfloat16))
    for make in (lambda: optim.Adam(0.1), lambda: optim.Lars(1.0), lambda: optim.Momentum(0.1)):
        w.value = jnp.ones(4, jnp.bfloat16)
        optimizer = make().register_trainable_weights({"w": w})
        before = jax.tree.map(lambda leaf: leaf.dtype, optimizer.state.value)

        def step(_: Any, optimizer: Any = optimizer) -> None:
            optimizer.update({"w": jnp.full(4, 0.5, jnp.bfloat16)})

        sg.compile.for_loop(step, jnp.arange(3))
        assert w.value.dtype == jnp.bfloat16 and not jnp.array_equal(w.value, jnp.ones(4))
        assert jax.tree.map(lambda leaf: leaf.dtype, optimizer.state.value) == before


@pytest.mark.core
def test_an_ensemble_is_trained_by_vmap() -> None:
    starts = jnp.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]])

    def train(w: Any, optimizer: Any) -> None:
        optimizer.update(sg.augment.grad(lambda: jnp.sum(w.value**2), w)())

    def alone(start: Any) -> Any:
        w = sg.ParamState(start)
        optimizer = optim.Adam(0.1).register_trainable_weights(w)
        for _ in range(3):
            train(w, optimizer)
        return w.value

    def lane(start: Any) -> Any:
        w = sg.ParamState(start)
        optimizer = optim.Adam(0.1).register_trainable_weights(w)
        sg.compile.for_loop(lambda _: train(w, optimizer), jnp.arange(3))
        return w.value

    np.testing.assert_allclose(sg.augment.vmap(lane)(starts), [alone(start) for start in starts], rtol=1e-5)


def test_an_ensemble_of_models_with_optimisers() -> None:
    class Member(sg.nn.Module):
        def init_state(self) -> None:
            self.w = sg.ParamState(sg.random.randn(2))
            self.optimizer = optim.Adam(0.1).register_trainable_weights({"w": self.w})

        def train(self) -> None:
            self.optimizer.update(sg.augment.grad(lambda: jnp.sum(self.w.value**2), {"w": self.w})())

    member = Member()
    sg.nn.vmap_init_all_states(member, axis_size=3)
    states = member.states()
    w = sg.ParamState(member.w.value)
    together = optim.Adam(0.1).register_trainable_weights(w)
    step = sg.compile.jit(lambda: sg.augment.vmap(member.train, in_states=states)())
    for _ in range(3):
        step()
        together.update(2 * w.value)
    np.testing.assert_allclose(member.w.value, w.value, rtol=1e-4, atol=1e-6)
    assert member.optimizer.step.value.tolist() == [3, 3, 3]


@pytest.mark.parametrize("named", [True, False])
def test_a_trainer_can_be_copied_and_used_as_values(named: bool) -> None:
    trainer = sg.nn.Module()
    trainer.model = Model()  # type: ignore[attr-defined]
    made = optim.Adam(optim.StepLR(0.1, 2)) if named else optim.Optimizer(None, optax.adam(0.1))
    trainer.optimizer = made.register_trainable_weights(trainer.model)  # type: ignore[attr-defined]
    copies = [copy.deepcopy(trainer), sg.graph.clone(trainer)]
    copies += [pickle.loads(pickle.dumps(trainer))] if named else []
    for one in copies:
        one.optimizer.update(sg.augment.grad(one.model.loss, one.model.states(sg.ParamState))())
        assert one.optimizer.params["bias"] is one.model.bias and int(one.optimizer.step.value) == 1
    assert int(made.step.value) == 0 and sg.graph.graphdef(trainer) == sg.graph.graphdef(copies[1])

    graphdef, values = sg.graph.treefy_split(trainer)

    @jax.jit
    def step(values: Any) -> Any:
        merged = sg.graph.treefy_merge(graphdef, values)
        grads = {name: jax.tree.map(jnp.ones_like, s.value) for name, s in merged.optimizer.params.items()}
        merged.optimizer.update(grads)
        return sg.graph.treefy_states(merged)

    for _ in range(3):
        values = step(values)
    assert int(values["optimizer"]["step"].value) == 3 and int(made.step.value) == 0


def test_different_rules_for_different_parameters() -> None:
    model = Model()
    before = values(model)

    def label(params: Any) -> Any:
        return {name: "fast" if name == "bias" else "frozen" for name in params}

    tx = optax.multi_transform({"fast": optax.sgd(1.0), "frozen": optax.set_to_zero()}, label)
    optim.Optimizer(model, tx).update(sg.augment.grad(model.loss, ...)())
    after = values(model)
    assert jnp.array_equal(after["layers[0].val"], before["layers[0].val"])
    assert not jnp.array_equal(after["bias"]["b"], before["bias"]["b"])


def test_without_optax_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError, match=r"stategraph.optim needs optax.*pip install 'stategraph\[optim\]'"):
        optim.Adam(0.1)


def test_an_update_can_be_written_in_a_loss_for_meta_learning() -> None:
    """The gradient of a loss after a step of descent, through the optimiser."""
    w, rate = sg.ParamState(2.0), sg.ParamState(0.1)
    optimizer = optim.SGD(0.0).register_trainable_weights(w)

    def after_a_step() -> Any:
        w.value = 2.0
        optimizer.lr = rate.value
        optimizer.update(sg.augment.grad(lambda: w.value**2, w)())
        return w.value**2

    found = sg.augment.grad(after_a_step, rate)()
    # (2 - 4 r)^2 -> -8 (2 - 4 r)
    np.testing.assert_allclose(found, -8 * (2 - 0.4), rtol=1e-5)

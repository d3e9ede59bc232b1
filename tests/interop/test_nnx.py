"""flax nnx modules in StateGraph programs, against the same modules in nnx."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg

nnx = pytest.importorskip("flax.nnx")
optax = pytest.importorskip("optax")

X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)
Y = jnp.sum(X, axis=1, keepdims=True)


class Net(nnx.Module):  # type: ignore[misc, name-defined]
    """Parameters, batch statistics, random numbers, a list."""

    def __init__(self, rngs: Any) -> None:
        self.layers = nnx.List([nnx.Linear(3, 4, use_bias=False, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.25, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.layers[1](self.drop(jax.nn.relu(self.norm(self.layers[0](x)))))


def test_variables_are_states_by_path_and_kind() -> None:
    model = sg.interop.from_nnx(Net(nnx.Rngs(0)))
    found = model.states()
    assert type(found["variables", "layers", 0, "kernel"]) is sg.ParamState
    assert type(found["variables", "norm", "mean"]) is sg.LongTermState
    assert set(model.states("BatchStat")) == {("variables", "norm", "mean"), ("variables", "norm", "var")}
    assert len(model.states(sg.ParamState)) == 5 and sg.nn.count_parameters(model) == 3 * 4 + 8 + 4 + 1
    text = str(sg.trace(model, X).program)
    assert "state @variables.layers[0].kernel : ParamState<f32[3,4]>" in text
    assert "state.write @variables.norm.mean" in text and "state.write @variables.layers" not in text


def test_calls_change_what_nnx_changes() -> None:
    theirs, ours = Net(nnx.Rngs(0)), sg.interop.from_nnx(Net(nnx.Rngs(0)))
    compiled = sg.compile.jit(ours)
    for _ in range(3):
        expected = theirs(X)
        np.testing.assert_allclose(compiled(X), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.module().norm.mean[...], theirs.norm.mean[...], rtol=1e-5)
    assert int(ours.variables["drop"]["rngs"]["count"].value) == 3
    theirs.eval()
    ours.eval()
    np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(compiled(X), theirs(X), rtol=1e-5, atol=1e-5)
    ours.train()
    with sg.environ.context(fit=False):
        np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-5, atol=1e-5)


def test_training_is_that_of_nnx() -> None:
    theirs = Net(nnx.Rngs(1))
    optimizer = nnx.Optimizer(theirs, optax.adam(0.05), wrt=nnx.Param)
    for _ in range(5):
        grads = nnx.grad(lambda m: jnp.mean((m(X) - Y) ** 2))(theirs)
        optimizer.update(theirs, grads)

    model = sg.interop.from_nnx(Net(nnx.Rngs(1)))
    weights = model.states(sg.ParamState)
    adam = sg.optim.Adam(0.05).register_trainable_weights(weights)

    def step(_: Any) -> Any:
        grads, loss = sg.augment.grad(lambda: jnp.mean((model(X) - Y) ** 2), weights, return_value=True)()
        adam.update(grads)
        return loss

    losses = sg.compile.for_loop(step, jnp.arange(5))
    assert losses.shape == (5,)
    for path, variable in nnx.to_flat_state(nnx.state(theirs)):
        value, ours = variable.get_value(), model._state(path).value
        if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(ours, value, rtol=1e-3, atol=1e-5)


def test_it_is_saved_like_any_module(tmp_path: Any) -> None:
    model, other = (sg.interop.from_nnx(Net(nnx.Rngs(seed))) for seed in (0, 1))
    model(X)
    sg.save(tmp_path / "m", model)
    sg.load(tmp_path / "m", other)
    np.testing.assert_array_equal(model(X), other(X))


def test_another_way_to_call_and_what_is_refused() -> None:
    model = sg.interop.from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), call=lambda layer, x: layer(x) * 2)
    np.testing.assert_allclose(model(X), 2 * model.module()(X))
    with pytest.raises(TypeError, match=r"needs a flax\.nnx\.Module, not a int"):
        sg.interop.from_nnx(3)

    class Sows(nnx.Module):  # type: ignore[misc, name-defined]
        def __call__(self, x: Any) -> Any:
            self.sow(nnx.Intermediate, "seen", x)
            return x

    with pytest.raises(sg.errors.TraceError, match=r"other variables after its call[\s\S]*new: seen"):
        sg.interop.from_nnx(Sows())(X)


def test_it_can_be_copied_and_compared() -> None:
    model = sg.interop.from_nnx(Net(nnx.Rngs(0)))
    model.eval()
    for twin in (copy.deepcopy(model), sg.graph.clone(model)):
        np.testing.assert_array_equal(twin(X), model(X))
        assert sg.graph.graphdef(twin) == sg.graph.graphdef(model)
    other = sg.interop.from_nnx(Net(nnx.Rngs(0)))
    other.eval()
    assert sg.graph.graphdef(other) == sg.graph.graphdef(model)
    assert "template=<Net of " in repr(model)

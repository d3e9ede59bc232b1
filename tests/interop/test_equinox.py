"""Equinox modules in StateGraph programs, against the same modules in equinox."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg

eqx = pytest.importorskip("equinox")
optax = pytest.importorskip("optax")

X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)
Y = jnp.sum(X, axis=1, keepdims=True)


def mlp(seed: int = 0) -> Any:
    return eqx.nn.MLP(3, 1, 8, 2, key=jax.random.key(seed))


def batched(module: Any, x: Any) -> Any:
    return jax.vmap(module)(x)


def test_arrays_are_states_by_path() -> None:
    model = sg.interop.from_equinox(mlp(), call=batched)
    assert len(model.states(sg.ParamState)) == 6 == len(model.states())
    assert ("variables", "layers", 0, "weight") in model.states()
    text = str(sg.trace(model, X).program)
    assert "state @variables.layers[0].weight : ParamState<f32[8,3]>" in text and "state.write" not in text
    np.testing.assert_allclose(sg.compile.jit(model)(X), jax.vmap(mlp())(X), rtol=1e-5)
    single = sg.interop.from_equinox(mlp())
    np.testing.assert_allclose(sg.augment.vmap(single)(X), jax.vmap(mlp())(X), rtol=1e-5)


def test_training_is_that_of_equinox() -> None:
    theirs, tx = mlp(1), optax.adam(0.05)
    memory = tx.init(eqx.filter(theirs, eqx.is_inexact_array))
    for _ in range(5):
        grads = eqx.filter_grad(lambda m: jnp.mean((jax.vmap(m)(X) - Y) ** 2))(theirs)
        updates, memory = tx.update(grads, memory)
        theirs = eqx.apply_updates(theirs, updates)

    model = sg.interop.from_equinox(mlp(1), call=batched)
    weights = model.states(sg.ParamState)
    adam = sg.optim.Adam(0.05).register_trainable_weights(weights)

    @sg.compile.jit
    def step() -> None:
        adam.update(sg.augment.grad(lambda: jnp.mean((model(X) - Y) ** 2), weights)())

    for _ in range(5):
        step()
    for ours, expected in zip(
        jax.tree.leaves(eqx.filter(model.module(), eqx.is_array)),
        jax.tree.leaves(eqx.filter(theirs, eqx.is_array)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


class Normed(eqx.Module):  # type: ignore[misc, name-defined]
    """A module with equinox's own kind of state, and dropout."""

    norm: Any
    drop: Any

    def __init__(self) -> None:
        self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
        self.drop = eqx.nn.Dropout(0.5)

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.norm(x, state)
        return self.drop(x, key=jax.random.key(0)), state


def test_state_of_equinox_is_state() -> None:
    def call(module: Any, x: Any, state: Any) -> Any:
        return jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    theirs, state = eqx.nn.make_with_state(Normed)()
    model = sg.interop.from_equinox(theirs, state, call)
    compiled = sg.compile.jit(model)
    for _ in range(3):
        expected, state = call(theirs, X, state)
        np.testing.assert_allclose(compiled(X), expected, rtol=1e-4, atol=1e-5)
    for ours, wanted in zip(jax.tree.leaves(model.memory.value), jax.tree.leaves(state), strict=True):  # type: ignore[union-attr]
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)
    model.eval()
    expected, _ = call(eqx.nn.inference_mode(theirs), X, state)
    np.testing.assert_allclose(compiled(X), expected, rtol=1e-4, atol=1e-5)


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"needs an equinox\.Module, not a int"):
        sg.interop.from_equinox(3)


def test_it_can_be_copied_and_compared() -> None:
    model = sg.interop.from_equinox(mlp(), call=batched)
    model.eval()
    for twin in (copy.deepcopy(model), sg.graph.clone(model)):
        np.testing.assert_array_equal(twin(X), model(X))
        assert sg.graph.graphdef(twin) == sg.graph.graphdef(model)
    other = sg.interop.from_equinox(mlp(), call=batched)
    other.eval()
    assert sg.graph.graphdef(other) == sg.graph.graphdef(model)
    assert "template=<MLP of " in repr(model)

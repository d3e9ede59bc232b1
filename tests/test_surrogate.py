"""Surrogate gradients: spikes as values, the published functions as derivatives."""

from __future__ import annotations

from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import surrogate
from tests.oracle import agree

X = np.linspace(-2.45, 2.5, 34).astype(np.float32)
CLASSES = [getattr(surrogate, name) for name in surrogate.__all__[1:] if name[0].isupper()]


def slope_of(function: Any, x: Any = X) -> Any:
    """The derivative of a function, by differences in double precision."""
    x = np.asarray(x, np.float64)
    return (function(x + 1e-6) - function(x - 1e-6)) / 2e-6


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def density(x: Any, mean: Any, deviation: Any) -> Any:
    return np.exp(-((x - mean) ** 2) / (2 * deviation**2)) / (np.sqrt(2 * np.pi) * deviation)


def erf(x: Any) -> Any:
    return np.vectorize(__import__("math").erf)(x)


PUBLISHED = {
    surrogate.Sigmoid: slope_of(lambda x: sigmoid(4 * x)),
    surrogate.PiecewiseQuadratic: np.where(np.abs(X) > 1, 0, 1 - np.abs(X)),
    surrogate.PiecewiseExp: np.exp(-np.abs(X)) / 2,
    surrogate.SoftSign: slope_of(lambda x: (x / (1 + np.abs(x)) + 1) / 2),
    surrogate.Arctan: slope_of(lambda x: np.arctan(np.pi / 2 * x) / np.pi + 1 / 2),
    surrogate.NonzeroSignLog: slope_of(lambda x: np.sign(x) * np.log(np.abs(x) + 1)),
    surrogate.ERF: slope_of(lambda x: (1 - erf(-x)) / 2),
    surrogate.PiecewiseLeakyRelu: np.where(np.abs(X) > 1, 0.01, 1),
    surrogate.SquarewaveFourierSeries: slope_of(
        lambda x: 1 / 2 + 2 / np.pi * (np.sin(2 * np.pi * x / 8) + np.sin(3 * 2 * np.pi * x / 8) / 3)
    ),
    surrogate.S2NN: slope_of(lambda x: np.where(x < 0, sigmoid(4 * x), np.log(np.abs(x + 1)))),
    surrogate.QPseudoSpike: slope_of(lambda x: np.sign(x) * (1 - (1 + 2 * np.abs(x)) ** -1.0) / 2),
    surrogate.LeakyRelu: slope_of(lambda x: np.where(x < 0, 0.1 * x, x)),
    surrogate.LogTailedRelu: slope_of(
        lambda x: np.where(x > 1, np.log(np.maximum(x, 1)) + 1, np.maximum(x, 0))
    ),
    surrogate.ReluGrad: 0.3 * np.maximum(0, 1 - np.abs(X)),
    surrogate.GaussianGrad: density(X, 0, 0.5) / 2,
    surrogate.MultiGaussianGrad: (
        1.15 * density(X, 0, 0.5) - 0.15 * (density(X, 0.5, 3) + density(X, -0.5, 3))
    )
    / 2,
    surrogate.InvSquareGrad: 1 / (1 + 100 * np.abs(X)) ** 2,
    surrogate.SlayerGrad: np.exp(-np.abs(X)),
}


def gradient(spike: Any, x: Any = X) -> Any:
    return jax.grad(lambda x: spike(x).sum())(x)


@pytest.mark.parametrize("cls", CLASSES)
def test_spikes_and_published_derivatives(cls: Any) -> None:
    spike = cls()
    assert (spike(X) == (X >= 0)).all() and spike(0.0) == 1 and spike(-1e-6) == 0
    np.testing.assert_allclose(gradient(spike), PUBLISHED[cls], rtol=1e-4, atol=1e-5)
    function = getattr(surrogate, surrogate.__all__[1 + len(CLASSES) + CLASSES.index(cls)])
    assert (gradient(function) == gradient(spike)).all() and function(X).dtype == jnp.float32


@pytest.mark.parametrize("cls", CLASSES)
def test_transformations_and_types(cls: Any) -> None:
    spike = cls()
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(spike)))(X), gradient(spike), rtol=1e-5, atol=1e-6)
    for dtype in (jnp.float16, jnp.bfloat16):
        x = jnp.asarray(X, dtype)
        assert spike(x).dtype == dtype and gradient(spike, x).dtype == dtype
        np.testing.assert_allclose(gradient(spike, x).astype(np.float32), PUBLISHED[cls], rtol=0.1, atol=0.05)
    with jax.enable_x64(True):
        assert gradient(spike, np.asarray(X, np.float64)).dtype == np.float64
    assert spike(np.arange(-1, 2)).tolist() == [0, 1, 1] and spike(np.array([True])).dtype == jnp.float32
    extremes = np.array([-1e30, -1e4, 0.0, 1e4, 1e30], np.float32)
    assert np.isfinite(gradient(spike, extremes)).all()
    second = jax.vmap(jax.grad(jax.grad(spike)))(X)
    h = 1e-3
    difference = (gradient(spike, X + h) - gradient(spike, X - h)) / (2 * h)
    smooth = np.abs(second - difference) < 0.05 + 0.05 * np.abs(second)
    assert np.isfinite(second).all() and smooth.mean() > 0.9, "kinks of the piecewise ones apart"


@pytest.mark.parametrize("cls", CLASSES)
def test_settings_are_fields(cls: Any) -> None:
    names = [field.name for field in attrs.fields(cls)]
    changed = cls(**{names[0]: 3})
    assert (gradient(changed) != gradient(cls())).any() and changed != cls() and hash(cls()) == hash(cls())
    assert repr(changed).startswith(f"{cls.__name__}({names[0]}=3")


@pytest.mark.core
def test_a_setting_can_be_an_array_and_traced() -> None:
    alphas = jnp.array([1.0, 2.0, 4.0])
    x = jnp.array([0.1, 0.2, 0.3])
    expected = [surrogate.Sigmoid(float(a)).surrogate_grad(v) for a, v in zip(alphas, x, strict=True)]
    np.testing.assert_allclose(gradient(surrogate.Sigmoid(alphas), x), expected, rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(lambda a: gradient(surrogate.Sigmoid(a), x))(alphas), expected, rtol=1e-6
    )
    assert (jax.grad(lambda a: surrogate.sigmoid(x, a).sum())(alphas) == 0).all()


@pytest.mark.core
def test_a_spiking_network_learns_through_its_state() -> None:
    def make() -> Any:
        sg.random.seed(0)
        layer = sg.nn.Linear(4, 6)
        v = sg.HiddenState(jnp.zeros(6))

        def step(x: Any) -> Any:
            v.value = 0.9 * v.value + layer(x)
            spikes = surrogate.arctan(v.value - 0.5)
            v.value = v.value - spikes
            return spikes

        def train(xs: Any) -> Any:
            return sg.augment.value_and_grad(lambda: jnp.mean(sg.compile.for_loop(step, xs)), layer.weight)()

        return train, [layer.weight, v]

    xs = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4)), jnp.float32)
    agree(make, (xs,))
    train, _ = make()
    rate, grads = train(xs)
    assert 0 < rate < 1 and (grads["weight"] != 0).any()


def test_a_surrogate_without_a_gradient() -> None:
    @attrs.frozen
    class Nothing(surrogate.Surrogate):
        pass

    with pytest.raises(NotImplementedError, match="Nothing has no method surrogate_grad"):
        gradient(Nothing())

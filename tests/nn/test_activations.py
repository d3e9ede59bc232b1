"""Activations as modules, against formulas in NumPy, and how they print."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import check_layer

X = np.linspace(-4, 4, 30).reshape(5, 6).astype(np.float32)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softmax(x: Any, axis: int = -1) -> Any:
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


CASES = {
    "Identity()": (nn.Identity, lambda x: x),
    "ReLU()": (nn.ReLU, lambda x: np.maximum(x, 0)),
    "ReLU6()": (nn.ReLU6, lambda x: np.clip(x, 0, 6)),
    "LeakyReLU(negative_slope=0.01)": (nn.LeakyReLU, lambda x: np.where(x > 0, x, 0.01 * x)),
    "ELU(alpha=2.0)": (lambda: nn.ELU(2.0), lambda x: np.where(x > 0, x, 2 * (np.exp(x) - 1))),
    "CELU(alpha=2.0)": (lambda: nn.CELU(2.0), lambda x: np.where(x > 0, x, 2 * (np.exp(x / 2) - 1))),
    "SELU()": (
        nn.SELU,
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    ),
    "GELU(approximate=True)": (lambda: nn.GELU(True), gelu),
    "SiLU()": (nn.SiLU, lambda x: x * sigmoid(x)),
    "Mish()": (nn.Mish, lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "Hardswish()": (nn.Hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "Sigmoid()": (nn.Sigmoid, sigmoid),
    "Hardsigmoid()": (nn.Hardsigmoid, lambda x: np.clip(x + 3, 0, 6) / 6),
    "LogSigmoid()": (nn.LogSigmoid, lambda x: np.log(sigmoid(x))),
    "Tanh()": (nn.Tanh, np.tanh),
    "Hardtanh(min_val=-1.0, max_val=2.0)": (lambda: nn.Hardtanh(-1.0, 2.0), lambda x: np.clip(x, -1, 2)),
    "Tanhshrink()": (nn.Tanhshrink, lambda x: x - np.tanh(x)),
    "Hardshrink(lambd=0.7)": (lambda: nn.Hardshrink(0.7), lambda x: np.where(np.abs(x) > 0.7, x, 0)),
    "Softshrink(lambd=0.5)": (nn.Softshrink, lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0)),
    "Softplus()": (nn.Softplus, lambda x: np.log1p(np.exp(x))),
    "Softsign()": (nn.Softsign, lambda x: x / (1 + np.abs(x))),
    "Softmax(dim=None)": (nn.Softmax, softmax),
    "Softmax(dim=0)": (lambda: nn.Softmax(0), lambda x: softmax(x, 0)),
    "LogSoftmax(dim=1)": (lambda: nn.LogSoftmax(1), lambda x: np.log(softmax(x, 1))),
    "Softmin(dim=None)": (nn.Softmin, lambda x: softmax(-x)),
    "Threshold(threshold=0.3, value=-1.0)": (
        lambda: nn.Threshold(0.3, -1.0),
        lambda x: np.where(x > 0.3, x, -1),
    ),
}


@pytest.mark.parametrize("text", CASES)
def test_an_activation_is_its_formula_and_prints_as_its_call(text: str) -> None:
    make, formula = CASES[text]
    layer = check_layer(make, X, formula)
    assert repr(layer) == text and isinstance(layer, nn.ElementWiseBlock)
    assert text in repr(nn.Sequential(layer, make()))
    assert layer(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16
    with sg.environ.context(fit=True):
        assert layer(X).shape == X.shape


def test_exact_gelu() -> None:
    assert repr(nn.GELU()) == "GELU(approximate=False)"
    np.testing.assert_allclose(nn.GELU()(1.0), 0.8413447, rtol=1e-6)


@pytest.mark.core
def test_glu() -> None:
    check_layer(nn.GLU, X, lambda x: x[:, :3] * sigmoid(x[:, 3:]))


@pytest.mark.core
def test_prelu_learns() -> None:
    def formula(x: Any, weight: Any) -> Any:
        return np.where(x > 0, x, weight * x)

    check_layer(nn.PReLU, X, formula)
    layer = check_layer(lambda: nn.PReLU(6, nn.init.Uniform()), X, formula)
    assert nn.PReLU(2, dtype=jnp.bfloat16).weight.dtype == jnp.bfloat16
    assert layer.weight.shape == (6,) and nn.count_parameters(layer) == 6


@pytest.mark.core
def test_rrelu() -> None:
    layer = nn.RReLU(0.1, 0.3)
    np.testing.assert_allclose(layer.eval()(X), np.where(X > 0, X, 0.2 * X), rtol=1e-6)
    slopes = (layer.train()(X) / X)[X < 0]
    assert (slopes > 0.099).all() and (slopes < 0.301).all() and slopes.std() > 0.02


def test_wrong_bounds() -> None:
    with pytest.raises(ValueError, match="min_val"):
        nn.Hardtanh(1.0, 1.0)

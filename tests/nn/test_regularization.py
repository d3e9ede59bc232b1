"""Regularisers: their losses are negative log densities, by numerical integration and by sampling."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn

GRID = np.linspace(-30, 30, 600_001)


def log_density(reg: nn.Regularization, x: np.ndarray, twice: bool = False) -> np.ndarray:
    """The log of the density that a regulariser stands for, up to a constant."""
    each = np.asarray(jax.vmap(reg.loss)(jnp.asarray(x, jnp.float32)), np.float64)
    return -each / (2 if twice else 1)


PRIORS = [
    (lambda fit: nn.L1Reg(2.0, fit), False),
    (lambda fit: nn.L2Reg(0.7, fit), False),
    (lambda fit: nn.ElasticNetReg(1.5, 0.8, 0.3, fit), False),
    (lambda fit: nn.GaussianReg(0.5, 2.0, fit_hyper=fit), True),
]


@pytest.mark.parametrize(("make", "twice"), PRIORS, ids=["l1", "l2", "elastic", "gaussian"])
def test_samples_have_the_density_that_the_loss_says(make: Any, twice: bool) -> None:
    reg = make(False)
    density = np.exp(log_density(reg, GRID, twice))
    density /= density.sum()
    sg.random.seed(0)
    sample = np.asarray(reg.sample_init((20_000,)))
    cumulative = np.cumsum(density)
    for point in (-1.5, -0.5, 0.0, 0.4, 1.0):
        expected = cumulative[np.searchsorted(GRID, point)]
        assert abs((sample <= point).mean() - expected) < 0.015
    mode = GRID[np.argmax(density)]
    assert abs(float(np.asarray(reg.reset_value())) - mode) < 1e-3


@pytest.mark.parametrize(
    ("make", "hyper"),
    [
        (lambda v: nn.L1Reg(v, True), [0.5, 1.0, 3.0]),
        (lambda v: nn.L2Reg(v, True), [0.5, 1.0, 3.0]),
        (lambda v: nn.ElasticNetReg(1.5, 0.8, v, True), [0.1, 0.5, 0.9]),
        (lambda v: nn.GaussianReg(v, 1 / (1 + v), fit_hyper=True), [0.5, 1.0, 3.0]),
    ],
    ids=["l1", "l2", "elastic", "gaussian"],
)
def test_trained_priors_are_normalised(make: Any, hyper: list[float]) -> None:
    """The integral of exp(-loss) must not depend on the trained numbers."""
    twice = isinstance(make(hyper[0]), nn.GaussianReg)
    integrals = [np.exp(log_density(make(v), GRID, twice)).sum() for v in hyper]
    np.testing.assert_allclose(integrals, integrals[0], rtol=1e-3)


def test_losses_by_formula() -> None:
    x = jnp.array([1.0, -2.0, 0.5])
    assert float(nn.L1Reg(0.01).loss(x)) == pytest.approx(0.035)
    assert float(nn.L2Reg(0.01).loss(x)) == pytest.approx(0.0525)
    assert float(nn.ElasticNetReg(0.01, 0.02, 0.5).loss(x)) == pytest.approx(0.5 * 0.035 + 0.5 * 0.02 * 5.25)
    gauss = nn.GaussianReg(jnp.array([0.0, 1.0, 2.0]), 2.0, weight=3.0)
    expected = 3 * sum((v - m) ** 2 / 4 + np.log(4) for v, m in zip([1.0, -2.0, 0.5], [0, 1, 2], strict=True))
    assert float(gauss.loss(x)) == pytest.approx(expected, rel=1e-5)
    chained = nn.ChainedReg(nn.L1Reg(0.01), nn.L2Reg(0.01), weight=2.0)
    assert float(chained(x)) == pytest.approx(2 * (0.035 + 0.0525), rel=1e-5)
    assert chained.reset_value() == 0.0 and chained.sample_init(3).shape == (3,)
    assert nn.ElasticNetReg(1.0, 1.0, 1.0).sample_init((2, 3)).shape == (2, 3)


@pytest.mark.core
def test_trained_hyperparameters_are_parameters_of_the_model() -> None:
    net = nn.Module()
    net.w = nn.Param(jnp.array([3.0, -1.0]), reg=nn.L2Reg(1.0, fit_hyper=True))  # type: ignore[attr-defined]
    params = net.states(sg.ParamState)
    assert set(params) == {("w", "val"), ("w", "reg", "weight", "val")}

    @sg.compile.jit
    def step() -> Any:
        grads = sg.augment.grad(lambda: net.reg_loss(), params)()
        params["w", "reg", "weight", "val"].value -= 0.1 * grads["w", "reg", "weight", "val"]

    for _ in range(200):
        step()
    # the maximum-likelihood weight of a normal prior: 1 / (2 variance) = n / (2 sum of squares)
    assert float(net.w.reg.weight.value()) == pytest.approx(2 / (2 * 10), rel=1e-3)  # type: ignore[attr-defined]
    assert not nn.L2Reg(1.0).states() and nn.L1Reg(0.5).weight == 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.L1Reg(-1.0),
        lambda: nn.L2Reg(0.0),
        lambda: nn.ElasticNetReg(alpha=2.0),
        lambda: nn.ElasticNetReg(alpha=1.0, fit_hyper=True),
        lambda: nn.GaussianReg(0.0, 0.0),
        lambda: nn.ChainedReg(),
        lambda: nn.ChainedReg(nn.L1Reg(), weight=1.0, fit_hyper=True),
        lambda: nn.ChainedReg(3),  # type: ignore[arg-type]
        lambda: nn.Regularization().loss(1.0),
        lambda: nn.Regularization().sample_init(1),
        lambda: nn.Regularization().reset_value(),
    ],
)
def test_wrong_options(make: Any) -> None:
    with pytest.raises((ValueError, TypeError, NotImplementedError)):
        make()

"""The surrogates as functions of the input and their settings."""

from __future__ import annotations

from typing import Any

import jax

from stategraph.surrogate.base import Number
from stategraph.surrogate.kinds import (
    ERF,
    S2NN,
    Arctan,
    GaussianGrad,
    InvSquareGrad,
    LeakyRelu,
    LogTailedRelu,
    MultiGaussianGrad,
    NonzeroSignLog,
    PiecewiseExp,
    PiecewiseLeakyRelu,
    PiecewiseQuadratic,
    QPseudoSpike,
    ReluGrad,
    Sigmoid,
    SlayerGrad,
    SoftSign,
    SquarewaveFourierSeries,
)


def sigmoid(x: Any, alpha: Number = 4.0) -> jax.Array:
    """``Sigmoid(alpha)(x)``."""
    return Sigmoid(alpha)(x)


def piecewise_quadratic(x: Any, alpha: Number = 1.0) -> jax.Array:
    """``PiecewiseQuadratic(alpha)(x)``."""
    return PiecewiseQuadratic(alpha)(x)


def piecewise_exp(x: Any, alpha: Number = 1.0) -> jax.Array:
    """``PiecewiseExp(alpha)(x)``."""
    return PiecewiseExp(alpha)(x)


def soft_sign(x: Any, alpha: Number = 1.0) -> jax.Array:
    """``SoftSign(alpha)(x)``."""
    return SoftSign(alpha)(x)


def arctan(x: Any, alpha: Number = 1.0) -> jax.Array:
    """``Arctan(alpha)(x)``."""
    return Arctan(alpha)(x)


def nonzero_sign_log(x: Any, alpha: Number = 1.0) -> jax.Array:
    """``NonzeroSignLog(alpha)(x)``."""
    return NonzeroSignLog(alpha)(x)


def erf(x: Any, alpha: Number = 1.0) -> jax.Array:
    """``ERF(alpha)(x)``."""
    return ERF(alpha)(x)


def piecewise_leaky_relu(x: Any, c: Number = 0.01, w: Number = 1.0) -> jax.Array:
    """``PiecewiseLeakyRelu(c, w)(x)``."""
    return PiecewiseLeakyRelu(c, w)(x)


def squarewave_fourier_series(x: Any, n: int = 2, t_period: Number = 8.0) -> jax.Array:
    """``SquarewaveFourierSeries(n, t_period)(x)``."""
    return SquarewaveFourierSeries(n, t_period)(x)


def s2nn(x: Any, alpha: Number = 4.0, beta: Number = 1.0) -> jax.Array:
    """``S2NN(alpha, beta)(x)``."""
    return S2NN(alpha, beta)(x)


def q_pseudo_spike(x: Any, alpha: Number = 2.0) -> jax.Array:
    """``QPseudoSpike(alpha)(x)``."""
    return QPseudoSpike(alpha)(x)


def leaky_relu(x: Any, alpha: Number = 0.1, beta: Number = 1.0) -> jax.Array:
    """``LeakyRelu(alpha, beta)(x)``."""
    return LeakyRelu(alpha, beta)(x)


def log_tailed_relu(x: Any, alpha: Number = 0.0) -> jax.Array:
    """``LogTailedRelu(alpha)(x)``."""
    return LogTailedRelu(alpha)(x)


def relu_grad(x: Any, alpha: Number = 0.3, width: Number = 1.0) -> jax.Array:
    """``ReluGrad(alpha, width)(x)``."""
    return ReluGrad(alpha, width)(x)


def gaussian_grad(x: Any, sigma: Number = 0.5, alpha: Number = 0.5) -> jax.Array:
    """``GaussianGrad(sigma, alpha)(x)``."""
    return GaussianGrad(sigma, alpha)(x)


def multi_gaussian_grad(
    x: Any, h: Number = 0.15, s: Number = 6.0, sigma: Number = 0.5, scale: Number = 0.5
) -> jax.Array:
    """``MultiGaussianGrad(h, s, sigma, scale)(x)``."""
    return MultiGaussianGrad(h, s, sigma, scale)(x)


def inv_square_grad(x: Any, alpha: Number = 100.0) -> jax.Array:
    """``InvSquareGrad(alpha)(x)``."""
    return InvSquareGrad(alpha)(x)


def slayer_grad(x: Any, alpha: Number = 1.0) -> jax.Array:
    """``SlayerGrad(alpha)(x)``."""
    return SlayerGrad(alpha)(x)

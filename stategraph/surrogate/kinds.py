"""Published surrogates, as classes whose fields are their settings."""

from __future__ import annotations

import math
from typing import Any

import attrs
import jax
import jax.numpy as jnp

from stategraph.surrogate.base import Number, Surrogate


def _normal(x: Any, mean: Any, deviation: Any) -> Any:
    """The density of the normal distribution."""
    return jnp.exp(-(((x - mean) / deviation) ** 2) / 2) / (math.sqrt(2 * math.pi) * deviation)


@attrs.frozen
class Sigmoid(Surrogate):
    """The derivative of ``1 / (1 + exp(-alpha x))``: ``alpha s (1 - s)``. Zenke and Ganguli, "SuperSpike:
    supervised learning in multilayer spiking neural networks" (Neural Computation 2018); Bengio et al.,
    "Estimating or propagating gradients through stochastic neurons" (2013).

    Args:
      alpha: the steepness.
    """

    alpha: Number = 4.0

    def surrogate_grad(self, x: Any) -> Any:
        s = jax.nn.sigmoid(self.alpha * x)
        return self.alpha * s * (1 - s)


@attrs.frozen
class PiecewiseQuadratic(Surrogate):
    """A triangle: ``max(0, alpha - alpha^2 |x|)``. Esser et al., "Convolutional networks for fast,
    energy-efficient neuromorphic computing" (PNAS 2016); Bellec et al., "Long short-term memory and
    learning-to-learn in networks of spiking neurons" (NeurIPS 2018).

    Args:
      alpha: the height, and one over the half-width.
    """

    alpha: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return jnp.maximum(self.alpha - self.alpha**2 * jnp.abs(x), 0)


@attrs.frozen
class PiecewiseExp(Surrogate):
    """``alpha / 2 exp(-alpha |x|)``. Neftci et al., "Surrogate gradient learning in spiking neural networks"
    (IEEE Signal Processing Magazine 2019).

    Args:
      alpha: the steepness.
    """

    alpha: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return self.alpha / 2 * jnp.exp(-self.alpha * jnp.abs(x))


@attrs.frozen
class SoftSign(Surrogate):
    """``alpha / (2 (1 + alpha |x|)^2)``. Zenke and Ganguli, "SuperSpike: supervised learning in multilayer
    spiking neural networks" (Neural Computation 2018).

    Args:
      alpha: the steepness.
    """

    alpha: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return self.alpha / (2 * (1 + jnp.abs(self.alpha * x)) ** 2)


@attrs.frozen
class Arctan(Surrogate):
    """``alpha / (2 (1 + (pi alpha x / 2)^2))``. Fang et al., "Incorporating learnable membrane time constant
    to enhance learning of spiking neural networks" (ICCV 2021).

    Args:
      alpha: the steepness.
    """

    alpha: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return self.alpha / (2 * (1 + (math.pi / 2 * self.alpha * x) ** 2))


@attrs.frozen
class NonzeroSignLog(Surrogate):
    """The derivative of ``sign(x) log(1 + alpha |x|)``: ``alpha / (1 + alpha |x|)``. Fang et al.,
    "SpikingJelly" (Science Advances 2023).

    Args:
      alpha: the steepness.
    """

    alpha: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return self.alpha / (1 + jnp.abs(self.alpha * x))


@attrs.frozen
class ERF(Surrogate):
    """``alpha / sqrt(pi) exp(-alpha^2 x^2)``, the derivative of an error function. Wu et al.,
    "Spatio-temporal backpropagation for training high-performance spiking neural networks" (Frontiers in
    Neuroscience 2018); Yin et al., "Effective and efficient computation with multiple-timescale spiking
    recurrent neural networks" (ICONS 2020).

    Args:
      alpha: the steepness.
    """

    alpha: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return self.alpha / math.sqrt(math.pi) * jnp.exp(-((self.alpha * x) ** 2))


@attrs.frozen
class PiecewiseLeakyRelu(Surrogate):
    """``1 / w`` where ``|x| <= w``, and ``c`` elsewhere. Wu et al., "Spatio-temporal backpropagation for
    training high-performance spiking neural networks" (Frontiers in Neuroscience 2018).

    Args:
      c: the slope outside.
      w: the half-width.
    """

    c: Number = 0.01
    w: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return jnp.where(jnp.abs(x) > self.w, self.c, 1 / self.w)


@attrs.frozen
class SquarewaveFourierSeries(Surrogate):
    """The derivative of the Fourier series of a square wave: ``4 / t_period sum_i cos((2 i - 1) 2 pi x /
    t_period)`` for ``i`` from 1 to ``n``. Fang et al., "SpikingJelly" (Science Advances 2023).

    Args:
      n: the number of terms.
      t_period: the period.
    """

    n: int = 2
    t_period: Number = 8.0

    def surrogate_grad(self, x: Any) -> Any:
        angle = 2 * math.pi / self.t_period * x
        terms = sum(jnp.cos((2 * i - 1) * angle) for i in range(1, int(self.n) + 1))
        return 4 / self.t_period * terms


@attrs.frozen
class S2NN(Surrogate):
    """``alpha s (1 - s)`` with ``s = 1 / (1 + exp(-alpha x))`` where ``x < 0``, and ``beta / (x + 1)``
    elsewhere. Suetake et al., "S3NN: time step reduction of spiking surrogate gradients for training
    energy efficient single-step spiking neural networks" (Neural Networks 2023).

    Args:
      alpha: the steepness below the threshold.
      beta: the slope at the threshold, from above.
    """

    alpha: Number = 4.0
    beta: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        s = jax.nn.sigmoid(self.alpha * x)
        return jnp.where(x < 0, self.alpha * s * (1 - s), self.beta / (jnp.maximum(x, 0) + 1))


@attrs.frozen
class QPseudoSpike(Surrogate):
    """``(1 + 2 |x| / (alpha - 1))^-alpha``. Herranz-Celotti and Rouat, "Surrogate gradients design" (2022).

    Args:
      alpha: how fast the tails fall, more than 1.
    """

    alpha: Number = 2.0

    def surrogate_grad(self, x: Any) -> Any:
        return (1 + 2 / (self.alpha - 1) * jnp.abs(x)) ** -self.alpha


@attrs.frozen
class LeakyRelu(Surrogate):
    """``alpha`` where ``x < 0``, and ``beta`` elsewhere: the derivative of a leaky ReLU. Maas et al.,
    "Rectifier nonlinearities improve neural network acoustic models" (2013).

    Args:
      alpha: the slope below the threshold.
      beta: the slope above it.
    """

    alpha: Number = 0.1
    beta: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return jnp.where(x < 0, self.alpha, self.beta)


@attrs.frozen
class LogTailedRelu(Surrogate):
    """``alpha`` where ``x <= 0``, 1 up to ``x = 1``, and ``1 / x`` from there. Cai et al., "Deep learning
    with low precision by half-wave Gaussian quantization" (CVPR 2017).

    Args:
      alpha: the slope below the threshold.
    """

    alpha: Number = 0.0

    def surrogate_grad(self, x: Any) -> Any:
        return jnp.where(x > 1, 1 / jnp.maximum(x, 1), jnp.where(x > 0, 1.0, self.alpha))


@attrs.frozen
class ReluGrad(Surrogate):
    """A triangle: ``alpha max(0, width - |x|)``. Neftci et al., "Surrogate gradient learning in spiking
    neural networks" (IEEE Signal Processing Magazine 2019).

    Args:
      alpha: the steepness.
      width: the half-width.
    """

    alpha: Number = 0.3
    width: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return jnp.maximum(self.alpha * (self.width - jnp.abs(x)), 0)


@attrs.frozen
class GaussianGrad(Surrogate):
    """``alpha`` times the density of a normal distribution. Yin et al., "Accurate and efficient time-domain
    classification with adaptive spiking recurrent neural networks" (Nature Machine Intelligence 2021).

    Args:
      sigma: the standard deviation.
      alpha: what the density is multiplied with.
    """

    sigma: Number = 0.5
    alpha: Number = 0.5

    def surrogate_grad(self, x: Any) -> Any:
        return self.alpha * _normal(x, 0, self.sigma)


@attrs.frozen
class MultiGaussianGrad(Surrogate):
    """``scale`` times ``(1 + h) N(x; 0, sigma) - h N(x; sigma, s sigma) - h N(x; -sigma, s sigma)``, which
    is negative in its tails. Yin et al., "Accurate and efficient time-domain classification with adaptive
    spiking recurrent neural networks" (Nature Machine Intelligence 2021).

    Args:
      h: the weight of the two wide densities.
      s: how much wider they are.
      sigma: the standard deviation of the narrow one, and the distance of the wide ones.
      scale: what all is multiplied with.
    """

    h: Number = 0.15
    s: Number = 6.0
    sigma: Number = 0.5
    scale: Number = 0.5

    def surrogate_grad(self, x: Any) -> Any:
        wide = self.s * self.sigma
        sides = _normal(x, self.sigma, wide) + _normal(x, -self.sigma, wide)
        return self.scale * ((1 + self.h) * _normal(x, 0, self.sigma) - self.h * sides)


@attrs.frozen
class InvSquareGrad(Surrogate):
    """``1 / (1 + alpha |x|)^2``. Zenke and Ganguli, "SuperSpike: supervised learning in multilayer spiking
    neural networks" (Neural Computation 2018).

    Args:
      alpha: the steepness.
    """

    alpha: Number = 100.0

    def surrogate_grad(self, x: Any) -> Any:
        return 1 / (1 + self.alpha * jnp.abs(x)) ** 2


@attrs.frozen
class SlayerGrad(Surrogate):
    """``exp(-alpha |x|)``. Shrestha and Orchard, "SLAYER: spike layer error reassignment in time" (NeurIPS
    2018).

    Args:
      alpha: the steepness.
    """

    alpha: Number = 1.0

    def surrogate_grad(self, x: Any) -> Any:
        return jnp.exp(-self.alpha * jnp.abs(x))

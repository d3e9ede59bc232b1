"""Surrogate gradients: spikes that can be differentiated.

A spike is ``1`` where the input (a membrane potential minus its threshold) is at least 0 and ``0`` elsewhere, so its
derivative says nothing. A *surrogate* keeps the spike as the value and takes another function as its derivative (Neftci
et al., "Surrogate gradient learning in spiking neural networks", IEEE Signal Processing Magazine 2019).

Each surrogate is a class whose fields are its settings, ``Sigmoid(alpha=4.0)(x)``, and a function, ``sigmoid(x, alpha=4.0)``.
They work on every floating-point type, under ``jit`` and ``vmap``, and can be differentiated again where the surrogate is
smooth. A setting may be an array, or traced; nothing is differentiated with respect to it. A surrogate of your own:

>>> import attrs, jax, jax.numpy as jnp
>>> import stategraph as sg
>>> @attrs.frozen
... class Box(sg.surrogate.Surrogate):
...     width: float = 1.0
...     def surrogate_grad(self, x):
...         return jnp.where(jnp.abs(x) < self.width / 2, 1 / self.width, 0.0)
>>> float(Box()(0.3)), float(jax.grad(Box())(0.3)), float(jax.grad(Box())(0.7))
(1.0, 1.0, 0.0)
"""

from stategraph.surrogate.base import Surrogate
from stategraph.surrogate.functions import (
    arctan,
    erf,
    gaussian_grad,
    inv_square_grad,
    leaky_relu,
    log_tailed_relu,
    multi_gaussian_grad,
    nonzero_sign_log,
    piecewise_exp,
    piecewise_leaky_relu,
    piecewise_quadratic,
    q_pseudo_spike,
    relu_grad,
    s2nn,
    sigmoid,
    slayer_grad,
    soft_sign,
    squarewave_fourier_series,
)
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

__all__ = [
    "Surrogate",
    "Sigmoid",
    "PiecewiseQuadratic",
    "PiecewiseExp",
    "SoftSign",
    "Arctan",
    "NonzeroSignLog",
    "ERF",
    "PiecewiseLeakyRelu",
    "SquarewaveFourierSeries",
    "S2NN",
    "QPseudoSpike",
    "LeakyRelu",
    "LogTailedRelu",
    "ReluGrad",
    "GaussianGrad",
    "MultiGaussianGrad",
    "InvSquareGrad",
    "SlayerGrad",
    "sigmoid",
    "piecewise_quadratic",
    "piecewise_exp",
    "soft_sign",
    "arctan",
    "nonzero_sign_log",
    "erf",
    "piecewise_leaky_relu",
    "squarewave_fourier_series",
    "s2nn",
    "q_pseudo_spike",
    "leaky_relu",
    "log_tailed_relu",
    "relu_grad",
    "gaussian_grad",
    "multi_gaussian_grad",
    "inv_square_grad",
    "slayer_grad",
]

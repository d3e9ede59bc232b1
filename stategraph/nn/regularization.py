"""Regularisation: what a parameter costs, as the negative logarithm of a prior density.

``loss(value)`` is what is added to the loss of the data, up to a constant. With ``fit_hyper=True`` the
numbers that shape the prior are trained as well; then the loss holds the logarithm of the normaliser too,
without which training would only make the prior flat.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import environ, random
from stategraph.errors import describe
from stategraph.nn.module import Module
from stategraph.nn.transforms import PositiveT, SigmoidT, Transform
from stategraph.typing import Size


class Regularization(Module):
    """Base of regularisers. Write ``loss``; ``sample_init`` and ``reset_value`` where there is a prior.

    Args:
      fit_hyper: whether the numbers made with ``hyper`` are trained.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Sparse(sg.nn.Regularization):
    ...     def loss(self, value):
    ...         return jnp.sum(jnp.log1p(value**2))
    >>> sg.nn.Param(jnp.zeros(3), reg=Sparse()).reg_loss()
    Array(0., dtype=float32)
    """

    def __init__(self, fit_hyper: bool = False) -> None:
        super().__init__()
        self.fit_hyper = fit_hyper

    def hyper(self, value: Any, t: Transform | None = None) -> Any:
        """A number of the prior: a ``Param`` constrained by ``t`` with ``fit_hyper``, else a plain number or
        array.
        """
        from stategraph.nn.module_params import Param

        array = np.asarray(value, environ.dftype())
        if not self.fit_hyper:
            return array.item() if array.ndim == 0 else jnp.asarray(array)
        return Param(jnp.asarray(array)) if t is None else Param(jnp.asarray(array), t=t)

    def loss(self, value: Any) -> Any:
        """The cost of an array, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} has no loss method")

    def update(self, value: Any) -> Any:
        """``loss``."""
        return self.loss(value)

    def sample_init(self, shape: Size) -> Any:
        """An array drawn from the prior with the default random stream."""
        raise NotImplementedError(f"{type(self).__name__} has no prior to sample from")

    def reset_value(self) -> Any:
        """The most probable value of the prior."""
        raise NotImplementedError(f"{type(self).__name__} has no prior, so no most probable value")


def current(hyper: Any) -> Any:
    """The value of a number made with ``Regularization.hyper``."""
    return hyper.update() if isinstance(hyper, Module) else hyper


def _positive(value: float, what: str) -> float:
    if not np.all(np.asarray(value) > 0):
        raise ValueError(f"{what} is positive, not {value}")
    return value


class L1Reg(Regularization):
    """The lasso: ``weight * sum(|value|)``. The prior is a Laplace distribution of scale ``1 / weight``.

    Args:
      weight: how strong; with ``fit_hyper`` the loss gains ``-n log(weight)``, for ``n`` elements.
      fit_hyper: whether the weight is trained.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> float(sg.nn.L1Reg(0.5).loss(jnp.array([1.0, -2.0])))
    1.5
    """

    def __init__(self, weight: float = 1.0, fit_hyper: bool = False) -> None:
        super().__init__(fit_hyper)
        self.weight = self.hyper(_positive(weight, "the weight of L1Reg"), PositiveT())

    def loss(self, value: Any) -> Any:
        weight = current(self.weight)
        cost = weight * jnp.sum(jnp.abs(value))
        return cost - jnp.size(value) * jnp.log(weight) if self.fit_hyper else cost

    def sample_init(self, shape: Size) -> Any:
        return random.laplace(0.0, 1 / current(self.weight), size=shape)

    def reset_value(self) -> Any:
        return 0.0


class L2Reg(Regularization):
    """Ridge: ``weight * sum(value**2)``. The prior is a normal distribution of variance ``1 / (2 weight)``.

    Args:
      weight: how strong; with ``fit_hyper`` the loss gains ``-n/2 log(weight)``, for ``n`` elements.
      fit_hyper: whether the weight is trained.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> float(sg.nn.L2Reg(0.5).loss(jnp.array([1.0, -2.0])))
    2.5
    """

    def __init__(self, weight: float = 1.0, fit_hyper: bool = False) -> None:
        super().__init__(fit_hyper)
        self.weight = self.hyper(_positive(weight, "the weight of L2Reg"), PositiveT())

    def loss(self, value: Any) -> Any:
        weight = current(self.weight)
        cost = weight * jnp.sum(jnp.square(value))
        return cost - jnp.size(value) / 2 * jnp.log(weight) if self.fit_hyper else cost

    def sample_init(self, shape: Size) -> Any:
        return random.normal(0.0, (2 * current(self.weight)) ** -0.5, size=shape)

    def reset_value(self) -> Any:
        return 0.0


class ElasticNetReg(Regularization):
    """A mixture of both: ``alpha l1_weight sum(|value|) + (1 - alpha) l2_weight sum(value**2)``
    (H. Zou and T. Hastie, Regularization and variable selection via the elastic net, 2005).

    Args:
      l1_weight: how strong the lasso is.
      l2_weight: how strong ridge is.
      alpha: the share of the lasso, from 0 to 1.
      fit_hyper: whether alpha is trained; the loss then gains the logarithm of the normaliser.
    """

    def __init__(
        self, l1_weight: float = 1.0, l2_weight: float = 1.0, alpha: float = 0.5, fit_hyper: bool = False
    ) -> None:
        super().__init__(fit_hyper)
        if not 0 <= alpha <= 1:
            raise ValueError(f"the alpha of ElasticNetReg is between 0 and 1, not {alpha}")
        self.l1_weight = _positive(l1_weight, "the l1_weight of ElasticNetReg")
        self.l2_weight = _positive(l2_weight, "the l2_weight of ElasticNetReg")
        self.alpha = self.hyper(alpha, SigmoidT())

    def _weights(self) -> tuple[Any, Any]:
        alpha = current(self.alpha)
        return alpha * self.l1_weight, (1 - alpha) * self.l2_weight

    def loss(self, value: Any) -> Any:
        a, b = self._weights()
        cost = a * jnp.sum(jnp.abs(value)) + b * jnp.sum(jnp.square(value))
        return cost + jnp.size(value) * _log_elastic_normaliser(a, b) if self.fit_hyper else cost

    def sample_init(self, shape: Size) -> Any:
        """Two exponentials back to back, thinned by the normal factor: the larger half of a normal
        distribution of mean ``-a / 2b``, with a random sign.
        """
        a, b = self._weights()
        sign = jnp.where(random.bernoulli(0.5, size=shape), 1.0, -1.0).astype(environ.dftype())
        if not self.fit_hyper and b == 0:
            return sign * random.exponential(1 / a, size=shape)
        scale = (2 * b) ** -0.5
        start = a * scale  # how far 0 is above the mean, in units of the scale
        tail = jnp.broadcast_to(jnp.asarray(start, environ.dftype()), jnp.shape(sign))
        uniform = random.uniform(0.0, 1.0, size=shape)
        # the inverse of P(z > t) = u P(z > start), computed in the lower tail where it is exact
        z = -jax.scipy.special.ndtri(uniform * jax.scipy.special.ndtr(-tail))
        return sign * jnp.maximum(z - tail, 0.0) * scale

    def reset_value(self) -> Any:
        return 0.0


def _log_elastic_normaliser(a: Any, b: Any) -> Any:
    """``log`` of the integral of ``exp(-a |x| - b x^2)``: ``sqrt(pi/b) exp(a^2/4b) erfc(a / 2 sqrt(b))``."""
    z = a / (2 * jnp.sqrt(b))
    log_erfc = jnp.log(2.0) + jax.scipy.special.log_ndtr(-jnp.sqrt(2.0) * z)
    return 0.5 * jnp.log(jnp.pi / b) + z**2 + log_erfc


class GaussianReg(Regularization):
    """A normal prior: ``weight * sum((value - mean)^2 / std^2 + log std^2)``, twice the negative log density.

    Args:
      mean: of the prior; a number, or an array that goes with the parameter.
      std: its standard deviation; likewise.
      weight: how strong.
      fit_hyper: whether mean and precision (``1 / std**2``) are trained.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> float(sg.nn.GaussianReg(1.0, 1.0).loss(jnp.array([1.0, -2.0])))
    9.0
    """

    def __init__(self, mean: Any, std: Any, weight: float = 1.0, fit_hyper: bool = False) -> None:
        super().__init__(fit_hyper)
        self.weight = _positive(weight, "the weight of GaussianReg")
        self.mean = self.hyper(mean)
        self.precision = self.hyper(np.asarray(_positive(std, "the std of GaussianReg")) ** -2.0, PositiveT())

    def loss(self, value: Any) -> Any:
        precision = current(self.precision)
        costs = precision * jnp.square(value - current(self.mean)) - jnp.log(precision)
        return self.weight * jnp.sum(costs)

    def sample_init(self, shape: Size) -> Any:
        return current(self.mean) + random.standard_normal(size=shape) * current(self.precision) ** -0.5

    def reset_value(self) -> Any:
        return current(self.mean)


class ChainedReg(Regularization):
    """Several regularisers at once: ``weight`` times the sum of their losses.

    Args:
      *regularizations: the regularisers; the first gives initial values and the most probable one.
      weight: how strong all together are.
      fit_hyper: whether the weight is trained. It cannot be: a sum of regularisers has no normaliser, and training would
        make the weight vanish. Train those of the regularisers, each made with ``fit_hyper=True``.

    Raises:
      ValueError: with ``fit_hyper=True``.
    """

    def __init__(
        self, *regularizations: Regularization, weight: float = 1.0, fit_hyper: bool = False
    ) -> None:
        if fit_hyper:
            raise ValueError(
                describe(
                    "The weight of ChainedReg cannot be trained.",
                    why="a sum of regularisers has no normaliser: the least loss is at weight 0",
                    fix="ChainedReg(L1Reg(fit_hyper=True), L2Reg(fit_hyper=True))",
                )
            )
        super().__init__()
        if not regularizations or not all(isinstance(one, Regularization) for one in regularizations):
            raise TypeError("ChainedReg takes at least one regulariser, and nothing else")
        self.regularizations = list(regularizations)
        self.weight = weight

    def loss(self, value: Any) -> Any:
        return self.weight * sum(one.loss(value) for one in self.regularizations)

    def sample_init(self, shape: Size) -> Any:
        return self.regularizations[0].sample_init(shape)

    def reset_value(self) -> Any:
        return self.regularizations[0].reset_value()

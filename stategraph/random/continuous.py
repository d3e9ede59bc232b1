"""Continuous distributions, with NumPy's names and arguments.

Where ``jax.random`` has the distribution, that is what is drawn; the others follow from these by the formula
in the comment.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.random import checks
from stategraph.random.basic import Basic, affine
from stategraph.random.checks import Size, as_float, float_dtype, shape_of
from stategraph.random.keys import SeedOrKey
from stategraph.random.rejection import von_mises
from stategraph.random.sampler import Sampler, sampler, stepwise


def _plain(draw: Any) -> Sampler:
    """A distribution of ``jax.random`` without parameters."""

    def sample(key: Any, static: Any) -> Any:
        result: jax.Array = draw(key, *static)
        return result

    sample.__name__ = draw.__name__
    return sampler(sample)


_EXPONENTIAL = _plain(jax.random.exponential)
_GUMBEL = _plain(jax.random.gumbel)
_LAPLACE = _plain(jax.random.laplace)
_LOGISTIC = _plain(jax.random.logistic)
_CAUCHY = _plain(jax.random.cauchy)
_MAXWELL = _plain(jax.random.maxwell)


@sampler
def _gamma(key: Any, static: Any, shape: Any) -> Any:
    return jax.random.gamma(key, shape, *static)


@sampler
def _loggamma(key: Any, static: Any, a: Any) -> Any:
    return jax.random.loggamma(key, a, *static)


@sampler
def _beta(key: Any, static: Any, a: Any, b: Any) -> Any:
    return jax.random.beta(key, a, b, *static)


@sampler
def _chisquare(key: Any, static: Any, df: Any) -> Any:
    return jax.random.chisquare(key, df, *static)


@sampler
def _f(key: Any, static: Any, dfnum: Any, dfden: Any) -> Any:
    return jax.random.f(key, dfnum, dfden, *static)


@sampler
def _t(key: Any, static: Any, df: Any) -> Any:
    return jax.random.t(key, df, *static)


@stepwise
def _noncentral_chisquare(key: Any, static: Any, df: Any, nonc: Any) -> Any:
    shape, dtype = static
    count, rest = jax.random.split(key)
    mixed = jax.random.poisson(count, jnp.asarray(nonc, dtype) / 2, shape)
    return jax.random.chisquare(
        rest, df + 2 * mixed.astype(dtype), shape, dtype
    )  # chi2(df + 2 Poisson(nonc / 2))


@stepwise
def _noncentral_f(key: Any, static: Any, dfnum: Any, dfden: Any, nonc: Any) -> Any:
    shape, dtype = static
    above, below = jax.random.split(key)
    top = _noncentral_chisquare.function(above, static, dfnum, nonc) / dfnum
    return top / (jax.random.chisquare(below, dfden, shape, dtype) / dfden)


@stepwise
def _truncated_normal(key: Any, static: Any, lower: Any, upper: Any, loc: Any, scale: Any) -> Any:
    shape, dtype = static
    lower, upper, loc, scale = (as_float(x, dtype) for x in (lower, upper, loc, scale))
    sample = jax.random.truncated_normal(key, (lower - loc) / scale, (upper - loc) / scale, shape, dtype)
    if type(loc) is float and loc == 0.0 and type(scale) is float and scale == 1.0:
        return sample
    return jnp.clip(affine(sample, loc, scale), lower, upper)


@stepwise
def _pareto(key: Any, static: Any, a: Any) -> Any:
    return jnp.expm1(
        jax.random.exponential(key, *static) / as_float(a, static[1])
    )  # Lomax, as in NumPy: from 0


@stepwise
def _power(key: Any, static: Any, a: Any) -> Any:
    return (-jnp.expm1(-jax.random.exponential(key, *static))) ** (1 / as_float(a, static[1]))


@sampler
def _weibull(key: Any, static: Any, scale: Any, a: Any) -> Any:
    return jax.random.weibull_min(key, scale, a, *static)


@sampler
def _rayleigh(key: Any, static: Any, scale: Any) -> Any:
    return jax.random.rayleigh(key, scale, *static)


@sampler
def _triangular(key: Any, static: Any, left: Any, mode: Any, right: Any) -> Any:
    return jax.random.triangular(key, left, mode, right, *static)


@stepwise
def _wald(key: Any, static: Any, mean: Any, scale: Any) -> Any:
    mean, scale = as_float(mean, static[1]), as_float(scale, static[1])
    return scale * jax.random.wald(key, mean / scale, *static)  # IG(mean, scale) = scale IG(mean / scale, 1)


_VONMISES = stepwise(von_mises)


class Continuous(Basic):
    """Continuous distributions."""

    # ------------------------------------------------------------------------------------- location and scale

    def exponential(
        self,
        scale: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Waiting times with mean ``scale`` (1)."""
        scale = 1.0 if scale is None else scale
        if check_valid:
            checks.non_negative(scale=scale)
        return affine(
            self._draw(_EXPONENTIAL, (shape_of(size, scale=scale), float_dtype(dtype)), (), key), None, scale
        )

    def standard_exponential(self, size: Size = None, key: SeedOrKey = None, dtype: Any = None) -> jax.Array:
        """Waiting times with mean 1."""
        return self.exponential(1.0, size, key, dtype)

    def gumbel(
        self,
        loc: Any = None,
        scale: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The Gumbel distribution at ``loc`` (0) with scale ``scale`` (1)."""
        return self._located(_GUMBEL, loc, scale, size, key, dtype, check_valid)

    def laplace(
        self,
        loc: Any = None,
        scale: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The Laplace (double exponential) distribution at ``loc`` (0) with decay ``scale`` (1)."""
        return self._located(_LAPLACE, loc, scale, size, key, dtype, check_valid)

    def logistic(
        self,
        loc: Any = None,
        scale: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The logistic distribution at ``loc`` (0) with scale ``scale`` (1)."""
        return self._located(_LOGISTIC, loc, scale, size, key, dtype, check_valid)

    def cauchy(
        self,
        loc: Any = None,
        scale: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The Cauchy distribution at ``loc`` (0) with half width ``scale`` (1)."""
        return self._located(_CAUCHY, loc, scale, size, key, dtype, check_valid)

    def standard_cauchy(self, size: Size = None, key: SeedOrKey = None, dtype: Any = None) -> jax.Array:
        """The Cauchy distribution at 0 with half width 1."""
        return self._located(_CAUCHY, None, None, size, key, dtype, False)

    def _located(
        self,
        standard: Sampler,
        loc: Any,
        scale: Any,
        size: Size,
        key: SeedOrKey,
        dtype: Any,
        check_valid: bool,
    ) -> jax.Array:
        loc, scale = 0.0 if loc is None else loc, 1.0 if scale is None else scale
        if check_valid:
            checks.non_negative(scale=scale)
        shape = shape_of(size, loc=loc, scale=scale)
        return affine(self._draw(standard, (shape, float_dtype(dtype)), (), key), loc, scale)

    def lognormal(
        self,
        mean: Any = None,
        sigma: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """``exp`` of normal numbers with mean ``mean`` (0) and standard deviation ``sigma`` (1)."""
        mean, sigma = 0.0 if mean is None else mean, 1.0 if sigma is None else sigma
        if check_valid:
            checks.non_negative(sigma=sigma)
        return jnp.exp(self.normal(mean, sigma, shape_of(size, mean=mean, sigma=sigma), key, dtype, False))

    def truncated_normal(
        self,
        lower: Any,
        upper: Any,
        size: Size = None,
        loc: Any = 0.0,
        scale: Any = 1.0,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Normal numbers with mean ``loc`` and standard deviation ``scale`` (before the cut), between
        ``lower`` and ``upper``.
        """
        if check_valid:
            checks.ordered("lower", lower, "upper", upper, strictly=False)
            checks.positive(scale=scale)
        shape = shape_of(size, lower=lower, upper=upper, loc=loc, scale=scale)
        bounds = tuple(float(x) if type(x) is int else x for x in (lower, upper, loc, scale))
        return self._draw(_truncated_normal, (shape, float_dtype(dtype)), bounds, key)

    # ---------------------------------------------------------------------------------------------- one shape

    def gamma(
        self,
        shape: Any,
        scale: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The gamma distribution with shape ``shape`` and scale ``scale`` (1): mean ``shape * scale``."""
        scale = 1.0 if scale is None else scale
        if check_valid:
            checks.non_negative(shape=shape, scale=scale)
        dims = shape_of(size, shape=shape, scale=scale)
        return affine(self._draw(_gamma, (dims, float_dtype(dtype)), (shape,), key), None, scale)

    def standard_gamma(
        self,
        shape: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The gamma distribution with shape ``shape`` and scale 1."""
        return self.gamma(shape, 1.0, size, key, dtype, check_valid)

    def loggamma(
        self, a: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """The logarithm of numbers from the gamma distribution with shape ``a``; does not underflow for small
        ``a``.
        """
        if check_valid:
            checks.non_negative(a=a)
        return self._draw(_loggamma, (shape_of(size, a=a), float_dtype(dtype)), (a,), key)

    def chisquare(
        self, df: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """The sum of the squares of ``df`` standard normal numbers; ``df`` need not be whole."""
        return self._positive(_chisquare, size, key, dtype, check_valid, df=df)

    def standard_t(
        self, df: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """Student's t distribution with ``df`` degrees of freedom."""
        return self._positive(_t, size, key, dtype, check_valid, df=df)

    t = student_t = standard_t

    def pareto(
        self, a: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """The Pareto II (Lomax) distribution with shape ``a``, from 0, as in NumPy; add 1 for the classical
        one.
        """
        return self._positive(_pareto, size, key, dtype, check_valid, a=a)

    def power(
        self, a: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """Numbers in [0, 1] with density ``a * x ** (a - 1)``."""
        return self._positive(_power, size, key, dtype, check_valid, a=a)

    def weibull(
        self, a: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """The Weibull distribution with shape ``a`` and scale 1."""
        return self.weibull_min(a, None, size, key, dtype, check_valid)

    def weibull_min(
        self,
        a: Any,
        scale: Any = None,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The Weibull distribution with shape ``a`` and scale ``scale`` (1)."""
        scale = 1.0 if scale is None else scale
        if check_valid:
            checks.positive(a=a)
            checks.non_negative(scale=scale)
        return self._draw(_weibull, (shape_of(size, a=a, scale=scale), float_dtype(dtype)), (scale, a), key)

    def rayleigh(
        self,
        scale: Any = 1.0,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The length of a vector of two normal numbers with standard deviation ``scale``."""
        if check_valid:
            checks.non_negative(scale=scale)
        return self._draw(_rayleigh, (shape_of(size, scale=scale), float_dtype(dtype)), (scale,), key)

    def maxwell(self, size: Size = None, key: SeedOrKey = None, dtype: Any = None) -> jax.Array:
        """The length of a vector of three standard normal numbers."""
        return self._draw(_MAXWELL, (shape_of(size), float_dtype(dtype)), (), key)

    # ------------------------------------------------------------------------------------- several parameters

    def beta(
        self,
        a: Any,
        b: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The beta distribution: numbers in [0, 1] with mean ``a / (a + b)``."""
        return self._positive(_beta, size, key, dtype, check_valid, a=a, b=b)

    def f(
        self,
        dfnum: Any,
        dfden: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The F distribution with ``dfnum`` and ``dfden`` degrees of freedom."""
        return self._positive(_f, size, key, dtype, check_valid, dfnum=dfnum, dfden=dfden)

    def noncentral_chisquare(
        self,
        df: Any,
        nonc: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The chi-square distribution with ``df`` degrees of freedom and non-centrality ``nonc``."""
        if check_valid:
            checks.positive(df=df)
            checks.non_negative(nonc=nonc)
        return self._draw(
            _noncentral_chisquare, (shape_of(size, df=df, nonc=nonc), float_dtype(dtype)), (df, nonc), key
        )

    def noncentral_f(
        self,
        dfnum: Any,
        dfden: Any,
        nonc: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The F distribution whose numerator has the non-centrality ``nonc``."""
        if check_valid:
            checks.positive(dfnum=dfnum, dfden=dfden)
            checks.non_negative(nonc=nonc)
        shape = shape_of(size, dfnum=dfnum, dfden=dfden, nonc=nonc)
        return self._draw(_noncentral_f, (shape, float_dtype(dtype)), (dfnum, dfden, nonc), key)

    def triangular(
        self,
        left: Any = 0.0,
        mode: Any = 0.5,
        right: Any = 1.0,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Numbers in [``left``, ``right``] with a density that rises to ``mode`` and falls from there."""
        if check_valid:
            checks.ordered("left", left, "mode", mode, strictly=False)
            checks.ordered("mode", mode, "right", right, strictly=False)
            checks.ordered("left", left, "right", right, strictly=True)
        shape = shape_of(size, left=left, mode=mode, right=right)
        return self._draw(_triangular, (shape, float_dtype(dtype)), (left, mode, right), key)

    def vonmises(
        self,
        mu: Any,
        kappa: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Angles in [-pi, pi] around ``mu`` with concentration ``kappa`` (Best and Fisher, 1979)."""
        if check_valid:
            checks.non_negative(kappa=kappa)
        return self._draw(
            _VONMISES, (shape_of(size, mu=mu, kappa=kappa), float_dtype(dtype)), (mu, kappa), key
        )

    def wald(
        self,
        mean: Any,
        scale: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The inverse Gaussian distribution with mean ``mean`` and shape ``scale``."""
        return self._positive(_wald, size, key, dtype, check_valid, mean=mean, scale=scale)

    def _positive(
        self, sampler: Sampler, size: Size, key: SeedOrKey, dtype: Any, check_valid: bool, **parameters: Any
    ) -> jax.Array:
        """A draw whose parameters all have to be greater than 0."""
        if check_valid:
            checks.positive(**parameters)
        given = tuple([float(p) if type(p) is int else p for p in parameters.values()])
        return self._draw(sampler, (shape_of(size, **parameters), np.dtype(float_dtype(dtype))), given, key)

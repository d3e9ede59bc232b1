"""Discrete distributions, with NumPy's names and arguments. Counts are integers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.environ import dftype
from stategraph.random import checks
from stategraph.random.checks import Size, as_shape, int_dtype, shape_of
from stategraph.random.continuous import Continuous
from stategraph.random.keys import SeedOrKey
from stategraph.random.rejection import hypergeometric, log_series, zipf
from stategraph.random.sampler import sampler, stepwise


def _working() -> Any:
    """The floating-point type that counts are computed in: 16 bits are too few."""
    return jnp.promote_types(jnp.float32, dftype())


@sampler
def _poisson(key: Any, static: Any, lam: Any) -> Any:
    shape, dtype = static
    return jax.random.poisson(key, lam, shape, jnp.promote_types(dtype, jnp.int32)).astype(dtype)


@sampler
def _binomial(key: Any, static: Any, n: Any, p: Any) -> Any:
    shape, dtype, working = static
    return jax.random.binomial(key, n, p, shape, working).astype(dtype)


@stepwise
def _negative_binomial(key: Any, static: Any, n: Any, p: Any) -> Any:
    shape, dtype, working = static
    rate, count = jax.random.split(key)
    p = jnp.asarray(p, working)
    lam = jax.random.gamma(rate, n, shape, working) * ((1 - p) / p)  # Poisson(Gamma(n, (1 - p) / p))
    return jax.random.poisson(count, lam, shape).astype(dtype)


@sampler
def _geometric(key: Any, static: Any, p: Any) -> Any:
    shape, dtype = static
    return jax.random.geometric(key, p, shape, jnp.promote_types(dtype, jnp.int32)).astype(dtype)


@stepwise
def _multinomial(key: Any, static: Any, n: Any, pvals: Any) -> Any:
    shape, dtype, working = static
    pvals = jnp.broadcast_to(jnp.asarray(pvals, working), (*shape, pvals.shape[-1]))
    return jax.random.multinomial(key, jnp.broadcast_to(n, shape), pvals, dtype=working).astype(dtype)


_HYPERGEOMETRIC = stepwise(hypergeometric)
_LOGSERIES = stepwise(log_series)
_ZIPF = stepwise(zipf)


class Discrete(Continuous):
    """Discrete distributions."""

    def poisson(
        self,
        lam: Any = 1.0,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The number of events when ``lam`` are expected."""
        if check_valid:
            checks.counts(lam=lam)
        return self._draw(_poisson, (shape_of(size, lam=lam), int_dtype(dtype)), (_real(lam),), key)

    def binomial(
        self,
        n: Any,
        p: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The number of successes in ``n`` trials, each with probability ``p``."""
        if check_valid:
            checks.counts(n=n)
            checks.probability(p=p)
        return self._draw(
            _binomial, (shape_of(size, n=n, p=p), int_dtype(dtype), _working()), (_real(n), _real(p)), key
        )

    def negative_binomial(
        self,
        n: Any,
        p: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The number of failures before the ``n``-th success, each trial a success with probability ``p``."""
        if check_valid:
            checks.positive(n=n)
            checks.probability_but(0.0, p=p)
        return self._draw(
            _negative_binomial,
            (shape_of(size, n=n, p=p), int_dtype(dtype), _working()),
            (_real(n), _real(p)),
            key,
        )

    def geometric(
        self, p: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """The number of trials up to the first success, each with probability ``p``."""
        if check_valid:
            checks.probability_but(0.0, p=p)
        return self._draw(_geometric, (shape_of(size, p=p), int_dtype(dtype)), (_real(p),), key)

    def hypergeometric(
        self,
        ngood: Any,
        nbad: Any,
        nsample: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """The number of good ones among ``nsample`` that are taken from ``ngood`` good and ``nbad`` bad ones.
        Takes time in proportion to ``nsample``.
        """
        if check_valid:
            checks.counts(ngood=ngood, nbad=nbad, nsample=nsample)
            total = ngood + nbad if not hasattr(ngood, "dtype") else np.add(ngood, nbad)
            checks.ordered("nsample", nsample, "ngood + nbad", total, strictly=False)
        shape = shape_of(size, ngood=ngood, nbad=nbad, nsample=nsample)
        return self._draw(_HYPERGEOMETRIC, (shape, int_dtype(dtype)), (ngood, nbad, nsample), key)

    def logseries(
        self, p: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """The logarithmic series distribution: ``k`` with probability proportional to ``p ** k / k``."""
        if check_valid:
            checks.probability_but(1.0, p=p)
        return self._draw(_LOGSERIES, (shape_of(size, p=p), int_dtype(dtype)), (_real(p),), key)

    def zipf(
        self, a: Any, size: Size = None, key: SeedOrKey = None, dtype: Any = None, check_valid: bool = True
    ) -> jax.Array:
        """The Zipf distribution: ``k`` with probability proportional to ``k ** -a``."""
        if check_valid:
            checks.above(1, a=a)
        return self._draw(_ZIPF, (shape_of(size, a=a), int_dtype(dtype)), (_real(a),), key)

    def multinomial(
        self,
        n: Any,
        pvals: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """How ``n`` trials are distributed over outcomes with probabilities ``pvals`` (last axis): an array
        of shape ``(*size, len(pvals))``.
        """
        pvals = pvals if hasattr(pvals, "shape") else np.asarray(pvals)
        if check_valid:
            checks.counts(n=n)
            checks.distribution("pvals", pvals)
        shape = np.broadcast_shapes(np.shape(n), pvals.shape[:-1]) if size is None else as_shape(size)
        return self._draw(_multinomial, (shape, int_dtype(dtype), _working()), (_real(n), pvals), key)


def _real(value: Any) -> Any:
    return float(value) if type(value) is int else value

"""Distributions against SciPy, and what is said of arguments that make no sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import random

stats = pytest.importorskip("scipy.stats")
N = 4000


def rng() -> random.RandomState:
    return random.RandomState(1)


CONTINUOUS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "uniform": (lambda r: r.uniform(-1.0, 2.0, N), stats.uniform(-1, 3)),
    "normal": (lambda r: r.normal(1.0, 2.0, N), stats.norm(1, 2)),
    "truncated_normal": (
        lambda r: r.truncated_normal(-1.0, 2.0, N, 0.5, 2.0),
        stats.truncnorm(-0.75, 0.75, 0.5, 2.0),
    ),
    "exponential": (lambda r: r.exponential(2.0, N), stats.expon(0, 2)),
    "gumbel": (lambda r: r.gumbel(1.0, 2.0, N), stats.gumbel_r(1, 2)),
    "laplace": (lambda r: r.laplace(1.0, 2.0, N), stats.laplace(1, 2)),
    "logistic": (lambda r: r.logistic(1.0, 2.0, N), stats.logistic(1, 2)),
    "cauchy": (lambda r: r.cauchy(1.0, 2.0, N), stats.cauchy(1, 2)),
    "lognormal": (lambda r: r.lognormal(0.5, 0.7, N), stats.lognorm(0.7, scale=np.exp(0.5))),
    "gamma": (lambda r: r.gamma(2.5, 2.0, N), stats.gamma(2.5, scale=2)),
    "loggamma": (lambda r: r.loggamma(2.5, N), stats.loggamma(2.5)),
    "beta": (lambda r: r.beta(0.7, 2.0, N), stats.beta(0.7, 2)),
    "chisquare": (lambda r: r.chisquare(3.0, N), stats.chi2(3)),
    "f": (lambda r: r.f(4.0, 7.0, N), stats.f(4, 7)),
    "standard_t": (lambda r: r.standard_t(3.0, N), stats.t(3)),
    "noncentral_chisquare": (lambda r: r.noncentral_chisquare(0.7, 1.5, N), stats.ncx2(0.7, 1.5)),
    "noncentral_f": (lambda r: r.noncentral_f(4.0, 7.0, 1.5, N), stats.ncf(4, 7, 1.5)),
    "pareto": (lambda r: r.pareto(2.5, N), stats.lomax(2.5)),
    "power": (lambda r: r.power(2.5, N), stats.powerlaw(2.5)),
    "weibull": (lambda r: r.weibull_min(1.5, 2.0, N), stats.weibull_min(1.5, scale=2)),
    "rayleigh": (lambda r: r.rayleigh(2.0, N), stats.rayleigh(0, 2)),
    "maxwell": (lambda r: r.maxwell(N), stats.maxwell()),
    "triangular": (lambda r: r.triangular(-1.0, 0.5, 2.0, N), stats.triang(0.5, -1, 3)),
    "wald": (lambda r: r.wald(2.0, 3.0, N), stats.invgauss(2 / 3, scale=3)),
    "vonmises": (lambda r: r.vonmises(0.0, 2.0, N), stats.vonmises(2)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions(name: str) -> None:
    draw, expected = CONTINUOUS[name]
    sample = np.asarray(draw(rng()))
    assert sample.shape == (N,) and sample.dtype == np.float32
    assert stats.kstest(sample, expected.cdf).pvalue > 1e-3


DISCRETE: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "randint": (lambda r: r.randint(-3, 4, N), stats.randint(-3, 4)),
    "random_integers": (lambda r: r.random_integers(1, 6, N), stats.randint(1, 7)),
    "poisson": (lambda r: r.poisson(3.5, N), stats.poisson(3.5)),
    "binomial": (lambda r: r.binomial(10, 0.3, N), stats.binom(10, 0.3)),
    "negative_binomial": (lambda r: r.negative_binomial(3, 0.4, N), stats.nbinom(3, 0.4)),
    "geometric": (lambda r: r.geometric(0.3, N), stats.geom(0.3)),
    "hypergeometric": (lambda r: r.hypergeometric(20, 15, 8, N), stats.hypergeom(35, 20, 8)),
    "hypergeometric, most of all": (lambda r: r.hypergeometric(6, 5, 8, N), stats.hypergeom(11, 6, 8)),
    "logseries": (lambda r: r.logseries(0.7, N), stats.logser(0.7)),
    "zipf": (lambda r: r.zipf(2.5, N), stats.zipf(2.5)),
    "choice": (lambda r: r.choice(np.array([1, 2, 5]), N, p=[0.2, 0.3, 0.5]), None),
    "categorical": (lambda r: r.categorical(np.log([0.2, 0.3, 0.5]), size=N), None),
    "multinomial": (lambda r: r.multinomial(10, [0.3, 0.7], N)[:, 0], stats.binom(10, 0.3)),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_distributions(name: str) -> None:
    draw, expected = DISCRETE[name]
    sample = np.asarray(draw(rng()))
    assert sample.shape == (N,) and sample.dtype == np.int32
    values, counts = np.unique(sample, return_counts=True)
    if expected is None:
        probabilities = np.array([0.2, 0.3, 0.5])
    else:
        probabilities = expected.pmf(values)
    often = probabilities * N >= 5
    observed = np.append(counts[often], N - counts[often].sum())
    wanted = np.append(probabilities[often], 1 - probabilities[often].sum()) * N
    keep = wanted > 1e-6
    assert observed[~keep].sum() == 0
    assert stats.chisquare(observed[keep], wanted[keep] * observed.sum() / wanted[keep].sum()).pvalue > 1e-3


def test_vectors_and_matrices() -> None:
    mean, cov = np.array([1.0, -2.0]), np.array([[2.0, 0.6], [0.6, 1.0]])
    sample = np.asarray(rng().multivariate_normal(mean, cov, (N,)))
    assert sample.shape == (N, 2)
    np.testing.assert_allclose(sample.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(sample.T), cov, atol=0.15)
    q = np.asarray(rng().orthogonal(3, 2))
    np.testing.assert_allclose(q @ np.swapaxes(q, -1, -2), np.broadcast_to(np.eye(3), (2, 3, 3)), atol=1e-5)
    parts = np.asarray(rng().dirichlet([1.0, 2.0, 3.0], N))
    np.testing.assert_allclose(parts.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(parts.mean(0), np.array([1, 2, 3]) / 6, atol=0.02)


def test_von_mises_at_the_ends() -> None:
    flat = np.asarray(rng().vonmises(1.0, 0.0, N))
    assert stats.kstest(flat, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    peak = np.asarray(rng().vonmises(3.0, 1e6, N))
    np.testing.assert_allclose([peak.mean(), peak.std()], [3.0, 1e-3], rtol=0.1)


def test_permutations() -> None:
    x = np.arange(12).reshape(4, 3)
    rows = np.asarray(rng().permutation(x))
    assert sorted(map(tuple, rows)) == list(map(tuple, x)) and not (rows == x).all()
    each = np.asarray(rng().permutation(x, axis=1, independent=True))
    assert (np.sort(each, axis=1) == x).all()
    assert sorted(np.asarray(rng().shuffle(list(range(9))))) == list(range(9))
    assert sorted(np.asarray(rng().choice(9, 9, replace=False))) == list(range(9))
    assert rng().choice(x, 2).shape == (2, 3) and rng().choice(5, ()).shape == ()


# ----------------------------------------------------------------------------------------------- arguments


def test_shapes_follow_the_parameters_and_the_size() -> None:
    r = rng()
    assert r.normal(np.zeros(3), 1.0).shape == (3,)
    assert r.normal(np.zeros((2, 1)), np.ones(3)).shape == (2, 3)
    assert r.normal(np.zeros(3), 1.0, (2, 3)).shape == (2, 3)
    assert r.randint(0, np.array([1, 10, 100])).shape == (3,)
    assert r.rand((2, 3)).shape == r.rand(np.int64(2), 3).shape == r.random([2, 3]).shape == (2, 3)
    assert r.rand().shape == r.random().shape == r.normal().shape == ()
    assert r.bernoulli(0.5, 4).dtype == bool
    assert r.rand_like(jnp.ones((2, 3), jnp.float16)).dtype == jnp.float16
    assert r.randn_like(np.ones((2, 3), int)).shape == (2, 3)
    assert r.randint_like(np.ones(4, np.int8), 100).dtype == np.int8
    drawn = r.normal(np.array([0.0, 100.0]), np.array([1.0, 0.0]))
    assert abs(float(drawn[0])) < 10 and drawn[1] == 100


def test_dtypes() -> None:
    r = rng()
    assert r.rand(2, dtype="float16").dtype == np.float16
    assert r.normal(np.ones(2, np.float64), 2, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    for dtype in ("uint8", "int32", "uint32"):
        limits = np.iinfo(dtype)
        drawn = np.asarray(r.randint(int(limits.min), int(limits.max) + 1, 500, dtype=dtype))
        assert drawn.dtype == dtype and np.ptp(drawn.astype(np.float64)) > 0.9 * (
            float(limits.max) - limits.min
        )
    near_end = np.asarray(r.randint(2**32 - 3, 2**32, 50, dtype="uint32"))
    assert set(near_end.tolist()) == {2**32 - 3, 2**32 - 2, 2**32 - 1}
    with pytest.raises(ValueError, match="high=300 is out of bounds for int8"):
        r.randint(0, 300, dtype="int8")


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "normal": (lambda r: r.normal(0, -1), "scale has to be at least 0, but is -1"),
    "normal array": (lambda r: r.normal(0, jnp.array([1.0, -2.0])), "scale .* but is -2.0 in one place"),
    "uniform": (lambda r: r.uniform(2, 1), "low has to be at most high"),
    "randint": (lambda r: r.randint(5, 5), "low has to be less than high"),
    "bernoulli": (lambda r: r.bernoulli(1.5), "p has to be between 0 and 1"),
    "bernoulli nan": (lambda r: r.bernoulli(float("nan")), "p has to be between 0 and 1"),
    "binomial n": (lambda r: r.binomial(-1, 0.5), "n has to be at least 0"),
    "binomial p": (lambda r: r.binomial(3, np.array([0.5, 2.0])), "p has to be between 0 and 1"),
    "poisson": (lambda r: r.poisson(-1.0), "lam has to be at least 0"),
    "exponential": (lambda r: r.exponential(-1.0), "scale"),
    "gamma": (lambda r: r.gamma(-1.0), "shape has to be at least 0"),
    "beta": (lambda r: r.beta(0, 1), "a has to be greater than 0"),
    "chisquare": (lambda r: r.chisquare(0), "df has to be greater than 0"),
    "geometric": (lambda r: r.geometric(0.0), "p has to be between 0 and 1 and not 0"),
    "logseries": (lambda r: r.logseries(1.0), "p has to be between 0 and 1 and not 1"),
    "hypergeometric": (lambda r: r.hypergeometric(3, 4, 8), r"nsample has to be at most ngood \+ nbad"),
    "zipf": (lambda r: r.zipf(1.0), "a has to be greater than 1"),
    "triangular": (lambda r: r.triangular(0.0, 2.0, 1.0), "mode has to be at most right"),
    "truncated": (lambda r: r.truncated_normal(1.0, -1.0), "lower has to be at most upper"),
    "vonmises": (lambda r: r.vonmises(0.0, -1.0), "kappa"),
    "multinomial": (lambda r: r.multinomial(3, [0.5, 0.6]), "pvals: probabilities do not sum to 1"),
    "dirichlet": (lambda r: r.dirichlet([1.0, 0.0]), "alpha has to be greater than 0"),
    "choice empty": (lambda r: r.choice(0, 3), "a has no elements"),
    "choice many": (lambda r: r.choice(3, 4, replace=False), "4 elements cannot be chosen from 3"),
    "choice p": (lambda r: r.choice(3, p=[0.5, 0.2, 0.1]), "p: probabilities do not sum to 1"),
    "choice p shape": (lambda r: r.choice(3, p=[0.5, 0.5]), "p has the shape"),
    "cov": (lambda r: r.multivariate_normal(np.zeros(3), np.eye(2)), "cov has the shape"),
    "cov asymmetric": (lambda r: r.multivariate_normal([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
    "method": (lambda r: r.multivariate_normal([0.0], [[1.0]], method="lu"), "method has to be"),
    "size": (lambda r: r.normal(np.zeros(3), size=2), "loc has the shape"),
    "negative size": (lambda r: r.rand(-1), "negative dimensions"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_that_make_no_sense(name: str) -> None:
    draw, message = WRONG[name]
    generator = rng()
    with pytest.raises(ValueError, match=message):
        draw(generator)
    np.testing.assert_array_equal(generator.get_key_data(), rng().get_key_data())


def test_what_is_only_traced_or_not_to_be_checked_is_not_checked() -> None:
    generator = rng()
    sg.compile.jit(lambda scale: generator.normal(0.0, scale))(-1.0)
    generator.bernoulli(1.5, check_valid=False)
    generator.normal(0.0, float("nan"))
    with pytest.raises(TypeError, match="size has to be a number"):
        generator.random("three")


def test_every_function_of_the_module_is_a_method_of_the_default_stream() -> None:
    for name in random.__all__:
        value = getattr(random, name)
        assert getattr(value, "__self__", random.DEFAULT) is random.DEFAULT
        if callable(value) and name not in ("SeedOrKey",):
            assert value.__doc__, name


def test_reduced_precision() -> None:
    for precision, dtype in ((16, np.float16), ("bf16", jnp.bfloat16)):
        with sg.environ.context(precision=precision):
            drawn = [
                rng().rand(50),
                rng().normal(1, 2, 50),
                rng().exponential(2, 50),
                rng().triangular(size=50),
            ]
            assert all(x.dtype == dtype and jnp.isfinite(x).all() for x in drawn)
            assert rng().randint(5, size=5).dtype == np.int16
    assert jax.random.key_data(rng().get_key()).dtype == np.uint32

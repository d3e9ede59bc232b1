"""Choosing, shuffling, and samples that are vectors or matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.random import checks
from stategraph.random.checks import Size, as_shape, float_dtype
from stategraph.random.discrete import Discrete
from stategraph.random.keys import SeedOrKey
from stategraph.random.sampler import sampler, stepwise


@sampler
def _choose_number(key: Any, static: Any, n: Any) -> Any:
    return jax.random.randint(key, static, 0, n)  # what jax.random.choice does


@stepwise
def _choose(key: Any, static: Any, a: Any, p: Any) -> Any:
    shape, replace = static
    return jax.random.choice(key, a, shape, replace, p)


@sampler
def _permute(key: Any, static: Any, x: Any) -> Any:
    axis, independent = static
    return jax.random.permutation(key, x, axis, independent=independent)


@stepwise
def _multivariate_normal(key: Any, static: Any, mean: Any, cov: Any) -> Any:
    shape, dtype, method = static
    return jax.random.multivariate_normal(
        key, jnp.asarray(mean, dtype), jnp.asarray(cov, dtype), shape, dtype, method=method
    )


@stepwise
def _orthogonal(key: Any, static: Any) -> Any:
    n, shape, dtype = static
    return jax.random.orthogonal(key, n, shape, dtype)


@sampler
def _dirichlet(key: Any, static: Any, alpha: Any) -> Any:
    return jax.random.dirichlet(key, alpha, *static)


@sampler
def _categorical(key: Any, static: Any, logits: Any) -> Any:
    axis, shape = static
    return jax.random.categorical(key, logits, axis, shape)


class RandomState(Discrete):
    """A stream of random numbers: a State that holds a key, with NumPy's functions as methods.

    Every draw splits the key: ``keys = split(key, 2)``, the State goes on with ``keys[0]``, and the numbers
      are those of ``jax.random`` for
    ``keys[1]``. With ``key=`` a draw uses that key and leaves the State alone.

    Args:
      seed_or_key: an integer ``n`` (for ``jax.random.key(n)``), a key, another RandomState, or None for a
        seed of the operating system's.
      name, tag, **metadata: as of any State.

    Example:

    >>> import stategraph as sg
    >>> rng = sg.random.RandomState(42)
    >>> rng.rand(2, 3)
    Array([[0.72766423, 0.78786755, 0.18169427],
           [0.26263022, 0.11072934, 0.20263076]], dtype=float32)
    """

    def choice(
        self,
        a: Any,
        size: Size = None,
        replace: bool = True,
        p: Any = None,
        key: SeedOrKey = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Elements of ``a`` (along its first axis), or numbers below ``a`` when it is one.

        Args:
          a: an array, or a number ``n`` for ``arange(n)``.
          size: the shape of the result.
          replace: whether an element may be chosen more than once.
          p: the probabilities of the elements; equal ones when None.
        """
        shape = () if size is None else as_shape(size)
        draws = int(np.prod(shape))
        if isinstance(a, (list, tuple)):
            a = np.asarray(a)
        count = a if np.ndim(a) == 0 else a.shape[0]
        if not _jax.is_tracer(count):
            count = int(count)
            if count <= 0 and draws:
                raise ValueError(f"a has no elements to choose from: {a}")
            if not replace and draws > count:
                raise ValueError(f"size: {draws} elements cannot be chosen from {count} with replace=False")
        if p is not None:
            p = p if hasattr(p, "shape") else np.asarray(p)
            if p.shape != (count,):
                raise ValueError(f"p has the shape {p.shape}, but a has {count} elements")
            if check_valid:
                checks.distribution("p", p)
        if np.ndim(a) == 0 and replace and p is None and type(count) is int and 0 < count < 2**31 and draws:
            return self._draw(_choose_number, shape, (count,), key)
        return self._draw(_choose, (shape, bool(replace)), (count if np.ndim(a) == 0 else a, p), key)

    def permutation(
        self, x: Any, axis: int = 0, independent: bool = False, key: SeedOrKey = None
    ) -> jax.Array:
        """``x`` in random order along ``axis`` (``arange(x)`` for a number); ``independent`` shuffles every
        slice on its own.
        """
        if np.ndim(x) == 0:
            x = np.arange(int(x))
        return self._draw(
            _permute, (axis, bool(independent)), (np.asarray(x) if isinstance(x, (list, tuple)) else x,), key
        )

    def shuffle(self, x: Any, axis: int = 0, key: SeedOrKey = None) -> jax.Array:
        """``x`` in random order along ``axis``. Unlike NumPy's, it returns a new array: assign it."""
        return self.permutation(x, axis, False, key)

    def multivariate_normal(
        self,
        mean: Any,
        cov: Any,
        size: Size = None,
        method: str = "cholesky",
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Normal vectors with mean ``mean`` (``[..., n]``) and covariance ``cov`` (``[..., n, n]``), of shape
        ``(*size, n)``.

        Args:
          method: how the root of the covariance is found: ``"cholesky"``, ``"eigh"`` or ``"svd"``.
        """
        if method not in ("cholesky", "eigh", "svd"):
            raise ValueError(f"method has to be 'cholesky', 'eigh' or 'svd', not {method!r}")
        n = np.shape(mean)[-1:]
        if not n or np.shape(cov)[-2:] != n * 2:
            raise ValueError(
                f"cov has the shape {np.shape(cov)}, which does not fit a mean of shape {np.shape(mean)}"
            )
        if check_valid and not _jax.is_tracer(cov):
            matrix = np.asarray(cov)
            if not np.allclose(matrix, np.swapaxes(matrix, -1, -2), rtol=1e-4, atol=1e-6):
                raise ValueError("cov has to be symmetric")
        shape = None if size is None else as_shape(size)
        return self._draw(_multivariate_normal, (shape, float_dtype(dtype), method), (mean, cov), key)

    def orthogonal(self, n: int, size: Size = None, key: SeedOrKey = None, dtype: Any = None) -> jax.Array:
        """Orthogonal ``n`` by ``n`` matrices, uniformly distributed, of shape ``(*size, n, n)``."""
        return self._draw(
            _orthogonal, (int(n), () if size is None else as_shape(size), float_dtype(dtype)), (), key
        )

    def dirichlet(
        self,
        alpha: Any,
        size: Size = None,
        key: SeedOrKey = None,
        dtype: Any = None,
        check_valid: bool = True,
    ) -> jax.Array:
        """Probabilities that sum to 1 along the last axis, of shape ``(*size, len(alpha))``."""
        alpha = alpha if hasattr(alpha, "shape") else np.asarray(alpha, np.float32)
        if check_valid:
            checks.positive(alpha=alpha)
        return self._draw(
            _dirichlet, (None if size is None else as_shape(size), float_dtype(dtype)), (alpha,), key
        )

    def categorical(self, logits: Any, axis: int = -1, size: Size = None, key: SeedOrKey = None) -> jax.Array:
        """Indices along ``axis`` with probabilities proportional to ``exp(logits)``."""
        logits = logits if hasattr(logits, "shape") else np.asarray(logits, np.float32)
        return self._draw(_categorical, (axis, None if size is None else as_shape(size)), (logits,), key)

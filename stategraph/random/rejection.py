"""Samplers that try until a number is accepted, one compiled loop over all elements, and counting samplers.

Each takes ``(key, static, *parameters)`` with ``static = (shape, dtype)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _until_accepted(
    key: Any, shape: tuple[int, ...], dtype: Any, propose: Callable[[Any], tuple[Any, Any]]
) -> jax.Array:
    """For every element the first proposal that is accepted; ``propose(key)`` gives (proposals, accepted)."""

    def unfinished(carry: Any) -> Any:
        return ~carry[2].all()

    def step(carry: Any) -> Any:
        key, result, done = carry
        key, own = jax.random.split(key)
        proposal, accepted = propose(own)
        return key, jnp.where(done, result, proposal.astype(dtype)), done | accepted

    start = (key, jnp.zeros(shape, dtype), jnp.zeros(shape, bool))
    result: jax.Array = jax.lax.while_loop(unfinished, step, start)[1]
    return result


def von_mises(key: Any, static: Any, mu: Any, kappa: Any) -> Any:
    """Best and Fisher, Efficient simulation of the von Mises distribution, 1979."""
    shape, dtype = static
    working = jnp.promote_types(dtype, jnp.float32)
    mu, kappa = jnp.asarray(mu, working), jnp.broadcast_to(jnp.asarray(kappa, working), shape)
    tiny, huge = kappa < 1e-5, kappa > 1e5  # almost uniform; almost normal: the formulas below cancel there
    safe = jnp.where(tiny | huge, 1.0, kappa)
    root = 1 + jnp.sqrt(1 + 4 * safe**2)
    rho = (root - jnp.sqrt(2 * root)) / (2 * safe)
    r = (1 + rho**2) / (2 * rho)
    loop, side, other = jax.random.split(key, 3)

    def propose(own: Any) -> tuple[Any, Any]:
        u = jax.random.uniform(own, (2, *shape), working)
        z = jnp.cos(jnp.pi * u[0])
        f = (1 + r * z) / (r + z)
        c = safe * (r - f)
        return f, (c * (2 - c) > u[1]) | (jnp.log(c / u[1]) + 1 >= c)

    f = jnp.clip(_until_accepted(loop, shape, working, propose), -1.0, 1.0)
    angle = jnp.where(jax.random.bernoulli(side, 0.5, shape), 1.0, -1.0) * jnp.arccos(f)
    angle = jnp.where(tiny, jax.random.uniform(other, shape, working, -jnp.pi, jnp.pi), angle)
    angle = jnp.where(huge, jax.random.normal(other, shape, working) / jnp.sqrt(kappa), angle)
    turned = angle + mu
    return (turned - 2 * jnp.pi * jnp.round(turned / (2 * jnp.pi))).astype(dtype)


def zipf(key: Any, static: Any, a: Any) -> Any:
    """Devroye, Non-Uniform Random Variate Generation, 1986, chapter X.6. Numbers that the dtype cannot hold
    are drawn again.
    """
    shape, dtype = static
    working = jnp.promote_types(jnp.float32, jnp.result_type(float))
    am1 = jnp.broadcast_to(jnp.asarray(a, working), shape) - 1
    b = 2.0**am1
    limit = float(np.iinfo(dtype).max)

    def propose(own: Any) -> tuple[Any, Any]:
        u, v = 1 - jax.random.uniform(own, (2, *shape), working)
        x = jnp.floor(u ** (-1 / am1))
        t = (1 + 1 / x) ** am1
        return jnp.where(x < limit, x, 1), (x < limit) & (v * x * (t - 1) / (b - 1) <= t / b)

    return _until_accepted(key, shape, dtype, propose)


def log_series(key: Any, static: Any, p: Any) -> Any:
    """Kemp, Efficient generation of logarithmically distributed random variables, 1981 (algorithm LS)."""
    shape, dtype = static
    working = jnp.promote_types(jnp.float32, jnp.result_type(float))
    u, v = 1 - jax.random.uniform(key, (2, *shape), working)
    q = -jnp.expm1(jnp.log1p(-jnp.asarray(p, working)) * u)
    x = jnp.floor(1 + jnp.log(v) / jnp.log(q))
    return jnp.clip(x, 1, float(np.iinfo(dtype).max) / 2).astype(dtype)


def hypergeometric(key: Any, static: Any, ngood: Any, nbad: Any, nsample: Any) -> Any:
    """Draw one after the other, without putting back; of a sample of more than half of all, what is left is
    drawn.
    """
    shape, dtype = static
    good, bad, sample = (jnp.broadcast_to(jnp.asarray(x, jnp.int32), shape) for x in (ngood, nbad, nsample))
    total = good + bad
    flipped = sample > total - sample
    few = jnp.where(flipped, total - sample, sample)

    def step(i: Any, carry: Any) -> Any:
        key, left, found = carry
        key, own = jax.random.split(key)
        pick = jax.random.randint(own, shape, 0, jnp.maximum(total - i, 1))
        hit = (pick < left) & (i < few)
        return key, left - hit, found + hit

    found = jax.lax.fori_loop(0, few.max(initial=0), step, (key, good, jnp.zeros(shape, jnp.int32)))[2]
    return jnp.where(flipped, good - found, found).astype(dtype)

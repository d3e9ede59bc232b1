"""Random vectors of networks: what may become of spikes, on the ways that users write and on those that they do not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import stategraph as sg
import stategraph.augment
import stategraph.compile

SIZE = 4


def spikes(rng: random.Random, net: Network, depth: int) -> Any:
    """A random vector that looks like spikes; some are, some are not."""
    if depth == 0:
        return rng.choice((net.fired, net.compared, net.held, net.late, net.ones))()
    return rng.choice(ways(net, *(spikes(rng, net, depth - 1) for _ in range(2))))()


def ways(net: Network, s: Any, t: Any) -> tuple[Callable[[], Any], ...]:
    """What may become of two vectors."""
    return (
        lambda: s * t,
        lambda: jnp.maximum(s, t),
        lambda: jnp.where(t > 0, s, t),
        lambda: 1 - s,
        lambda: s + t,
        lambda: s - t,
        lambda: s * net.x,
        lambda: jnp.where(s > 0, net.x, 0.0),
        lambda: jnp.roll(s, 1),
        lambda: jnp.concatenate([s[:2], t[2:]]),
        lambda: jnp.pad(s, (1, 1))[1:-1],
        lambda: s.reshape(2, 2).T.reshape(SIZE),
        lambda: s[::-1] ** 2,
        lambda: jnp.where(net.x > 0, 1.0, 0.0) * t,
        lambda: (s > t).astype(jnp.float32),
        lambda: jnp.cumsum(s),
        lambda: jax.lax.cummax(s),
        lambda: s.at[1].set(t[0]),
        lambda: jnp.take(s, jnp.array([0, 3, 2, 2])),
        lambda: jax.lax.stop_gradient(s) / 1.0,
        lambda: jnp.clip(s, 0, 1),
        lambda: sg.compile.cond(net.x[0] > 0, lambda: s, lambda: t),
        lambda: jax.lax.fori_loop(0, 2, lambda i, c: c * t, s),
        lambda: jax.lax.fori_loop(0, 2, lambda i, c: c + t, s),
        lambda: jax.vmap(lambda a, b: a * b)(s, t),
        lambda: jax.checkpoint(lambda a: a * t)(s),
        *structured(net, s, t),
    )


@jax.custom_vjp
def doubled_back(x: Any) -> Any:
    return jnp.where(x > 0, x, 0.0)


doubled_back.defvjp(lambda x: (doubled_back(x), x), lambda x, g: (2 * g,))


def structured(net: Network, s: Any, t: Any) -> tuple[Callable[[], Any], ...]:
    """What comes out of loops, branches, calls and transformations, and what moves elements."""
    n = jnp.asarray(2 * (net.x[0] > 0) + (net.x[1] > 0), jnp.int32)
    carry = jax.lax.scan(lambda c, x: (c * x, c + x), s, jnp.stack([t, s]), reverse=True)
    return (
        lambda: sg.compile.switch(n, [lambda: s, lambda: 1 - t, lambda: s + t, lambda: net.x]),
        lambda: sg.compile.cond(net.x[0] > 0, lambda: s, lambda: net.x),
        lambda: sg.compile.ifelse([net.x[0] > 0, True], [lambda: s, lambda: t * s]),
        lambda: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[2], c[1]), (0, s, t))[1],
        lambda: jax.lax.while_loop(lambda c: c[1].sum() < 3, lambda c: (c[1], c[0] + 1), (s, t))[0],
        lambda: sg.compile.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, net.held() * c[1]), (0, s))[1],
        lambda: carry[0],
        lambda: carry[1][0],
        lambda: sg.compile.for_loop(lambda x: x * t, jnp.stack([s, t]), reverse=True)[0],
        lambda: doubled_back(s),
        lambda: doubled_back(s) * sg.augment.grad(lambda x: (doubled_back(x) * t).sum())(s),
        lambda: sg.augment.grad(lambda x: (x * t).sum())(s),
        lambda: sg.augment.grad(lambda x: (sg.surrogate.sigmoid(x) * t).sum(), return_value=True)(net.x)[0],
        lambda: sg.augment.grad(lambda x: ((x * t).sum(), s), has_aux=True)(net.x)[1],
        lambda: jax.tree.leaves(sg.augment.vjp(lambda x: x * t, s)[1](t))[0],
        lambda: sg.augment.jvp(lambda x: jnp.maximum(x, t), (s,), (net.x,))[0],
        lambda: sg.augment.jvp(lambda x: jnp.maximum(x, t), (s,), (net.x,))[1],
        lambda: jnp.stack(sg.augment.vmap(lambda a, b: (jnp.maximum(a, b), a - b))(s, t))[n % 2],
        lambda: sg.augment.vmap(lambda a: jnp.stack([a, net.x[0]]), out_axes=1)(s)[0],
        lambda: sg.compile.jit(lambda a, b: a * b)(s, t),
        lambda: jax.jit(lambda a, b: (a, a + b))(s, t)[0],
        lambda: jax.vjp(lambda a: a * t, s)[0],
        lambda: sg.compile.checkpoint(lambda a: jnp.minimum(a, t))(s),
        lambda: jnp.sort(s),
        lambda: jax.lax.sort([net.x, s])[1],
        lambda: jnp.max(jnp.stack([s, t]), 0),
        lambda: jnp.prod(jnp.stack([s, t]), 0),
        lambda: jax.nn.one_hot(n, SIZE),
        lambda: jax.lax.dynamic_update_slice(s, t[:1], (n,)),
        lambda: s.at[n].add(t[0]),
        lambda: s.at[n].mul(t[0]),
        lambda: s.at[n].max(net.x[0]),
        lambda: jnp.take(s, n + jnp.arange(SIZE), mode="fill", fill_value=1.0),
        lambda: jnp.take(s, n + jnp.arange(SIZE), mode="fill", fill_value=0.5),
        lambda: jnp.take(s, n + jnp.arange(SIZE), mode="clip"),
        lambda: s.astype(jnp.int32).astype(jnp.float32),
        lambda: (~s.astype(jnp.int32)).astype(jnp.float32),
        lambda: (~s.astype(bool)).astype(jnp.float32),
        lambda: (s.astype(jnp.int32) ^ t.astype(jnp.int32)).astype(jnp.float32),
        lambda: (s.astype(jnp.int32) & t.astype(jnp.int32)).astype(jnp.float32),
        lambda: jnp.abs(jnp.sign(s)) * jnp.sqrt(t),
        lambda: jnp.negative(-s),
        lambda: s / (1 + t),
        lambda: s**0,
        lambda: s // 1,
        lambda: jnp.clip(s, 0.25, 0.75),
        lambda: jnp.pad(s, (1, 0), constant_values=0.5)[:SIZE],
        lambda: jnp.where(s > 0, 0.0, 1.0),
        lambda: jnp.select([s > 0, t > 0], [s, t], 1.0),
        lambda: jax.lax.reduce_precision(s, 5, 2),
        lambda: jnp.float32(1) - net.late(),
        lambda: jnp.tile(s[:2], 2),
        lambda: jnp.outer(s, t).reshape(-1)[:SIZE],
        lambda: jnp.cumprod(s),
        lambda: jax.lax.cummin(s),
    )


class Network:
    """What a random network is made of."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.spike = sg.HiddenState(jnp.zeros(SIZE))
        self.buffer = sg.HiddenState(jnp.zeros((2, SIZE)))
        self.x: Any = None

    def fired(self) -> Any:
        kind = self.rng.choice((sg.surrogate.sigmoid, sg.surrogate.arctan, sg.surrogate.relu_grad))
        return kind(self.x - 0.3)

    def compared(self) -> Any:
        return (self.x > 0.2).astype(jnp.float32)

    def held(self) -> Any:
        return self.spike.value

    def late(self) -> Any:
        return self.buffer.value[0]

    def ones(self) -> Any:
        return jnp.ones(SIZE)

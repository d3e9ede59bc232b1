"""Random loops over arrays, for the generator of kernels: carries that swap, are read in parts, updated in place, added to.

``generate(seed)`` gives a function of two arrays ``f32[6]`` and the arrays. Unlike the programs of ``generator`` it has no
State, and is one loop that a kernel can hold as a whole, with event products, loops and branches inside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from stategraph.backends.events.primitives import csr_product
from stategraph.event import CSR

N = 6
SYNAPSES = CSR.from_dense((np.random.default_rng(3).random((N, N)) < 0.5) * 0.3)
Body = Callable[[Sequence[Any], Sequence[Any]], list[Any]]


def generate(seed: int) -> tuple[Callable[..., Any], tuple[Any, Any]]:
    rng = random.Random(seed)
    count = rng.randrange(1, 5)
    body = _body(rng.random(), 2, count + 1)
    reverse, equal = rng.random() < 0.3, rng.random() < 0.3

    def function(x: Any, y: Any) -> Any:
        def step(carry: Any, t: Any) -> Any:
            found = body(carry, [t, carry[0][1]])
            found = [_bounded(value) if i % 2 else value for i, value in enumerate(found)]
            return found[:count], found[count]

        start = [x] * count if equal else [x, y, x + y, y * 0.5][:count]
        return lax.scan(step, start, jnp.arange(5.0) * 0.2, reverse=reverse)

    x = jnp.asarray(np.random.default_rng(seed).normal(size=N), jnp.float32)
    return function, (x, x[::-1] * 0.7 + 0.1)


def _bounded(value: Any) -> Any:
    return jnp.clip(jnp.nan_to_num(value), -4, 4)


def _send(events: Any) -> Any:
    return csr_product(events, jnp.float32(0.3), SYNAPSES.indptr, SYNAPSES.indices, SYNAPSES.shape)


def _body(seed: float, depth: int, count: int) -> Body:
    """Some statements, and which of their values are returned; the same ones whenever it is called."""

    def run(arrays: Sequence[Any], numbers: Sequence[Any]) -> list[Any]:
        rng = random.Random(seed)
        before, arrays, numbers = list(arrays), list(arrays), list(numbers)
        for _ in range(rng.randrange(2, 9)):
            arrays.append(_expression(rng, arrays, numbers, depth))
            if rng.random() < 0.3:
                given, at = rng.choice(arrays), rng.randrange(N)
                numbers.append(rng.choice([given.sum() * 0.1, given[at], given.max()]))
        return [rng.choice(arrays[-5:] if rng.random() < 0.8 else before) for _ in range(count)]

    return run


def _expression(rng: random.Random, arrays: Sequence[Any], numbers: Sequence[Any], depth: int) -> Any:
    a, b, c = (rng.choice(arrays) for _ in range(3))
    s, at = rng.choice(numbers), rng.randrange(1, N)
    index = jnp.int32(jnp.clip(s * 3, -2, 8))
    choices: list[Callable[[], Any]] = [
        lambda: a + b,
        lambda: a * 0.5 - b,
        lambda: a * s * 0.25,
        lambda: jnp.tanh(a),
        lambda: _bounded(a),
        lambda: jnp.where(a > b, c, s),
        lambda: jnp.where(a > 0, 1.0, 0.0),
        lambda: a[::-1],
        lambda: jnp.roll(a, at),
        lambda: jnp.concatenate([a[2:], b[:2]]),
        lambda: lax.dynamic_update_slice(a, b[1:3], (index,)),
        lambda: a.at[at].set(s),
        lambda: a.at[index].add(b[1]),
        lambda: lax.dynamic_index_in_dim(jnp.stack([a, b]), index, 0, keepdims=False),
        lambda: jnp.full(N, a.sum() * 0.2),
        lambda: a - b.max(),
        lambda: jnp.minimum(a.reshape(2, 3).T.reshape(N), 1.0),
        lambda: (a[:3, None] * b[None, :2]).reshape(N),
        lambda: a[jnp.array([0, at, 2, at, 1, 3])],
        lambda: a + _send(b > 0.3),
        lambda: a + _send(b > 0.3) + _send(jnp.where(c > 0.5, 1.0, 0.0)),
    ]
    if depth:
        choices += [
            lambda: _branches(rng, arrays, numbers, depth),
            lambda: _loop(rng, arrays, numbers, depth),
        ] * 2
    return rng.choice(choices)()


def _branches(rng: random.Random, arrays: Sequence[Any], numbers: Sequence[Any], depth: int) -> Any:
    one, other = _body(rng.random(), depth - 1, 2), _body(rng.random(), depth - 1, 2)
    a, b, s = rng.choice(arrays), rng.choice(arrays), rng.choice(numbers)
    return lax.cond(
        s > 0.2,
        lambda x, y: one([x, y, *arrays], numbers)[0],
        lambda x, y: other([x, y, *arrays], numbers)[1],
        a,
        b,
    )


def _loop(rng: random.Random, arrays: Sequence[Any], numbers: Sequence[Any], depth: int) -> Any:
    body = _body(rng.random(), depth - 1, 2)
    start = [rng.choice(arrays), rng.choice(arrays)]
    if rng.random() < 0.5:
        return lax.fori_loop(0, 2, lambda i, carry: body([*carry, *arrays], numbers), start)[rng.randrange(2)]

    def step(carry: Any, x: Any) -> Any:
        found = body([*carry, *arrays], [*numbers, x])
        return found, found[0] * 0.5

    last, rows = lax.scan(step, start, jnp.arange(3.0) * 0.3, reverse=rng.random() < 0.5)
    return rng.choice([*last, rows[1], rows.sum(0)])

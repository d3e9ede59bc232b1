"""Random chains of the operations of ``jax.lax``, on spikes and on what is none: what ``infer-events`` says of each value is
to be checked. ``event_networks`` has the ways in which users write; here are the corners of operations.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import stategraph as sg
import stategraph.augment
import stategraph.compile

SIZE = 4
DTYPES = [
    *(jnp.float32, jnp.float32, jnp.float32, jnp.int32, jnp.int8, jnp.uint8, jnp.float16, jnp.bfloat16),
    *(jnp.bool_, jnp.complex64, jnp.int4, jnp.uint2, jnp.float8_e5m2, jnp.float8_e8m0fnu, jnp.float4_e2m1fn),
]
NUMBERS = (0, 1, 0.5, 2, -1, -0.0, float("nan"), float("inf"))
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, 0.5, 256.0, -1.0, 2.0)
BITS = {1: jnp.int8, 2: jnp.int16, 4: jnp.int32}
REFUSED = (TypeError, ValueError, NotImplementedError, IndexError, KeyError, sg.errors.StateGraphError)
"""What operations raise that do not take such operands."""
Way = Callable[[], Any]


@jax.custom_jvp
def steep(x: Any) -> Any:
    """A spike whose derivative is no spike."""
    return (x > 0).astype(x.dtype)


steep.defjvp(lambda primals, tangents: (steep(*primals), 3 * tangents[0] * primals[0]))


@jax.custom_vjp
def other_forth(x: Any) -> Any:
    """A spike, but not where it is differentiated."""
    return (x > 0).astype(x.dtype)


other_forth.defvjp(lambda x: ((x > 0).astype(x.dtype) * 0.5, x), lambda x, g: (g * x + 7,))


class Chain:
    """A growing pool of values; each step applies an operation to some of them."""

    def __init__(self, rng: random.Random, x: Any, pool: Sequence[Any], depth: int) -> None:
        self.rng = rng
        self.x = x
        self.n = jnp.asarray(2 * (x[0] > 0) + (x[1] > 0), jnp.int32)
        self.pool = list(pool)
        self.depth = depth

    def step(self) -> None:
        rng = self.rng
        a = rng.choice(self.pool[-6:] if rng.random() < 0.6 else self.pool)
        alike = [x for x in self.pool if (x.shape, x.dtype) == (a.shape, a.dtype)]
        b = (
            rng.choice(alike)
            if rng.random() < 0.8
            else jnp.full(a.shape, rng.choice((0, 1, 2))).astype(a.dtype)
        )
        groups = (self.elementwise, self.converted, self.chosen, self.summed, self.moved, self.indexed)
        ways = rng.choice((*groups, *[self.structured] * (2 if self.depth else 0)))(a, b)
        try:
            found = jax.tree.leaves(rng.choice(ways)())
        except REFUSED:
            return
        self.pool += [x for x in found if x.size <= 64 and x.ndim <= 3 and x.dtype != jax.dtypes.float0]

    def made(self, *given: Any) -> list[Any]:
        """What a shorter chain makes of some values, in a region of its own."""
        inner = Chain(self.rng, self.x, given, self.depth - 1)
        for _ in range(self.rng.choice((1, 2, 3))):
            inner.step()
        return inner.pool[len(given) :] or list(given)

    def like(self, a: Any, *given: Any) -> Any:
        """The same, one value of the type of ``a``."""
        fitting = [x for x in self.made(*given) if (x.shape, x.dtype) == (a.shape, a.dtype)]
        return self.rng.choice(fitting) if fitting else a

    def number(self, a: Any) -> Any:
        number = self.rng.choice(NUMBERS if jnp.issubdtype(a.dtype, jnp.floating) else NUMBERS[:5])
        return jnp.asarray(number).astype(a.dtype)

    def axis(self, a: Any) -> int:
        return self.rng.randrange(max(a.ndim, 1))

    # ------------------------------------------------------------------------------------------------ operations

    def elementwise(self, a: Any, b: Any) -> list[Way]:
        c, one = self.number(a), jnp.asarray(1).astype(a.dtype)
        binary = (lax.mul, lax.add, lax.sub, lax.div, lax.rem, lax.max, lax.min, lax.pow)
        bits = (lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor, lax.shift_left)
        alone = (
            *(lax.sign, lax.abs, lax.neg, lax.floor, lax.ceil, lax.square, lax.sqrt, lax.exp, lax.tanh),
            *(lax.logistic, lax.real, lax.imag, lax.conj, lax.bitwise_not, lax.population_count, lax.cbrt),
            *(jnp.trunc, jnp.rint, jax.nn.relu, jax.nn.hard_sigmoid, jnp.nan_to_num, steep, other_forth),
        )
        return [
            *(lambda f=f, y=y: f(a, y) for f in (*binary, *bits) for y in (b, c)),  # type: ignore[misc]
            *(lambda f=f: f(a) for f in alone),  # type: ignore[misc]
            *(lambda r=r: lax.round(a, r) for r in lax.RoundingMethod),  # type: ignore[misc]
            lambda: one - a,
            lambda: lax.rem(a, one + one),
            lambda: lax.clamp(c, a, b),
            lambda: lax.clamp(b, c, a),
            lambda: lax.integer_pow(a, self.rng.choice((-1, 0, 1, 3))),
            lambda: lax.reduce_precision(a, self.rng.choice((1, 2, 5)), self.rng.choice((0, 2))),
            lambda: lax.complex(a, b),
            lambda: sg.event.declare(a, rate=0.1),
            lambda: sg.surrogate.sigmoid(a),
        ]

    def converted(self, a: Any, b: Any) -> list[Way]:
        first, second = self.rng.choice(DTYPES), self.rng.choice(DTYPES)
        return [
            lambda: a.astype(first),
            lambda: a.astype(first).astype(jnp.float32),
            lambda: a.astype(bool).astype(first).astype(second),
            lambda: lax.bitcast_convert_type(a, BITS[a.dtype.itemsize]),
            lambda: lax.bitcast_convert_type(a, jnp.float32),
            lambda: (a < b).astype(first),
            lambda: jnp.isnan(a).astype(a.dtype),
            lambda: 255 * a.astype(jnp.uint8) + b.astype(jnp.uint8),
        ]

    def chosen(self, a: Any, b: Any) -> list[Way]:
        c, d = self.number(a), self.number(a)
        return [
            lambda: lax.select(self.x[0] > 0, a, b),
            lambda: lax.select_n(a.astype(bool), jnp.full_like(a, c), b),
            lambda: lax.select_n(jnp.broadcast_to(self.n % 3, a.shape), a, b, a * b),
            lambda: jnp.where(b.astype(bool), c, d),
            lambda: jnp.piecewise(a, [a > 0], [1, 0]),
            lambda: jnp.select([a > 0, b > 0], [a, b], c),
        ]

    def summed(self, a: Any, b: Any) -> list[Way]:
        c, axis, back = self.number(a), self.axis(a), self.rng.random() < 0.5
        reduced = (
            *(lax.reduce_max, lax.reduce_min, lax.reduce_sum, lax.reduce_prod),
            *(lax.reduce_and, lax.reduce_or, lax.reduce_xor),
        )
        scanned = (lax.cumsum, lax.cummax, lax.cummin, lax.cumprod, lax.cumlogsumexp)
        window = ((2,) * a.ndim, (1,) * a.ndim, "SAME")
        return [
            *(lambda f=f: f(a, (axis,)) for f in reduced),  # type: ignore[misc]
            *(lambda f=f: f(a, axis, reverse=back) for f in scanned),  # type: ignore[misc]
            *(lambda f=f: lax.reduce(a, c, f, (axis,)) for f in (lax.max, lax.mul, lax.add)),  # type: ignore[misc]
            *(lambda f=f: lax.reduce_window(a, c, f, *window) for f in (lax.max, lax.mul)),  # type: ignore[misc]
            lambda: lax.argmax(a, axis, jnp.int32),
            lambda: lax.argmin(a, axis, jnp.int8).astype(a.dtype),
            lambda: jnp.max(a, axis, where=b > 0, initial=c),
            lambda: lax.associative_scan(lambda p, q: p * q + p, a),
            lambda: lax.associative_scan(jnp.maximum, a),
            lambda: lax.dot_general(a, b, (((a.ndim - 1,), (b.ndim - 1,)), ((), ()))),
        ]

    def moved(self, a: Any, b: Any) -> list[Way]:
        c, axis = self.number(a), self.axis(a)
        edges = [tuple(self.rng.choice(n) for n in ((-1, 0, 1), (0, 2), (0, 1))) for _ in a.shape]
        return [
            lambda: lax.pad(a, c, edges),
            lambda: lax.pad(a, b.reshape(-1)[0], edges),
            lambda: lax.concatenate([a, b], axis),
            lambda: lax.rev(a, (axis,)),
            lambda: a.T,
            lambda: a.reshape(2, -1),
            lambda: a[:0],
            lambda: jnp.split(a, 2, axis),
            lambda: jnp.stack([a, b], -1),
            lambda: lax.sort([a, b], dimension=axis, num_keys=1),
            lambda: lax.top_k(a, 2),
            lambda: lax.optimization_barrier((a, b)),
            lambda: jax.random.permutation(jax.random.key(0), a),
            lambda: jax.random.bernoulli(jax.random.key(1), 0.5, a.shape).astype(a.dtype),
        ]

    def indexed(self, a: Any, b: Any) -> list[Way]:
        n, axis, c = self.n, self.axis(a), self.number(a)
        places = n + jnp.arange(SIZE) - 1
        sizes = [min(2, size) for size in a.shape]
        filled = [(mode, fill) for mode in ("fill", "clip", "wrap") for fill in (None, 0, 1, 0.5)]
        return [
            *(lambda m=m, f=f: jnp.take(a, places, axis, mode=m, fill_value=f) for m, f in filled),  # type: ignore[misc]
            *(lambda m=m: a.at[places].set(b, mode=m) for m in ("drop", "clip")),  # type: ignore[misc]
            lambda: a.at[places].get(mode="drop"),
            lambda: a.at[n].set(c),
            lambda: a.at[n].add(b[0]),
            lambda: a.at[n].multiply(c),
            lambda: a.at[n].max(b[0]),
            lambda: a.at[n].apply(lambda x: 2 * x),
            lambda: lax.dynamic_slice(a, [n] * a.ndim, sizes),
            lambda: lax.dynamic_update_slice(a, b[:1], [n] * a.ndim),
            lambda: jax.nn.one_hot(a.astype(int), 3, dtype=a.dtype),
        ]

    # --------------------------------------------------------------------------------- regions, and what is outside

    def structured(self, a: Any, b: Any) -> list[Way]:
        n, made, like = self.n, self.made, self.like
        seed = self.rng.getrandbits(30)

        def same(x: Any, y: Any) -> Any:
            """The same chain whenever it is traced."""
            return Chain(random.Random(seed), self.x, (x, y), self.depth - 1).like(x, x, y)

        ruled = jax.custom_jvp(same)
        ruled.defjvp(lambda primals, tangents: (same(*primals), like(tangents[0], tangents[0], primals[1])))

        def last(x: Any) -> Any:
            return made(x, b)[-1]

        def total(x: Any) -> Any:
            found = made(x, b)
            return found[-1].sum().astype(jnp.float32), found

        def with_state() -> Any:
            state = sg.State(a)
            state.value = like(a, a, b)
            first = state.value

            def step(t: Any) -> Any:
                state.value = like(a, state.value, b)
                return state.value

            return first, sg.compile.for_loop(step, jnp.arange(2)), state.value

        def told(x: Any) -> Any:
            """What lanes tell each other, and what they make of it."""
            heard = [
                *(f(x, "lanes") for f in (lax.psum, lax.pmax, lax.pmin, lax.pmean, lax.all_gather)),
                jnp.asarray(lax.axis_index("lanes")).astype(x.dtype),
            ]
            return [heard, made(x, *self.rng.sample(heard, 2))]

        return [
            lambda: lax.fori_loop(0, self.rng.choice((0, 3)), lambda i, c: like(a, c, b), a),
            lambda: lax.while_loop(
                lambda c: c[0] < n, lambda c: (c[0] + 1, like(a, c[1], b), c[1]), (0, a, b)
            ),
            lambda: lax.scan(lambda c, x: (like(a, c, x), made(c, x)), a, jnp.stack([b, a, b]), reverse=True),
            lambda: lax.scan(lambda c, x: (like(a, c), made(c, x)), a, jnp.zeros((0, 2))),
            lambda: sg.compile.scan(lambda c, x: (like(a, c, x), made(c, x)), a, jnp.stack([b, a])),
            lambda: lax.cond(self.x[0] > 0, lambda p, q: like(a, p, q), lambda p, q: like(a, q, p), a, b),
            lambda: lax.switch(n % 3, [lambda: a, lambda: like(a, a, b), lambda: b]),
            lambda: jax.jit(made)(a, b),
            lambda: jax.checkpoint(lambda x, y: made(x, y))(a, b),
            lambda: jax.vmap(lambda x, y: made(x, y))(a, b),
            lambda: jax.vmap(told, axis_name="lanes")(a),
            lambda: sg.augment.vmap(told, axis_name="lanes")(a),
            lambda: sg.augment.vmap(lambda x, y: made(x, y), out_axes=-1)(a, b),
            lambda: sg.augment.jvp(last, (a,), (b,)),
            lambda: jax.linearize(last, a)[1](b),
            lambda: sg.augment.vjp(last, a)[1](b),
            lambda: sg.augment.grad(total, has_aux=True, return_value=True)(a),
            lambda: sg.augment.hessian(lambda x: (steep(x) * b).sum())(a),
            lambda: (ruled(a, b), sg.augment.jvp(lambda x: ruled(x, b), (a,), (b,))),
            lambda: lax.custom_root(lambda z: z - a, a, lambda f, z: z + 0.5, lambda g, y: y),
            with_state,
        ]


def chain(seed: int, length: int) -> tuple[Callable[[Any], Any], sg.State[Any]]:
    """A function of ``length`` operations on a vector and a spike State, which it writes, and the State."""
    rng = random.Random(seed)
    spike = sg.HiddenState(jnp.zeros(SIZE))

    def run(x: Any) -> Any:
        fired = sg.surrogate.sigmoid(x - 0.3)
        pool = [x, spike.value, (x > 0).astype(jnp.float32), fired, jnp.zeros(SIZE), jnp.ones(SIZE), x > 0.2]
        grown = Chain(rng, x, pool, 2)
        for _ in range(length):
            grown.step()
        spike.value = rng.choice([y for y in grown.pool if (y.shape, y.dtype) == (x.shape, x.dtype)])
        return grown.pool, spike.value @ jnp.ones((SIZE, 3))

    return run, spike


def samples(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What a chain is run on: (vectors, spike States), the States with hostile values last."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.3, 1.2, SIZE)
    half = np.where(rng.random(SIZE) < 0.5, rng.choice(SPECIAL, SIZE), x)
    found = [
        (x, rng.random(SIZE) < 0.5),
        (rng.choice(SPECIAL, SIZE), np.array([0, 1, -0.0, 1])),
        (half, np.array([0.5, np.nan, 1, 0])),
    ]
    return [(a.astype(np.float32), b.astype(np.float32)) for a, b in found]

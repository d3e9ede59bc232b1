"""Products with connectivity that is not stored, as native kernels: the numbers of ``hashing`` in machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from stategraph.backends.events import hashing
from stategraph.backends.events.jit_generic import LAWS
from stategraph.backends.native.binding import Tensor, bind
from stategraph.ir.types import short_dtype

# Everything is computed with 64 bits and cut: numba makes 64-bit products of 32-bit numbers anyway.
_SOURCE = f"""
_MASK = np.uint64(0xFFFFFFFF)
_FIRST, _SECOND, _GOLDEN = np.uint64({hashing.FIRST}), np.uint64({hashing.SECOND}), np.uint64({hashing.GOLDEN})
_15, _16 = np.uint64(15), np.uint64(16)
_INDEX, _STEP = np.uint64({32 - hashing.INDEX_BITS}), np.uint64({32 - hashing.INDEX_BITS - hashing.STEP_BITS})
_STEPS, _STEP_MASK = np.uint64({hashing.STEP_BITS}), np.uint64({(1 << hashing.STEP_BITS) - 1})
_POINT, _ONE, _WORD = np.uint64({hashing.POINT}), np.uint64(1), np.uint64(32)
_NORMAL, _NORMAL_MASK = np.uint64({hashing.NORMAL_BITS}), np.uint64({(1 << hashing.NORMAL_BITS) - 1})
_HALF, _UNIT = np.float32({0.5**0.5!r}), np.float32({2.0**-24!r})


@njit
def mix(x):
    x = ((x ^ (x >> _16)) * _FIRST) & _MASK
    x = ((x ^ (x >> _15)) * _SECOND) & _MASK
    return x ^ (x >> _15)


@njit
def step(bits, law, table):
    zeros = leading_zeros(bits)
    rest = ((bits << _ONE) << (zeros & np.uint64(31))) & _MASK
    place = rest >> _INDEX
    here = np.uint64(table[place])
    below = np.uint64(table[place + _ONE])
    fraction = here - (((here - below) * ((rest >> _STEP) & _STEP_MASK)) >> _STEPS)
    logarithm = (zeros << _POINT) + fraction
    return np.int64(((logarithm * np.uint64(law[0])) >> _WORD) >> np.uint64(law[1])) + 1


@njit
def random_part(bits, law, normals):
    other = mix(bits ^ _GOLDEN)
    if law[4] == 1:
        return np.float32(other >> np.uint64(8)) * _UNIT
    return np.float32(normals[other & _NORMAL_MASK] + normals[(other >> _NORMAL) & _NORMAL_MASK]) * _HALF


@njit
def row_words(i, seed):
    first = mix(np.uint64(i) ^ np.uint64(seed[0]))
    other = np.uint64(seed[1])
    return mix((first + other) & _MASK), mix(((first ^ _GOLDEN) + other) & _MASK)


@njit
def number(k, first, second):
    return mix((mix(k ^ first) + second) & _MASK)


@njit
def add_made_row(i, value, weight, seed, law, table, normals, out):
    first, second = row_words(i, seed)
    post = np.int64(law[2])
    skipped = np.int64(-1) if law[3] else np.int64(i)
    k = np.uint64(0)
    bits = number(k, first, second)
    place = step(bits, law, table) - 1
    while place < post:
        if place != skipped:
            if weight.ndim == 0:
                out[place] += times(weight[()], value)
            else:
                part = out.dtype.type(random_part(bits, law, normals))
                out[place] += times(weight[0] + weight[1] * part, value)
        k += _ONE
        bits = number(k, first, second)
        place += step(bits, law, table)


@njit
def received_by(i, events, weight, seed, law, table, normals):
    first, second = row_words(i, seed)
    post = np.int64(law[2])
    skipped = np.int64(-1) if law[3] else np.int64(i)
    total = weight.dtype.type(0)
    k = np.uint64(0)
    bits = number(k, first, second)
    place = step(bits, law, table) - 1
    while place < post:
        if place != skipped and events[place] != 0:
            if weight.ndim == 0:
                total += times(weight[()], events[place])
            else:
                part = weight.dtype.type(random_part(bits, law, normals))
                total += times(weight[0] + weight[1] * part, events[place])
        k += _ONE
        bits = number(k, first, second)
        place += step(bits, law, table)
    return total


def event_made(events, weight, seed, law, table, normals, out):
    out[:, :] = 0
    ids = np.empty(events.shape[1], np.int32)
    for b in range(events.shape[0]):
        count = compact(events[b], ids)
        for k in range(count):
            add_made_row(ids[k], events[b, ids[k]], weight, seed, law, table, normals, out[b])


def event_made_columns(events, weight, seed, law, table, normals, out):
    for b in range(events.shape[0]):
        for i in range(out.shape[1]):
            out[b, i] = received_by(i, events[b], weight, seed, law, table, normals)
"""


def jit(
    avals: Any, *, shape: tuple[int, int], prob: float, law: str, include_self: bool, transposed: bool
) -> Callable[..., Any] | None:
    """``event.jit`` by a kernel, None when there is none for these types."""
    events, weight = avals[:2]
    dtype = short_dtype(weight.dtype.name)
    if dtype not in ("f32", "f64") or events.dtype not in (jnp.bool_, weight.dtype) or not prob:
        return None
    given = [
        Tensor(short_dtype(events.dtype.name), (None, None)),
        Tensor(dtype, (None,) * weight.ndim),
        Tensor("u32", (2,)),
        Tensor("u32", (5,)),
        Tensor("u32", (None,)),
        Tensor("f32", (None,)),
    ]
    kernel = bind(
        _SOURCE,
        "event_made_columns" if transposed else "event_made",
        given,
        [Tensor(dtype, (None, None))],
    )
    if kernel is None:
        return None
    gaps = hashing.Gaps.of(prob)
    numbers = np.array([gaps.factor, gaps.shift, shape[1], include_self, LAWS.index(law)], np.uint32)
    arrived = shape[0] if transposed else shape[1]

    def compute(events: Any, weight: Any, seed: Any, **params: Any) -> Any:
        tables = (jnp.asarray(hashing.logarithms()), jnp.asarray(hashing.normals()))
        several = events.reshape(-1, events.shape[-1])
        out = kernel(
            several, weight, seed, jnp.asarray(numbers), *tables, shapes=[(several.shape[0], arrived)]
        )[0]
        return out.reshape(*events.shape[:-1], arrived)

    return compute

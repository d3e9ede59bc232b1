"""Drawing random connectivity without a dense matrix, in time and memory like the synapses.

The draws are made on the host, row by row, by a counter-based hash of a key of ``stategraph.random`` or a seed: see
``stategraph.backends.events.hashing``. The same key gives the same synapses on every platform, in whatever order and by
however many threads the rows are made. Blocks of rows that fit the processor's cache are made at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from stategraph import random
from stategraph.backends.events.hashing import (
    GOLDEN,
    LARGEST,
    Gaps,
    below,
    candidates,
    leading_zeros,
    numbers,
    streams,
)
from stategraph.errors import describe
from stategraph.event.csr import CSR
from stategraph.random.keys import advance, as_key

Mask = Any
"""Where synapses may be: a boolean matrix ``(pre, post)``, or a function of arrays of pre and of post neurons that gives
booleans.
"""

Allowed = Callable[[np.ndarray, np.ndarray], np.ndarray]

BLOCK = 1 << 16
"""How many numbers are drawn at a time."""

ROUNDS = 24
"""How often partners that do not count are drawn again before all partners of a neuron are listed."""

SHARE = np.uint32(2**32 - 1)
"""The number of a row's stream that decides whether the row has synapses at all."""


def bernoulli(
    pre: int, post: int, prob: float, *, include_self: bool = True, mask: Mask | None = None, seed: Any = None
) -> CSR:
    """Each of the ``pre * post`` possible synapses exists with probability ``prob``, independently.

    The distances between synapses are geometric, so only synapses are drawn. ``JITConn`` with the same seed has the same
    synapses.

    Args:
      pre, post: the numbers of neurons.
      prob: between 0 and 1.
      include_self: whether neuron ``i`` may have a synapse to neuron ``i``.
      mask: where synapses may be: a boolean matrix ``(pre, post)``, or a function of arrays of pre and of post neurons.
      seed: a number or a key; without it a key of the default random State is used.

    Raises:
      ValueError: for a probability that is none, numbers of neurons that are too large, and more synapses than 32 bits count.

    Example: no synapses between neighbours.

    >>> import numpy as np
    >>> from stategraph import event
    >>> csr = event.bernoulli(6, 6, 0.5, mask=lambda i, j: np.abs(i - j) > 1, seed=0)
    >>> bool(((csr.rows - csr.indices) ** 2 > 1).all())
    True
    """
    too_many(post)
    allowed = permission(mask, True, pre, post)
    law, seed_words = Gaps.of(prob) if prob else None, words(seed)
    if law is None or not pre or not post:
        return CSR(np.zeros(pre + 1, np.int32), np.zeros(0, np.int32), (pre, post))
    if mask is None:
        check_count(pre, post, pre * post * prob)
    width, table = candidates(post, prob), law.table()

    def block(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places, there = _places(rows, post, include_self, law, table, seed_words, width)
        counts, found = there.sum(axis=1), places[there].astype(np.int32)
        if allowed is None:
            return counts, found
        owners = np.repeat(rows.astype(np.int32), counts)
        kept = allowed(owners, found)
        return np.bincount(owners[kept] - rows[0], minlength=rows.size), found[kept]

    counts, parts = zip(*_in_blocks(block, pre, width), strict=True)
    starts = np.append(0, np.cumsum(np.concatenate(counts)))
    return CSR(starts, _given(_joined(list(parts), int(starts[-1]))), (pre, post))


def words(seed: Any = None) -> np.ndarray:
    """The two words that stand for a seed or a key; without one, for a key of the default random State."""
    if seed is None or isinstance(seed, random.RandomState):
        data = jax.random.key_data(random.DEFAULT.split_key() if seed is None else advance(seed.value)[1])
    else:
        with jax.ensure_compile_time_eval():  # in a trace too, it is known
            data = jax.random.key_data(advance(_key(seed))[1])
    found = np.asarray(data, np.uint32).ravel()
    return np.array([found[0], found[1] if found.size > 1 else GOLDEN], np.uint32)


def _key(seed: Any) -> jax.Array:
    """The key of a seed: of a whole number with all 64 bits, whether JAX has 64-bit numbers or not."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool):
        return as_key(seed)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"a seed has 64 bits, and {seed} has more")
    number = int(seed) % 2**64
    halves = np.array([number >> 32, number % 2**32], np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(halves), impl="threefry2x32")  # type: ignore[no-any-return]


def check_count(pre: int, post: int, synapses: float) -> None:
    """Raise the error for more synapses than 32 bits count, before their memory is asked for."""
    if synapses >= 2**31:
        raise ValueError(
            describe(
                f"Some {synapses:.3g} synapses from {pre} to {post} neurons are too many.",
                why="synapses are counted with 32 bits, and each takes at least 4 bytes",
                fix="stategraph.event.JITConn, which stores none, AllToAll if all have one weight, or several projections",
            )
        )


def too_many(post: int) -> None:
    """Raise the error for positions that do not fit 32 bits."""
    if post > LARGEST:
        raise ValueError(
            describe(
                f"Connections with probability to {post} post neurons are not possible.",
                why=f"there can be {LARGEST}: the distances between synapses are counted with 32 bits",
                fix="several populations, or stategraph.event.FixedNumConn",
            )
        )


def _places(
    rows: np.ndarray,
    post: int,
    include_self: bool,
    law: Gaps,
    table: np.ndarray,
    seed: np.ndarray,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The post neurons of rows, ``(rows, width)``, and which of them are there: places beyond the last are not."""
    own = rows[:, None].astype(np.int64)
    stream = streams(seed, rows[:, None])
    # without the neuron itself there is a place less, and those from it on are one further
    end = post if include_self else post - (own < post)
    while True:
        bits = numbers(stream, np.arange(width, dtype=np.uint32))
        steps = (
            np.minimum(
                law(bits, lambda i: (table[0, i], table[1, i]), leading_zeros), np.uint32(post)
            ).astype(np.int64)
            + 1
        )
        places = np.cumsum(steps, axis=1, out=steps)
        places -= 1
        if (places[:, -1:] >= end).all():
            there = places < end
            return (places if include_self else places + (places >= own)), there
        width *= 2


def fixed_number(
    pre: int,
    post: int,
    number: int,
    *,
    by: str = "pre",
    repeated: bool = True,
    share: float = 1.0,
    include_self: bool = True,
    mask: Mask | None = None,
    seed: Any = None,
) -> CSR:
    """Every neuron of one side has exactly ``number`` synapses, with partners drawn uniformly.

    Args:
      pre, post: the numbers of neurons.
      number: synapses for each neuron.
      by: ``"pre"``: every pre neuron has that many; ``"post"``: every post neuron.
      repeated: whether two neurons may have several synapses; otherwise partners are distinct.
      share: the share of these neurons that has synapses at all; which, is drawn.
      include_self: whether neuron ``i`` may have a synapse to neuron ``i``.
      mask: where synapses may be: a boolean matrix ``(pre, post)``, or a function of arrays of pre and of post neurons.
      seed: a number or a key; without it a key of the default random State is used.

    Raises:
      ValueError: when there are not as many partners, and for more synapses than 32 bits count.
    """
    if by not in ("pre", "post"):
        raise ValueError(f"by is 'pre' or 'post', not {by!r}")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the share of neurons that have synapses is between 0 and 1, not {share}")
    owners, partners = (pre, post) if by == "pre" else (post, pre)
    if number < 0 or (number > partners and not repeated) or (number and owners and not partners):
        raise ValueError(f"{number} partners cannot be drawn from {partners} neurons")
    check_count(pre, post, owners * share * number)
    allowed, seed_words = permission(mask, include_self, pre, post), words(seed)
    if allowed is not None and by == "post":
        of_pre = allowed
        allowed = lambda owner, partner: of_pre(partner, owner)  # noqa: E731
    has = np.ones(owners, bool)
    if share < 1.0:
        stream = streams(seed_words, np.arange(owners, dtype=np.uint32))
        has = numbers(stream, SHARE) < share * 2**32
    drawing = np.flatnonzero(has).astype(np.uint32)
    drawn = _room(drawing.size * number).reshape(drawing.size, number)

    def block(places: np.ndarray) -> None:
        drawn[places] = _partners(drawing[places], number, partners, repeated, allowed, seed_words)

    if number:
        for _ in _in_blocks(block, drawing.size, number):
            pass
    starts = np.append(0, np.cumsum(has * number))
    if by == "pre":
        return CSR(starts, _given(drawn.ravel()), (pre, post))
    given = scipy.sparse.csc_matrix((np.zeros(drawn.size, np.int8), drawn.ravel(), starts), (pre, post))
    rows = given.tocsr()
    return CSR(rows.indptr, _given(rows.indices), (pre, post))


def _partners(
    rows: np.ndarray, number: int, partners: int, repeated: bool, allowed: Allowed | None, seed: np.ndarray
) -> np.ndarray:
    """The partners of rows, ascending: the first of their streams that count, ``(rows, number)``."""
    first, second = streams(seed, rows)
    owners = rows.astype(np.int32)[:, None]
    if not repeated and 2 * number > partners:
        return np.stack([_listed(row, number, partners, repeated, allowed, seed) for row in rows])
    bits = numbers((first[:, None], second[:, None]), np.arange(number, dtype=np.uint32))
    drawn = np.sort(below(bits, partners).astype(np.int32), axis=1)
    taken = np.full(rows.size, number, np.uint32)
    for _ in range(ROUNDS):
        wrong = np.zeros(drawn.shape, bool)
        if not repeated:
            np.equal(drawn[:, 1:], drawn[:, :-1], out=wrong[:, 1:])
        if allowed is not None:
            wrong |= ~allowed(np.broadcast_to(owners, drawn.shape), drawn)
        row, column = np.nonzero(wrong)
        if not row.size:
            return drawn
        missing = np.bincount(row, minlength=rows.size)
        order = np.arange(row.size) - np.repeat(np.cumsum(missing) - missing, missing)
        bits = numbers((first[row], second[row]), taken[row] + order.astype(np.uint32))
        drawn[row, column] = below(bits, partners).astype(np.int32)
        again = np.flatnonzero(missing)
        drawn[again] = np.sort(drawn[again], axis=1)
        taken += missing.astype(np.uint32)
    for i in np.flatnonzero(wrong.any(axis=1)):
        drawn[i] = _listed(rows[i], number, partners, repeated, allowed, seed)
    return drawn


def _listed(
    row: np.uint32, number: int, partners: int, repeated: bool, allowed: Allowed | None, seed: np.ndarray
) -> np.ndarray:
    """The partners of a row from the list of all: those with the smallest numbers of the row's stream."""
    every = np.arange(partners, dtype=np.int32)
    if allowed is not None:
        every = every[allowed(np.full(partners, row, np.int32), every)]
    if not every.size or (number > every.size and not repeated):
        raise ValueError(
            describe(
                f"{number} partners cannot be drawn for neuron {row}.",
                why=f"the mask allows {every.size} of {partners}",
            )
        )
    stream = streams(seed, np.array([row], np.uint32))
    if repeated:
        return np.sort(every[below(numbers(stream, np.arange(number, dtype=np.uint32)), every.size)])
    keys = numbers(stream, every.astype(np.uint32))
    return np.sort(every[np.argsort(keys, kind="stable")[:number]])


def permission(mask: Mask | None, include_self: bool, pre: int, post: int) -> Allowed | None:
    """Whether synapses may be between pre and post neurons, as a function of arrays of both; None for everywhere."""
    tests: list[Allowed] = []
    if not include_self:
        tests.append(np.not_equal)
    if callable(mask):
        tests.append(lambda i, j: _booleans(mask(i, j), i.shape))
    elif mask is not None:
        matrix = np.asarray(mask)
        if matrix.shape != (pre, post) or matrix.dtype != bool:
            raise ValueError(
                describe(
                    f"The mask is {matrix.dtype}{list(matrix.shape)}.",
                    why=f"one between {pre} and {post} neurons is a boolean matrix {(pre, post)}, or a function",
                    fix="mask=matrix != 0, or mask=lambda pre, post: ...",
                )
            )
        tests.append(lambda i, j: matrix[i, j])
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda i, j: tests[0](i, j) & tests[1](i, j)


def _booleans(found: Any, shape: tuple[int, ...]) -> np.ndarray:
    answer = np.asarray(found)
    if answer.dtype != bool or answer.shape != shape:
        raise ValueError(
            describe(
                f"The mask gives {answer.dtype}{list(answer.shape)} for neurons of the shape {shape}.",
                why="it gives a boolean for each pair of neurons",
                fix="for example mask=lambda pre, post: abs(pre - post) > 1",
            )
        )
    return answer


def _in_blocks(make: Callable[[np.ndarray], Any], rows: int, width: int) -> Iterator[Any]:
    """``make(numbers of rows)`` for blocks of rows in parallel; what it gives, in order."""
    height = max(BLOCK // max(width, 1), 1)
    blocks = [
        np.arange(first, min(first + height, rows), dtype=np.uint32) for first in range(0, rows, height)
    ]
    if len(blocks) < 4:
        yield from map(make, blocks)
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(blocks))) as threads:
        yield from threads.map(make, blocks)


def _joined(parts: list[np.ndarray], size: int) -> np.ndarray:
    joined = _room(size)
    end = size
    while parts:  # from the end, so that each part's memory is free once it was copied
        part = parts.pop()
        joined[end - part.size : end] = part
        end -= part.size
    return joined


def _given(indices: np.ndarray) -> np.ndarray:
    """Indices that a connectivity takes without a copy."""
    indices.flags.writeable = False
    return indices


def _room(size: int) -> np.ndarray:
    """An array for indices, at a place in memory where JAX takes it without a copy."""
    room = np.empty(size + 16, np.int32)
    start = (-room.ctypes.data // 4) % 16
    return room[start : start + size]

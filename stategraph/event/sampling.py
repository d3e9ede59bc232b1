"""Drawing random connectivity without a dense matrix, in time and memory like the synapses.

The draws are made on the host from a key of ``stategraph.random`` (or a seed), by NumPy's counter-based Philox
generator: the same key gives the same synapses on every platform and device.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from stategraph import random
from stategraph.event.csr import CSR


def bernoulli(pre: int, post: int, prob: float, *, seed: Any = None) -> CSR:
    """Each of the ``pre * post`` possible synapses exists with probability ``prob``, independently.

    The distances between synapses are geometric, so only synapses are drawn.

    Args:
      pre, post: the numbers of neurons.
      prob: between 0 and 1.
      seed: a number or a key; without it a key of the default random State is used.
    """
    if not 0.0 <= prob <= 1.0:
        raise ValueError(f"a probability is between 0 and 1, not {prob}")
    generator = _generator(seed)
    total = pre * post
    if prob == 0.0 or not total:
        places = np.zeros(0, np.int64)
    elif prob == 1.0:
        places = np.arange(total, dtype=np.int64)
    else:
        parts: list[np.ndarray] = []
        last = -1
        while last < total:
            expected = (total - last) * prob
            gaps = generator.geometric(prob, size=int(expected + 4.0 * np.sqrt(expected) + 16))
            parts.append(np.cumsum(gaps) + last)
            last = int(parts[-1][-1])
        places = np.concatenate(parts)
        places = places[: np.searchsorted(places, total)]
    rows, columns = np.divmod(places, max(post, 1))
    return _from_rows(rows, columns, pre, post)


def fixed_number(
    pre: int, post: int, number: int, *, by: str = "pre", repeated: bool = True, seed: Any = None
) -> CSR:
    """Every neuron of one side has exactly ``number`` synapses, with partners drawn uniformly.

    Args:
      pre, post: the numbers of neurons.
      number: synapses for each neuron.
      by: ``"pre"``: every pre neuron has that many; ``"post"``: every post neuron.
      repeated: whether two neurons may have several synapses; otherwise partners are distinct.
      seed: a number or a key; without it a key of the default random State is used.
    """
    if by not in ("pre", "post"):
        raise ValueError(f"by is 'pre' or 'post', not {by!r}")
    count, partners = (pre, post) if by == "pre" else (post, pre)
    if number < 0 or (number > partners and not repeated) or (number and not partners):
        raise ValueError(f"{number} partners cannot be drawn from {partners} neurons")
    generator = _generator(seed)
    drawn = np.sort(generator.integers(0, max(partners, 1), (count, number)), axis=1)
    if not repeated:
        drawn = _distinct(generator, drawn, partners)
    owners, others = np.repeat(np.arange(count), number), drawn.ravel()
    if by == "pre":
        return _from_rows(owners, others, pre, post)
    order = np.lexsort((owners, others))
    return _from_rows(others[order], owners[order], pre, post)


def _distinct(generator: np.random.Generator, drawn: np.ndarray, partners: int) -> np.ndarray:
    """Rows without repetitions: rows that have some are drawn again while that is likely to help, then as a
    shuffle's beginning.
    """
    number = drawn.shape[1]
    for _ in range(16):
        again = np.flatnonzero((np.diff(drawn, axis=1) == 0).any(axis=1))
        if not again.size or number * number > 4 * partners:
            break
        drawn[again] = np.sort(generator.integers(0, partners, (again.size, number)), axis=1)
    for row in np.flatnonzero((np.diff(drawn, axis=1) == 0).any(axis=1)):
        drawn[row] = np.sort(generator.choice(partners, number, replace=False, shuffle=False))
    return drawn


def _from_rows(rows: np.ndarray, columns: np.ndarray, pre: int, post: int) -> CSR:
    counts = np.bincount(rows, minlength=pre)
    return CSR(np.append(0, np.cumsum(counts)), columns, (pre, post))


def _generator(seed: Any) -> np.random.Generator:
    stream = random.DEFAULT if seed is None else random.RandomState(seed)
    words = np.asarray(jax.random.key_data(stream.split_key()), np.uint32).ravel()
    key = np.zeros(4, np.uint32)
    key[: words.size] = words[:4]
    return np.random.Generator(np.random.Philox(key=key.view(np.uint64)))

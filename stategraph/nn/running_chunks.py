"""What a run does around its compiled loop: how long a chunk is, and what becomes of what it recorded."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.nn.monitors import Entry
from stategraph.spikes import Spikes, events

CHUNK_BYTES = 8 << 20
"""How much a chunk records, before it is put away."""
LONGEST = 10_000
"""Steps of a chunk, at most."""
SHORTEST = 100
"""Steps of a chunk, at least."""


def bytes_of(entry: Entry) -> float:
    """How much a monitor of a State, or of spikes, records in a step."""
    if entry.spikes:
        return entry.size(entry.shape or ())
    leaves = entry.target._peek()
    return float(sum(leaf.dtype.itemsize * entry.size(leaf.shape) for leaf in leaves)) / entry.every


def chunk_lengths(steps: int, bytes_per_step: float, shown: bool) -> list[int]:
    """The lengths of the chunks of a run: all equal where that is possible, so that there is one program to compile.

    Args:
      steps: how many steps the run has.
      bytes_per_step: what each of them records.
      shown: whether progress is shown, after each chunk.
    """
    most = min(LONGEST, int(CHUNK_BYTES / max(bytes_per_step, 1e-9)))
    if shown:
        most = min(most, _round(steps // 20))
    most = _round(max(most, SHORTEST))
    if steps <= most:
        return [steps]
    length = next((n for n in range(most, most // 4, -1) if steps % n == 0), most)
    return [length] * (steps // length) + [steps % length] * (steps % length > 0)


def _round(number: int) -> int:
    """The next smaller of 1, 2, 5, 10, 20, 50, …: what durations are multiples of."""
    power = 10 ** int(math.log10(max(number, 1)))
    return max((factor * power for factor in (5, 2, 1) if factor * power <= number), default=1)


# ------------------------------------------------------------------------------------- every so many steps


def is_sparse(entry: Entry) -> bool:
    """Whether a loop keeps only the rows that are wanted: of State, whose type is known before."""
    return entry.every > 1 and entry.kind == "state"


def room_for(entry: Entry, steps: int) -> Any:
    """Buffers for the rows that ``steps`` steps leave, wherever they begin, with one more for what is written over."""
    value = entry.target.value
    rows = max(1, steps + 2 * entry.every - 3) // entry.every + 1

    def room(leaf: Any) -> Any:
        kept = leaf if entry.index is None else leaf[entry.index]
        return jnp.zeros((rows, *kept.shape), kept.dtype)

    return jax.tree.map(room, value)


def written(buffers: Any, value: Any, slot: Any) -> Any:
    """Buffers with a value in the row ``slot``."""
    return jax.tree.map(
        lambda buffer, leaf: jax.lax.dynamic_update_index_in_dim(buffer, leaf, slot, 0), buffers, value
    )


def rows_of(entry: Entry, found: Any, before: int, length: int) -> Any:
    """The rows that a monitor looks at, of what ``length`` steps recorded after ``before`` ones."""
    if entry.every == 1:
        return found
    late = -before % entry.every
    if is_sparse(entry):
        begin, count = int(before % entry.every > 0), len(range(late, length, entry.every))
        return jax.tree.map(lambda leaf: leaf[begin : begin + count], found)
    return jax.tree.map(lambda leaf: leaf[late :: entry.every], found)


# ------------------------------------------------------------------------------------------- putting away


class Shelf:
    """Where what one monitor records is put, chunk after chunk, in the memory of the host.

    Args:
      entry: the monitor.
      steps: how many steps the run has.
      dt: their length (ms).
    """

    def __init__(self, entry: Entry, steps: int, dt: float) -> None:
        self.entry = entry
        self.steps = steps
        self.dt = dt
        self.rows: Any = None
        self.filled = 0
        self.events: list[tuple[np.ndarray, np.ndarray]] = []
        self.row: tuple[Any, ...] = ()
        """Shape and dtype of a row of spikes."""

    def put(self, before: int, length: int, found: Any) -> None:
        """Put away what ``length`` steps recorded after ``before`` ones."""
        if self.entry.spikes:
            array = np.asarray(found)
            self.row = array.shape[1:]
            steps, places = events(array.reshape(length, -1))
            self.events.append((steps + np.int32(before), places))
            return
        arrays = jax.tree.map(
            np.asarray, rows_of(self.entry, jax.tree.map(np.asarray, found), before, length)
        )
        if length == self.steps:
            self.rows = arrays
            return
        if self.rows is None:
            total = -(-self.steps // self.entry.every)
            self.rows = jax.tree.map(lambda part: np.empty((total, *part.shape[1:]), part.dtype), arrays)
        count = len(jax.tree.leaves(arrays)[0])
        for whole, part in zip(jax.tree.leaves(self.rows), jax.tree.leaves(arrays), strict=True):
            whole[self.filled : self.filled + count] = part
        self.filled += count

    def recorded(self, first: int) -> Any:
        """All of it; ``first`` is the number of the first step."""
        if not self.entry.spikes:
            return self.rows
        steps, places = (np.concatenate(parts) for parts in zip(*self.events, strict=True))
        shape, members = self.row, None
        if self.entry.index is not None and self.entry.shape is not None:
            shape = self.entry.shape
            members = self.entry.members(shape)
            places = np.asarray(members, np.int32)[places]
        return Spikes(
            steps, places, shape=shape or (1,), length=self.steps, dt=self.dt, first=first, members=members
        )

"""What a run does around its compiled loop: how long a chunk is, and what becomes of what it recorded."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.backends.events.compact_primitive import compact
from stategraph.graph.walk import states
from stategraph.nn.monitors import Entry
from stategraph.spikes import Spikes, events
from stategraph.state import State

CHUNK_BYTES = 16 << 20
"""How much a chunk records that is put away after it: little enough for memory that is used again, chunk after chunk."""
PLACES, PLACES_ON_CPU = 1 << 26, 1 << 28
"""How many spikes there is room for in a chunk. On CPUs those that are not there take no memory."""
LARGE = 1 << 24
"""Bytes of rows for which numba is imported, so that they are not filled with zeros first: fewer are written sooner."""
LONGEST = 10_000
"""Steps of a chunk, at most."""
SHORTEST = 100
"""Steps of a chunk, at least."""


Types = list[jax.ShapeDtypeStruct]
"""Those of the arrays of one row that a monitor records."""


def types_of(entry: Entry, leaves: Iterable[Any]) -> Types:
    """What a monitor records of a State that has these arrays."""
    return [jax.ShapeDtypeStruct(entry.shape_of(leaf.shape), leaf.dtype) for leaf in leaves]


def size_of(types: Types) -> int:
    """How many elements a row has."""
    return sum(math.prod(type.shape) for type in types)


def bytes_of(types: Types) -> float:
    """How many bytes a row has."""
    return float(sum(type.dtype.itemsize * math.prod(type.shape) for type in types))


def chunk_lengths(steps: int, nbytes: float, places: int, shown: bool) -> list[int]:
    """The lengths of the chunks of a run: all equal where that is possible, so that there is one program to compile.

    Args:
      steps: how many steps the run has.
      nbytes: what each of them records.
      places: how many spikes each of them lists at most.
      shown: whether progress is shown, after each chunk.
    """
    room = PLACES_ON_CPU if _on_host() else PLACES
    most = min(LONGEST, int(CHUNK_BYTES / max(nbytes, 1e-9)), room // max(places, 1))
    if shown:
        most = min(most, _round(steps // 20))
    most = max(most, SHORTEST)
    if steps <= most:
        return [steps]
    length = next((n for n in range(most, most // 4, -1) if steps % n == 0), _round(most))
    return [length] * (steps // length) + [steps % length] * (steps % length > 0)


def _on_host() -> bool:
    """Whether what programs compute is in the memory of the host."""
    return jax.default_backend() == "cpu"


def _round(number: int) -> int:
    """The next smaller of 1, 2, 5, 10, 20, 50, …: what durations are multiples of."""
    power = 10 ** int(math.log10(max(number, 1)))
    return max((factor * power for factor in (5, 2, 1) if factor * power <= number), default=1)


# ------------------------------------------------------------------------------------- every so many steps


Room = list[Any]
"""Arrays in which a loop writes the rows of a monitor."""


def is_sparse(entry: Entry) -> bool:
    """Whether a loop in a trace keeps only the rows that are wanted: of State, whose type is known before."""
    return entry.every > 1 and entry.kind == "state" and not _lies_apart(entry.target)


def can_reserve(model: Any) -> bool:
    """Whether there can be room for rows before they are computed: not where the types of States say that their
    parts lie on several devices, so that those of rows would have to say it too.
    """
    return not any(map(_lies_apart, states(model).values()))


def _lies_apart(state: State[Any]) -> bool:
    specs = [jax.typeof(leaf).sharding.spec for leaf in state._peek() if isinstance(leaf, jax.Array)]
    return any(part is not None for spec in specs for part in spec)


def room_for(types: Types, every: int, steps: int) -> Room:
    """Room for the rows that ``steps`` steps leave, wherever they begin. On the host they begin where a run does, and fill it: what was
    there does not matter. Only who looks for NaN would find it.

    Args:
      types: those of a row.
      every: how many steps lie between two looks.
      steps: how many steps there are.
    """
    rows = max(1, -(-steps // every))
    filled = steps and _on_host() and not any(_jax.watched_numbers())
    begin = _untouched if filled else jnp.zeros
    return [begin((rows, *type.shape), type.dtype) for type in types]


def _untouched(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of anything on the host: in a trace an op, which a kernel takes for what it is."""
    nbytes = np.dtype(dtype).itemsize * math.prod(shape)
    if _jax.current_trace() is not None or not can_list() or (nbytes < LARGE and "numba" not in sys.modules):
        return jax.lax.empty(shape, dtype)
    from stategraph.backends.native.memory import untouched

    return untouched(shape, dtype)


def written(entry: Entry, room: Room, value: Any, step: Any, begin: Any) -> Room:
    """The room with the value after a step of the run, if it is looked at; the room is for the steps from ``begin`` on."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(value)]
    if entry.every == 1:
        return [
            jax.lax.dynamic_update_index_in_dim(part, leaf.astype(part.dtype), step - begin, 0)
            for part, leaf in zip(room, leaves, strict=True)
        ]
    row = step // entry.every - -(-begin // entry.every)

    def put(part: Any, leaf: Any) -> Any:
        return part.at[jnp.where(step % entry.every == 0, row, part.shape[0])].set(leaf, mode="drop")

    return list(map(put, room, leaves))


class Rooms:
    """Room for the rows of the chunks of a run. On a CPU there is one for the whole run, which is the memory of the recording: nothing
    is copied. On other devices there are two for a chunk, taken in turn: what is in one is fetched while a chunk fills the other.

    Args:
      entries: the monitors that have room.
      types: those of their rows, by name.
      steps: how many steps the run has.
    """

    def __init__(self, entries: Sequence[Entry], types: Mapping[str, Types], steps: int) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self.types = types
        self.steps = steps
        self.whole = _on_host()
        self._free: dict[str, Room] = {}
        self._span = 0
        self._ahead: Any = None

    def kept(self, name: str) -> bool:
        """Whether what a monitor records stays where it is."""
        return self.whole and name in self.entries

    def take(self, length: int) -> dict[str, Room]:
        """Room for a chunk: what was given back, where it fits."""
        span = self.steps if self.whole else length
        if self._free and span == self._span:
            rooms, self._free = self._free, {}
            return rooms
        self._span = span
        made = {name: room_for(self.types[name], one.every, span) for name, one in self.entries.items()}
        leaves = jax.tree.leaves(made)
        if self.whole and can_list() and sum(leaf.nbytes for leaf in leaves) >= LARGE:
            from stategraph.backends.native.memory import TouchedAhead

            self._ahead = TouchedAhead(leaves)
        return made

    def give(self, found: Mapping[str, Any]) -> None:
        """Give back what a chunk returned."""
        self._free = {name: jax.tree.leaves(found[name]) for name in self.entries}

    def close(self) -> None:
        """All rows are there."""
        if self._ahead is not None:
            self._ahead.end()


def rows_of(entry: Entry, found: Any, before: int, length: int, roomed: bool) -> Any:
    """The rows that a monitor looks at, of what ``length`` steps recorded after ``before`` ones, in a room or stacked."""
    late = -before % entry.every
    looks = slice(len(range(late, length, entry.every))) if roomed else slice(late, length, entry.every)
    return jax.tree.map(lambda leaf: leaf[looks], found)


# ------------------------------------------------------------------------------------------- lists of spikes


@jax.tree_util.register_pytree_node_class
@attrs.frozen
class Listed:
    """The spikes of a chunk, as the program lists them."""

    places: Any
    """``event.compact`` of them."""
    shape: tuple[int, ...]
    """That of a step."""

    @classmethod
    def of(cls, stacked: Any) -> Any:
        """The list of bools ``(steps, *shape)``; these, where places are beyond what a list can say."""
        if stacked.size >= np.iinfo(np.int32).max:
            return stacked
        return cls(compact(stacked), stacked.shape[1:])

    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """(step, place in it) of each spike."""
        places = self._fetched()
        width = np.uint32(math.prod(self.shape))
        if not len(places):
            return places.copy(), places.copy()
        steps = places.view(np.uint32) // width
        ids = steps * width
        np.subtract(places.view(np.uint32), ids, out=ids)
        return steps.view(np.int32), ids.view(np.int32)

    def _fetched(self) -> np.ndarray:
        """The places, of which no more than twice as many as there are leave the device."""
        if _shares_memory(self.places):
            array = np.asarray(self.places)
            return array[1 : 1 + array[0]]
        count = int(self.places[0])
        room = 1 << count.bit_length()  # few sizes: each is a program of its own
        return np.asarray(self.places[1 : 1 + room])[:count]

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """For JAX: what it holds, and the rest."""
        return (self.places,), self.shape

    @classmethod
    def tree_unflatten(cls, shape: tuple[int, ...], children: tuple[Any, ...]) -> Listed:
        """For JAX: the reverse of ``tree_flatten``."""
        return cls(children[0], shape)


def can_list() -> bool:
    """Whether the program lists spikes: where a kernel does, without looking at what is not there. On CPUs nothing
    is imported to know that.
    """
    if jax.default_backend() == "gpu":
        from stategraph.backends.events.dispatch import on_gpu

        return on_gpu()
    return _on_host() and importlib.util.find_spec("numba") is not None


def _shares_memory(array: Any) -> bool:
    """Whether the host reads an array where it lies."""
    return not isinstance(array, jax.Array) or all(device.platform == "cpu" for device in array.devices())


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

    def put(self, before: int, length: int, found: Any, roomed: bool) -> None:
        """Put away what ``length`` steps recorded after ``before`` ones, in a room or stacked."""
        if self.entry.spikes:
            if isinstance(found, Listed):
                self.row = found.shape
                steps, places = found.events()
            else:
                array = np.asarray(found)
                self.row = array.shape[1:]
                steps, places = events(array.reshape(length, -1))
            if before:
                steps += np.int32(before)
            self.events.append((steps, places))
            return
        arrays = rows_of(self.entry, jax.tree.map(np.asarray, found), before, length, roomed)
        if length == self.steps:
            self.rows = arrays
            return
        if self.rows is None:
            total = -(-self.steps // self.entry.every)
            self.rows = jax.tree.map(lambda part: np.empty((total, *part.shape[1:]), part.dtype), arrays)
        count = max(map(len, jax.tree.leaves(arrays)), default=0)
        for whole, part in zip(jax.tree.leaves(self.rows), jax.tree.leaves(arrays), strict=True):
            whole[self.filled : self.filled + count] = part
        self.filled += count

    def recorded(self, first: int) -> Any:
        """All of it; ``first`` is the number of the first step."""
        if not self.entry.spikes:
            return self.rows
        steps, places = (
            parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in zip(*self.events, strict=True)
        )
        shape, members = self.row, None
        if self.entry.index is not None and self.entry.shape is not None:
            shape = self.entry.shape
            members = self.entry.members(shape)
            places = np.asarray(members, np.int32)[places]
        return Spikes(
            steps, places, shape=shape or (1,), length=self.steps, dt=self.dt, first=first, members=members
        )

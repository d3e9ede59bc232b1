"""Spikes and what is counted of them: rates, intervals, irregularity.

``Spikes`` are what a monitor of spikes records: who spiked in which step. The functions take them, or an array
``(steps, neurons)`` that is not 0 where there is a spike, with ``dt``. Times are in ms, rates in Hz. They compute with NumPy, on
known values; what is to be differentiated or compiled is computed from ``Spikes.dense``.

>>> import numpy as np
>>> from stategraph import spikes
>>> regular = np.arange(1000)[:, None] % np.array([10, 20]) == 0  # a spike every 10 and every 20 steps
>>> spikes.rates(regular, dt=0.5), spikes.cv(regular, dt=0.5)
(array([200., 100.]), array([0., 0.]))
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from stategraph import _jax
from stategraph.errors import TraceError, describe

__all__ = ["Spikes", "cv", "isi", "raster", "rate", "rates"]


@jax.tree_util.register_pytree_node_class
class Spikes:
    """Who spiked when, in some steps of a population: kept as (step, neuron) of every spike, or as an array with a value
    for every neuron and step (``dense``), as the compiled program that is being traced has it. A pytree.

    Args:
      steps: the step of each spike, counted from the first one: ``int[spikes]``, in order.
      ids: which neuron it was, ``int[spikes]``: a place in the population, counted over all its axes.
      shape: the shape of the population.
      length: how many steps there are.
      dt: their length (ms).
      first: the number of the first step: it begins at ``first * dt``.
      members: the neurons that were recorded; None for all.
      dtype: what ``dense`` has.

    Example:

    >>> import numpy as np
    >>> from stategraph.spikes import Spikes
    >>> spikes = Spikes.from_dense(np.array([[1, 0], [0, 0], [1, 1]]), dt=0.5)
    >>> spikes
    Spikes(3 spikes of 2 neurons in 1.5 ms)
    >>> spikes.times, spikes.ids
    (array([0., 1., 1.]), array([0, 0, 1], dtype=int32))
    """

    def __init__(
        self,
        steps: Any,
        ids: Any,
        *,
        shape: tuple[int, ...],
        length: int,
        dt: float,
        first: Any = 0,
        members: tuple[int, ...] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        self._events: tuple[Any, Any] | None = (steps, ids)
        self._dense: Any = None
        self.shape = shape
        self.length = length
        self.dt = dt
        self.first = first
        self.members = members
        self.dtype = np.dtype(dtype)

    @classmethod
    def from_dense(
        cls,
        array: Any,
        dt: float,
        first: Any = 0,
        *,
        shape: tuple[int, ...] | None = None,
        members: tuple[int, ...] | None = None,
    ) -> Spikes:
        """The spikes of an array.

        Args:
          array: ``(steps, *shape)``, not 0 where there is a spike.
          dt: the length of a step (ms).
          first: the number of the first step.
          shape: the shape of the population; needed when only some neurons, the ``members``, were recorded.
          members: those: the place of each in the population.
        """
        if array.ndim < 2:
            raise ValueError(f"spikes are an array (steps, neurons), not of the shape {array.shape}")
        made = cls(
            None,
            None,
            shape=array.shape[1:] if shape is None else shape,
            length=array.shape[0],
            dt=dt,
            first=first,
            members=members,
            dtype=array.dtype,
        )
        made._events, made._dense = None, array
        return made

    # ------------------------------------------------------------------------------------------------ the spikes

    def _known(self) -> tuple[Any, Any]:
        """(step, neuron) of every spike."""
        if self._events is None:
            dense = self._dense
            if _jax.is_tracer(dense):
                raise TraceError(
                    describe(
                        "Which neurons spike is not known while the program is traced.",
                        at=_jax.here(),
                        why="how many spikes there are, and so the length of times and ids, shows when the program runs",
                        fix="return the recording and ask then; in the program, compute with spikes.dense",
                    )
                )
            array = np.asarray(dense)
            if array.ndim != 1 + self._axes():
                raise ValueError(
                    describe(
                        f"The spikes of {array.ndim - 1 - self._axes()} more axes than {self.shape}: of lanes.",
                        fix="take one lane first: jax.tree.map(lambda x: x[0], recording)",
                    )
                )
            steps, places = events(array.reshape(self.length, math.prod(array.shape[1:])))
            ids = places if self.members is None else np.asarray(self.members, np.int32)[places]
            self._events = (steps, ids)
        return self._events

    def _axes(self) -> int:
        return len(self.shape) if self.members is None else 1

    @property
    def times(self) -> np.ndarray:
        """The time of each spike (ms): that of the step in which it was, ``float64[spikes]``."""
        steps = np.asarray(self._known()[0], np.int64)
        times: np.ndarray = (int(self.first) + steps) * self.dt
        return times

    @property
    def ids(self) -> np.ndarray:
        """Which neuron each spike is of, ``int32[spikes]``."""
        return np.asarray(self._known()[1], np.int32)

    @property
    def steps(self) -> np.ndarray:
        """The step of each spike, counted from the first one of the recording, ``int32[spikes]``."""
        return np.asarray(self._known()[0], np.int32)

    @property
    def dense(self) -> Any:
        """A value for every neuron and step: ``(steps, *shape)``, or ``(steps, members)`` when only some were recorded. In a
        compiled program it is what the population returned, so that it has a gradient.
        """
        if self._dense is None:
            steps, ids = self._known()
            known = None if self.members is None else np.asarray(self.members)
            width = math.prod(self.shape) if known is None else len(known)
            array = np.zeros((self.length, width), self.dtype)
            if known is None:
                places = ids
            else:
                order = np.argsort(known, kind="stable")
                places = order[np.searchsorted(known[order], ids)]
            array[np.asarray(steps), np.asarray(places)] = 1
            self._dense = array.reshape(self.length, *self.shape) if known is None else array
        return self._dense

    def __len__(self) -> int:
        """How many spikes there are."""
        return len(self._known()[1])

    @property
    def size(self) -> int:
        """How many neurons were recorded."""
        return math.prod(self.shape) if self.members is None else len(self.members)

    @property
    def duration(self) -> float:
        """How long they were recorded (ms)."""
        return self.length * self.dt

    @property
    def start(self) -> float:
        """When the recording begins (ms)."""
        return int(self.first) * self.dt

    def of(self, first: int, last: int) -> Spikes:
        """The spikes of the neurons from ``first`` to before ``last``, as a population of their own.

        Raises:
          IndexError: for neurons that the population does not have.
        """
        size = math.prod(self.shape)
        if not 0 <= first <= last <= size:
            raise IndexError(
                f"neurons {first} to before {last} are no part of a population of {size}; first and last are from 0 to {size}"
            )
        steps, ids = self._known()
        chosen = (ids >= first) & (ids < last)
        members = self.members and tuple(i - first for i in self.members if first <= i < last)
        return Spikes(
            steps[chosen],
            ids[chosen] - np.int32(first),
            shape=(last - first,),
            length=self.length,
            dt=self.dt,
            first=self.first,
            members=members,
            dtype=self.dtype,
        )

    def between(self, begin: float, end: float | None = None) -> Spikes:
        """The spikes from the time ``begin`` to before ``end`` (ms); None for all that follow."""
        steps, ids = self._known()
        low = max(0, round(begin / self.dt) - int(self.first))
        high = self.length if end is None else min(self.length, round(end / self.dt) - int(self.first))
        chosen = (steps >= low) & (steps < high)
        return Spikes(
            steps[chosen] - np.int32(low),
            ids[chosen],
            shape=self.shape,
            length=max(0, high - low),
            dt=self.dt,
            first=int(self.first) + low,
            members=self.members,
            dtype=self.dtype,
        )

    def __repr__(self) -> str:
        dense = self._dense
        if self._events is None and not (
            isinstance(dense, (np.ndarray, jax.Array))
            and not _jax.is_tracer(dense)
            and dense.ndim == 1 + self._axes()
        ):  # of a trace, of lanes, or what stands for an array
            return f"Spikes(dense={getattr(dense, 'shape', dense)})"
        return f"Spikes({len(self)} spikes of {self.size} neurons in {self.duration:g} ms)"

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """For JAX: what it holds, and the rest."""
        settled = (self.shape, self.length, self.dt, self.members, str(self.dtype))
        if self._events is None:
            return (self._dense, self.first), (True, *settled)
        return (*self._events, self.first), (False, *settled)

    @classmethod
    def tree_unflatten(cls, settled: tuple[Any, ...], children: tuple[Any, ...]) -> Spikes:
        """For JAX: the reverse of ``tree_flatten``."""
        is_dense, shape, length, dt, members, dtype = settled
        *held, first = children
        made = cls(
            *([None, None] if is_dense else held),
            shape=shape,
            length=length,
            dt=dt,
            first=first,
            members=members,
            dtype=dtype,
        )
        if is_dense:
            made._events, made._dense = None, held[0]
        return made


def events(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (row, column) of all places of an array ``(rows, columns)`` that are not 0, in order: two ``int32[events]``.

    Most of what spikes leave behind is empty: eight values are looked at at a time.
    """
    if not array.size:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    flat = np.ascontiguousarray(array if array.dtype == bool else array != 0).reshape(-1)
    rows, columns = np.divmod(_places(flat), array.shape[1])
    return rows.astype(np.int32), columns.astype(np.int32)


def _places(flat: np.ndarray) -> np.ndarray:
    """``np.flatnonzero`` of an array of bool."""
    whole = len(flat) // 8 * 8
    words = flat[:whole].view(np.uint64)
    hit = np.flatnonzero(words != 0)
    found = np.flatnonzero(words.take(hit).view(np.uint8))
    return np.concatenate([hit[found >> 3] * 8 + (found & 7), whole + np.flatnonzero(flat[whole:])])


# ------------------------------------------------------------------------------------------------------- numbers


def as_spikes(spikes: Any, dt: float | None = None) -> Spikes:
    """``Spikes`` as they are; an array ``(steps, neurons)`` with ``dt`` as ``Spikes``."""
    if isinstance(spikes, Spikes):
        return spikes
    if dt is None:
        raise TypeError(
            describe(
                f"The spikes are a {type(spikes).__name__}, and the length of a step is not known.",
                why="an array has steps, and rates and intervals are in ms",
                fix="give dt=0.1, or what a monitor of spikes recorded",
            )
        )
    array = np.asarray(spikes)
    return Spikes.from_dense(array.reshape(len(array), math.prod(array.shape[1:])), float(dt))


def raster(spikes: Any, dt: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The times (ms) and neurons of all spikes, for a raster plot.

    Args:
      spikes: ``Spikes``, or an array ``(steps, neurons)``.
      dt: the length of a step of the array (ms).

    Returns:
      ``(times, ids)``, by time.
    """
    found = as_spikes(spikes, dt)
    return found.times, found.ids


def rates(spikes: Any, dt: float | None = None) -> np.ndarray:
    """How often each neuron spikes (Hz), ``float64[neurons]``; NaN where nothing was recorded, in 0 ms.

    Args:
      spikes: ``Spikes``, or an array ``(steps, neurons)``.
      dt: the length of a step of the array (ms).
    """
    found = as_spikes(spikes, dt)
    counts = np.bincount(_order(found), minlength=found.size)
    return counts * (1000 / found.duration if found.length else np.nan)


def _order(spikes: Spikes) -> np.ndarray:
    """Which of the recorded neurons each spike is of."""
    if spikes.members is None:
        return spikes.ids
    known = np.asarray(spikes.members)
    order = np.argsort(known, kind="stable")
    found: np.ndarray = order[np.searchsorted(known[order], spikes.ids)]
    return found


def rate(
    spikes: Any, bin: float = 1.0, sigma: float | None = None, dt: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rate of a population over time: spikes per neuron and second.

    Args:
      spikes: ``Spikes``, or an array ``(steps, neurons)``.
      bin: the width of a bin (ms), a multiple of the step; steps that fill no bin at the end are left out.
      sigma: the standard deviation (ms) of a Gaussian that smooths the rate; at the ends the part of it that is in the
        recording counts. None for no smoothing.
      dt: the length of a step of the array (ms).

    Returns:
      ``(t, rate)``: the middle of each bin (ms), and the rate in it (Hz).

    Example:

    >>> import numpy as np
    >>> from stategraph import spikes
    >>> t, hz = spikes.rate(np.array([[1, 1], [0, 0], [1, 0], [0, 0]]), bin=1.0, dt=0.5)
    >>> t, hz
    (array([0.5, 1.5]), array([1000.,  500.]))
    """
    found = as_spikes(spikes, dt)
    width = round(bin / found.dt)
    if width < 1 or not math.isclose(width * found.dt, bin, rel_tol=1e-6):
        raise ValueError(f"bin={bin} ms is not a multiple of the step of {found.dt} ms")
    bins = found.length // width
    counts = np.bincount(found.steps // width, minlength=bins)[:bins].astype(np.float64)
    middle = found.start + (np.arange(bins) + 0.5) * bin
    hertz = counts * (1000 / (bin * max(found.size, 1)))
    return middle, hertz if sigma is None else _smoothed(hertz, sigma / bin)


def _smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
    """Values weighed with a Gaussian of ``sigma`` bins, cut off at four of these."""
    if sigma <= 0:
        raise ValueError("sigma is positive, or None for no smoothing")
    reach = math.ceil(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)

    def weighed(x: np.ndarray) -> np.ndarray:
        return np.convolve(x, weights)[reach : reach + len(x)]

    smooth: np.ndarray = weighed(values) / weighed(np.ones_like(values))
    return smooth


def isi(spikes: Any, dt: float | None = None) -> np.ndarray:
    """The intervals between one spike of a neuron and its next (ms), of all neurons: one neuron after the other, each in
    the order of time.

    Args:
      spikes: ``Spikes``, or an array ``(steps, neurons)``.
      dt: the length of a step of the array (ms).
    """
    return _intervals(as_spikes(spikes, dt))[0]


def _intervals(spikes: Spikes) -> tuple[np.ndarray, np.ndarray]:
    """The intervals (ms) and which neuron each is of."""
    who = _order(spikes)
    order = np.argsort(who, kind="stable")
    who, when = who[order], spikes.steps[order]
    same = who[1:] == who[:-1]
    return np.diff(when)[same] * spikes.dt, who[1:][same]


def cv(spikes: Any, dt: float | None = None, least: int = 3) -> np.ndarray:
    """The coefficient of variation of the intervals between the spikes of each neuron: 0 for a clock, 1 for a Poisson
    process. Gabbiani and Koch, "Principles of spike train analysis" (1998).

    Args:
      spikes: ``Spikes``, or an array ``(steps, neurons)``.
      dt: the length of a step of the array (ms).
      least: how many intervals a neuron needs.

    Returns:
      ``float64[neurons]``, NaN for neurons with fewer intervals: ``np.nanmean(cv(spikes))``.
    """
    found = as_spikes(spikes, dt)
    intervals, who = _intervals(found)
    count = np.bincount(who, minlength=found.size)
    enough = count >= max(least, 1)
    number = np.where(enough, count, 1)
    mean = np.bincount(who, intervals, minlength=found.size) / number
    variance = np.bincount(who, (intervals - mean[who]) ** 2, minlength=found.size) / number
    return np.where(enough, np.sqrt(variance) / np.where(enough, mean, 1), np.nan)

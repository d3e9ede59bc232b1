"""Running a model: one call simulates, records, and goes on where the last one stopped.

A run is a loop of steps. Called eagerly it is made of *chunks*: one compiled program makes the steps of one chunk, and while it makes
those of the next, what the last one recorded is put away, and of spikes only who spiked when. In a trace, a run is one
loop, and the recording has what it computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax, environ
from stategraph.compile.cached import run_cached
from stategraph.compile.identity import function_key
from stategraph.compile.progress import Live, ProgressBar, as_bar, with_bar
from stategraph.compile.shapes import eval_shape
from stategraph.errors import describe
from stategraph.graph.walk import states
from stategraph.nn.clocks import Clock, clock
from stategraph.nn.monitors import Entry, Monitor, as_spikes, time_step
from stategraph.nn.records import Recording
from stategraph.nn.running_chunks import (
    Listed,
    Room,
    Rooms,
    Shelf,
    Types,
    bytes_of,
    can_list,
    can_reserve,
    chunk_lengths,
    is_sparse,
    room_for,
    rows_of,
    size_of,
    types_of,
    written,
)
from stategraph.nn.running_inputs import Inputs, inputs_of
from stategraph.nn.units import TIME, number
from stategraph.recording import EPOCHS, LOCAL
from stategraph.units import is_quantity, named_unit, quantity


def run(
    model: Any,
    duration: float,
    inputs: Any = None,
    monitor: Mapping[str, Any] | None = None,
    *,
    dt: float | None = None,
    progress: bool | int | ProgressBar = False,
) -> Recording:
    """Run a model for some time, and record. It is the loop

    .. code-block:: python

        for i in range(first, first + steps):
            with environ.context(i=i, t=i * dt):
                model(input)

    compiled, where ``first`` is the number of steps that the model was run for before: its clock, ``model.clock.i``, is State of the
    model (see ``Clock``), so that the next run goes on where this one stops, and ``reset_all_states`` begins at 0.

    Args:
      model: a module whose ``update`` is one step.
      duration: how long (ms, or a quantity), a multiple of ``dt``.
      inputs: what the model is called with: None for nothing; a number; an array (or a pytree of arrays) with one row for every step;
        a function of the time ``t`` (ms), which may return a tuple of arguments; or a tuple of these, one for each argument.
      monitor: what to record after each step, by name. A State or its path (``"E.V"``): its value. ``population.spike``: who
        spiked when. A function of no arguments or of what the model returned: what it returns; it may read State. With
        ``SpikeMonitor(target)`` these are spikes. ``(target, index)`` records ``value[index]``, ``(target, index, every)`` after
        the steps 0, ``every``, 2 ``every``, … of the run.
      dt: the length of a step (ms, or a quantity; then the time that the steps and inputs see has its unit); None for that of
        ``environ``. Steps see it there.
      progress: whether to show a bar, or a ``ProgressBar`` (extra ``progress``).

    Returns:
      A ``Recording``: ``rec.t`` are the times of the steps (ms), ``rec[name]`` what a monitor recorded: arrays with a row for every
      look, or ``Spikes`` with ``times`` (ms) and ``ids``. Called eagerly, the arrays are NumPy's, in the memory of the host.
      In a trace (``jit``, ``vmap``, ``grad``) they are arrays of the program, which can be differentiated; spikes are
      ``Spikes`` whose ``dense`` is ``(steps, neurons)``.

    Raises:
      ValueError: when the duration is no multiple of ``dt``, or inputs have another number of rows than the run has steps.
      EnvironError: when nothing says what ``dt`` is.
      KeyError: for a path without a State.
      IndexError: for an index that does not fit.
      TypeError: for a model, input or monitor of another kind.
      ImportError: when a bar is wanted and tqdm is not installed.

    Example:

    >>> import stategraph as sg
    >>> neurons = sg.nn.init_all_states(sg.nn.LIF(2, tau=20.0))
    >>> with sg.environ.context(dt=0.5):
    ...     rec = sg.nn.run(neurons, 50.0, inputs=1.5, monitor={"V": neurons.V, "spk": neurons.spike})
    ...     later = sg.nn.run(neurons, 50.0, inputs=1.5, monitor={"spk": neurons.spike})
    >>> rec["V"].shape, rec["spk"].times, rec["spk"].ids
    ((100, 2), array([21.5, 21.5, 43.5, 43.5]), array([0, 1, 0, 1], dtype=int32))
    >>> float(later.t[0]), later["spk"].times
    (50.0, array([65.5, 65.5, 87.5, 87.5]))
    """
    if not callable(model):
        raise TypeError(f"run needs a model that can be called, not a {type(model).__name__}")
    counted = clock(model)
    given: Any = environ.get_dt() if dt is None else dt
    step = time_step(given)
    steps = _steps(duration, step)
    unit = given.unit if is_quantity(given) else None
    loop = Loop(Monitor(model, monitor or {}), counted, inputs_of(inputs, steps), step, dt is not None, unit)
    if LOCAL.recorder is not None or _jax.current_trace() is not None:
        return loop.at_once(steps, progress)
    return loop.in_chunks(steps, as_bar(progress))


def _steps(duration: Any, dt: float) -> int:
    """How many steps a run makes."""
    if any(map(_jax.is_tracer, jax.tree.leaves(duration))):
        raise TypeError("the duration of a run has to be known: it is traced")
    given = number(duration, TIME, "The duration of a run")
    if np.ndim(given) or not isinstance(given, (int, float, np.number, np.ndarray, jax.Array)):
        raise TypeError(f"the duration of a run is a number of ms, or a quantity, not {duration!r}")
    length = float(given)
    ratio = length / dt
    if not (math.isfinite(ratio) and ratio >= 0):
        raise ValueError(f"a run has a duration of 0 ms or more, not {duration!r}")
    steps = round(ratio)
    if steps >= 2**31:
        raise ValueError(
            describe(
                f"A run of {length:g} ms has {steps} steps of dt={dt:g} ms.",
                why="the clock of a model counts them with 32 bits",
                fix="a larger dt, or a shorter run",
            )
        )
    if abs(ratio - steps) > max(1e-4, 1e-7 * ratio):
        low, high = math.floor(ratio), math.ceil(ratio)
        raise ValueError(
            describe(
                f"A duration of {length:g} ms is not a multiple of dt={dt:g} ms.",
                why=f"{low} steps are {low * dt:g} ms, {high} steps {high * dt:g} ms",
                fix=f"stategraph.nn.run(model, {steps * dt:g}, ...), or another dt",
            )
        )
    return steps


@attrs.frozen(eq=False)
class Loop:
    """The steps of a run."""

    monitor: Monitor
    clock: Clock
    inputs: Inputs
    dt: float
    sets_dt: bool
    """Whether the steps see ``dt`` as a setting of their own."""
    unit: Any
    """The unit in which ``dt`` was given, and the steps see the time; None for a plain number (ms)."""

    def body(self, steps: int, spikes_as_bool: bool, listed: bool = False) -> Callable[..., Any]:
        """A function that makes steps: of how many the run has made before, the rows and constants of the inputs, room for rows
        by the names of monitors, and how many steps were made before those that it is for; what others look at is stacked. It
        returns the number of the first step, and what is recorded: spikes as the program has them, as bools, or listed.
        """

        def loop(
            model: Any,
            before: Any,
            rows: list[Any],
            constants: list[Any],
            begin: Any,
            rooms: dict[str, Room],
            bar: Any = None,
        ) -> Any:
            first = self.clock.first(self.dt)
            trees: dict[str, Any] = {}

            def step(rooms: dict[str, Room], now: Any) -> Any:
                k, row = now
                looked = self.step(first + k, row, constants)
                for entry in self.monitor.entries:
                    if entry.name in rooms:
                        value = looked.pop(entry.name)
                        trees[entry.name] = jax.tree.structure(value)
                        room = written(entry, rooms[entry.name], value, before + k, begin)
                        rooms = {**rooms, entry.name: room}
                    elif entry.spikes and spikes_as_bool:
                        looked[entry.name] = looked[entry.name] != 0
                return rooms, looked

            def scan(step: Any, carry: Any) -> Any:
                return jax.lax.scan(step, carry, (jnp.arange(steps, dtype=jnp.int32), rows))

            filled, stacked = with_bar(bar, scan, step, rooms, steps)
            if listed:
                spikes = [entry.name for entry in self.monitor.entries if entry.spikes]
                stacked |= {name: Listed.of(stacked[name]) for name in spikes}
            self.clock.advance(first, steps, self.dt)
            return first, stacked | {name: jax.tree.unflatten(trees[name], filled[name]) for name in filled}

        loop.__name__ = "run"
        return partial(
            loop, self.monitor.model
        )  # States of the program have the names that they have in the model

    def step(self, i: Any, row: list[Any], constants: list[Any]) -> dict[str, Any]:
        """Step ``i``: what is looked at after it."""
        given = self.dt if self.unit is None else quantity(self.dt, named_unit(TIME)).in_unit(self.unit)
        settings: dict[str, Any] = {environ.DT: given} if self.sets_dt else {}
        t = i * given
        with environ.context(**settings, i=i, t=t):
            return self.monitor(*self.inputs.call(row, constants, t))

    def at_once(self, steps: int, progress: Any) -> Recording:
        """All steps as one loop, in a trace."""
        rooms = {}
        for entry in self.monitor.entries:
            if is_sparse(entry):
                types = types_of(entry, jax.tree.leaves(entry.target.value))
                rooms[entry.name] = room_for(types, entry.every, steps)
        loop = self.body(steps, spikes_as_bool=False)
        first, found = loop(0, self.inputs.rows(0, steps), self.inputs.constants(), 0, rooms, progress)
        for entry in self.monitor.entries:
            if entry.spikes:
                found[entry.name] = as_spikes(entry, found[entry.name], first, steps, self.dt)
            else:
                found[entry.name] = rows_of(entry, found[entry.name], 0, steps, entry.name in rooms)
        return Recording(
            {entry.name: found[entry.name] for entry in self.monitor.entries},
            {entry.name: entry.every for entry in self.monitor.entries},
            steps,
            self.dt,
            first,
        )

    def in_chunks(self, steps: int, bar: ProgressBar | None) -> Recording:
        """The steps chunk by chunk; what a chunk recorded is put away, if it does not stay where it is, while the next one
        runs.
        """
        entries = self.monitor.entries
        shelves = {entry.name: Shelf(entry, steps, self.dt) for entry in entries}
        live = None if bar is None else Live(bar, steps)
        listed, types = can_list(), self._types(steps)
        roomed = [entry for entry in entries if not entry.spikes and entry.name in types]
        rooms = Rooms(roomed if can_reserve(self.monitor.model) else [], types, steps)
        moving = [entry for entry in entries if not rooms.kept(entry.name)]
        lengths = chunk_lengths(steps, *self._sizes(moving, types, listed), live is not None)
        began: Any = None
        done = 0
        waiting: tuple[Any, ...] = ()

        def put_away(before: int, length: int, found: dict[str, Any]) -> None:
            for entry in moving:
                shelves[entry.name].put(before, length, found[entry.name], entry.name in rooms.entries)

        if live is not None:
            live.start()
        clerk = None
        if len(lengths) > 1 and not all(listed and entry.spikes for entry in moving):
            clerk = ThreadPoolExecutor(1, "stategraph-run")  # spikes are put away sooner than it wakes
        try:
            for length in lengths:
                away = clerk.submit(put_away, *waiting) if clerk is not None and waiting else None
                first, found = self._chunk(done, length, listed, rooms)
                began = first if began is None else began
                if clerk is None and waiting:
                    put_away(*waiting)
                if away is not None:
                    away.result()
                if waiting or rooms.whole:
                    rooms.give(found if rooms.whole else waiting[-1])
                waiting = (done, length, found)
                done += length
                if live is not None:
                    jax.block_until_ready(first)
                    live.move(done, {"i": done})
            put_away(*waiting)
            for name in shelves.keys() - {entry.name for entry in moving}:
                shelves[name].put(0, steps, found[name], roomed=True)
        finally:
            rooms.close()
            if clerk is not None:
                clerk.shutdown()
            if live is not None:
                live.close()
        start = int(began)
        return Recording(
            {name: shelf.recorded(start) for name, shelf in shelves.items()},
            {entry.name: entry.every for entry in entries},
            steps,
            self.dt,
            start,
        )

    def _chunk(self, before: int, length: int, listed: bool, rooms: Rooms) -> Any:
        """One chunk, compiled once for all of this length. It takes room: what it returns is where that was."""
        rows, constants = self.inputs.rows(before, before + length), self.inputs.constants()
        begin, room = np.int32(0 if rooms.whole else before), rooms.take(length)
        operands = (np.int32(before), rows, constants, begin)
        if _jax.under_disable_jit():
            return self.body(length, spikes_as_bool=True, listed=listed)(*operands, room)
        functions, others, options = self._identity()

        def body_of(*functions: Any) -> Callable[..., Any]:
            return self._of(functions).body(length, spikes_as_bool=True, listed=listed)

        return run_cached(
            "run", functions, (length, listed, options), body_of, operands, donated=room, also=others
        )

    def _identity(self) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
        """What a step does: the functions that it calls, the other objects that it computes with, and the rest."""
        entries = self.monitor.entries
        functions = (*self.inputs.functions, *[entry.target for entry in entries if _is_function(entry)])
        others = (self.monitor.model, *[entry.target for entry in entries if not _is_function(entry)])
        return (
            functions,
            others,
            (
                self.dt,
                self.sets_dt,
                str(self.unit),
                self.inputs.key,
                tuple([entry.key for entry in entries]),
            ),
        )

    def _of(self, functions: Sequence[Any]) -> Loop:
        """The same loop with other functions (see ``_identity``)."""
        given = iter(functions)
        return attrs.evolve(
            self,
            inputs=self.inputs.of(given),
            monitor=self.monitor.of(
                [attrs.evolve(e, target=next(given)) if _is_function(e) else e for e in self.monitor.entries]
            ),
        )

    def _types(self, steps: int) -> dict[str, Types]:
        """What a step gives, by the names of monitors."""
        functions = [entry for entry in self.monitor.entries if _is_function(entry)]
        found = self._types_of_functions() if functions and steps else {}
        for entry in self.monitor.entries:
            if entry.kind == "state":
                found[entry.name] = types_of(entry, entry.target._peek())
            elif entry.kind == "spike":
                found[entry.name] = types_of(entry, [np.empty(entry.shape or (), np.bool_)])
        return found

    def _sizes(self, moving: Sequence[Entry], types: dict[str, Types], listed: bool) -> tuple[float, int]:
        """What a step records for those monitors: bytes, and how many places spikes take at most where they are listed."""
        nbytes, places = 0.0, 0
        for entry in moving:
            found = types.get(entry.name, [])
            if not entry.spikes:
                nbytes += bytes_of(found) / entry.every
            elif listed:
                places += size_of(found)
            else:
                nbytes += size_of(found)
        return nbytes, places

    def _types_of_functions(self) -> dict[str, Types]:
        """What functions return is known when a step was traced; that is done once for each model and what it does."""
        functions, others, options = self._identity()
        key = (options, function_key((*functions, *others)))
        kept = _TYPES.setdefault(self.monitor.model, {})
        if key not in kept or kept[key][0] != self._guard():
            row = [leaf[0] for leaf in self.inputs.rows(0, 1)]
            looked = eval_shape(lambda i: self.step(i, row, self.inputs.constants()), jnp.int32(0))
            found = {name: jax.tree.leaves(value) for name, value in looked.items()}
            kept[key] = self._guard(), found
        return dict(kept[key][1])

    def _guard(self) -> Hashable:
        """What else the types of results depend on: attributes, and the types of States."""
        held = [leaf for state in states(self.monitor.model).values() for leaf in state._peek()]
        return EPOCHS.structure, tuple([(np.shape(leaf), getattr(leaf, "dtype", None)) for leaf in held])


def _is_function(entry: Entry) -> bool:
    return entry.kind.startswith("function")


_TYPES: WeakKeyDictionary[Any, dict[Hashable, tuple[Any, dict[str, Types]]]] = WeakKeyDictionary()
"""What steps give, by the names of monitors, each with the guard that has to hold."""

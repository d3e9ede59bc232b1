"""Monitors: what is looked at after each step of a model.

A *target* is a State or its path, the ``spike`` of a population, or a function: of no arguments, or of what the model returned.
An *entry* is a target with a name, an index into its value, and how many steps lie between two looks.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MethodType
from typing import Any

import attrs
import jax
import numpy as np

from stategraph import _jax, environ
from stategraph.errors import describe
from stategraph.graph.node import Node
from stategraph.graph.walk import nodes, states
from stategraph.nn.clocks import ATTRIBUTE
from stategraph.nn.listening import Listener, Spiking
from stategraph.nn.module_views import dotted
from stategraph.nn.records import Recording
from stategraph.nn.units import TIME, number
from stategraph.spikes import Spikes
from stategraph.state import State

Target = State[Any] | str | Callable[..., Any]


class SpikeMonitor:
    """A target whose values are spikes, where they are not 0: only who spiked when is kept. ``population.spike`` is one by
    itself; this is for States and functions.

    Args:
      target: a State or its path, ``population.spike``, or a function: of no arguments, or of what the model returned.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Network(sg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.neurons = sg.nn.LIF(2, tau=20.0)
    ...     def update(self, x):
    ...         return self.neurons(x) > 0
    >>> network = sg.nn.init_all_states(Network())
    >>> monitor = {"spk": sg.nn.SpikeMonitor(lambda output: output)}
    >>> rec = sg.nn.run(network, 50.0, lambda t: jnp.array([0.5, 1.5]), monitor, dt=1.0)
    >>> rec["spk"].times, rec["spk"].ids
    (array([21., 43.]), array([1, 1], dtype=int32))
    """

    def __init__(self, target: Target) -> None:
        self.target = target


@attrs.frozen(eq=False)
class Entry:
    """One thing that is looked at."""

    name: str
    target: Any
    """A State, a population (for what it returned), or a function."""
    kind: str
    """``state``, ``spike``, ``function``, or ``function of output``."""
    index: Any
    every: int
    spikes: bool
    shape: tuple[int, ...] | None
    """The shape of the population, where it is known."""

    @property
    def key(self) -> Hashable:
        """What a program depends on, but for the target."""
        return (self.name, self.kind, _index_key(self.index), self.every, self.spikes)

    def look(self, listener: Listener, output: Any) -> Any:
        """The value after a step in which the model returned ``output``."""
        if self.kind == "state":
            value = self.target.value
        elif self.kind == "spike":
            value = listener.spikes_of(self.target)
        else:
            value = self.target(output) if self.kind == "function of output" else self.target()
        return value if self.index is None else jax.tree.map(lambda leaf: leaf[self.index], value)

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What the index leaves of a value of ``shape``."""
        value = np.broadcast_to(np.int8(0), shape)
        return np.shape(value if self.index is None else value[self.index])

    def members(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The places in a population of ``shape`` that the index leaves; None for all."""
        if self.index is None:
            return None
        places = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)[self.index]
        return tuple(places.reshape(-1).tolist())


def entries_of(model: Any, monitor: Mapping[str, Any] | None) -> tuple[Entry, ...]:
    """The entries of what a user gave for ``monitor``."""
    if monitor is None:
        return ()
    if not isinstance(monitor, Mapping):
        raise TypeError(
            describe(
                f"monitor is a dict of what to record by name, not a {type(monitor).__name__}.",
                fix="monitor={'V': net.E.V, 'spk': net.E.spike}",
            )
        )
    return tuple([_entry(model, name, given) for name, given in monitor.items()])


def _entry(model: Any, name: str, given: Any) -> Entry:
    parts = given if isinstance(given, tuple) else (given,)
    if not 1 <= len(parts) <= 3:
        raise TypeError(f"the monitor {name!r} is a target, (target, index), or (target, index, every)")
    target, index, every = [*parts, None, 1][:3] if len(parts) != 2 else [*parts, 1]
    if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
        raise ValueError(f"the monitor {name!r} looks every {every!r} steps: this is a number of at least 1")
    spikes = isinstance(target, SpikeMonitor)
    if isinstance(target, SpikeMonitor):
        target = target.target
    if isinstance(target, str):
        target = _at_path(model, name, target)
    kind, target = _kind(name, target)
    spikes = spikes or kind == "spike"
    if spikes and every != 1:
        raise ValueError(
            describe(
                f"The monitor {name!r} looks for spikes every {every} steps.",
                why="it would miss those of the steps in between",
                fix="leave it at every step",
            )
        )
    shapes = _shapes(target, kind)
    return Entry(
        name, target, kind, _index(name, index, shapes), int(every), spikes, shapes[0] if shapes else None
    )


def _kind(name: str, target: Any) -> tuple[str, Any]:
    if isinstance(target, State):
        if any(_jax.is_key_array(leaf) for leaf in target._peek()):
            raise TypeError(
                f"the monitor {name!r} is a random key; monitor lambda: jax.random.key_data(state.value)"
            )
        return "state", target
    if _is_spike(target):
        return "spike", target.__self__
    if isinstance(target, Node):
        held = [dotted(where) for where in states(target)]
        held += ["spike"] * isinstance(target, Spiking)
        raise TypeError(
            describe(
                f"The monitor {name!r} is a {type(target).__name__} itself.",
                why="calling it would make another step of it",
                fix=f"monitor={{{name!r}: {type(target).__name__.lower()}.{held[0]}}}"
                if held
                else f"monitor={{{name!r}: lambda: ...}}, a function that reads its State",
            )
        )
    if callable(target):
        return ("function of output" if _takes_one(target) else "function"), target
    raise TypeError(
        describe(
            f"The monitor {name!r} is a {type(target).__name__}.",
            why="what can be recorded are States, paths of States, the spikes of populations, and functions",
            fix="monitor={'V': net.E.V, 'spk': net.E.spike, 'mean': lambda: net.E.V.value.mean()}",
        )
    )


def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether a function needs an argument."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        for one in parameters
    )


def _at_path(model: Any, name: str, path: str) -> Any:
    """The State at a path, or the ``spike`` of the population at one."""
    found = model
    for part in path.split("."):
        found = _below(found, part)
    if isinstance(found, State) or _is_spike(found):
        return found
    known = [dotted(where) for where in states(model)]
    initialised = any(where.split(".")[-2:-1] != [ATTRIBUTE] for where in known)
    known += [dotted((*where, "spike")) for where, node in nodes(model).items() if isinstance(node, Spiking)]
    close = difflib.get_close_matches(path, known, n=3, cutoff=0.3) or known[:5]
    raise KeyError(
        describe(
            f"The monitor {name!r} is at {path!r}, where {type(model).__name__} has no State.",
            why=f"there are {', '.join(map(repr, close))}" if close else "it has none",
            fix=f"monitor={{{name!r}: {close[0]!r}}}"
            if close and initialised
            else "stategraph.nn.init_all_states(model) first",
        )
    )


def _below(owner: Any, part: str) -> Any:
    """What is at one part of a path: an attribute, or an item of a list, tuple or dict; None for nothing."""
    if isinstance(owner, Mapping):
        return owner.get(part)
    if isinstance(owner, (list, tuple)):
        return owner[int(part)] if part.isdigit() and int(part) < len(owner) else None
    return getattr(owner, part, None)


def _is_spike(found: Any) -> bool:
    return isinstance(found, MethodType) and found.__func__ is Spiking.spike


# ---------------------------------------------------------------------------------------------------- indices


def _shapes(target: Any, kind: str) -> list[tuple[int, ...]]:
    """The shapes of the values, where they are known: those that an index has to fit."""
    if kind == "state":
        return [np.shape(leaf) for leaf in target._peek()]
    if kind != "spike":
        return []
    size = tuple(target._in_size)
    found = [np.shape(leaf) for state in states(target).values() for leaf in state._peek()]
    return [next((shape for shape in found if shape[len(shape) - len(size) :] == size), size)]


def _index(name: str, index: Any, shapes: list[tuple[int, ...]]) -> Any:
    """An index as it is kept: lists and arrays as NumPy arrays."""
    if index is None:
        return None
    if any(_jax.is_tracer(leaf) for leaf in jax.tree.leaves(index)):
        raise TypeError(f"the index of the monitor {name!r} has to be known: it is traced")
    kept = tuple(map(_part, index)) if isinstance(index, tuple) else _part(index)
    for shape in shapes:
        try:
            np.broadcast_to(np.int8(0), shape)[kept]
        except (IndexError, TypeError, ValueError) as error:
            raise IndexError(
                describe(
                    f"The monitor {name!r} has the index {index!r}, which does not fit a value of the shape {shape}.",
                    why=str(error),
                    fix=f"monitor={{{name!r}: (state, index)}} records state.value[index]",
                )
            ) from error
    return kept


def _part(part: Any) -> Any:
    if isinstance(part, (int, slice)) or part is Ellipsis:
        return part
    return np.asarray(part)


def _index_key(index: Any) -> Hashable:
    if isinstance(index, tuple):
        return tuple(map(_index_key, index))
    if isinstance(index, np.ndarray):
        return (str(index.dtype), index.shape, index.tobytes())
    return repr(index)


# --------------------------------------------------------------------------------------------------- by itself


class Monitor:
    """A model that tells what is looked at, step by step, for loops of your own: calling it makes one step of the model and
    returns the values, a dict; ``recording`` makes of the stacked values what ``nn.run`` returns.

    Args:
      model: a module.
      monitor: what to look at, by name, as for ``nn.run``.

    Raises:
      KeyError: for a path without a State.
      IndexError: for an index that does not fit.
      TypeError: for what cannot be looked at.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neurons = sg.nn.init_all_states(sg.nn.LIF(2, tau=20.0))
    >>> monitor = sg.nn.Monitor(neurons, {"V": (neurons.V, 1, 10), "spk": neurons.spike})
    >>> with sg.environ.context(dt=1.0):
    ...     values = sg.compile.for_loop(lambda i: monitor(jnp.array([0.5, 1.5])), jnp.arange(50))
    ...     rec = monitor.recording(values)
    >>> rec["V"].shape, rec["spk"].times
    ((5,), array([21., 43.]))
    """

    def __init__(self, model: Any, monitor: Mapping[str, Any]) -> None:
        self.model = model
        self.entries = entries_of(model, monitor)
        self._wanted = frozenset(id(entry.target) for entry in self.entries if entry.kind == "spike")

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """One step of the model; what is looked at, by name."""
        with Listener(self._wanted) as listener:
            output = self.model(*args, **kwargs)
            return {entry.name: entry.look(listener, output) for entry in self.entries}

    def of(self, entries: Sequence[Entry]) -> Monitor:
        """The same model, looked at in another way."""
        new = copy.copy(self)
        new.entries = tuple(entries)
        return new

    def recording(self, values: Mapping[str, Any], dt: float | None = None, first: Any = 0) -> Recording:
        """What was looked at in a loop, as ``nn.run`` returns it.

        Args:
          values: the results of the steps, stacked: ``(steps, ...)``.
          dt: the length of a step (ms); None for that of ``environ``.
          first: the number of the first step.
        """
        step = time_step(environ.get_dt() if dt is None else dt)
        length = next((int(leaf.shape[0]) for leaf in jax.tree.leaves(values)), 0)
        return recorded(self.entries, {**values}, length, step, first)


def time_step(dt: Any) -> float:
    """The length of a step (ms)."""
    if any(map(_jax.is_tracer, jax.tree.leaves(dt))):
        raise TypeError("the time step dt has to be known: it is traced")
    step = float(number(dt, TIME, "The time step dt"))
    if not (step > 0 and math.isfinite(step)):
        raise ValueError(f"the time step dt is positive, not {dt!r}")
    return step


def recorded(
    entries: tuple[Entry, ...], values: dict[str, Any], length: int, dt: float, first: Any
) -> Recording:
    """A recording of values that were stacked at every step."""
    found = {}
    for entry in entries:
        rows = jax.tree.map(lambda leaf, every=entry.every: leaf[::every], values[entry.name])
        found[entry.name] = as_spikes(entry, rows, first, length, dt) if entry.spikes else rows
    return Recording(found, {entry.name: entry.every for entry in entries}, length, dt, first)


def as_spikes(entry: Entry, values: Any, first: Any, length: int, dt: float) -> Spikes:
    """Stacked values of a monitor of spikes."""
    rows = values.reshape(length, -1) if values.ndim < 2 else values
    if entry.index is None or entry.shape is None:
        return Spikes.from_dense(rows, dt, first)
    return Spikes.from_dense(
        rows.reshape(length, -1), dt, first, shape=entry.shape, members=entry.members(entry.shape)
    )

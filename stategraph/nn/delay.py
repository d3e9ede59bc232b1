"""Delays: the values that something had some time ago.

A ``Delay`` keeps the last values that were given to ``update`` in a ring buffer: a ``DelayState`` with a leading axis of
slots, of which each update overwrites the oldest, in place. Delays are times in the unit of ``environ``'s ``dt``, or numbers
of steps: a delay of 0 is the value of the last update. An *entry* is a delay with a name, registered before the buffer is
made, so that the buffer is long enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax, environ, init, units
from stategraph.errors import StateAccessError, describe
from stategraph.graph.node import Node
from stategraph.nn.collective import call_order
from stategraph.nn.interpolation import INTERPOLATIONS, nearest
from stategraph.nn.module import Module
from stategraph.nn.units import TIME, now, number, step
from stategraph.state import DelayState, ShortTermState, State

METHODS = ("rotation", "concat")


class Delay(Module):
    """A ring buffer of the last values of something.

    Args:
      target_info: an array (or ``ShapeDtypeStruct``, or a pytree of these) with the shape and type of a value.
      time: the longest delay; longer ones can be registered.
      init: what the buffer holds at first: a number, an array, or an initialiser; None for zeros.
      entries: delays by name; a delay is a time (or an array of times), or a tuple of a time and indices into the value.
      interpolation: what ``retrieve_at_time`` gives between two steps: ``linear`` interpolation (also called
        ``linear_interp``), the value of the nearest (``round``, also called ``nearest``), a ``cubic`` spline (also called
        ``hermite``), the polynomial through three or four steps (``polynomial2``, ``polynomial3``), or a function
        ``(history, indices, position, max_length)`` of the buffer, a tuple of indices into a value, the place of the time
        in the buffer, a float, and its length; None for what ``interp_method`` says. See ``stategraph.nn.interpolation``.
      take_aware_unit: changes nothing: the buffer always has the units of ``target_info``, and a value in another unit of
        the same dimension is converted.
      update_every: the time between two slots, a multiple of ``dt``: of the updates in between the buffer keeps none.
      delay_method: ``rotation`` or ``concat``, two ways to keep the same values: the buffer is a ring with either.
      interp_method: ``interpolation``, where that is None.

    Raises:
      UnitError: ``update`` is given a value that is not in a unit of the dimension that ``target_info`` has.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> with sg.environ.context(dt=0.1):
    ...     delay = sg.nn.init_all_states(sg.nn.Delay(jnp.zeros(1), entries={"late": 0.2}))
    >>> for i in range(5):
    ...     delay.update(jnp.full(1, float(i)))
    >>> delay.at("late"), delay.retrieve_at_step(0)
    (Array([2.], dtype=float32), Array([4.], dtype=float32))
    """

    history: DelayState[Any]
    """The buffer: ``(max_length, *batch, *shape)``."""
    write_ptr: ShortTermState[jax.Array]
    """How often the delay was updated, modulo the number of updates that fill the buffer."""

    def __init__(
        self,
        target_info: Any,
        time: Any = None,
        init: Any = None,
        entries: Mapping[str, Any] | None = None,
        interpolation: str | Callable[..., Any] | None = None,
        take_aware_unit: bool = False,
        update_every: float | None = None,
        delay_method: str = "rotation",
        interp_method: str = "linear_interp",
    ) -> None:
        super().__init__()
        if delay_method not in METHODS:
            raise ValueError(f"delay_method is one of {', '.join(METHODS)}, not {delay_method!r}")
        interpolation = interp_method if interpolation is None else interpolation
        if not callable(interpolation) and interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation is one of {', '.join(INTERPOLATIONS)}, or a function; not {interpolation!r}"
            )
        self.target_info = _shapes(target_info)
        self.interpolation = interpolation
        self.update_every_step = 1 if update_every is None else _updates(update_every)
        self.max_length = 1
        self._init = init
        self._entries: dict[str, Any] = {}
        if time is not None:
            self.register_delay(time)
        for name, given in (entries or {}).items():
            self.register_entry(name, *(given if isinstance(given, (tuple, list)) else (given,)))

    # -------------------------------------------------------------------------------------------- registering

    @property
    def max_time(self) -> float:
        """The longest delay that the buffer holds."""
        return float((self.max_length - 1) * self.update_every_step * step())

    def register_delay(self, time: Any, *indices: Any) -> tuple[Any, ...]:
        """Make the buffer long enough for a delay.

        Args:
          time: the delay, a time or an array of times; None for 0.
          *indices: what of the delayed value is meant: integer arrays that broadcast with the times, or slices.

        Returns:
          The delay in slots, and the indices.
        """
        slots = 0 if time is None else _slots(time, self.update_every_step)
        needed = int(np.max(slots, initial=0)) + 1
        if needed > self.max_length:
            if "history" in vars(self):
                raise StateAccessError(
                    describe(
                        f"A delay of {time} is registered with a buffer for {self.max_time}.",
                        why="the buffer was made by init_state already",
                        fix="register delays before init_state, or give Delay(..., time=...) the longest",
                    )
                )
            self.max_length = needed
        return (slots, *indices)

    def register_entry(self, entry: str, *time_and_idx: Any) -> tuple[Any, ...]:
        """Give a delay a name.

        Args:
          entry: the name.
          *time_and_idx: the delay and indices, as for ``register_delay``.

        Returns:
          The delay in slots, and the indices.
        """
        if entry in self._entries:
            raise KeyError(f"the delay entry {entry!r} is registered already, as {self._entries[entry]}")
        found = self.register_delay(*(time_and_idx or (None,)))
        self._entries = {**self._entries, entry: found}
        return found

    def access(self, entry: str, *time_and_idx: Any) -> DelayAccess:
        """Register an entry, and give a function of no arguments for its delayed value."""
        return DelayAccess(self, *time_and_idx, entry=entry)

    # --------------------------------------------------------------------------------------------- its State

    @call_order(3)
    def init_state(self, batch_size: int | None = None) -> None:
        """Make the buffer.

        Args:
          batch_size: the length of a batch axis of the values; None for none.
        """
        batch = () if batch_size is None else (batch_size,)
        self.write_ptr = ShortTermState(jnp.zeros((), jnp.int32))
        self.history = DelayState(self._first(batch))

    def reset_state(self, batch_size: int | None = None) -> None:
        """Put the buffer back to where ``init_state`` left it.

        Args:
          batch_size: the length of the batch axis; None to keep the axes that it has.
        """
        history, shape = self._buffer(), jax.tree.leaves(self.target_info)[0].shape
        now = jax.tree.leaves(history.value)[0].shape
        batch = now[1 : len(now) - len(shape)] if batch_size is None else (batch_size,)
        self.write_ptr.value = jnp.zeros_like(self.write_ptr.value)
        history.value = self._first(batch)

    def _first(self, batch: tuple[int, ...]) -> Any:
        def filled(info: Any) -> Any:
            shape = (self.max_length, *batch, *info.shape)
            if isinstance(self._init, init.Initializer):
                return self._init(shape, info.dtype)
            first = 0 if self._init is None else init.param(self._init, shape)
            return jnp.broadcast_to(jnp.asarray(first, info.dtype), shape)

        return jax.tree.map(filled, self.target_info)

    def _buffer(self) -> DelayState[Any]:
        history: DelayState[Any] | None = vars(self).get("history")
        if history is None:
            raise StateAccessError(
                describe(
                    f"The {type(self).__name__} has no buffer yet.",
                    fix="stategraph.nn.init_all_states(model) before the first step",
                )
            )
        return history

    # ------------------------------------------------------------------------------------ writing and reading

    def update(self, current: Any) -> None:
        """Put a value into the buffer, as the newest."""
        history, count = self._buffer(), self.write_ptr.value
        current = self._in_own_units(history, current)
        every = self.update_every_step
        slot = count // every
        kept = jnp.where(
            count % every == 0, slot, self.max_length
        )  # there is no slot max_length: nothing is written

        def written(buffer: jax.Array, value: Any) -> jax.Array:
            newest: jax.Array = jnp.asarray(value, buffer.dtype)
            if every > 1:
                return buffer.at[kept].set(newest, mode="drop")
            following: jax.Array = jax.lax.dynamic_update_index_in_dim(buffer, newest, slot, 0)
            return following

        history.value = jax.tree.map(written, history.value, current)
        self.write_ptr.value = (count + 1) % (self.max_length * every)

    def _in_own_units(self, history: DelayState[Any], current: Any) -> Any:
        """A value in the units of the buffer."""
        if units.loaded() is None:
            return current
        leaves, tree = jax.tree.flatten(current)
        alone = jax.tree.structure(0)
        given, held = (
            None if _jax.same_tree(t, alone) else t for t in (tree, jax.tree.structure(history.value))
        )
        leaves, fitted = units.fitted(history, leaves, given, held, _jax.here())
        return jax.tree.unflatten(alone if fitted is None else fitted, leaves)

    def at(self, entry: str) -> Any:
        """The delayed value of an entry."""
        if entry not in self._entries:
            raise KeyError(
                describe(
                    f"There is no delay entry {entry!r}.",
                    why=f"registered are {', '.join(map(repr, self._entries)) or 'none'}",
                    fix=f"delay.register_entry({entry!r}, time)",
                )
            )
        return self.retrieve_at_step(*self._entries[entry])

    def retrieve_at_step(self, delay_step: Any, *indices: Any) -> Any:
        """The value of some updates ago (slots ago, with ``update_every``).

        Args:
          delay_step: how many: a number or an array of numbers; 0 for the last. Traced ones have to be within the buffer;
            others are checked.
          *indices: what of the value: integer arrays that broadcast with the steps, or slices.

        Returns:
          ``value[step][indices]``; for an array of steps with the axes of the steps first. For floats, the value between two
          updates as ``interpolation`` says.
        """
        history = self._buffer()
        if isinstance(delay_step, (int, float, np.number, np.ndarray)) and not (
            np.min(delay_step, initial=0) >= 0 and np.max(delay_step, initial=0) <= self.max_length - 1
        ):
            raise ValueError(
                describe(
                    f"The value of {delay_step} steps ago is not in the buffer.",
                    why=f"it holds steps 0 to {self.max_length - 1}",
                    fix="register the delay, or give Delay(..., time=...) the longest",
                )
            )
        if jnp.issubdtype(jnp.result_type(delay_step), jnp.floating):
            return self._between(jnp.asarray(delay_step), indices)
        place = self._place(delay_step)
        return jax.tree.map(lambda buffer: buffer[(place, *indices)], history.value)

    def retrieve_at_time(self, delay_time: Any, *indices: Any) -> Any:
        """The value at a time in the past: ``environ``'s ``t`` is the time of the last update.

        Args:
          delay_time: the time, between now and the longest delay ago.
          *indices: what of the value, as for ``retrieve_at_step``.

        Returns:
          The value, between two updates as ``interpolation`` says.
        """
        delay_time = number(delay_time, TIME, "A time in the past")
        return self._between((now() - jnp.asarray(delay_time)) / (step() * self.update_every_step), indices)

    def _between(self, slots: jax.Array, indices: tuple[Any, ...]) -> Any:
        """The value of some slots ago, a float or an array of floats."""
        if callable(self.interpolation):
            position = (self.write_ptr.value - 1) // self.update_every_step - slots
            return self.interpolation(self._buffer().value, indices, position, self.max_length)
        between = INTERPOLATIONS[self.interpolation]
        if between is nearest:
            return nearest(lambda slot: self.retrieve_at_step(slot, *indices), slots, self.max_length)

        def found(buffer: jax.Array) -> jax.Array:
            dtype = buffer.dtype if jnp.issubdtype(buffer.dtype, jnp.inexact) else environ.dftype()
            return between(
                lambda slot: buffer[(self._place(slot), *indices)].astype(dtype), slots, self.max_length
            )

        return jax.tree.map(found, self._buffer().value)

    def _place(self, slot: Any) -> jax.Array:
        """Where in the buffer the value of some slots ago is."""
        newest = (self.write_ptr.value - 1) // self.update_every_step
        place: jax.Array = (newest - jnp.asarray(slot, jnp.int32)) % self.max_length
        return place


def _shapes(target: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)), target)


def _slots(time: Any, every: int) -> Any:
    """A delay (or an array of delays) in slots, rounded up."""
    slots = np.ceil(exact_slots(time, every)).astype(np.int32)
    return int(slots) if slots.ndim == 0 else slots


def exact_slots(time: Any, every: int = 1) -> np.ndarray[Any, Any]:
    """A delay (or an array of delays) in slots; what is within rounding of a whole number is that."""
    spacing, time = step() * every, number(time, TIME, "A delay")
    slots: np.ndarray[Any, Any] = np.round(np.asarray(time, np.float64) / spacing, 6)
    if np.min(slots, initial=0) < 0:
        raise ValueError(f"a delay is not negative, but {time} is")
    return slots


def _updates(update_every: float) -> int:
    update_every = number(update_every, TIME, "update_every")
    ratio: float = update_every / step()
    if round(ratio) < 1 or not math.isclose(ratio, round(ratio), rel_tol=1e-6):
        raise ValueError(f"update_every={update_every} is not a multiple of dt={step()}")
    return round(ratio)


class DelayAccess(Node):
    """A function of no arguments for a delayed value.

    Args:
      delay: the delay.
      *time: the delay and indices, as for ``Delay.register_delay``.
      entry: the name of the entry that is registered.
    """

    def __init__(self, delay: Delay, *time: Any, entry: str) -> None:
        if not isinstance(delay, Delay):
            raise TypeError(f"DelayAccess needs a Delay, not a {type(delay).__name__}")
        self.delay = delay
        self.entry = entry
        self.delay_info = delay.register_entry(entry, *time)

    def __call__(self) -> Any:
        return self.delay.at(self.entry)


class StateWithDelay(Delay):
    """The delay of a State of another module. Its ``update()`` takes no argument: it reads the State.

    Args:
      target: the module.
      item: the attribute that is the State.
      init: what the buffer holds at first; None for zeros.
      interpolation: see ``Delay``.
      **kwargs: other arguments of ``Delay``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> cell = sg.nn.init_all_states(sg.nn.GRUCell(2, 3))
    >>> with sg.environ.context(dt=1.0):
    ...     delayed = sg.nn.init_all_states(sg.nn.StateWithDelay(cell, "h", time=2.0))
    >>> delayed.update()
    >>> delayed.retrieve_at_step(0).shape
    (3,)
    """

    def __init__(
        self, target: Any, item: str, init: Any = None, interpolation: str = "round", **kwargs: Any
    ) -> None:
        super().__init__((), init=init, interpolation=interpolation, **kwargs)
        self._target = target
        self._item = item

    @property
    def state(self) -> State[Any]:
        """The State."""
        found = getattr(self._target, self._item, None)
        if not isinstance(found, State):
            raise TypeError(
                describe(
                    f"{type(self._target).__name__} has no State {self._item!r}.",
                    why=f"it is {'missing' if found is None else 'a ' + type(found).__name__}",
                    fix="stategraph.nn.init_all_states(...) of the module first, if it makes it",
                )
            )
        return found

    @call_order(3)
    def init_state(self) -> None:  # type: ignore[override]
        """Make the buffer, for values of the shape that the State has now."""
        self.target_info = _shapes(self.state.value)
        super().init_state()

    def reset_state(self) -> None:  # type: ignore[override]
        """Put the buffer back to where ``init_state`` left it."""
        super().reset_state()

    def update(self) -> None:  # type: ignore[override]
        """Put the value of the State into the buffer, as the newest."""
        super().update(self.state.value)

"""Populations: neurons and synapses, which receive input from others and step through time.

``update(x)`` makes one step of ``dt`` (of ``stategraph.environ``). Plain numbers mean ms, mV, nA, nS and MOhm.
Two kinds of input arrive besides ``x``: *current inputs* are part of the differential equation, *delta inputs* are added to
what was integrated, at the end of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax, environ
from stategraph.errors import StateAccessError, describe
from stategraph.graph.node import Node
from stategraph.init import Initial, param
from stategraph.nn import arrivals
from stategraph.nn.dynamics import Dynamics
from stategraph.nn.listening import Spiking
from stategraph.nn.module_params import Param
from stategraph.nn.units import (
    CURRENT,
    DELTA,
    INPUT,
    has_unit,
    initial_value,
    is_assumed,
    number,
    parameter,
    refuse_current,
    units_of,
)
from stategraph.state import State
from stategraph.surrogate import InvSquareGrad
from stategraph.typing import Size
from stategraph.units import (
    DECLARED,
    holds_quantity,
    in_unit,
    is_quantity,
    named_unit,
    quantity,
    text_of,
    without_units,
)

Parameter = Any
"""What a model takes for a parameter: a number, an array of the shape of the population, an initialiser, or a State or
``nn.Param``, which can be trained.
"""

LONG_AGO = -1e7
"""The time of the last spike of what has never spiked."""


def values(*parameters: Parameter) -> tuple[Any, ...]:
    """The values of parameters now, as plain numbers."""
    return tuple(
        without_units(p.value if isinstance(p, State) else p.value()) if isinstance(p, (State, Param)) else p
        for p in parameters
    )


def known(*numbers: Any) -> bool:
    """Whether numbers are known now, not only when the program that is being traced runs."""
    return not any(isinstance(number, jax.core.Tracer) for number in numbers)


class Population(Dynamics):
    """Base class of neurons and synapses: a ``Dynamics`` that input arrives at.

    Args:
      in_size: the shape of the population.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> population = sg.nn.Population(2)
    >>> population.add_current_input("leak", lambda v: -v)
    >>> population.add_current_input("noise", jnp.array([1.0, 2.0]))
    >>> population.sum_current_inputs(10.0, jnp.array([3.0, 3.0]))
    Array([8., 9.], dtype=float32)
    >>> population.sum_current_inputs(10.0, jnp.array([3.0, 3.0]))  # an array is used up
    Array([7., 7.], dtype=float32)
    """

    UNITS: ClassVar[Mapping[str, str]] = {}
    """The units of parameters, States and inputs, by name; see ``stategraph.nn.units``."""

    _current_inputs: dict[str, Callable[..., Any]] | None = None
    _projections = 0
    _in_units = False
    """Whether it was made with quantities, so that its States declare their units."""
    _assumed: tuple[str, ...] = ()
    """Parameters that were left out and say how much a current does."""

    def _parameter(self, name: str, value: Parameter, *, positive: bool = False) -> Parameter:
        """A parameter as the model keeps it."""
        if has_unit(value):
            self._in_units = True
        elif is_assumed(self, name):
            self._assumed = (*self._assumed, name)
        value = parameter(self, name, value)
        if isinstance(value, (State, Param)):
            return value
        found = param(value, self.varshape, allow_none=False)
        if positive and known(found) and not np.all(np.asarray(found) > 0):
            raise ValueError(
                describe(
                    f"{type(self).__name__}({name}={value!r}) is not positive.",
                    why=f"the equations divide by {name}",
                )
            )
        return found

    # -------------------------------------------------------------------------------------------------- State

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        """The States, by attribute: (kind, what it holds at first)."""
        return {}

    def init_state(self, batch_size: int | None = None) -> None:
        """Make the State.

        Args:
          batch_size: the length of a batch axis; None for none.
        """
        leading = () if batch_size is None else (batch_size,)
        for name, (kind, initial) in self._beginnings().items():
            unit = units_of(self).get(name) if self._in_units else None
            declared = {} if unit is None else {DECLARED: named_unit(unit)}
            setattr(self, name, kind(self._first(name, initial, leading), **declared))

    def reset_state(self, batch_size: int | None = None) -> None:
        """Put the State back to where ``init_state`` left it, and forget input that has not been used.

        Args:
          batch_size: the length of the batch axis; None to keep the axes that it has.
        """
        self.clear_inputs()
        for name, (_, initial) in self._beginnings().items():
            state = getattr(self, name)
            batch = (
                state.shape[: len(state.shape) - len(self.varshape)] if batch_size is None else (batch_size,)
            )
            state.value = self._first(name, initial, batch)

    def _first(self, name: str, initial: Initial, leading: tuple[int, ...]) -> jax.Array:
        """What the State of a name holds at first."""
        shape = (*leading, *self.varshape)
        initial = initial_value(self, name, initial)
        return jnp.broadcast_to(jnp.asarray(param(initial, shape, allow_none=False), environ.dftype()), shape)

    def _checked(self, value: jax.Array, state: State[Any]) -> jax.Array:
        """A new value of a State, which has to keep its shape, and stays a real number."""
        if jnp.iscomplexobj(value) and not jnp.issubdtype(state.dtype, jnp.complexfloating):
            raise TypeError(
                describe(
                    f"An input of {type(self).__name__} is complex, and its State {state.dtype}.",
                    fix="give the real part, input.real",
                )
            )
        if value.shape != state.shape:
            raise ValueError(
                describe(
                    f"An input of {type(self).__name__} does not fit: its State would go from the shape {state.shape} "
                    f"to {value.shape}.",
                    fix="stategraph.nn.init_all_states(model, batch_size=...), if a batch is what differs",
                )
            )
        return value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        missing = [name for name in self._beginnings() if name not in vars(self)]
        if missing:
            raise StateAccessError(
                describe(
                    f"{type(self).__name__} has no State {missing[0]!r} yet.",
                    fix="stategraph.nn.init_all_states(model) before the first step",
                )
            )
        self._check_states()
        if args and holds_quantity(args[0]):
            args = (self._arriving(args[0], INPUT), *args[1:])
        try:
            return super().__call__(*args, **kwargs)
        except (TypeError, ValueError) as error:
            if args and not _fits(args[0], self.varshape):
                raise self._misfit("input", args[0], str(error)) from error
            raise
        finally:
            self.clear_inputs()

    def _check_states(self) -> None:
        """Refuse State of another shape than the population: any array may be written to it by hand."""
        for name in self._beginnings():
            state: State[Any] = getattr(self, name)
            shape = state.shape
            if isinstance(shape, tuple) and shape[max(0, len(shape) - len(self.varshape)) :] != self.varshape:
                raise ValueError(
                    describe(
                        f"The State {name!r} of {type(self).__name__} has the shape {shape}, and the population "
                        f"{self.varshape}.",
                        state=state._describe(),
                        created=state.source_location,
                        at=_jax.line_in_charge(),
                        why="a value of another shape was written to it",
                        fix=f"{name}.value = jnp.broadcast_to(x, {self.varshape}), or with axes of a batch before these",
                    )
                )

    # -------------------------------------------------------------------------------------------------- input

    @property
    def current_inputs(self) -> dict[str, Callable[..., Any]]:
        """The functions whose results are added to the current, by key."""
        return self._current_inputs or {}

    def _arriving(self, value: Any, kind: str) -> Any:
        """An input as plain numbers; as it is, where the class says nothing of units."""
        if not units_of(self):
            return value
        if kind != DELTA and is_quantity(value):
            self._check_assumed(f"a current in {text_of(value.unit)}")
        return number(value, units_of(self).get(kind, "1"), f"The {kind} of {type(self).__name__}")

    def _check_assumed(self, current: str) -> None:
        """Refuse a current if nobody knows what it does."""
        if self._in_units and self._assumed:
            refuse_current(self, current, self._assumed)

    def add_current_input(self, key: str, inp: Any, label: str | None = None) -> None:
        """Add to the current.

        Args:
          key: a name that no other input has.
          inp: an array, for the next step, or a function, for every step: it is called with what ``sum_current_inputs``
            is given (the membrane potential), and the population finds the State in it if it is a module.
          label: a group of inputs that ``sum_current_inputs`` can select.
        """
        key = _labelled(key, label)
        if not callable(inp):
            arrivals.send(self, f"current {key}", self._arriving(inp, CURRENT))
            return
        if key in self.current_inputs:
            raise KeyError(f"{type(self).__name__} has a current input {key!r} already")
        self._check_assumed(f"the currents of {key!r}")
        self._current_inputs = {**self.current_inputs, key: inp}

    def add_delta_input(self, key: str, inp: Any, label: str | None = None) -> None:
        """Add an array to what the next step integrates, at its end.

        Args:
          key: a name that no other input has.
          inp: the array.
          label: a group of inputs that ``sum_delta_inputs`` can select.
        """
        arrivals.send(self, f"delta {_labelled(key, label)}", self._arriving(inp, DELTA))

    def sum_current_inputs(self, init: Any, *args: Any, label: str | None = None) -> Any:
        """A number or array plus all current inputs; arrays among them are used up.

        Args:
          init: where the sum begins, the input of ``update``.
          *args: what the functions among the inputs are called with.
          label: only inputs of this group; None for all.
        """
        init = self._arriving(init, INPUT)
        for key, function in self.current_inputs.items():
            if label is None or key.startswith(_labelled("", label)):
                init = init + self._arriving(function(*args), CURRENT)
        return self._sum("current", init, label)

    def sum_delta_inputs(self, init: Any, label: str | None = None) -> Any:
        """A number or array plus all delta inputs, which are used up.

        Args:
          init: where the sum begins.
          label: only inputs of this group; None for all.
        """
        return self._sum("delta", init, label)

    def _sum(self, kind: str, init: Any, label: str | None) -> Any:
        prefix = f"{kind} {'' if label is None else _labelled('', label)}"
        for key in arrivals.keys(self):
            if key.startswith(prefix):
                value = arrivals.take(self, key)
                if not _fits(value, jnp.shape(init)):
                    raise self._misfit(f"input {key!r}", value)
                init = init + value
        return init

    def _misfit(self, what: str, value: Any, why: str = "") -> ValueError:
        return ValueError(
            describe(
                f"The {what} of {type(self).__name__} has the shape {jnp.shape(value)}, and the population {self.varshape}.",
                at=_jax.line_in_charge(),
                why=why,
                fix=f"give one number, or one for each neuron: the shape {self.varshape}",
            )
        )

    def clear_inputs(self) -> None:
        """Forget input that was sent for the next step."""
        arrivals.forget(self)
        for function in self.current_inputs.values():
            if isinstance(function, Node):
                arrivals.forget(function)

    def new_input_key(self, kind: str) -> str:
        """A name for one more input, which no other input has: ``kind`` and a number."""
        self._projections += 1
        return f"{kind}{self._projections - 1}"


def _fits(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array can be added to one of a shape; what is no array is for others to judge."""
    try:
        np.broadcast_shapes(getattr(value, "shape", ()), shape)
    except ValueError:
        return False
    return True


def _labelled(key: str, label: str | None) -> str:
    return key if label is None else f"{label} // {key}"


class Neuron(Spiking, Population):
    """Base class of spiking neurons. Write ``init_state``, ``reset_state``, ``get_spike`` and ``update``.

    A step begins with the reset of the neurons that spiked at the end of the last one, so that ``V`` can be looked at where
    it crossed the threshold, and ends with the spikes, which it returns: 1 or 0, with the gradient of a surrogate.

    Args:
      in_size: the shape of the population.
      spk_fun: what makes spikes of the scaled distance from the threshold: a surrogate.
      spk_reset: ``"soft"``: a spike takes ``V_th - V_reset`` off the potential; ``"hard"``: it puts the potential to
        ``V_reset``, and no gradient passes the reset.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Counter(sg.nn.Neuron):
    ...     def init_state(self):
    ...         self.V = sg.HiddenState(jnp.zeros(self.varshape))
    ...     def get_spike(self, V=None):
    ...         return self.spk_fun((self.V.value if V is None else V) - 3.0)
    ...     def update(self, x=0.0):
    ...         self.V.value = self.sum_delta_inputs(self.after_reset(self.V.value, self.get_spike(), 3.0, 0.0) + x)
    ...         return self.get_spike()
    >>> neuron = sg.nn.init_all_states(Counter(1))
    >>> [int(neuron(1.0)[0]) for _ in range(6)]
    [0, 0, 1, 0, 0, 1]
    """

    def __init__(
        self,
        in_size: Size,
        spk_fun: Callable[[Any], Any] = InvSquareGrad(),  # noqa: B008 -- immutable
        spk_reset: str = "soft",
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, name)
        if spk_reset not in ("soft", "hard"):
            raise ValueError(f"spk_reset is 'soft' or 'hard', not {spk_reset!r}")
        if not callable(spk_fun):
            raise TypeError(f"spk_fun is a surrogate or another function, not a {type(spk_fun).__name__}")
        self.spk_fun = spk_fun
        self.spk_reset = spk_reset

    def _check_threshold(self, threshold: Parameter, low: Parameter = 0.0, name: str | None = None) -> None:
        """Refuse a threshold that is not above a parameter, or 0: distances from it are measured in what lies between."""
        high, low = values(threshold, low)
        if known(high, low) and not np.all(np.asarray(high) > np.asarray(low)):
            raise ValueError(
                describe(
                    f"{type(self).__name__}(V_th={high!r}) is not above {low if name is None else f'{name}={low!r}'}.",
                    why="its neurons would spike below their threshold",
                    fix="give a V_th that is positive" if name is None else f"give V_th and {name}",
                )
            )

    def get_spike(self, V: Any = None) -> Any:
        """The spikes of a membrane potential: 1 where it is at the threshold or above, else 0.

        Args:
          V: the potential; None for that of the population.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no get_spike method; write `def get_spike(self, V=None): ...`"
        )

    def after_reset(self, V: Any, spike: Any, V_th: Any, V_reset: Any) -> jax.Array:
        """The potential after the reset of the neurons that spiked."""
        if self.spk_reset == "hard":
            if is_quantity(V):
                return quantity(jnp.where(spike > 0, in_unit(V_reset, V.unit), V.mantissa), V.unit)  # type: ignore[no-any-return]
            return jnp.where(spike > 0, V_reset, V)
        reset: jax.Array = V - spike * (V_th - V_reset)
        return reset


class Synapse(Population):
    """Base class of synapses: what arrives becomes a conductance. Write ``init_state``, ``reset_state`` and ``update``."""

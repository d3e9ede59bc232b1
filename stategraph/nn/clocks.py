"""The clock of a model: how many steps it was run for.

It is a module like any other, ``model.clock``, with State: it is saved and loaded with the model, ``reset_all_states`` and
``init_all_states`` put it to 0, and programs and lanes treat it like other State. A model that has none gets one from its
first ``nn.run``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from stategraph import _jax, environ
from stategraph.errors import StateAccessError, describe
from stategraph.graph.node import Node
from stategraph.nn.module import Module
from stategraph.recording import LOCAL, StartAgain
from stategraph.state import ShortTermState

ATTRIBUTE = "clock"


class Clock(Module):
    """How many steps a model was run for, and how long a step was.

    Attributes:
      i: ``ShortTermState``, the number of the next step: ``int32[]``.
      dt: ``ShortTermState``, the length of the last step (ms); 0 before the first: a floating-point scalar.

    Example:

    >>> import stategraph as sg
    >>> class Network(sg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.clock = sg.nn.Clock()
    ...         self.neurons = sg.nn.LIF(3)
    ...     def update(self):
    ...         return self.neurons(2.0)
    >>> network = sg.nn.init_all_states(Network())
    >>> _ = sg.nn.run(network, 10.0, dt=0.5)
    >>> int(network.clock.i.value), float(network.clock.t)
    (20, 10.0)
    """

    def __init__(self) -> None:
        super().__init__()
        self.i = ShortTermState(jnp.zeros((), jnp.int32))
        self.dt = ShortTermState(jnp.zeros((), environ.dftype()))

    def init_state(self, *args: Any, **kwargs: Any) -> None:
        """Begin at 0."""
        self.reset_state()

    def reset_state(self, *args: Any, **kwargs: Any) -> None:
        """Begin at 0."""
        self.i.value = jnp.zeros_like(self.i.value)
        self.dt.value = jnp.zeros_like(self.dt.value)

    @property
    def t(self) -> jax.Array:
        """The time (ms) at which the next step begins."""
        now: jax.Array = self.i.value * self.dt.value
        return now

    def first(self, dt: float) -> jax.Array:
        """The number of the next step, for steps of ``dt``: time goes on where it was, also when ``dt`` changed."""
        before = self.dt.value
        elapsed = self.i.value * (before / dt)
        same = (before == jnp.asarray(dt, before.dtype)) | (before == 0)
        counted: jax.Array = jnp.where(same, self.i.value, jnp.round(elapsed).astype(jnp.int32))
        return counted

    def advance(self, first: Any, steps: int, dt: float) -> None:
        """``steps`` steps of ``dt`` were made, from step ``first`` on."""
        self.i.value = jnp.asarray(first + steps, jnp.int32)
        self.dt.value = jnp.full_like(self.dt.value, dt)


def clock(model: Any) -> Clock:
    """The clock of a model, ``model.clock``, which is made if there is none.

    Args:
      model: the module that ``nn.run`` runs.

    Raises:
      TypeError: when ``model`` is no module, or its attribute ``clock`` is something else.

    Example: a model into which a run is loaded needs the clock that was saved.

    >>> import stategraph as sg
    >>> neurons = sg.nn.init_all_states(sg.nn.LIF(3))
    >>> int(sg.nn.clock(neurons).i.value), sg.nn.clock(neurons) is neurons.clock
    (0, True)
    """
    if not isinstance(model, Node):
        raise TypeError(
            describe(
                f"A {type(model).__name__} has no clock.",
                why="the time is State of the model, so that a run goes on where the last one stopped",
                fix="make it a stategraph.nn.Module whose update is one step",
            )
        )
    if ATTRIBUTE not in vars(model):
        _attach(model)
    found = getattr(model, ATTRIBUTE)
    if not isinstance(found, Clock):
        raise TypeError(
            describe(
                f"The attribute {ATTRIBUTE!r} of {type(model).__name__} is a {type(found).__name__}.",
                why="stategraph.nn.run keeps the time of a model there",
                fix=f"give yours another name, or write self.{ATTRIBUTE} = stategraph.nn.Clock()",
            )
        )
    return found


def _attach(model: Node) -> None:
    """Give a model a clock. A trace does not make it, because it outlives the trace: or each call would begin at 0."""
    recorder = LOCAL.recorder
    if recorder is None and _jax.current_trace() is not None:
        raise StateAccessError(
            describe(
                f"{type(model).__name__} has no clock, and the code is traced by JAX alone.",
                at=_jax.here(),
                why="the clock would belong to that trace, and the model would keep it",
                fix=f"model.{ATTRIBUTE} = stategraph.nn.Clock() where the model is made",
            )
        )
    if recorder is None or id(model) in recorder.new_nodes:
        setattr(model, ATTRIBUTE, Clock())
        return
    LOCAL.recorder = None
    try:
        with _jax.set_trace(_jax.EAGER):
            setattr(model, ATTRIBUTE, Clock())
    finally:
        LOCAL.recorder = recorder
    if (id(model), "*") in recorder.guards:  # a reset that was traced before did not reset the clock
        raise StartAgain

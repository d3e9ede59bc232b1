"""What populations return within one step, for monitors of spikes.

While a step is monitored, ``Dynamics.__call__`` shows what ``update`` returned to a ``Listener``. What is called several
times in a step is added up. A population that is called in the body of a loop or branch of the step gives its output
through a State that the listener creates around that body: a branch that is not taken gives no spikes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any

import jax.numpy as jnp

from stategraph import _jax
from stategraph.errors import StateAccessError, describe
from stategraph.graph.walk import nodes
from stategraph.mixin import Mixin
from stategraph.recording import LOCAL
from stategraph.state import State


class _Listening(threading.local):
    """Per thread: who listens."""

    listener: Listener | None = None


LISTENING = _Listening()


class Listener:
    """Collects what populations return in one step. Use as a context manager around the step.

    Args:
      wanted: the populations (by id) to listen to in inner bodies too.
      alone: whether the listener around this one hears nothing of it.
    """

    def __init__(self, wanted: Collection[int] = (), alone: bool = False) -> None:
        self.wanted, self.alone = wanted, alone
        self.trace, self.recorder = _jax.current_trace(), LOCAL.recorder
        self.heard: dict[int, Any] = {}
        self.held: dict[int, State[Any]] = {}
        """What was returned in inner bodies."""
        self._outer: Listener | None = None

    def __enter__(self) -> Listener:
        self._outer, LISTENING.listener = LISTENING.listener, self
        return self

    def __exit__(self, *exc: Any) -> None:
        LISTENING.listener = self._outer

    def hear(self, population: Any, output: Any) -> None:
        """A population returned something."""
        if self._outer is not None and not self.alone:
            self._outer.hear(population, output)
        if LOCAL.recorder is not self.recorder:  # a run for types only
            return
        key = id(population)
        if _jax.current_trace() is self.trace:
            self.heard[key] = self.heard[key] + output if key in self.heard else output
        elif key in self.wanted:
            if key not in self.held:
                self.held[key] = self._outside(population, output)
            state = self.held[key]
            state.value = state.value + output

    def _outside(self, population: Any, output: Any) -> State[Any]:
        """A State around the body that runs now."""
        name = type(population).__name__
        if self.recorder is None:
            raise StateAccessError(
                describe(
                    f"The spikes of {name} are monitored in the body of a JAX transformation that StateGraph does not trace.",
                    at=_jax.here(),
                    why="they exist only inside that body",
                    fix="use stategraph.compile and stategraph.augment there",
                )
            )
        aval = _jax.typeof(jnp.asarray(output))
        with _jax.set_trace(self.trace):
            return State(jnp.zeros(aval.shape, aval.dtype), name=f"spikes of {name}")

    def knows(self, population: Any) -> bool:
        """Whether a population returned something in this step."""
        return id(population) in self.heard or id(population) in self.held

    def spikes_of(self, population: Any) -> Any:
        """What a population returned in this step."""
        found = self.heard.get(id(population))
        held = self.held.get(id(population))
        if held is not None:
            return held.value if found is None else found + held.value
        if found is None:
            name = type(population).__name__
            raise StateAccessError(
                describe(
                    f"{name} is monitored for spikes, and was not called in this step.",
                    at=_jax.line_in_charge(),
                    why="its spikes are what it returns when the model calls it: population(x), not population.update(x)",
                    fix="call it in the model's update; in the body of a loop or branch of it, "
                    "monitor population.spike itself and not a function of it",
                )
            )
        return found


def heard_in_lanes(
    listener: Listener, module: Any, over_lanes: Callable[[Callable[..., Any]], tuple[Any, dict[str, Any]]]
) -> Any:
    """What a module returns in lanes; the listener hears what its populations returned, all lanes together.

    Args:
      listener: who listens to the step.
      module: what is called in each lane.
      over_lanes: calls a function in lanes, and stacks its results.
    """
    populations = [node for node in nodes(module).values() if id(node) in listener.wanted]

    def lane(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        with Listener(listener.wanted, alone=True) as inner:
            output = module(*args, **kwargs)
            called = [(str(k), one) for k, one in enumerate(populations) if inner.knows(one)]
            return output, {k: inner.spikes_of(one) for k, one in called}

    output, heard = over_lanes(lane)
    for k, spikes in heard.items():
        listener.hear(populations[int(k)], spikes)
    return output


class Spiking(Mixin):
    """What populations of spikes have in common: ``population.spike`` can be monitored."""

    def spike(self) -> Any:
        """The spikes of the step that is being monitored: what ``update`` returned in it (the sum, if it was called
        several times).

        ``population.spike`` is what a monitor takes: ``nn.run(net, 100.0, monitor={"spk": net.E.spike})``; functions
        that a monitor calls may call it.

        Raises:
          StateAccessError: outside of a monitored step.
        """
        listener = LISTENING.listener
        if listener is None:
            raise StateAccessError(
                describe(
                    f"{type(self).__name__}.spike() is called outside of a monitored step.",
                    at=_jax.here(),
                    why="the spikes of a step are what update returns, and nobody keeps them",
                    fix="take what population(x) returns, or monitor population.spike with stategraph.nn.run or nn.Monitor",
                )
            )
        return listener.spikes_of(self)

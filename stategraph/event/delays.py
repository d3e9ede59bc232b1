"""Connections with a delay of each synapse: what is sent waits in a ring buffer at the post neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.backends.events.ring_primitive import csr_ring
from stategraph.errors import StateAccessError, describe
from stategraph.event.connections import Connections, Sparse
from stategraph.event.csr import CSR
from stategraph.event.product import as_events
from stategraph.init import Initial, param
from stategraph.nn.units import parameter, step
from stategraph.state import DelayState, ShortTermState, State


class Delayed(Connections):
    """Sparse connections of which each synapse has a delay. Each call is a step of ``dt``.

    What is sent is added, at once, to the slot of a ring buffer in which it arrives: a step costs what its events cost,
    however long and different the delays are. (When all delays are equal, delay the spikes: ``nn.Delay`` is smaller.)

    Args:
      connections: the synapses and their weights: ``FixedProb``, ``FixedNumConn`` or ``Sparse``.
      delay: the delay of each synapse, rounded up to steps: a time for all, an array ``(synapses,)``, or an initialiser. A
        delay of 0 arrives in the step in which it was sent.
      name: a name for messages and listings.

    Attributes:
      slots: how many steps the buffer holds: that of the call, and those up to the longest delay.
      buffer: ``DelayState``, what arrives, ``slots * post`` numbers, and ``post`` more that arrived last: one axis, or two with
        a batch; made by ``init_state``.

    Raises:
      ValueError: for negative delays, a number of delays that does not fit, and buffers that 32-bit numbers cannot index.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> synapses = sg.event.Sparse(sg.event.CSR([0, 2], [0, 1], (1, 2)))
    >>> with sg.environ.context(dt=0.1):
    ...     delayed = sg.nn.init_all_states(sg.event.Delayed(synapses, jnp.array([0.1, 0.2])))
    >>> for spike in (True, False, False):
    ...     print(delayed(jnp.array([spike])))
    [0. 0.]
    [1. 0.]
    [0. 1.]
    """

    UNITS: ClassVar[Mapping[str, str]] = {"delay": "ms"}

    buffer: DelayState[Any]
    slot: ShortTermState[jax.Array]
    """The slot of the next call."""

    def __init__(self, connections: Sparse, delay: Initial, name: str | None = None) -> None:
        if not isinstance(connections, Sparse):
            raise TypeError(
                describe(
                    f"The synapses of a {type(connections).__name__} have no delays of their own.",
                    why="they are not listed one by one",
                    fix="event.Sparse(event.CSR.from_dense(matrix != 0), weights)",
                )
            )
        super().__init__(connections.in_size or (), connections.out_size or (), name)
        csr = connections.connections
        self.connections = connections
        self.steps = _steps(parameter(self, "delay", delay), csr.size)
        """The delay of each synapse in steps, ``(synapses,)``."""
        pre, post = csr.shape
        self.slots = int(self.steps.max(initial=0)) + 1
        if (self.slots + 1) * post >= 2**31:
            raise ValueError(
                describe(
                    f"A buffer of {self.slots} steps for {post} neurons is too large.",
                    why="its elements are counted with 32 bits",
                    fix="shorter delays, or a larger dt",
                )
            )
        targets = self.steps.astype(np.int32) * np.int32(post)
        targets += np.asarray(csr.indices)
        targets.flags.writeable = False
        self.targets = CSR(csr.indptr, targets, (pre, self.slots * post))
        """The synapses to the slots of the buffer, counted from that of the call."""

    def init_state(self, batch_size: int | None = None) -> None:
        """Make the buffer.

        Args:
          batch_size: the length of a batch axis of the events; None for none.
        """
        batch = () if batch_size is None else (batch_size,)
        dtype = self.connections.weight.value.dtype
        self.buffer = DelayState(jnp.zeros((*batch, self._size), dtype))
        self.slot = ShortTermState(jnp.zeros((), jnp.int32))

    def reset_state(self, batch_size: int | None = None) -> None:
        """Forget what is on its way.

        Args:
          batch_size: the length of the batch axis; None to keep the axes that the buffer has.
        """
        batch = self.buffer.value.shape[:-1] if batch_size is None else (batch_size,)
        self.buffer.value = jnp.zeros((*batch, self._size), self.buffer.value.dtype)
        self.slot.value = jnp.zeros_like(self.slot.value)

    def update(self, events: Any) -> jax.Array:
        """What arrives at the post neurons in this step, ``(..., post)``, once the events ``(..., pre)`` are sent."""
        given, weight, buffer = self._checked(events, 0), self.connections.weight.value, self._made()
        if given.shape[:-1] != buffer.shape[:-1]:
            raise ValueError(
                describe(
                    f"Events of the shape {given.shape} do not fit a buffer of the shape {buffer.shape}.",
                    why="they have the same batch axis",
                    fix="stategraph.nn.init_all_states(model, batch_size=...)",
                )
            )
        given = as_events(given, weight.dtype)
        post, slot, csr = self.shape[1], self.slot.value, self.targets
        self.buffer.value = csr_ring(buffer, given, weight, csr.indptr, csr.indices, slot * post, csr.shape)
        self.slot.value = (slot + 1) % self.slots
        arrived: jax.Array = self.buffer.value[..., csr.shape[1] :]
        return arrived

    @property
    def weight(self) -> State[Any]:
        """The State of the weight, that of the synapses."""
        return self.connections.weight

    @property
    def _size(self) -> int:
        return self.targets.shape[1] + self.shape[1]

    def todense(self) -> jax.Array:
        return self.connections.todense()

    def _made(self) -> jax.Array:
        if "buffer" not in vars(self):
            raise StateAccessError(
                describe(
                    "These Delayed connections have no buffer yet.",
                    fix="stategraph.nn.init_all_states(model) before the first step",
                )
            )
        found: jax.Array = self.buffer.value
        return found


def _steps(delay: Initial, synapses: int) -> np.ndarray:
    """Delays in steps, rounded up; what is within rounding of a whole number is that."""
    times = np.asarray(param(delay, (synapses,), allow_none=False), np.float64)
    steps = np.ceil(np.round(times / step(), 6)).astype(np.int64)
    if steps.min(initial=0) < 0:
        raise ValueError(f"a delay is not negative, but {times.min()} is")
    return np.broadcast_to(steps, (synapses,))

"""Latency coding: the larger a value, the earlier its only spike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from stategraph import environ
from stategraph.errors import describe
from stategraph.nn.dynamics import Dynamics
from stategraph.nn.listening import Spiking
from stategraph.nn.units import now, parameter, step
from stategraph.typing import Size

__all__ = ["LatencyEncoder"]

METHODS = ("log", "linear")
ROUNDING = 1e-4
"""A time that is this much of a step before a step belongs to it."""


class LatencyEncoder(Spiking, Dynamics):
    """One spike for each value ``x``, the earlier the larger it is. With ``"log"`` it comes when a leaky integrator with the
    current ``x`` reaches the threshold, ``tau ln(x / (x - threshold))`` (Gerstner and Kistler, "Spiking Neuron Models" (2002),
    section 4.1); with ``"linear"``, at ``duration (1 - x)``. Values up to the threshold, and those whose time would be
    ``duration`` or later, have none. Needs the setting ``i``, the number of the step, or ``t``, the time (ms), of
    ``stategraph.environ``.

    Args:
      in_size: the shape of the population.
      duration: until when spikes come (ms).
      method: ``"log"`` or ``"linear"``.
      tau: the time constant of ``"log"`` (ms).
      threshold: what a value has to exceed.
      spk_type: the dtype of the spikes.
      name: a name for messages and listings.

    Raises:
      ValueError: for another method, a negative threshold, or a duration or time constant that is not positive.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> encoder = sg.nn.LatencyEncoder(3, duration=4.0, method="linear")
    >>> def at(i):
    ...     with sg.environ.context(dt=1.0, i=i):
    ...         return encoder(jnp.array([1.0, 0.5, 0.0]))
    >>> sg.compile.for_loop(at, jnp.arange(4)).astype(int)
    Array([[1, 0, 0],
           [0, 0, 0],
           [0, 1, 0],
           [0, 0, 0]], dtype=int32)
    """

    UNITS: ClassVar[Mapping[str, str]] = {"duration": "ms", "tau": "ms"}

    def __init__(
        self,
        in_size: Size,
        duration: float,
        method: str = "log",
        tau: float = 10.0,
        threshold: float = 0.01,
        spk_type: Any = bool,
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, name)
        self.duration = float(parameter(self, "duration", duration))
        self.tau = float(parameter(self, "tau", tau))
        if method not in METHODS:
            raise ValueError(f"method is one of {', '.join(METHODS)}, not {method!r}")
        if self.duration <= 0 or self.tau <= 0 or threshold < 0:
            raise ValueError(
                describe(
                    f"LatencyEncoder(duration={duration}, tau={tau}, threshold={threshold}) is not possible.",
                    why="durations and time constants are positive, and thresholds not negative",
                )
            )
        self.method = method
        self.threshold = threshold
        self.spk_type = spk_type

    def times(self, x: Any) -> jax.Array:
        """When the spikes of the values ``x`` come (ms), of their shape; infinity for none."""
        x = jnp.asarray(x, environ.dftype())
        exceeds = x > self.threshold
        if self.method == "log":
            safe = jnp.where(exceeds, x, self.threshold + 1.0)
            found = self.tau * jnp.log(safe / (safe - self.threshold))
        else:
            found = self.duration * jnp.maximum(1 - x, 0.0)
        return jnp.where(exceeds & (found < self.duration), found, jnp.inf)

    def update(self, x: Any) -> jax.Array:
        """The spikes of this step for the values ``x``: ``(*in_size)`` or, for a batch, ``(batch, *in_size)``."""
        current = environ.get(environ.I, default=None)
        if current is None:
            current = jnp.round(now() / step())
        shape = jnp.broadcast_shapes(jnp.shape(x), self.varshape)
        spikes: jax.Array = (jnp.floor(self.times(x) / step() + ROUNDING) == current).astype(self.spk_type)
        return jnp.broadcast_to(spikes, shape)

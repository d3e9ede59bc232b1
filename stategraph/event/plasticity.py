"""Plastic synapses: weights that change with the spikes of the two neurons.

Weights change where there are spikes only: a pre spike changes the synapses of its neuron's row, a post spike those of its
neuron's column, which the connectivity lists as well (``CSR.by_post``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.backends.events.change_primitive import csr_change
from stategraph.errors import StateAccessError, describe
from stategraph.event.connections import Sparse
from stategraph.nn.module import Module
from stategraph.nn.units import in_units_of, parameter, step
from stategraph.state import HiddenState


class STDP(Module):
    """Spike-timing-dependent plasticity, for all pairs of spikes.

    A pair of a pre spike at ``t_pre`` and a post spike at ``t_post`` changes the weight of a synapse by

    - ``A_plus * span * ((w_max - w) / span) ** mu * exp(-(t_post - t_pre) / tau_plus)`` if the pre spike comes first,
    - ``-A_minus * span * ((w - w_min) / span) ** mu * exp(-(t_pre - t_post) / tau_minus)`` if the post spike does,

    with ``span = w_max - w_min``, at the time of the second spike; spikes of the same step are no pair. The sums over pairs
    are traces of each neuron's spikes, which decay exponentially. After a change the weight is put back to its bounds.
    Within a step synapses are first depressed by pre spikes, then potentiated by post spikes.

    Song, Miller and Abbott, "Competitive Hebbian learning through spike-timing-dependent synaptic plasticity" (2000), whose
    rule is the additive one, ``mu=0``; with ``mu=1`` changes are in proportion to the distance from the bounds
    (multiplicative), in between see Gütig, Aharonov, Rotter and Sompolinsky, "Learning input correlations through
    nonlinear temporally asymmetric Hebbian plasticity" (2003). Traces: Morrison, Diesmann and Gerstner, "Phenomenological
    models of synaptic plasticity based on spike timing" (2008), section 4.

    Args:
      connections: the synapses, with a weight for each: ``FixedProb``, ``FixedNumConn`` or ``Sparse``. Their weight State is
        what changes.
      tau_plus, tau_minus: the time constants of the traces of pre and of post spikes (ms).
      A_plus, A_minus: the largest changes by one pair, as shares of ``w_max - w_min``.
      w_min, w_max: the bounds of the weights, in their unit if they have one.
      mu: how changes depend on the weight: 0 not at all, 1 linearly.
      name: a name for messages and listings.

    Attributes:
      x, y: ``HiddenState``, the traces ``(pre,)`` and ``(post,)``, made by ``init_state``.

    Raises:
      ValueError: when the connections have one weight for all synapses, or weights outside of the bounds.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> layer = sg.event.FixedNumConn(1, 1, 1, sg.init.Constant(0.5), seed=0)
    >>> stdp = sg.nn.init_all_states(sg.event.STDP(layer, A_plus=0.1))
    >>> with sg.environ.context(dt=1.0):
    ...     stdp(jnp.array([True]), jnp.array([False]))  # pre ...
    ...     stdp(jnp.array([False]), jnp.array([True]))  # ... before post: 0.5 + 0.1 exp(-1 / 20)
    >>> layer.weight.value.round(4)
    Array([0.5951], dtype=float32)
    """

    UNITS: ClassVar[Mapping[str, str]] = {"tau_plus": "ms", "tau_minus": "ms"}

    x: HiddenState[Any]
    y: HiddenState[Any]

    def __init__(
        self,
        connections: Sparse,
        tau_plus: float = 20.0,
        tau_minus: float = 20.0,
        A_plus: float = 0.005,
        A_minus: float = 0.00525,
        w_min: float = 0.0,
        w_max: float = 1.0,
        mu: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if not isinstance(connections, Sparse) or connections.weight.value.shape != (
            connections.connections.size,
        ):
            raise ValueError(
                describe(
                    f"The weights of this {type(connections).__name__} cannot change one by one.",
                    why="each synapse needs a weight of its own",
                    fix="for example event.FixedProb(pre, post, 0.1, init.Constant(0.5))",
                )
            )
        tau_plus, tau_minus = parameter(self, "tau_plus", tau_plus), parameter(self, "tau_minus", tau_minus)
        w_min = in_units_of(connections.weight, w_min, "w_min of STDP")
        w_max = in_units_of(connections.weight, w_max, "w_max of STDP")
        for what, number in (
            ("tau_plus", tau_plus),
            ("tau_minus", tau_minus),
            ("w_max - w_min", w_max - w_min),
        ):
            if not number > 0:
                raise ValueError(f"{what} has to be positive, not {number}")
        given = connections.weight.value
        if not isinstance(given, jax.core.Tracer) and bool(((given < w_min) | (given > w_max)).any()):
            raise ValueError(
                describe(
                    f"Weights from {given.min()} to {given.max()} are not between {w_min} and {w_max}.",
                    why="STDP keeps them there",
                    fix="w_min= and w_max=",
                )
            )
        self.connections = connections
        self.tau_plus, self.tau_minus = tau_plus, tau_minus
        self.A_plus, self.A_minus = A_plus, A_minus
        self.w_min, self.w_max, self.mu = w_min, w_max, mu

    def init_state(self) -> None:
        """Make the traces."""
        pre, post = self.connections.shape
        dtype = self.connections.weight.value.dtype
        self.x = HiddenState(jnp.zeros(pre, dtype))
        self.y = HiddenState(jnp.zeros(post, dtype))

    def reset_state(self) -> None:
        """Forget the spikes; the weights stay."""
        self.x.value = jnp.zeros_like(self.x.value)
        self.y.value = jnp.zeros_like(self.y.value)

    def update(self, pre: Any, post: Any) -> None:
        """One step of ``dt``.

        Args:
          pre, post: the spikes of both populations in this step, ``(pre,)`` and ``(post,)``: booleans, or numbers of which
            each multiplies the change.
        """
        if "x" not in vars(self):
            raise StateAccessError(
                describe(
                    "This STDP has no traces yet.",
                    fix="stategraph.nn.init_all_states(model) before the first step",
                )
            )
        weight, dt = self.connections.weight, step()
        sent, received = self._spikes(pre, 0), self._spikes(post, 1)
        x = self.x.value * np.exp(-dt / self.tau_plus)
        y = self.y.value * np.exp(-dt / self.tau_minus)
        weight.value = self._changed(weight.value, sent, received, x, y)
        self.x.value = x + sent
        self.y.value = y + received

    def _spikes(self, given: Any, side: int) -> jax.Array:
        spikes = jnp.asarray(given)
        if spikes.shape != self.connections.shape[side : side + 1]:
            raise ValueError(
                describe(
                    f"{('Pre', 'Post')[side]} spikes of the shape {spikes.shape} do not fit {self.connections.connections}.",
                    why="STDP takes one vector for each population; lanes of weights are made with vmap",
                )
            )
        return spikes.astype(self.connections.weight.value.dtype)

    def _changed(self, w: Any, pre: Any, post: Any, x: Any, y: Any) -> Any:
        csr = self.connections.connections
        if not csr.size:
            return w
        columns, order = csr.by_post
        law = {"low": float(self.w_min), "high": float(self.w_max), "mu": float(self.mu)}
        down, up = (jnp.asarray(a * (self.w_max - self.w_min), w.dtype) for a in (self.A_minus, self.A_plus))
        w = csr_change(w, pre, y, down, csr.indptr, csr.indices, shape=csr.shape, up=False, **law)
        return csr_change(
            w, post, x, up, columns.indptr, columns.indices, order, shape=columns.shape, up=True, **law
        )

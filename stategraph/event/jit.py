"""Connections of which nothing is stored: their synapses are made of a seed whenever events are sent."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.backends.events.hashing import Gaps
from stategraph.backends.events.jit_generic import jit_matrix
from stategraph.backends.events.jit_primitive import jit_product
from stategraph.errors import describe
from stategraph.event.connections import Connections, ParamType
from stategraph.event.product import as_events
from stategraph.event.sampling import too_many, words
from stategraph.init import Constant, Normal, Uniform
from stategraph.nn.units import separated
from stategraph.state import ParamState, State
from stategraph.typing import Size
from stategraph.units import quantity


class JITConn(Connections):
    """Random connections whose synapses and weights are made of a seed when they are needed, and never stored.

    Each possible synapse exists with probability ``prob``. It is the connectivity of ``FixedProb`` with the same seed: the
    same on every platform. A product makes the rows of the neurons that are active; memory is needed for none.

    Args:
      in_size, out_size: the numbers of pre and post neurons; shapes have equal leading axes, and their last axis counts.
      prob: the probability of a synapse, between 0 and 1.
      weight: the law of the weights: a number for all synapses, ``init.Normal(mean, scale)`` or
        ``init.Uniform(min_val, max_val)``; a State with a number is used as it is.
      include_self: whether neuron ``i`` may have a synapse to neuron ``i``, for connections within a population.
      seed: a number or a key that decides which synapses exist and what they weigh; without it the default random State
        does.
      param_type: the kind of State that holds the parameters of the law.
      name: a name for messages and listings.

    Attributes:
      weight: the State of the law's parameters, which can be trained: a number; or two, ``a`` and ``b`` of the weights ``a +
        b * x``, where ``x`` has a mean of 0 and a variance of 1 (``Normal``), or is uniform in [0, 1) (``Uniform``).

    Raises:
      ValueError: for a probability that is none, too many neurons, and a law of the weights that is not known.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> layer = event.JITConn(100_000, 100_000, 1e-4, 0.5, seed=0)
    >>> spikes = jnp.arange(100_000) % 1000 == 0
    >>> float((spikes @ layer).sum()) == 0.5 * float((spikes @ event.bernoulli(100_000, 100_000, 1e-4, seed=0)).sum())
    True
    """

    weight: State[Any]

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        prob: float,
        weight: Any = 1.0,
        *,
        include_self: bool = True,
        seed: Any = None,
        param_type: ParamType = ParamState,
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, out_size, name)
        too_many(self.shape[1])
        if prob:
            Gaps.of(prob)  # raises for what is no probability
        self.prob = float(prob)
        self.include_self = include_self
        self.seed = jnp.asarray(words(seed))
        self.law, given = _law(weight)
        size: Size = () if self.law == "one" else (2,)
        self.weight = self._weight(given, size, param_type)

    def update(self, events: Any) -> jax.Array:
        """What arrives at the post neurons: ``(..., post)`` for events ``(..., pre)``."""
        return self._send(self._checked(events, 0), transposed=False)

    def back(self, events: Any) -> jax.Array:
        return self._send(self._checked(events, 1), transposed=True)

    def todense(self) -> jax.Array:
        return jit_matrix(self.weight.value, self.seed, **self._connectivity())  # type: ignore[no-any-return]

    def _connectivity(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "prob": self.prob,
            "law": self.law,
            "include_self": self.include_self,
        }

    def _send(self, given: jax.Array, transposed: bool) -> jax.Array:
        weight = self.weight.value
        given = as_events(given, weight.dtype)
        flat = given.reshape(math.prod(given.shape[:-1]), given.shape[-1]) if given.ndim > 2 else given
        sent = jit_product(flat, weight, self.seed, transposed=transposed, **self._connectivity())
        arrived: jax.Array = sent.reshape(*given.shape[:-1], sent.shape[-1])
        return arrived


def _law(weight: Any) -> tuple[str, Any]:
    """(name of the law, its parameters)."""
    given, unit = (weight.value, None) if isinstance(weight, State) else separated(weight)
    if isinstance(given, Constant):
        return "one", quantity(given.value, unit)
    if isinstance(given, Normal):
        return "normal", quantity(jnp.array([given.mean, given.scale], jnp.result_type(float)), unit)
    if isinstance(given, Uniform):
        law = jnp.array([given.min_val, given.max_val - given.min_val], jnp.result_type(float))
        return "uniform", quantity(law, unit)
    if not callable(given) and np.shape(given) == ():
        return "one", weight
    raise ValueError(
        describe(
            f"{weight!r} is no law of the weights of JITConn.",
            why="weights that are not stored are all the same, normal or uniform",
            fix="a number, init.Normal(mean, scale) or init.Uniform(min_val, max_val); event.FixedProb stores weights",
        )
    )

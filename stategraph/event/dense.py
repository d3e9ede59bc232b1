"""Connections of all neurons with all, and of each with its own partner."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from stategraph.backends.events.primitives import dense_product
from stategraph.errors import describe
from stategraph.event.connections import Connections, ParamType
from stategraph.event.product import as_events
from stategraph.init import Initial
from stategraph.state import ParamState, State
from stategraph.typing import Size


class Linear(Connections):
    """A dense layer for events: every pre neuron has a synapse to every post neuron. Also called ``Dense``.

    Args:
      in_size, out_size: the numbers of pre and post neurons; shapes have equal leading axes, and their last axis counts.
      weight: a number for all synapses, an array ``(in_size, out_size)``, an initialiser, or a State to use.
      float_as_event: whether a number other than 0 counts as 1, whatever it is; its derivative is that of the number.
      name: a name for messages and listings.
      param_type: the kind of State that holds the weight.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> event.Linear(3, 2, jnp.arange(6.0).reshape(3, 2))(jnp.array([False, True, True]))
    Array([6., 8.], dtype=float32)
    """

    weight: State[Any]

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        weight: Initial,
        float_as_event: bool = False,
        *,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(in_size, out_size, name)
        self.float_as_event = float_as_event
        self.weight = self._weight(weight, self.shape, param_type)

    def update(self, events: Any) -> jax.Array:
        """What arrives at the post neurons: ``(..., post)`` for events ``(..., pre)``."""
        sent, weight = self._sent(events, 0), self._each()
        if weight.ndim == 0:
            return self._total(sent, weight, self.shape[1])
        return _product(sent, weight, transposed=False)

    def back(self, events: Any) -> jax.Array:
        sent, weight = self._sent(events, 1), self._each()
        if weight.ndim == 0:
            return self._total(sent, weight, self.shape[0])
        return _product(sent, weight, transposed=True)

    def todense(self) -> jax.Array:
        return jnp.broadcast_to(self.weight.value, self.shape)

    def _each(self) -> jax.Array:
        """The weights: one, or a matrix."""
        weight: jax.Array = self.weight.value
        return weight

    def _sent(self, events: Any, side: int) -> jax.Array:
        kind = self.weight.value.dtype
        sent = as_events(self._checked(events, side), kind)
        if self.float_as_event and sent.dtype != jnp.bool_:
            return sent + jax.lax.stop_gradient((sent != 0).astype(kind) - sent)
        return sent

    def _total(self, sent: jax.Array, weight: jax.Array, receiving: int) -> jax.Array:
        """What arrives at each neuron when all synapses have one weight."""
        total = sent.astype(weight.dtype).sum(-1, keepdims=True)
        return jnp.broadcast_to(total * weight, (*sent.shape[:-1], receiving))


def _product(sent: jax.Array, weight: jax.Array, transposed: bool) -> jax.Array:
    given = sent.reshape(math.prod(sent.shape[:-1]), sent.shape[-1]) if sent.ndim > 2 else sent
    arrived: jax.Array = dense_product(given, weight, transposed)
    return arrived.reshape(*sent.shape[:-1], arrived.shape[-1])


class AllToAll(Linear):
    """Synapses of all pre with all post neurons, or with all but their own.

    Args:
      in_size, out_size: the numbers of pre and post neurons; shapes have equal leading axes, and their last axis counts.
      weight: a number for all synapses, an array ``(in_size, out_size)``, an initialiser, or a State to use.
      include_self: whether neuron ``i`` has a synapse to neuron ``i``, for connections within a population.
      float_as_event: see ``Linear``.
      name: a name for messages and listings.
      param_type: the kind of State that holds the weight.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> jnp.array([True, False, True]) @ event.AllToAll(3, 3, 2.0, include_self=False)
    Array([2., 4., 2.], dtype=float32)
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        weight: Initial = 1.0,
        include_self: bool = True,
        float_as_event: bool = False,
        *,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(in_size, out_size, weight, float_as_event, name=name, param_type=param_type)
        self.include_self = include_self

    def todense(self) -> jax.Array:
        weights = super().todense()
        return weights if self.include_self else weights * self._others(weights.dtype)

    def _others(self, dtype: Any) -> jax.Array:
        """One where a synapse may be: everywhere but on the diagonal."""
        return 1 - jnp.eye(self.shape[0], self.shape[1], dtype=dtype)

    def _each(self) -> jax.Array:
        weight: jax.Array = self.weight.value
        return weight if self.include_self or weight.ndim == 0 else weight * self._others(weight.dtype)

    def _total(self, sent: jax.Array, weight: jax.Array, receiving: int) -> jax.Array:
        if self.include_self:
            return super()._total(sent, weight, receiving)
        given = sent.astype(weight.dtype)
        own, missing = given[..., :receiving], receiving - sent.shape[-1]
        if missing > 0:
            own = jnp.pad(own, [(0, 0)] * (sent.ndim - 1) + [(0, missing)])
        return (given.sum(-1, keepdims=True) - own) * weight


class OneToOne(Connections):
    """A synapse from each pre neuron to the post neuron with its number.

    Args:
      in_size: the shape of both populations.
      weight: a number for all synapses, an array of the shape ``in_size``, an initialiser, or a State to use.
      name: a name for messages and listings.
      param_type: the kind of State that holds the weight.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> jnp.array([True, False]) @ event.OneToOne(2, jnp.array([3.0, 4.0]))
    Array([3., 0.], dtype=float32)
    """

    weight: State[Any]

    def __init__(
        self,
        in_size: Size,
        weight: Initial = 1.0,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(in_size, in_size, name)
        self.weight = self._weight(weight, in_size, param_type)

    def update(self, events: Any) -> jax.Array:
        """What arrives at the post neurons, of the shape of the events."""
        weight = self.weight.value
        arrived: jax.Array = as_events(self._checked(events, 0), weight.dtype) * weight
        return arrived

    def back(self, events: Any) -> jax.Array:
        return self.update(events)

    def todense(self) -> jax.Array:
        weight = self.weight.value
        if weight.ndim > 1:
            raise ValueError(
                describe(
                    f"The weights of this OneToOne have the shape {weight.shape}.",
                    why="only those of one axis are the diagonal of a matrix",
                )
            )
        matrix: jax.Array = jnp.eye(self.shape[0], dtype=weight.dtype) * weight
        return matrix

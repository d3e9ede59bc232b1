"""Connections as modules: they hold weights, and send events when called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stategraph.backends.events.primitives import dense_product
from stategraph.errors import describe
from stategraph.event.csr import CSR
from stategraph.event.product import product
from stategraph.event.sampling import bernoulli, fixed_number
from stategraph.init import Initial, param
from stategraph.nn.module import Module
from stategraph.state import ParamState, State


class Sparse(Module):
    """Synapses that are given, with a weight for all or one for each.

    Args:
      csr: the synapses.
      weight: a number, an array with one number for each synapse, or an initialiser.
      param_type: the kind of State that holds the weight.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> layer = event.Sparse(event.CSR([0, 1, 2], [1, 0], (2, 2)), jnp.array([3.0, 4.0]))
    >>> layer(jnp.array([True, False]))
    Array([0., 3.], dtype=float32)
    """

    weight: State[Any]

    def __init__(
        self,
        csr: CSR,
        weight: Initial = 1.0,
        *,
        param_type: Callable[[Any], State[Any]] = ParamState,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.in_size, self.out_size = csr.shape
        self.connections = csr
        value = param(weight, csr.size, allow_none=False)
        self.weight = param_type(jnp.asarray(value, jnp.result_type(float, value)))

    def update(self, events: Any) -> jax.Array:
        """What arrives at the post neurons: ``(..., post)`` for events ``(..., pre)``."""
        return product(events, self.weight.value, self.connections)


class FixedProb(Sparse):
    """Each possible synapse exists with probability ``prob``.

    Args:
      n_pre, n_post: the numbers of neurons.
      prob: the probability of a synapse, between 0 and 1.
      weight: a number, an array with one number for each synapse, or an initialiser.
      seed: a number or a key that decides which synapses exist; without it the default random State does.
      param_type: the kind of State that holds the weight.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> layer = event.FixedProb(1000, 100, 0.1, 1.0, seed=0)
    >>> layer(jnp.zeros(1000, bool)).shape
    (100,)
    """

    def __init__(
        self,
        n_pre: int,
        n_post: int,
        prob: float,
        weight: Initial = 1.0,
        *,
        seed: Any = None,
        param_type: Callable[[Any], State[Any]] = ParamState,
        name: str | None = None,
    ) -> None:
        super().__init__(bernoulli(n_pre, n_post, prob, seed=seed), weight, param_type=param_type, name=name)


class FixedNumConn(Sparse):
    """Every neuron has the same number of synapses.

    Args:
      in_size, out_size: the numbers of pre and post neurons.
      conn_num: how many synapses, or a fraction of the partners that there are.
      conn_weight: a number, an array with one number for each synapse, or an initialiser.
      efferent_target: ``"post"``: every pre neuron sends to ``conn_num`` post neurons; ``"pre"``: every post neuron
        receives from ``conn_num`` pre neurons.
      allow_multi_conn: whether two neurons may have several synapses.
      seed: a number or a key that decides who the partners are; without it the default random State does.
      param_type: the kind of State that holds the weight.
      name: a name for messages and listings.
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        conn_num: int | float,
        conn_weight: Initial = 1.0,
        efferent_target: str = "post",
        allow_multi_conn: bool = True,
        *,
        seed: Any = None,
        param_type: Callable[[Any], State[Any]] = ParamState,
        name: str | None = None,
    ) -> None:
        if efferent_target not in ("pre", "post"):
            raise ValueError(f"efferent_target is 'pre' or 'post', not {efferent_target!r}")
        partners = out_size if efferent_target == "post" else in_size
        number = round(conn_num * partners) if isinstance(conn_num, float) else conn_num
        by = "pre" if efferent_target == "post" else "post"
        csr = fixed_number(in_size, out_size, number, by=by, repeated=allow_multi_conn, seed=seed)
        super().__init__(csr, conn_weight, param_type=param_type, name=name)


class Linear(Module):
    """A dense layer for events: every pre neuron has a synapse to every post neuron.

    Args:
      in_size, out_size: the numbers of pre and post neurons.
      weight: a number for all synapses, an array ``(in_size, out_size)``, or an initialiser.
      param_type: the kind of State that holds the weight.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> event.Linear(3, 2, jnp.arange(6.0).reshape(3, 2))(jnp.array([False, True, True]))
    Array([6., 8.], dtype=float32)
    """

    weight: State[Any]

    def __init__(
        self,
        in_size: int,
        out_size: int,
        weight: Initial,
        *,
        param_type: Callable[[Any], State[Any]] = ParamState,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.in_size, self.out_size = in_size, out_size
        self.shape = (in_size, out_size)
        value = param(weight, (in_size, out_size), allow_none=False)
        self.weight = param_type(jnp.asarray(value, jnp.result_type(float, value)))

    def update(self, events: Any) -> jax.Array:
        """What arrives at the post neurons: ``(..., post)`` for events ``(..., pre)``."""
        given, weight = jnp.asarray(events), self.weight.value
        pre, post = self.shape
        if given.ndim == 0 or given.shape[-1] != pre:
            raise ValueError(
                describe(
                    f"Events of the shape {given.shape} do not fit {pre} pre neurons.",
                    why="the last axis has one element for each",
                )
            )
        if weight.ndim == 0:
            sent = given.astype(weight.dtype)
            return jnp.broadcast_to(sent.sum(-1, keepdims=True) * weight, (*given.shape[:-1], post))
        if given.dtype not in (jnp.bool_, weight.dtype):
            given = given.astype(weight.dtype)
        arrived: jax.Array = dense_product(given.reshape(-1, pre) if given.ndim > 2 else given, weight)
        return arrived.reshape(*given.shape[:-1], post)

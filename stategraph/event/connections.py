"""Connections as modules: they hold weights, and send events when called.

``connections(spikes)`` and ``spikes @ connections`` are the same; ``connections @ events`` goes from post to pre neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.errors import describe
from stategraph.event.csr import CSR
from stategraph.event.product import product
from stategraph.event.sampling import Mask, bernoulli, fixed_number
from stategraph.event.weighted import from_post
from stategraph.init import Initial, param
from stategraph.nn.module import Module, whole
from stategraph.nn.units import refuse_quantity, separated
from stategraph.state import ParamState, State
from stategraph.typing import Size
from stategraph.units import DECLARED, loaded, quantity

ParamType = Callable[..., State[Any]]
"""The kind of State that holds the weight: ``ParamState``, or for constants ``FakeState``."""


class Connections(Module):
    """Base class of connections between two populations.

    Subclasses write ``update(events)``, from pre to post neurons, ``back(events)``, from post to pre, and ``todense()``.

    Args:
      in_size, out_size: the shapes of the two populations: a number, or a shape whose last axis counts and whose other
        axes are the same.
      name: a name for messages and listings.

    Attributes:
      shape: how many pre and post neurons there are.
    """

    shape: tuple[int, int]

    def __init__(self, in_size: Size, out_size: Size, name: str | None = None) -> None:
        super().__init__(name)
        self.in_size, self.out_size = in_size, out_size
        before, after = self.in_size or (), self.out_size or ()
        if not before or not after or before[:-1] != after[:-1]:
            raise ValueError(
                describe(
                    f"{type(self).__name__} from {before} to {after} is not possible.",
                    why="connections change the last axis; those before it have to be the same",
                )
            )
        self.shape = (before[-1], after[-1])

    def back(self, events: Any) -> jax.Array:
        """What arrives at the pre neurons, ``(..., pre)``, of events of the post neurons, ``(..., post)``."""
        raise NotImplementedError(f"{type(self).__name__} goes from pre to post neurons only")

    def todense(self) -> jax.Array:
        """The weights as a matrix ``(pre, post)``."""
        raise NotImplementedError(f"{type(self).__name__} has no matrix")

    def __rmatmul__(self, events: Any) -> jax.Array:
        arrived: jax.Array = self(events)
        return arrived

    def __matmul__(self, events: Any) -> jax.Array:
        return self._in_units(from_post(events, self.shape, self.back))  # type: ignore[no-any-return]

    def _weight(self, weight: Initial, size: Size, param_type: ParamType) -> State[Any]:
        """The State of a weight: one that is given, or a new one."""
        if isinstance(weight, State):
            refuse_quantity(weight, "The weight of connections")
            return weight
        weight, unit = separated(weight)
        value = param(weight, size, allow_none=False)
        declared = {} if unit is None else {DECLARED: unit}
        return param_type(jnp.asarray(value, jnp.result_type(float, value)), **declared)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._in_units(super().__call__(*args, **kwargs))

    def _in_units(self, arrived: Any) -> Any:
        """What arrives is in the unit of the weight, if that has one."""
        weight = getattr(self, "weight", None)
        return (
            quantity(arrived, weight.unit) if loaded() is not None and isinstance(weight, State) else arrived
        )

    def _checked(self, events: Any, side: int) -> jax.Array:
        """Events as an array, if there is one for each neuron of that side."""
        given: jax.Array = jnp.asarray(events)
        neurons = self.shape[side]
        if given.ndim == 0 or given.shape[-1] != neurons:
            raise ValueError(
                describe(
                    f"Events of the shape {given.shape} do not fit {neurons} {('pre', 'post')[side]} neurons.",
                    why=f"the last axis of what {type(self).__name__} is given has one element for each",
                )
            )
        return given


class Sparse(Connections):
    """Synapses that are given, with a weight for all or one for each.

    Args:
      csr: the synapses.
      weight: a number, an array with one number for each synapse, an initialiser, or a State to use.
      param_type: the kind of State that holds the weight.
      name: a name for messages and listings.

    Attributes:
      connections: the synapses, a ``CSR``.
      weight: the State of the weight.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> layer = event.Sparse(event.CSR([0, 1, 2], [1, 0], (2, 2)), jnp.array([3.0, 4.0]))
    >>> jnp.array([True, False]) @ layer
    Array([0., 3.], dtype=float32)
    >>> layer @ jnp.array([True, False])
    Array([0., 4.], dtype=float32)
    """

    weight: State[Any]

    def __init__(
        self,
        csr: CSR,
        weight: Initial = 1.0,
        *,
        in_size: Size | None = None,
        out_size: Size | None = None,
        param_type: ParamType = ParamState,
        name: str | None = None,
    ) -> None:
        pre, post = csr.shape
        super().__init__(pre if in_size is None else in_size, post if out_size is None else out_size, name)
        self.connections = csr
        self.weight = self._weight(weight, csr.size, param_type)

    def update(self, events: Any) -> jax.Array:
        """What arrives at the post neurons: ``(..., post)`` for events ``(..., pre)``."""
        return product(events, self.weight.value, self.connections)

    def back(self, events: Any) -> jax.Array:
        return product(events, self.weight.value, self.connections, transpose=True)

    def todense(self) -> jax.Array:
        return self.connections.todense(self.weight.value)


class FixedProb(Sparse):
    """Each possible synapse exists with probability ``prob``, independently of all others.

    So neurons have different numbers of synapses. ``FixedNumConn`` gives each the same number; ``stategraph.nn.EventFixedProb``
    is a name for that one, and not for this.

    Args:
      n_pre, n_post: the numbers of neurons; shapes have equal leading axes, and their last axis counts.
      prob: the probability of a synapse, between 0 and 1.
      weight: a number, an array with one number for each synapse, an initialiser, or a State to use.
      include_self: whether neuron ``i`` may have a synapse to neuron ``i``, for connections within a population.
      mask: where synapses may be: a boolean matrix ``(pre, post)``, or a function of arrays of pre and of post neurons that
        gives booleans.
      seed: a number or a key that decides which synapses exist; without it the default random State does.
      param_type: the kind of State that holds the weight.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> layer = event.FixedProb(1000, 100, 0.1, 1.0, seed=0)
    >>> (jnp.zeros(1000, bool) @ layer).shape
    (100,)
    """

    def __init__(
        self,
        n_pre: Size,
        n_post: Size,
        prob: float,
        weight: Initial = 1.0,
        *,
        include_self: bool = True,
        mask: Mask | None = None,
        seed: Any = None,
        param_type: ParamType = ParamState,
        name: str | None = None,
    ) -> None:
        csr = bernoulli(last(n_pre), last(n_post), prob, include_self=include_self, mask=mask, seed=seed)
        super().__init__(csr, weight, in_size=n_pre, out_size=n_post, param_type=param_type, name=name)


class FixedNumConn(Sparse):
    """Every neuron has the same number of synapses.

    Args:
      in_size, out_size: the numbers of pre and post neurons; shapes have equal leading axes, and their last axis counts.
      conn_num: how many synapses, or (a float) a fraction of the partners that there are.
      conn_weight: a number, an array with one number for each synapse, an initialiser, or a State to use. A matrix has a row
        for each neuron that ``conn_num`` is the number of, with the weights of its synapses by ascending partner.
      efferent_target: ``"post"``: every pre neuron sends to ``conn_num`` post neurons; ``"pre"``: every post neuron
        receives from ``conn_num`` pre neurons.
      afferent_ratio: the share of these neurons that has synapses at all; which, is drawn.
      allow_multi_conn: whether two neurons may have several synapses.
      seed: a number or a key that decides who the partners are; without it the default random State does.
      name: a name for messages and listings.
      conn_init: ``vmap`` or ``for_loop``, two ways to draw the same partners: the neurons are drawn in parallel, in memory
        like the synapses, with either.
      param_type: the kind of State that holds the weight.
      include_self: whether neuron ``i`` may have a synapse to neuron ``i``, for connections within a population.
      mask: where synapses may be, as for ``FixedProb``; every neuron still has its number of them.

    Example:

    >>> import jax.numpy as jnp
    >>> from stategraph import event
    >>> layer = event.FixedNumConn(50, 100, 10, 1.0, seed=0)
    >>> float((jnp.arange(50) == 3) @ layer @ jnp.ones(100))
    10.0
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        conn_num: int | float,
        conn_weight: Initial = 1.0,
        efferent_target: str = "post",
        afferent_ratio: float = 1.0,
        allow_multi_conn: bool = True,
        seed: Any = None,
        name: str | None = None,
        conn_init: str = "vmap",
        param_type: ParamType = ParamState,
        *,
        include_self: bool = True,
        mask: Mask | None = None,
    ) -> None:
        if conn_init not in ("vmap", "for_loop"):
            raise ValueError(f"conn_init is 'vmap' or 'for_loop', not {conn_init!r}")
        if efferent_target not in ("pre", "post"):
            raise ValueError(f"efferent_target is 'pre' or 'post', not {efferent_target!r}")
        pre, post = last(in_size), last(out_size)
        partners = post if efferent_target == "post" else pre
        csr = fixed_number(
            pre,
            post,
            _count(conn_num, partners),
            by="pre" if efferent_target == "post" else "post",
            repeated=allow_multi_conn,
            share=afferent_ratio,
            include_self=include_self,
            mask=mask,
            seed=seed,
        )
        if isinstance(conn_weight, (np.ndarray, jax.Array)) and conn_weight.ndim == 2:
            conn_weight = _in_order(conn_weight, csr, efferent_target)
        super().__init__(
            csr, conn_weight, in_size=in_size, out_size=out_size, param_type=param_type, name=name
        )


def _in_order(weights: Any, csr: CSR, efferent_target: str) -> jax.Array:
    """A matrix of weights as an array with one for each synapse."""
    flat = jnp.asarray(weights).ravel()
    if efferent_target == "post" or flat.size != csr.size:
        return flat
    return jnp.zeros_like(flat).at[csr.by_post[1]].set(flat)


def last(size: Size) -> int:
    """The length of the last axis of a size."""
    return whole(np.atleast_1d(np.asarray(size))[-1])


def _count(number: int | float, partners: int) -> int:
    if not isinstance(number, float):
        return int(number)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"a fraction of the partners is between 0 and 1, not {number}")
    return round(number * partners)

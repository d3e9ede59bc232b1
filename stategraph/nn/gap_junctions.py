"""Gap junctions: electrical synapses, through which current flows as long as two potentials differ.

They are called once in each step, before the populations that they couple; the potentials are those at the beginning of the
step. Conductances in nS, potentials in mV, currents in nA (with populations per cm² of membrane, such as ``HH``: µS and µA).
Bennett and Zukin, "Electrical coupling and neuronal synchronization in the mammalian brain" (2004).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.errors import describe
from stategraph.init import Initial, param
from stategraph.nn.dynamics import Prefetch
from stategraph.nn.module import Module
from stategraph.nn.population import Population
from stategraph.nn.synouts import NS_MV_IN_NA
from stategraph.nn.units import number
from stategraph.state import ParamState, State

__all__ = ["AsymmetryGapJunction", "SymmetryGapJunction"]

Pairs = Callable[[Any, Any], tuple[Any, Any]]
"""Gives, for the shapes of two populations, the places of the neurons that are coupled: one of each, pair by pair."""


class _GapJunction(Module):
    """Pairs of neurons with conductances."""

    weight: State[Any]

    def __init__(self, pre: Any, pre_state: str, post: Any, post_state: str, conn: Pairs) -> None:
        super().__init__()
        for population in (pre, post):
            if not isinstance(population, Population):
                raise TypeError(
                    describe(
                        f"{type(self).__name__} couples a {type(population).__name__}.",
                        why="current arrives at a stategraph.nn.Neuron or another Population",
                    )
                )
        if not callable(conn):
            raise TypeError(
                describe(
                    f"conn is a function of the shapes of two populations, not a {type(conn).__name__}.",
                    why="it gives the neurons that are coupled, as two arrays",
                    fix="conn=lambda pre, post: (pre_ids, post_ids)",
                )
            )
        self.pre, self.post = pre, post
        self.pre_state, self.post_state = pre_state, post_state
        pre_ids, post_ids = (np.asarray(ids) for ids in conn(pre.varshape, post.varshape))
        if pre_ids.ndim != 1 or pre_ids.shape != post_ids.shape:
            raise ValueError(
                describe(
                    f"{type(self).__name__} is given places of the shapes {pre_ids.shape} and {post_ids.shape}.",
                    why="there is one of each for every pair",
                )
            )
        for ids, population in ((pre_ids, pre), (post_ids, post)):
            size = population.varshape[-1]
            whole = np.issubdtype(ids.dtype, np.integer)
            if ids.size and not (whole and ids.min() >= 0 and ids.max() < size):
                raise ValueError(f"the places of coupled neurons are integers from 0 to {size - 1}")
        self.pre_ids, self.post_ids = pre_ids.astype(np.int32), post_ids.astype(np.int32)
        self.pre_key = pre.new_input_key(type(self).__name__)
        self.post_key = post.new_input_key(type(self).__name__)

    def _conductances(self) -> tuple[Any, Any]:
        """Those for the current into the post neurons, and for the current into the pre neurons."""
        raise NotImplementedError

    def update(self) -> None:
        """Send the currents of this step to both populations."""
        V = Prefetch(self.pre, self.pre_state)()
        U = Prefetch(self.post, self.post_state)()
        apart = NS_MV_IN_NA * (V[..., self.pre_ids] - U[..., self.post_ids])
        into_post, into_pre = self._conductances()
        self.post.add_current_input(self.post_key, _placed(into_post * apart, U, self.post_ids))
        self.pre.add_current_input(self.pre_key, -_placed(into_pre * apart, V, self.pre_ids))


def _placed(currents: jax.Array, like: jax.Array, ids: np.ndarray) -> jax.Array:
    nothing: jax.Array = jnp.zeros_like(like)
    return nothing.at[..., ids].add(currents.astype(like.dtype))


class SymmetryGapJunction(_GapJunction):
    """Gap junctions with one conductance in both directions: the current ``g (V_pre - V_post)`` flows from the one neuron to
    the other.

    Args:
      couples: the population, or the two populations, that are coupled.
      states: the name of the State that is the potential, or one name for each.
      conn: a function of the shapes of the two populations; it returns the places of coupled neurons, two arrays
        ``(pairs,)``.
      weight: the conductances (nS): a number, ``(pairs,)``, or an initialiser.
      param_type: the kind of State that holds them.

    Attributes:
      weight: the State with the conductances.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> cells = sg.nn.LIF(2, R=100.0, tau=20.0, V_th=100.0)  # a leak of 10 nS
    >>> junction = sg.nn.SymmetryGapJunction(cells, "V", lambda pre, post: ([0], [1]), weight=10.0)
    >>> _ = sg.nn.init_all_states(cells)
    >>> def step(i):
    ...     junction()
    ...     cells(jnp.array([0.3, 0.0]))  # nA, into the first
    >>> with sg.environ.context(dt=0.1):
    ...     sg.compile.for_loop(step, jnp.arange(3000))
    >>> [round(float(V), 2) for V in cells.V.value]
    [20.0, 10.0]
    """

    def __init__(
        self,
        couples: Population | tuple[Population, Population],
        states: str | tuple[str, str],
        conn: Pairs,
        weight: Initial,
        param_type: Callable[[Any], State[Any]] = ParamState,
    ) -> None:
        pre, post = couples if isinstance(couples, (tuple, list)) else (couples, couples)
        pre_state, post_state = states if isinstance(states, (tuple, list)) else (states, states)
        super().__init__(pre, pre_state, post, post_state, conn)
        weight = number(weight, "nS", "The weight of a gap junction")
        value = param(weight, (len(self.pre_ids),), allow_none=False)
        self.weight = param_type(jnp.asarray(value, jnp.result_type(float, value)))

    def _conductances(self) -> tuple[Any, Any]:
        return self.weight.value, self.weight.value


class AsymmetryGapJunction(_GapJunction):
    """Rectifying gap junctions: into the post neuron flows ``g[0] (V_pre - V_post)``, and out of the pre neuron
    ``g[1] (V_pre - V_post)``. Phelan, "Innexins: members of an evolutionarily conserved family of gap-junction proteins"
    (2005).

    Args:
      pre: the one population.
      pre_state: the name of its State that is the potential.
      post: the other; it may be the same.
      post_state: the name of its State that is the potential.
      conn: as of ``SymmetryGapJunction``.
      weight: the conductances (nS): two numbers, ``(pairs, 2)``, or an initialiser.
      param_type: the kind of State that holds them.

    Attributes:
      weight: the State with the conductances.

    Example: current that arrives, but does not leave.

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> cells = sg.nn.LIF(2, R=100.0, tau=20.0, V_th=100.0)
    >>> junction = sg.nn.AsymmetryGapJunction(cells, "V", cells, "V", lambda pre, post: ([0], [1]), jnp.array([10.0, 0.0]))
    >>> _ = sg.nn.init_all_states(cells)
    >>> def step(i):
    ...     junction()
    ...     cells(jnp.array([0.3, 0.0]))
    >>> with sg.environ.context(dt=0.1):
    ...     sg.compile.for_loop(step, jnp.arange(3000))
    >>> [round(float(V), 2) for V in cells.V.value]
    [30.0, 15.0]
    """

    def __init__(
        self,
        pre: Population,
        pre_state: str,
        post: Population,
        post_state: str,
        conn: Pairs,
        weight: Initial,
        param_type: Callable[[Any], State[Any]] = ParamState,
    ) -> None:
        super().__init__(pre, pre_state, post, post_state, conn)
        weight = number(weight, "nS", "The weight of a gap junction")
        value = jnp.asarray(param(weight, (len(self.pre_ids), 2), allow_none=False))
        self.weight = param_type(value.astype(jnp.result_type(float, value)))

    def _conductances(self) -> tuple[Any, Any]:
        weight = self.weight.value
        return weight[..., 0], weight[..., 1]

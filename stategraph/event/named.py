"""Connections that ``stategraph.nn`` names after their kind of input, and with other defaults.

Their names say *event*; what they compute is that of their base classes.
"""

from __future__ import annotations

from stategraph.event.connections import FixedNumConn, ParamType
from stategraph.event.dense import Linear
from stategraph.init import Initial
from stategraph.state import ParamState
from stategraph.typing import Size


class EventFixedProb(FixedNumConn):
    """Every neuron has the same number of synapses: ``FixedNumConn`` by another name, with its arguments.

    Nothing is left to a probability here but who the partners are: with ``conn_num=0.1`` each of 100 pre neurons has
    exactly ``0.1 * n_post`` synapses. ``stategraph.event.FixedProb(n_pre, n_post, 0.1, weight)`` draws for each pair of
    neurons whether there is a synapse, so that the numbers of synapses differ from neuron to neuron (by a binomial
    distribution), and never has two between the same neurons.

    Example:

    >>> import stategraph as sg
    >>> fixed = sg.nn.EventFixedProb(100, 100, 0.1, 1.0, seed=0)
    >>> drawn = sg.event.FixedProb(100, 100, 0.1, 1.0, seed=0)
    >>> [(int(n.min()), int(n.max())) for n in (fixed.todense().sum(1), drawn.todense().sum(1))]
    [(10, 10), (2, 18)]
    """


class EventLinear(Linear):
    """A dense layer for events: ``stategraph.event.Linear``, in which a number other than 0 counts as 1 by default.

    Args:
      in_size, out_size, weight, name, param_type: as in ``stategraph.event.Linear``.
      float_as_event: whether a number other than 0 counts as 1, whatever it is; its derivative is that of the number.
      block_size: changes nothing: a kernel chooses its own blocks.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> sg.nn.EventLinear(3, 2, 1.0)(jnp.array([0.0, 0.5, 2.0]))
    Array([2., 2.], dtype=float32)
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        weight: Initial,
        float_as_event: bool = True,
        block_size: int = 64,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(in_size, out_size, weight, float_as_event, name=name, param_type=param_type)

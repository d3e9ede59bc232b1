"""Readouts: what a population says, as slowly changing numbers or as spikes. The last layer of a trained spiking network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from stategraph import environ
from stategraph.init import Constant, Initial, KaimingNormal, param
from stategraph.nn.neurons_leaky import IF
from stategraph.nn.population import Parameter, Population, values
from stategraph.nn.units import step
from stategraph.state import HiddenState, ParamState, State
from stategraph.surrogate import ReluGrad
from stategraph.typing import Size

__all__ = ["LeakyRateReadout", "LeakySpikeReadout"]


class _Readout(Population):
    """A population that sits behind weights: it has as many elements as there are outputs, and another number of inputs."""

    weight: ParamState[Any]

    @property
    def varshape(self) -> tuple[int, ...]:
        """The shape of the population."""
        assert self._out_size is not None
        return self._out_size

    def _connect(self, in_size: Size, w_init: Initial) -> None:
        self.in_size = in_size
        shape = (self._in_size[-1], self.varshape[-1])
        weight = jnp.asarray(param(w_init, shape, allow_none=False), environ.dftype())
        self.weight = ParamState(jnp.broadcast_to(weight, shape))


class LeakyRateReadout(_Readout):
    """Leaky integrators without spikes: ``r = exp(-dt / tau) r + x @ weight``. Neftci, Mostafa and Zenke, "Surrogate gradient
    learning in spiking neural networks" (2019).

    Args:
      in_size: how many inputs there are.
      out_size: how many integrators there are.
      tau: their time constant (ms).
      w_init: the weights at first, ``(in_size, out_size)``.
      name: a name for messages and listings.

    Attributes:
      weight: ``ParamState``, the weights: ``(in_size, out_size)``.
      r: ``HiddenState``, what is read: ``(out_size,)`` or ``(batch, out_size)``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> readout = sg.nn.init_all_states(sg.nn.LeakyRateReadout(2, 1, tau=10.0, w_init=sg.nn.init.Constant(0.5)))
    >>> with sg.environ.context(dt=1.0):
    ...     [round(float(readout(jnp.full(2, x))[0]), 3) for x in (1.0, 0.0, 0.0)]
    [1.0, 0.905, 0.819]
    """

    UNITS: ClassVar[Mapping[str, str]] = {"tau": "ms"}

    r: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        tau: Parameter = 5.0,
        w_init: Initial = KaimingNormal(),
        name: str | None = None,
    ) -> None:
        super().__init__(out_size, name)
        self.tau = self._parameter("tau", tau, positive=True)
        self._connect(in_size, w_init)

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"r": (HiddenState, 0.0)}

    def update(self, x: Any) -> Any:
        """One step with the input ``(..., in_size)``; returns what is read."""
        (tau,) = values(self.tau)
        decay = jnp.exp(-step() / jnp.asarray(tau, self.r.value.dtype))
        self.r.value = self._checked(decay * self.r.value + x @ self.weight.value, self.r)
        return self.r.value


class LeakySpikeReadout(_Readout, IF):
    """Integrate-and-fire neurons behind weights: ``tau dV/dt = -V + x @ weight``; a spike at ``V >= V_th``, then a reset by
    or to 0. They are ``IF`` with a resistance of 1.

    Args:
      in_size: how many inputs there are.
      out_size: how many neurons there are.
      tau: their time constant (ms).
      V_th: the threshold.
      w_init: the weights at first, ``(in_size, out_size)``.
      V_initializer: the potential at first.
      spk_fun: what makes spikes: a surrogate.
      spk_reset: ``"soft"`` or ``"hard"``, see ``Neuron``.
      name: a name for messages and listings.

    Attributes:
      weight: ``ParamState``, the weights: ``(in_size, out_size)``.
      V: ``HiddenState``, the potential: ``(out_size,)`` or ``(batch, out_size)``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> readout = sg.nn.init_all_states(sg.nn.LeakySpikeReadout(2, 1, w_init=sg.nn.init.Constant(1.5)))
    >>> with sg.environ.context(dt=1.0):
    ...     [int(readout(jnp.ones(2))[0]) for _ in range(5)]
    [0, 0, 1, 0, 1]
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        tau: Parameter = 5.0,
        V_th: Parameter = 1.0,
        w_init: Initial = KaimingNormal(),
        V_initializer: Initial = Constant(0.0),
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008 -- immutable
        spk_reset: str = "soft",
        name: str | None = None,
    ) -> None:
        IF.__init__(
            self,
            out_size,
            tau=tau,
            V_th=V_th,
            V_initializer=V_initializer,
            spk_fun=spk_fun,
            spk_reset=spk_reset,
            name=name,
        )
        self._connect(in_size, w_init)

    def update(self, x: Any) -> Any:  # type: ignore[override]
        """One step with the input ``(..., in_size)``; returns the spikes."""
        return super().update(x @ self.weight.value)

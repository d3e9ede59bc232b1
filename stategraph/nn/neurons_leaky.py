"""Neurons whose membrane is linear below the threshold: integrate-and-fire.

Their exponential Euler steps are exact for a current that is constant within a step. Units: ms, mV, nA, MOhm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from stategraph.init import Constant, Initial
from stategraph.nn.integrators import exp_euler_step
from stategraph.nn.population import LONG_AGO, Neuron, Parameter, values
from stategraph.nn.units import now, step
from stategraph.state import HiddenState, ShortTermState, State
from stategraph.surrogate import ReluGrad
from stategraph.typing import Size

__all__ = ["ALIF", "IF", "LIF", "LIFRef"]


class IF(Neuron):
    """Integrate-and-fire neurons: ``tau dV/dt = -V + R I``; a spike at ``V >= V_th``, then a reset by or to 0. Lapicque,
    "Recherches quantitatives sur l'excitation électrique des nerfs" (1907); review: Burkitt (2006).

    Args:
      in_size: the shape of the population.
      R: the resistance of the membrane (MOhm).
      tau: its time constant (ms).
      V_th: the threshold (mV).
      V_initializer: the potential at first (mV).
      spk_fun: what makes spikes: a surrogate.
      spk_reset: ``"soft"`` or ``"hard"``, see ``Neuron``.
      name: a name for messages and listings.

    Attributes:
      V: ``HiddenState``, the potential: ``(*in_size)`` or ``(batch, *in_size)``.

    Example:

    >>> import stategraph as sg
    >>> neuron = sg.nn.init_all_states(sg.nn.IF(1))
    >>> with sg.environ.context(dt=1.0):
    ...     [int(neuron(3.0)[0]) for _ in range(5)]
    [0, 0, 1, 0, 1]
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        "R": "Mohm",
        "tau": "ms",
        "V_th": "mV",
        "V": "mV",
        "input": "nA",
        "current": "nA",
        "delta": "mV",
    }

    V: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        R: Parameter = 1.0,
        tau: Parameter = 5.0,
        V_th: Parameter = 1.0,
        V_initializer: Initial = Constant(0.0),
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008
        spk_reset: str = "soft",
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, spk_fun, spk_reset, name)
        self.R = self._parameter("R", R)
        self.tau = self._parameter("tau", tau, positive=True)
        self.V_th = self._parameter("V_th", V_th)
        self._check_threshold(self.V_th)
        self.V_initializer = V_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"V": (HiddenState, self.V_initializer)}

    def get_spike(self, V: Any = None) -> Any:
        (V_th,) = values(self.V_th)
        return self.spk_fun(((self.V.value if V is None else V) - V_th) / V_th)

    def update(self, x: Any = 0.0) -> Any:
        """One step with the current ``x`` (nA); returns the spikes."""
        V_th, R, tau = values(self.V_th, self.R, self.tau)
        V = self.after_reset(self.V.value, self.get_spike(), V_th, 0.0)
        V = exp_euler_step(lambda v: (-v + R * self.sum_current_inputs(x, v)) / tau, V)
        self.V.value = self._checked(self.sum_delta_inputs(V), self.V)
        return self.get_spike()


class LIF(Neuron):
    """Leaky integrate-and-fire neurons: ``tau dV/dt = -(V - V_rest) + R I``; a spike at ``V >= V_th``, then a reset with
    ``V_reset``. Stein, "A theoretical analysis of neuronal variability" (1965); Abbott, "Lapicque's introduction of the
    integrate-and-fire model neuron (1907)" (1999).

    Args:
      in_size: the shape of the population.
      R: the resistance of the membrane (MOhm).
      tau: its time constant (ms).
      V_th: the threshold (mV).
      V_reset: the potential after a spike (mV).
      V_rest: the potential without input (mV).
      V_initializer: the potential at first (mV).
      spk_fun: what makes spikes of ``(V - V_th) / (V_th - V_reset)``: a surrogate.
      spk_reset: ``"soft"`` or ``"hard"``, see ``Neuron``.
      name: a name for messages and listings.

    Attributes:
      V: ``HiddenState``, the potential: ``(*in_size)`` or ``(batch, *in_size)``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neurons = sg.nn.init_all_states(sg.nn.LIF(2, tau=20.0, V_th=10.0))
    >>> with sg.environ.context(dt=0.1):
    ...     spikes = sg.compile.for_loop(lambda i: neurons(jnp.array([9.0, 15.0])), jnp.arange(1000))
    >>> spikes.sum(0)  # 1.5 times the threshold: one spike in tau ln 3 = 22 ms
    Array([0., 4.], dtype=float32)
    """

    UNITS: ClassVar[Mapping[str, str]] = {**IF.UNITS, "V_reset": "mV", "V_rest": "mV"}

    V: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        R: Parameter = 1.0,
        tau: Parameter = 5.0,
        V_th: Parameter = 1.0,
        V_reset: Parameter = 0.0,
        V_rest: Parameter = 0.0,
        V_initializer: Initial = Constant(0.0),
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008
        spk_reset: str = "soft",
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, spk_fun, spk_reset, name)
        self.R = self._parameter("R", R)
        self.tau = self._parameter("tau", tau, positive=True)
        self.V_th = self._parameter("V_th", V_th)
        self.V_reset = self._parameter("V_reset", V_reset)
        self._check_threshold(self.V_th, self.V_reset, "V_reset")
        self.V_rest = self._parameter("V_rest", V_rest)
        self.V_initializer = V_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"V": (HiddenState, self.V_initializer)}

    def get_spike(self, V: Any = None) -> Any:
        V_th, V_reset = values(self.V_th, self.V_reset)
        return self.spk_fun(((self.V.value if V is None else V) - V_th) / (V_th - V_reset))

    def _reset_potential(self) -> jax.Array:
        """The potential after the reset of the neurons that spiked at the end of the last step."""
        return self.after_reset(self.V.value, self.get_spike(), *values(self.V_th, self.V_reset))

    def _integrated(self, V: jax.Array, x: Any) -> jax.Array:
        """The potential a step later, with what arrives."""
        V_rest, R, tau = values(self.V_rest, self.R, self.tau)
        V = exp_euler_step(lambda v: (V_rest - v + R * self.sum_current_inputs(x, v)) / tau, V)
        return self._checked(self.sum_delta_inputs(V), self.V)

    def update(self, x: Any = 0.0) -> Any:
        """One step with the current ``x`` (nA); returns the spikes."""
        self.V.value = self._integrated(self._reset_potential(), x)
        return self.get_spike()


class LIFRef(LIF):
    """Leaky integrate-and-fire neurons with a refractory period: ``LIF`` whose potential stays where the reset put it for
    ``tau_ref`` after a spike, to the nearest number of steps; what arrives meanwhile is lost. (Where a soft reset leaves it above
    the threshold, the neuron spikes again in the next step.) Needs the setting ``t``, the
    time (ms), of ``stategraph.environ``. Gerstner and Kistler, "Spiking Neuron Models" (2002), section 4.1.

    Args:
      in_size: the shape of the population.
      R: the resistance of the membrane (MOhm).
      tau: its time constant (ms).
      tau_ref: the refractory period (ms).
      V_th: the threshold (mV).
      V_reset: the potential after a spike (mV).
      V_rest: the potential without input (mV).
      V_initializer: the potential at first (mV).
      spk_fun: what makes spikes of ``(V - V_th) / (V_th - V_reset)``: a surrogate.
      spk_reset: ``"soft"`` or ``"hard"``, see ``Neuron``.
      name: a name for messages and listings.

    Attributes:
      V: ``HiddenState``, the potential: ``(*in_size)`` or ``(batch, *in_size)``.
      last_spike_time: ``ShortTermState``, the time of the last spike (ms), of the same shape.

    Example:

    >>> import stategraph as sg
    >>> neuron = sg.nn.init_all_states(sg.nn.LIFRef(1, tau_ref=3.0))
    >>> spikes = []
    >>> for i in range(10):
    ...     with sg.environ.context(dt=1.0, t=float(i)):
    ...         spikes.append(int(neuron(7.0)[0]))
    >>> spikes
    [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    """

    UNITS: ClassVar[Mapping[str, str]] = {**LIF.UNITS, "tau_ref": "ms", "last_spike_time": "ms"}

    last_spike_time: ShortTermState[Any]

    def __init__(
        self,
        in_size: Size,
        R: Parameter = 1.0,
        tau: Parameter = 5.0,
        tau_ref: Parameter = 5.0,
        V_th: Parameter = 1.0,
        V_reset: Parameter = 0.0,
        V_rest: Parameter = 0.0,
        V_initializer: Initial = Constant(0.0),
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008
        spk_reset: str = "soft",
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, R, tau, V_th, V_reset, V_rest, V_initializer, spk_fun, spk_reset, name)
        self.tau_ref = self._parameter("tau_ref", tau_ref)

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {**super()._beginnings(), "last_spike_time": (ShortTermState, LONG_AGO)}

    def update(self, x: Any = 0.0) -> Any:
        """One step with the current ``x`` (nA); returns the spikes."""
        t = now()
        (tau_ref,) = values(self.tau_ref)
        last = self.last_spike_time.value
        before = self._reset_potential()
        refractory = t - last < tau_ref - step() / 2
        self.V.value = jnp.where(refractory, before, self._integrated(before, x))
        spike = self.get_spike()
        self.last_spike_time.value = jnp.where(jax.lax.stop_gradient(spike) > 0, t, last).astype(last.dtype)
        return spike


class ALIF(LIF):
    """Leaky integrate-and-fire neurons with an adaptive threshold: ``LIF`` with the threshold ``V_th + beta a``, where
    ``tau_a da/dt = -a`` and each spike adds 1 to ``a``. Bellec et al., "Long short-term memory and learning-to-learn in
    networks of spiking neurons" (NeurIPS 2018).

    Args:
      in_size: the shape of the population.
      R: the resistance of the membrane (MOhm).
      tau: its time constant (ms).
      tau_a: the time constant of the adaptation (ms).
      V_th: the threshold without adaptation (mV).
      V_reset: the potential after a spike (mV).
      V_rest: the potential without input (mV).
      beta: how far a spike raises the threshold (mV).
      spk_fun: what makes spikes of ``(V - V_th - beta a) / (V_th - V_reset)``: a surrogate.
      spk_reset: ``"soft"``, by ``V_th - V_reset``, or ``"hard"``, see ``Neuron``.
      V_initializer: the potential at first (mV).
      a_initializer: the adaptation at first.
      name: a name for messages and listings.

    Attributes:
      V: ``HiddenState``, the potential: ``(*in_size)`` or ``(batch, *in_size)``.
      a: ``HiddenState``, the adaptation, of the same shape.

    Example:

    >>> import stategraph as sg
    >>> neuron = sg.nn.init_all_states(sg.nn.ALIF(1, beta=1.0))
    >>> with sg.environ.context(dt=1.0):
    ...     [int(neuron(7.0)[0]) for _ in range(8)]
    [1, 0, 1, 0, 1, 0, 0, 1]
    """

    UNITS: ClassVar[Mapping[str, str]] = {**LIF.UNITS, "tau_a": "ms", "beta": "mV"}

    a: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        R: Parameter = 1.0,
        tau: Parameter = 5.0,
        tau_a: Parameter = 100.0,
        V_th: Parameter = 1.0,
        V_reset: Parameter = 0.0,
        V_rest: Parameter = 0.0,
        beta: Parameter = 0.1,
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008
        spk_reset: str = "soft",
        V_initializer: Initial = Constant(0.0),
        a_initializer: Initial = Constant(0.0),
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, R, tau, V_th, V_reset, V_rest, V_initializer, spk_fun, spk_reset, name)
        self.tau_a = self._parameter("tau_a", tau_a, positive=True)
        self.beta = self._parameter("beta", beta)
        self.a_initializer = a_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {**super()._beginnings(), "a": (HiddenState, self.a_initializer)}

    def get_spike(self, V: Any = None, a: Any = None) -> Any:
        (beta,) = values(self.beta)
        V, a = self.V.value if V is None else V, self.a.value if a is None else a
        return super().get_spike(V - beta * a)

    def update(self, x: Any = 0.0) -> Any:
        """One step with the current ``x`` (nA); returns the spikes."""
        (tau_a,) = values(self.tau_a)
        a = self.a.value + self.get_spike()
        self.V.value = self._integrated(self._reset_potential(), x)
        self.a.value = exp_euler_step(lambda a: -a / tau_a, a)
        return self.get_spike()

"""Synapses: conductances over time, of what arrives. Time constants in ms, conductances in nS.

Those that are linear (``Expon``, ``DualExpon``, ``Alpha``) stand for all synapses of a population at once: what arrives is
already summed over the neurons that send. The others stand for the neurons that send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from stategraph.errors import describe
from stategraph.init import Constant, Initial
from stategraph.nn.integrators import exp_euler_step
from stategraph.nn.population import LONG_AGO, Parameter, Synapse, known, values
from stategraph.nn.units import INPUT, now, step
from stategraph.state import HiddenState, ShortTermState, State
from stategraph.typing import Size

__all__ = ["AMPA", "STD", "STP", "Alpha", "DualExpon", "Expon", "GABAa"]


class Expon(Synapse):
    """Exponential decay: ``tau dg/dt = -g``; what arrives is added to ``g`` at the end of the step. Sterratt et al.,
    "Principles of Computational Modelling in Neuroscience" (2011), section 7.2.

    Args:
      in_size: the shape of the population.
      name: a name for messages and listings.
      tau: the time constant (ms).
      g_initializer: the conductance at first (nS).

    Attributes:
      g: ``HiddenState``, the conductance: ``(*in_size)`` or ``(batch, *in_size)``.

    Example:

    >>> import stategraph as sg
    >>> synapse = sg.nn.init_all_states(sg.nn.Expon(1, tau=2.0))
    >>> with sg.environ.context(dt=1.0):
    ...     [round(float(synapse(x)[0]), 3) for x in (1.0, 0.0, 0.0)]
    [1.0, 0.607, 0.368]
    """

    UNITS: ClassVar[Mapping[str, str]] = {"tau": "ms", "g": "nS", "input": "nS", "delta": "nS"}

    g: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        name: str | None = None,
        tau: Parameter = 8.0,
        g_initializer: Initial = Constant(0.0),
    ) -> None:
        super().__init__(in_size, name)
        self.tau = self._parameter("tau", tau, positive=True)
        self.g_initializer = g_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"g": (HiddenState, self.g_initializer)}

    def update(self, x: Any = 0.0) -> Any:
        """One step; returns the conductance, with what arrived (``x`` and delta inputs)."""
        x = self._arriving(x, INPUT)
        (tau,) = values(self.tau)
        g = exp_euler_step(lambda g: -g / tau, self.g.value)
        self.g.value = self._checked(self.sum_delta_inputs(g + x), self.g)
        return self.g.value


class DualExpon(Synapse):
    """Exponential rise and decay: ``g = amplitude (exp(-t / tau_decay) - exp(-t / tau_rise))`` after what arrives at 0,
    normalised to a peak of ``amplitude``. Sterratt et al., "Principles of Computational Modelling in Neuroscience" (2011),
    section 7.2.

    Args:
      in_size: the shape of the population.
      name: a name for messages and listings.
      tau_decay: the time constant of the decay (ms).
      tau_rise: the time constant of the rise (ms).
      amplitude: the height of the peak; without ``normalize`` the factor of the equation.
      normalize: whether the peak has the height ``amplitude``.
      g_initializer: both exponentials at first (nS).

    Attributes:
      g_rise, g_decay: ``HiddenState``, the exponentials: ``(*in_size)`` or ``(batch, *in_size)``.

    Raises:
      ValueError: when ``normalize`` is asked for with equal time constants; see ``Alpha``.

    Example:

    >>> import stategraph as sg
    >>> synapse = sg.nn.init_all_states(sg.nn.DualExpon(1, tau_decay=4.0, tau_rise=2.0))
    >>> with sg.environ.context(dt=1.0):
    ...     [round(float(synapse(x)[0]), 2) for x in (1.0, 0.0, 0.0, 0.0, 0.0)]
    [0.0, 0.69, 0.95, 1.0, 0.93]
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        "tau_decay": "ms", "tau_rise": "ms", "g": "nS", "g_rise": "nS", "g_decay": "nS", "input": "nS", "delta": "nS",
    }  # fmt: skip

    g_rise: HiddenState[Any]
    g_decay: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        name: str | None = None,
        tau_decay: Parameter = 10.0,
        tau_rise: Parameter = 1.0,
        amplitude: Parameter = 1.0,
        normalize: bool = True,
        g_initializer: Initial = Constant(0.0),
    ) -> None:
        super().__init__(in_size, name)
        self.tau_decay = self._parameter("tau_decay", tau_decay, positive=True)
        self.tau_rise = self._parameter("tau_rise", tau_rise, positive=True)
        self.amplitude = self._parameter("amplitude", amplitude)
        self.normalize = normalize
        self.g_initializer = g_initializer
        decay, rise = values(self.tau_decay, self.tau_rise)
        if normalize and known(decay, rise) and np.any(np.equal(decay, rise)):
            raise ValueError(
                describe(
                    "DualExpon cannot be normalised with equal time constants.",
                    why="the difference of the two exponentials is 0",
                    fix="use stategraph.nn.Alpha, which is the limit",
                )
            )

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"g_rise": (HiddenState, self.g_initializer), "g_decay": (HiddenState, self.g_initializer)}

    def update(self, x: Any = 0.0) -> Any:
        """One step; returns the conductance. What arrives (``x`` and delta inputs) begins at the end of the step."""
        x = self._arriving(x, INPUT)
        decay, rise, amplitude = values(self.tau_decay, self.tau_rise, self.amplitude)
        arrived = self.sum_delta_inputs(x)
        g_rise = exp_euler_step(lambda g: -g / rise, self.g_rise.value) + arrived
        g_decay = exp_euler_step(lambda g: -g / decay, self.g_decay.value) + arrived
        self.g_rise.value = self._checked(g_rise, self.g_rise)
        self.g_decay.value = g_decay
        if self.normalize:  # one over the height at t = log(decay / rise) rise decay / (decay - rise)
            amplitude = amplitude * decay / (decay - rise) * (decay / rise) ** (rise / (decay - rise))
        return amplitude * (g_decay - g_rise)


class Alpha(Synapse):
    """The alpha function: ``g = t / tau exp(-t / tau)`` after what arrives at 0: ``tau dg/dt = -g + h``,
    ``tau dh/dt = -h``, and what arrives is added to ``h``. Rall, "Distinguishing theoretical synaptic potentials computed
    for different soma-dendritic distributions of synaptic input" (1967).

    Args:
      in_size: the shape of the population.
      name: a name for messages and listings.
      tau: the time to the peak, whose height is ``1/e`` (ms).
      g_initializer: ``g`` and ``h`` at first (nS).

    Attributes:
      g, h: ``HiddenState``, the conductance and what is still to come: ``(*in_size)`` or ``(batch, *in_size)``.

    Example:

    >>> import stategraph as sg
    >>> synapse = sg.nn.init_all_states(sg.nn.Alpha(1, tau=2.0))
    >>> with sg.environ.context(dt=1.0):
    ...     [round(float(synapse(x)[0]), 3) for x in (1.0, 0.0, 0.0, 0.0)]
    [0.0, 0.303, 0.368, 0.335]
    """

    UNITS: ClassVar[Mapping[str, str]] = {"tau": "ms", "g": "nS", "h": "nS", "input": "nS", "delta": "nS"}

    g: HiddenState[Any]
    h: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        name: str | None = None,
        tau: Parameter = 8.0,
        g_initializer: Initial = Constant(0.0),
    ) -> None:
        super().__init__(in_size, name)
        self.tau = self._parameter("tau", tau, positive=True)
        self.g_initializer = g_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"g": (HiddenState, self.g_initializer), "h": (HiddenState, self.g_initializer)}

    def update(self, x: Any = 0.0) -> Any:
        """One step, exact; returns the conductance. What arrives (``x`` and delta inputs) begins at its end."""
        x = self._arriving(x, INPUT)
        (tau,) = values(self.tau)
        decay = jnp.exp(-step() / tau)
        g = (self.g.value + self.h.value * step() / tau) * decay
        self.h.value = self._checked(self.sum_delta_inputs(self.h.value * decay + x), self.h)
        self.g.value = g.astype(self.g.value.dtype)
        return self.g.value


class AMPA(Synapse):
    """AMPA receptors: ``dg/dt = alpha [T] (1 - g) - beta g``, where the concentration ``[T]`` of transmitter is ``T`` for
    ``T_dur`` after a spike and else 0. Needs the setting ``t``, the time (ms), of ``stategraph.environ``. Destexhe, Mainen
    and Sejnowski, "Kinetic models of synaptic transmission" (1998).

    Args:
      in_size: the shape of the population that sends.
      name: a name for messages and listings.
      alpha: the rate of binding (1/(ms mM)).
      beta: the rate of unbinding (1/ms).
      T: the concentration of transmitter (mM).
      T_dur: how long it stays (ms), to the nearest number of steps.
      g_initializer: the fraction of open channels at first.

    Attributes:
      g: ``HiddenState``, the fraction of open channels: ``(*in_size)`` or ``(batch, *in_size)``.
      spike_arrival_time: ``ShortTermState``, the time of the last spike (ms), of the same shape.

    Example:

    >>> import stategraph as sg
    >>> synapse = sg.nn.init_all_states(sg.nn.AMPA(1))
    >>> found = []
    >>> for i, spike in enumerate([1.0, 0.0, 0.0]):
    ...     with sg.environ.context(dt=0.5, t=0.5 * i):
    ...         found.append(round(float(synapse(spike)[0]), 3))
    >>> found
    [0.208, 0.19, 0.174]
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        "alpha": "1 / (ms * mM)", "beta": "1 / ms", "T": "mM", "T_dur": "ms", "spike_arrival_time": "ms",
    }  # fmt: skip

    g: HiddenState[Any]
    spike_arrival_time: ShortTermState[Any]

    def __init__(
        self,
        in_size: Size,
        name: str | None = None,
        alpha: Parameter = 0.98,
        beta: Parameter = 0.18,
        T: Parameter = 0.5,
        T_dur: Parameter = 0.5,
        g_initializer: Initial = Constant(0.0),
    ) -> None:
        super().__init__(in_size, name)
        self.alpha = self._parameter("alpha", alpha)
        self.beta = self._parameter("beta", beta)
        self.T = self._parameter("T", T)
        self.T_dur = self._parameter("T_dur", T_dur)
        self.g_initializer = g_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"g": (HiddenState, self.g_initializer), "spike_arrival_time": (ShortTermState, LONG_AGO)}

    def update(self, pre_spike: Any) -> Any:
        """One step with the spikes that are sent; returns the fraction of open channels."""
        t = now()
        alpha, beta, T, T_dur = values(self.alpha, self.beta, self.T, self.T_dur)
        last = self.spike_arrival_time.value
        arrival = jnp.where(jnp.asarray(pre_spike) > 0, t, last).astype(last.dtype)
        self.spike_arrival_time.value = self._checked(arrival, self.spike_arrival_time)
        bound = alpha * jnp.where(t - arrival < T_dur - step() / 2, T, 0.0)
        self.g.value = exp_euler_step(lambda g: bound * (1 - g) - beta * g, self.g.value)
        return self.g.value


class GABAa(AMPA):
    """GABA-A receptors: the equations of ``AMPA`` with other rates. Destexhe, Mainen and Sejnowski, "Kinetic models of
    synaptic transmission" (1998).

    Args:
      in_size: the shape of the population that sends.
      name: a name for messages and listings.
      alpha: the rate of binding (1/(ms mM)).
      beta: the rate of unbinding (1/ms).
      T: the concentration of transmitter (mM).
      T_dur: how long it stays (ms), to the nearest number of steps.
      g_initializer: the fraction of open channels at first.

    Attributes:
      g, spike_arrival_time: as of ``AMPA``.

    Example:

    >>> import stategraph as sg
    >>> sg.nn.GABAa(1).alpha
    0.53
    """

    def __init__(
        self,
        in_size: Size,
        name: str | None = None,
        alpha: Parameter = 0.53,
        beta: Parameter = 0.18,
        T: Parameter = 1.0,
        T_dur: Parameter = 1.0,
        g_initializer: Initial = Constant(0.0),
    ) -> None:
        super().__init__(in_size, name, alpha, beta, T, T_dur, g_initializer)


class STP(Synapse):
    """Short-term plasticity: utilisation ``u`` and resources ``x``, with ``tau_f du/dt = -u``, ``tau_d dx/dt = 1 - x``, and
    at each spike ``u = u + U (1 - u)``, then ``u x`` is released and taken off ``x``. Tsodyks, Pawelzik and Markram,
    "Neural networks with dynamic synapses" (1998).

    Args:
      in_size: the shape of the population that sends.
      name: a name for messages and listings.
      U: how much a spike raises the utilisation.
      tau_f: the time constant of facilitation (ms).
      tau_d: the time constant of depression (ms).

    Attributes:
      u, x: ``HiddenState``, utilisation and resources: ``(*in_size)`` or ``(batch, *in_size)``.

    Example:

    >>> import stategraph as sg
    >>> synapse = sg.nn.init_all_states(sg.nn.STP(1, U=0.5, tau_f=1.0, tau_d=1e6))
    >>> with sg.environ.context(dt=1.0):
    ...     [round(float(synapse(spike)[0]), 2) for spike in (1.0, 0.0, 1.0)]  # it is depressed
    [0.59, 0.0, 0.22]
    """

    UNITS: ClassVar[Mapping[str, str]] = {"tau_f": "ms", "tau_d": "ms"}

    u: HiddenState[Any]
    x: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        name: str | None = None,
        U: Parameter = 0.15,
        tau_f: Parameter = 1500.0,
        tau_d: Parameter = 200.0,
    ) -> None:
        super().__init__(in_size, name)
        self.U = self._parameter("U", U)
        self.tau_f = self._parameter("tau_f", tau_f, positive=True)
        self.tau_d = self._parameter("tau_d", tau_d, positive=True)

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"u": (HiddenState, values(self.U)[0]), "x": (HiddenState, 1.0)}

    def update(self, pre_spike: Any) -> Any:
        """One step with the spikes that are sent; returns what they release."""
        U, tau_f, tau_d = values(self.U, self.tau_f, self.tau_d)
        spike = jnp.asarray(pre_spike, self.u.value.dtype)
        u = exp_euler_step(lambda u: -u / tau_f, self.u.value)
        x = exp_euler_step(lambda x: (1 - x) / tau_d, self.x.value)
        u = self._checked(u + spike * U * (1 - u), self.u)
        released = spike * u * x
        self.u.value = u
        self.x.value = x - released
        return released


class STD(Synapse):
    """Short-term depression: resources ``x`` with ``tau dx/dt = 1 - x``; each spike releases ``x`` and takes ``U x`` off it.
    Abbott et al., "Synaptic depression and cortical gain control" (1997).

    Args:
      in_size: the shape of the population that sends.
      name: a name for messages and listings.
      tau: the time constant of the recovery (ms).
      U: the part of the resources that a spike takes.

    Attributes:
      x: ``HiddenState``, the resources: ``(*in_size)`` or ``(batch, *in_size)``.

    Example:

    >>> import stategraph as sg
    >>> synapse = sg.nn.init_all_states(sg.nn.STD(1, tau=1e6, U=0.5))
    >>> with sg.environ.context(dt=1.0):
    ...     [round(float(synapse(spike)[0]), 2) for spike in (1.0, 0.0, 1.0, 1.0)]
    [1.0, 0.0, 0.5, 0.25]
    """

    UNITS: ClassVar[Mapping[str, str]] = {"tau": "ms"}

    x: HiddenState[Any]

    def __init__(
        self, in_size: Size, name: str | None = None, tau: Parameter = 200.0, U: Parameter = 0.07
    ) -> None:
        super().__init__(in_size, name)
        self.tau = self._parameter("tau", tau, positive=True)
        self.U = self._parameter("U", U)

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"x": (HiddenState, 1.0)}

    def update(self, pre_spike: Any) -> Any:
        """One step with the spikes that are sent; returns what they release."""
        tau, U = values(self.tau, self.U)
        spike = jnp.asarray(pre_spike, self.x.value.dtype)
        x = exp_euler_step(lambda x: (1 - x) / tau, self.x.value)
        self.x.value = self._checked(x - spike * U * x, self.x)
        return spike * x

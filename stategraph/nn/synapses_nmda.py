"""NMDA receptors: slow conductances that saturate. Their magnesium block is an output, ``MgBlock``.

They stand for the neurons that send, since what is open already depends on the spikes of each. Time in ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from stategraph.init import Constant, Initial
from stategraph.nn.integrators import exp_euler_step
from stategraph.nn.population import LONG_AGO, Parameter, Synapse, values
from stategraph.nn.units import now, step
from stategraph.state import HiddenState, ShortTermState, State
from stategraph.typing import Size

__all__ = ["NMDA", "BioNMDA"]


class NMDA(Synapse):
    """NMDA receptors: ``dg/dt = -g / tau_decay + a x (1 - g)``, ``dx/dt = -x / tau_rise``, and a spike adds 1 to ``x`` at the
    end of its step. Hestrin, Sah and Nicoll (1990); in this form Wang, "Synaptic basis of cortical persistent activity: the
    importance of NMDA receptors to working memory" (1999).

    Args:
      in_size: the shape of the population that sends.
      name: a name for messages and listings.
      tau_decay: the time constant of the decay (ms).
      tau_rise: that of the rise (ms).
      a: the rate at which channels open (1/ms).
      g_initializer: the fraction of open channels at first.
      x_initializer: what opens them at first.

    Attributes:
      g, x: ``HiddenState``, the fraction of open channels and what opens them: ``(*in_size)`` or ``(batch, *in_size)``.

    Example: one spike opens ``1 - exp(-a tau_rise)`` of the channels, 63 %.

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> synapse = sg.nn.init_all_states(sg.nn.NMDA(1, tau_decay=1e6))
    >>> with sg.environ.context(dt=0.1):
    ...     g = sg.compile.for_loop(lambda i: synapse(i == 0), jnp.arange(300))
    >>> round(float(g[-1, 0]), 3)
    0.632
    """

    UNITS: ClassVar[Mapping[str, str]] = {"tau_decay": "ms", "tau_rise": "ms", "a": "1 / ms"}

    g: HiddenState[Any]
    x: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        name: str | None = None,
        tau_decay: Parameter = 100.0,
        tau_rise: Parameter = 2.0,
        a: Parameter = 0.5,
        g_initializer: Initial = Constant(0.0),
        x_initializer: Initial = Constant(0.0),
    ) -> None:
        super().__init__(in_size, name)
        self.tau_decay = self._parameter("tau_decay", tau_decay, positive=True)
        self.tau_rise = self._parameter("tau_rise", tau_rise, positive=True)
        self.a = self._parameter("a", a)
        self.g_initializer = g_initializer
        self.x_initializer = x_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"g": (HiddenState, self.g_initializer), "x": (HiddenState, self.x_initializer)}

    def update(self, pre_spike: Any) -> Any:
        """One step with the spikes that are sent; returns the fraction of open channels."""
        tau_decay, tau_rise, a = values(self.tau_decay, self.tau_rise, self.a)
        x = self.x.value
        left = exp_euler_step(lambda x: -x / tau_rise, x)
        opening = a * (x - left) * tau_rise / step()  # a times the mean of x within the step
        self.g.value = exp_euler_step(lambda g: opening * (1 - g) - g / tau_decay, self.g.value)
        self.x.value = self._checked(left + jnp.asarray(pre_spike, x.dtype), self.x)
        return self.g.value


class BioNMDA(Synapse):
    """NMDA receptors with two steps of kinetics: ``dg/dt = alpha1 x (1 - g) - beta1 g`` and
    ``dx/dt = alpha2 [T] (1 - x) - beta2 x``, where the concentration ``[T]`` of transmitter is ``T`` for ``T_dur`` after a
    spike and else 0. Needs the setting ``t``, the time (ms), of ``stategraph.environ``. Ermentrout and Terman,
    "Mathematical Foundations of Neuroscience" (2010), section 7.1.

    Args:
      in_size: the shape of the population that sends.
      name: a name for messages and listings.
      alpha1, beta1: the rates of opening and closing (1/ms).
      alpha2: the rate of binding (1/(ms mM)).
      beta2: that of unbinding (1/ms).
      T: the concentration of transmitter (mM).
      T_dur: how long it stays (ms), to the nearest number of steps.
      g_initializer: the fraction of open channels at first.
      x_initializer: the fraction that is bound at first.

    Attributes:
      g, x: ``HiddenState``, the fractions of open and of bound channels: ``(*in_size)`` or ``(batch, *in_size)``.
      spike_arrival_time: ``ShortTermState``, the time of the last spike (ms), of the same shape.

    Example:

    >>> import stategraph as sg
    >>> synapse = sg.nn.init_all_states(sg.nn.BioNMDA(1))
    >>> found = []
    >>> for i, spike in enumerate([1.0, 0.0, 0.0]):
    ...     with sg.environ.context(dt=0.5, t=0.5 * i):
    ...         found.append(round(float(synapse(spike)[0]), 3))
    >>> found
    [0.161, 0.385, 0.516]
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("alpha1", "beta1", "beta2"), "1 / ms"),
        "alpha2": "1 / (ms * mM)", "T": "mM", "T_dur": "ms", "spike_arrival_time": "ms",
    }  # fmt: skip

    g: HiddenState[Any]
    x: HiddenState[Any]
    spike_arrival_time: ShortTermState[Any]

    def __init__(
        self,
        in_size: Size,
        name: str | None = None,
        alpha1: Parameter = 2.0,
        beta1: Parameter = 0.01,
        alpha2: Parameter = 1.0,
        beta2: Parameter = 0.5,
        T: Parameter = 1.0,
        T_dur: Parameter = 0.5,
        g_initializer: Initial = Constant(0.0),
        x_initializer: Initial = Constant(0.0),
    ) -> None:
        super().__init__(in_size, name)
        self.alpha1, self.beta1 = self._parameter("alpha1", alpha1), self._parameter("beta1", beta1)
        self.alpha2, self.beta2 = self._parameter("alpha2", alpha2), self._parameter("beta2", beta2)
        self.T = self._parameter("T", T)
        self.T_dur = self._parameter("T_dur", T_dur)
        self.g_initializer = g_initializer
        self.x_initializer = x_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {
            "g": (HiddenState, self.g_initializer),
            "x": (HiddenState, self.x_initializer),
            "spike_arrival_time": (ShortTermState, LONG_AGO),
        }

    def update(self, pre_spike: Any) -> Any:
        """One step with the spikes that are sent; returns the fraction of open channels."""
        t = now()
        alpha1, beta1, alpha2, beta2 = values(self.alpha1, self.beta1, self.alpha2, self.beta2)
        T, T_dur = values(self.T, self.T_dur)
        last, before = self.spike_arrival_time.value, self.x.value
        arrival = jnp.where(jnp.asarray(pre_spike) > 0, t, last).astype(last.dtype)
        self.spike_arrival_time.value = self._checked(arrival, self.spike_arrival_time)
        binding = alpha2 * jnp.where(t - arrival < T_dur - step() / 2, T, 0.0)
        x = exp_euler_step(lambda x: binding * (1 - x) - beta2 * x, before)
        opening = alpha1 * (before + x) / 2
        self.g.value = exp_euler_step(lambda g: opening * (1 - g) - beta1 * g, self.g.value)
        self.x.value = x
        return self.g.value

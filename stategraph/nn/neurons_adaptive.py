"""Neurons whose membrane is not linear, or which adapt: exponential, quadratic and generalised integrate-and-fire.

In models where the potential diverges at a spike, it is cut off at ``V_th``. Units: ms, mV, nA, nS, MOhm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from stategraph.init import Constant, Initial
from stategraph.nn.integrators import exp_euler_step
from stategraph.nn.population import Neuron, Parameter, values
from stategraph.nn.synouts import NS_MV_IN_NA
from stategraph.state import HiddenState, State
from stategraph.surrogate import ReluGrad
from stategraph.typing import Size

__all__ = ["GIF", "QIF", "AdExIF", "ExpIF", "Izhikevich"]


class _Diverging(Neuron):
    """Neurons whose spike is a divergence of the potential, which is cut off at ``V_th``.

    Subclasses have ``V_th``, ``V_reset``, ``R``, ``tau``, ``V_initializer`` and ``_slope``, the derivative of ``V`` times
    ``tau`` without the current.
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        "R": "Mohm", "tau": "ms", "V_th": "mV", "V_reset": "mV", "V_rest": "mV", "V": "mV", "input": "nA", "current": "nA", "delta": "mV",
    }  # fmt: skip

    V: HiddenState[Any]
    V_initializer: Initial
    R: Parameter
    tau: Parameter
    V_th: Parameter
    V_reset: Parameter

    def _slope(self, V: Any) -> Any:
        raise NotImplementedError

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"V": (HiddenState, self.V_initializer)}

    def get_spike(self, V: Any = None) -> Any:
        V_th, V_reset = values(self.V_th, self.V_reset)
        return self.spk_fun(((self.V.value if V is None else V) - V_th) / (V_th - V_reset))

    def _reset_potential(self) -> jax.Array:
        return self.after_reset(self.V.value, self.get_spike(), *values(self.V_th, self.V_reset))

    def _integrated(self, V: jax.Array, x: Any) -> jax.Array:
        """The potential a step later, with what arrives, at most ``V_th``."""
        R, tau, V_th = values(self.R, self.tau, self.V_th)
        V = exp_euler_step(lambda v: (self._slope(v) + R * self.sum_current_inputs(x, v)) / tau, V)
        return self._checked(jnp.minimum(self.sum_delta_inputs(V), V_th), self.V)

    def update(self, x: Any = 0.0) -> Any:
        """One step with the current ``x`` (nA); returns the spikes."""
        self.V.value = self._integrated(self._reset_potential(), x)
        return self.get_spike()


class ExpIF(_Diverging):
    """Exponential integrate-and-fire neurons: ``tau dV/dt = -(V - V_rest) + delta_T exp((V - V_T) / delta_T) + R I``; a
    spike at ``V >= V_th``, where the potential is cut off. Fourcaud-Trocmé et al., "How spike generation mechanisms
    determine the neuronal response to fluctuating inputs" (2003).

    Args:
      in_size: the shape of the population.
      R: the resistance of the membrane (MOhm).
      tau: its time constant (ms).
      V_th: where a spike is cut off (mV).
      V_reset: the potential after a spike (mV).
      V_rest: the potential without input, nearly (mV).
      V_T: where spikes begin (mV).
      delta_T: how sharply they begin (mV).
      V_initializer: the potential at first (mV).
      spk_fun: what makes spikes of ``(V - V_th) / (V_th - V_reset)``: a surrogate.
      spk_reset: the potential goes to ``V_reset``; the gradient passes a ``"soft"`` reset only.
      name: a name for messages and listings.

    Attributes:
      V: ``HiddenState``, the potential: ``(*in_size)`` or ``(batch, *in_size)``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neuron = sg.nn.init_all_states(sg.nn.ExpIF(2))
    >>> with sg.environ.context(dt=0.1):
    ...     spikes = sg.compile.for_loop(lambda i: neuron(jnp.array([0.0, 10.0])), jnp.arange(500))
    >>> spikes.sum(0) > 0
    Array([False,  True], dtype=bool)
    """

    UNITS: ClassVar[Mapping[str, str]] = {**_Diverging.UNITS, "V_T": "mV", "delta_T": "mV"}

    def __init__(
        self,
        in_size: Size,
        R: Parameter = 1.0,
        tau: Parameter = 10.0,
        V_th: Parameter = -30.0,
        V_reset: Parameter = -68.0,
        V_rest: Parameter = -65.0,
        V_T: Parameter = -59.9,
        delta_T: Parameter = 3.48,
        V_initializer: Initial = Constant(-65.0),
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
        self.V_T = self._parameter("V_T", V_T)
        self.delta_T = self._parameter("delta_T", delta_T, positive=True)
        self.V_initializer = V_initializer

    def _slope(self, V: Any) -> Any:
        V_rest, V_T, delta_T = values(self.V_rest, self.V_T, self.delta_T)
        return V_rest - V + delta_T * jnp.exp((V - V_T) / delta_T)


class AdExIF(ExpIF):
    """Adaptive exponential integrate-and-fire neurons: ``ExpIF`` with the current ``I - w``, where
    ``tau_w dw/dt = a (V - V_rest) - w`` and each spike adds ``b`` to ``w``. Brette and Gerstner, "Adaptive exponential
    integrate-and-fire model as an effective description of neuronal activity" (2005).

    Args:
      in_size: the shape of the population.
      R: the resistance of the membrane (MOhm).
      tau: its time constant (ms).
      tau_w: the time constant of the adaptation (ms).
      V_th: where a spike is cut off (mV).
      V_reset: the potential after a spike (mV).
      V_rest: the potential without input, nearly (mV).
      V_T: where spikes begin (mV).
      delta_T: how sharply they begin (mV).
      a: how the adaptation follows the potential (nS).
      b: what a spike adds to the adaptation (nA).
      V_initializer: the potential at first (mV).
      w_initializer: the adaptation at first (nA).
      spk_fun: what makes spikes of ``(V - V_th) / (V_th - V_reset)``: a surrogate.
      spk_reset: the potential goes to ``V_reset``; the gradient passes a ``"soft"`` reset only.
      name: a name for messages and listings.

    Attributes:
      V: ``HiddenState``, the potential: ``(*in_size)`` or ``(batch, *in_size)``.
      w: ``HiddenState``, the adaptation, of the same shape.

    Example: a neuron of the paper, with 1 nA.

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neuron = sg.nn.AdExIF(1, R=1e3 / 30, tau=281 / 30, tau_w=144.0, V_th=20.0, V_reset=-70.6, V_rest=-70.6, V_T=-50.4,
    ...                       delta_T=2.0, a=4.0, b=0.0805, V_initializer=-70.6)
    >>> _ = sg.nn.init_all_states(neuron)
    >>> with sg.environ.context(dt=0.05):
    ...     spikes = sg.compile.for_loop(lambda i: neuron(1.0), jnp.arange(4000))
    >>> times = jnp.flatnonzero(spikes[:, 0]) * 0.05
    >>> bool((times[1] - times[0]) < (times[-1] - times[-2]))  # it adapts
    True
    """

    UNITS: ClassVar[Mapping[str, str]] = {**ExpIF.UNITS, "tau_w": "ms", "a": "nS", "b": "nA", "w": "nA"}

    w: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        R: Parameter = 1.0,
        tau: Parameter = 10.0,
        tau_w: Parameter = 30.0,
        V_th: Parameter = -55.0,
        V_reset: Parameter = -68.0,
        V_rest: Parameter = -65.0,
        V_T: Parameter = -59.9,
        delta_T: Parameter = 3.48,
        a: Parameter = 1000.0,
        b: Parameter = 1.0,
        V_initializer: Initial = Constant(-65.0),
        w_initializer: Initial = Constant(0.0),
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008
        spk_reset: str = "soft",
        name: str | None = None,
    ) -> None:
        super().__init__(
            in_size, R, tau, V_th, V_reset, V_rest, V_T, delta_T, V_initializer, spk_fun, spk_reset, name
        )
        self.tau_w = self._parameter("tau_w", tau_w, positive=True)
        self.a = self._parameter("a", a)
        self.b = self._parameter("b", b)
        self.w_initializer = w_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {**super()._beginnings(), "w": (HiddenState, self.w_initializer)}

    def update(self, x: Any = 0.0) -> Any:
        """One step with the current ``x`` (nA); returns the spikes."""
        a, b, tau_w, V_rest = values(self.a, self.b, self.tau_w, self.V_rest)
        V, w = self._reset_potential(), self.w.value + b * self.get_spike()
        self.w.value = exp_euler_step(lambda w: (NS_MV_IN_NA * a * (V - V_rest) - w) / tau_w, w)
        self.V.value = self._integrated(V, x - w)
        return self.get_spike()


class QIF(_Diverging):
    """Quadratic integrate-and-fire neurons: ``tau dV/dt = c (V - V_rest) (V - V_c) + R I``; a spike at ``V >= V_th``, where
    the potential is cut off. Latham et al., "Intrinsic dynamics in neuronal networks. I. Theory" (2000).

    Args:
      in_size: the shape of the population.
      R: the resistance of the membrane (MOhm).
      tau: its time constant (ms).
      V_th: where a spike is cut off (mV).
      V_reset: the potential after a spike (mV).
      V_rest: the potential without input (mV).
      V_c: where spikes begin without input (mV).
      c: how strongly they begin (1/mV).
      V_initializer: the potential at first (mV).
      spk_fun: what makes spikes of ``(V - V_th) / (V_th - V_reset)``: a surrogate.
      spk_reset: the potential goes to ``V_reset``; the gradient passes a ``"soft"`` reset only.
      name: a name for messages and listings.

    Attributes:
      V: ``HiddenState``, the potential: ``(*in_size)`` or ``(batch, *in_size)``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neuron = sg.nn.init_all_states(sg.nn.QIF(2))
    >>> with sg.environ.context(dt=0.1):
    ...     spikes = sg.compile.for_loop(lambda i: neuron(jnp.array([0.0, 10.0])), jnp.arange(500))
    >>> spikes.sum(0) > 0
    Array([False,  True], dtype=bool)
    """

    UNITS: ClassVar[Mapping[str, str]] = {**_Diverging.UNITS, "V_c": "mV", "c": "1 / mV"}

    def __init__(
        self,
        in_size: Size,
        R: Parameter = 1.0,
        tau: Parameter = 10.0,
        V_th: Parameter = -30.0,
        V_reset: Parameter = -68.0,
        V_rest: Parameter = -65.0,
        V_c: Parameter = -50.0,
        c: Parameter = 0.07,
        V_initializer: Initial = Constant(-65.0),
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
        self.V_c = self._parameter("V_c", V_c)
        self.c = self._parameter("c", c)
        self.V_initializer = V_initializer

    def _slope(self, V: Any) -> Any:
        V_rest, V_c, c = values(self.V_rest, self.V_c, self.c)
        return c * (V - V_rest) * (V - V_c)


class Izhikevich(Neuron):
    """Izhikevich neurons: ``dV/dt = 0.04 V^2 + 5 V + 140 - u + I``, ``du/dt = a (b V - u)``; at ``V >= V_th``, where the
    potential is cut off, a spike, then ``V = c`` and ``u = u + d``. Izhikevich, "Simple model of spiking neurons" (2003).

    Args:
      in_size: the shape of the population.
      a: the rate of the recovery (1/ms).
      b: how the recovery follows the potential (1/ms).
      c: the potential after a spike (mV).
      d: what a spike adds to the recovery (mV/ms).
      V_th: where a spike is cut off (mV).
      V_initializer: the potential at first (mV).
      u_initializer: the recovery at first (mV/ms).
      spk_fun: what makes spikes of ``(V - V_th) / (V_th - c)``: a surrogate.
      spk_reset: the potential goes to ``c``; the gradient passes a ``"soft"`` reset only.
      name: a name for messages and listings.

    Attributes:
      V: ``HiddenState``, the potential: ``(*in_size)`` or ``(batch, *in_size)``.
      u: ``HiddenState``, the recovery, of the same shape.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neuron = sg.nn.init_all_states(sg.nn.Izhikevich(2))
    >>> with sg.environ.context(dt=0.5):
    ...     spikes = sg.compile.for_loop(lambda i: neuron(jnp.array([0.0, 10.0])), 200 + jnp.arange(400))
    >>> spikes[200:].sum(0) > 0
    Array([False,  True], dtype=bool)
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        "a": "1 / ms", "b": "1 / ms", "c": "mV", "d": "mV / ms", "V_th": "mV", "V": "mV", "u": "mV / ms",
        "input": "mV / ms", "current": "mV / ms", "delta": "mV",
    }  # fmt: skip

    V: HiddenState[Any]
    u: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        a: Parameter = 0.02,
        b: Parameter = 0.2,
        c: Parameter = -65.0,
        d: Parameter = 8.0,
        V_th: Parameter = 30.0,
        V_initializer: Initial = Constant(-65.0),
        u_initializer: Initial = Constant(0.0),
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008
        spk_reset: str = "hard",
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, spk_fun, spk_reset, name)
        self.a = self._parameter("a", a)
        self.b = self._parameter("b", b)
        self.c = self._parameter("c", c)
        self.d = self._parameter("d", d)
        self.V_th = self._parameter("V_th", V_th)
        self._check_threshold(self.V_th, self.c, "c")
        self.V_initializer = V_initializer
        self.u_initializer = u_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {"V": (HiddenState, self.V_initializer), "u": (HiddenState, self.u_initializer)}

    def get_spike(self, V: Any = None) -> Any:
        V_th, c = values(self.V_th, self.c)
        return self.spk_fun(((self.V.value if V is None else V) - V_th) / (V_th - c))

    def update(self, x: Any = 0.0) -> Any:
        """One step with the input ``x`` (mV/ms); returns the spikes."""
        a, b, c, d, V_th = values(self.a, self.b, self.c, self.d, self.V_th)
        spike = self.get_spike()
        V, u = self.after_reset(self.V.value, spike, V_th, c), self.u.value + d * spike
        self.u.value = exp_euler_step(lambda u: a * (b * V - u), u)
        V = exp_euler_step(lambda v: 0.04 * v * v + 5 * v + 140 - u + self.sum_current_inputs(x, v), V)
        self.V.value = self._checked(jnp.minimum(self.sum_delta_inputs(V), V_th), self.V)
        return self.get_spike()


class GIF(Neuron):
    """Generalised integrate-and-fire neurons, with two inner currents and a moving threshold::

        tau dV/dt = -(V - V_rest) + R (I + I1 + I2)
        dI1/dt = -k1 I1,  dI2/dt = -k2 I2
        dV_th/dt = a (V - V_rest) - b (V_th - V_th_inf)

    A spike at ``V >= V_th``; then ``V`` is reset with ``V_reset``, ``I1 = R1 I1 + A1``, ``I2 = R2 I2 + A2`` and
    ``V_th = max(V_th, V_th_reset)``. Mihalas and Niebur, "A generalized linear integrate-and-fire neural model produces
    diverse spiking behaviors" (2009).

    Args:
      in_size: the shape of the population.
      R: the resistance of the membrane (MOhm).
      tau: its time constant (ms).
      V_rest: the potential without input (mV).
      V_reset: the potential after a spike (mV).
      V_th_inf: the threshold at rest (mV).
      V_th_reset: the least threshold after a spike (mV).
      V_th_initializer: the threshold at first (mV).
      a: how the threshold follows the potential (1/ms).
      b: the rate at which the threshold returns (1/ms).
      k1, k2: the rates at which the inner currents decay (1/ms).
      R1, R2: what a spike multiplies the inner currents with.
      A1, A2: what a spike adds to the inner currents (nA).
      V_initializer: the potential at first (mV).
      I1_initializer, I2_initializer: the inner currents at first (nA).
      spk_fun: what makes spikes of ``(V - V_th) / (V_th - V_reset)``: a surrogate.
      spk_reset: ``"soft"`` or ``"hard"``, see ``Neuron``.
      name: a name for messages and listings.

    Attributes:
      V, V_th, I1, I2: ``HiddenState``, of the shape ``(*in_size)`` or ``(batch, *in_size)``.

    Example: a threshold that a depolarisation raises.

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neuron = sg.nn.init_all_states(sg.nn.GIF(1, a=0.005))
    >>> with sg.environ.context(dt=0.1):
    ...     spikes = sg.compile.for_loop(lambda i: neuron(1.5), jnp.arange(4000))
    >>> times = jnp.flatnonzero(spikes[:, 0]) * 0.1
    >>> bool((times[1] - times[0]) < (times[-1] - times[-2]))
    True
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        "R": "Mohm", "tau": "ms", "V_rest": "mV", "V_reset": "mV", "V_th_inf": "mV", "V_th_reset": "mV", "a": "1 / ms",
        "b": "1 / ms", "k1": "1 / ms", "k2": "1 / ms", "A1": "nA", "A2": "nA", "V": "mV", "V_th": "mV", "I1": "nA", "I2": "nA",
        "input": "nA", "current": "nA", "delta": "mV",
    }  # fmt: skip

    V: HiddenState[Any]
    V_th: HiddenState[Any]
    I1: HiddenState[Any]
    I2: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        R: Parameter = 20.0,
        tau: Parameter = 20.0,
        V_rest: Parameter = -70.0,
        V_reset: Parameter = -70.0,
        V_th_inf: Parameter = -50.0,
        V_th_reset: Parameter = -60.0,
        V_th_initializer: Initial = Constant(-50.0),
        a: Parameter = 0.0,
        b: Parameter = 0.01,
        k1: Parameter = 0.2,
        k2: Parameter = 0.02,
        R1: Parameter = 0.0,
        R2: Parameter = 1.0,
        A1: Parameter = 0.0,
        A2: Parameter = 0.0,
        V_initializer: Initial = Constant(-70.0),
        I1_initializer: Initial = Constant(0.0),
        I2_initializer: Initial = Constant(0.0),
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008
        spk_reset: str = "soft",
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, spk_fun, spk_reset, name)
        self.R = self._parameter("R", R)
        self.tau = self._parameter("tau", tau, positive=True)
        self.V_rest = self._parameter("V_rest", V_rest)
        self.V_reset = self._parameter("V_reset", V_reset)
        self.V_th_inf = self._parameter("V_th_inf", V_th_inf)
        self.V_th_reset = self._parameter("V_th_reset", V_th_reset)
        self.a, self.b = self._parameter("a", a), self._parameter("b", b)
        self.k1, self.k2 = self._parameter("k1", k1), self._parameter("k2", k2)
        self.R1, self.R2 = self._parameter("R1", R1), self._parameter("R2", R2)
        self.A1, self.A2 = self._parameter("A1", A1), self._parameter("A2", A2)
        self.V_initializer, self.V_th_initializer = V_initializer, V_th_initializer
        self.I1_initializer, self.I2_initializer = I1_initializer, I2_initializer

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        return {
            "V": (HiddenState, self.V_initializer),
            "V_th": (HiddenState, self.V_th_initializer),
            "I1": (HiddenState, self.I1_initializer),
            "I2": (HiddenState, self.I2_initializer),
        }

    def get_spike(self, V: Any = None, V_th: Any = None) -> Any:
        (V_reset,) = values(self.V_reset)
        V, V_th = self.V.value if V is None else V, self.V_th.value if V_th is None else V_th
        return self.spk_fun((V - V_th) / (V_th - V_reset))

    def update(self, x: Any = 0.0) -> Any:
        """One step with the current ``x`` (nA); returns the spikes."""
        R, tau, V_rest, V_reset = values(self.R, self.tau, self.V_rest, self.V_reset)
        k1, k2, R1, R2, A1, A2 = values(self.k1, self.k2, self.R1, self.R2, self.A1, self.A2)
        a, b, V_th_inf, V_th_reset = values(self.a, self.b, self.V_th_inf, self.V_th_reset)
        last_V_th, last_I1, last_I2, spike = self.V_th.value, self.I1.value, self.I2.value, self.get_spike()
        V = self.after_reset(self.V.value, spike, last_V_th, V_reset)
        I1 = last_I1 + spike * (R1 * last_I1 + A1 - last_I1)
        I2 = last_I2 + spike * (R2 * last_I2 + A2 - last_I2)
        V_th = last_V_th + spike * (jnp.maximum(V_th_reset, last_V_th) - last_V_th)

        self.I1.value = exp_euler_step(lambda i: -k1 * i, I1)
        self.I2.value = exp_euler_step(lambda i: -k2 * i, I2)
        self.V_th.value = exp_euler_step(lambda v: a * (V - V_rest) - b * (v - V_th_inf), V_th)
        V = exp_euler_step(lambda v: (V_rest - v + R * (I1 + I2 + self.sum_current_inputs(x, v))) / tau, V)
        self.V.value = self._checked(self.sum_delta_inputs(V), self.V)
        return self.get_spike()

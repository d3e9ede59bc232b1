"""Neurons whose spikes are made by conductances.

Plain numbers are per cm² of membrane, µF, mS and µA, with ms and mV. Quantities may be those of a whole neuron as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.errors import UnitError, describe
from stategraph.init import Initial, Uniform
from stategraph.nn.integrators import exp_euler_step
from stategraph.nn.population import Neuron, Parameter, values
from stategraph.nn.units import DELTA, given_unit, has_unit
from stategraph.state import HiddenState, State
from stategraph.surrogate import ReluGrad
from stategraph.typing import Size
from stategraph.units import in_unit, is_quantity, is_unit, named_unit, text_of

__all__ = ["HH"]


class HH(Neuron):
    """Hodgkin-Huxley neurons::

        C dV/dt = gNa m^3 h (ENa - V) + gK n^4 (EK - V) + gL (EL - V) + I
        dm/dt = alpha_m(V) (1 - m) - beta_m(V) m,  h and n likewise

    A spike is a step in which ``V`` comes to ``V_th``; nothing is reset. Hodgkin and Huxley, "A quantitative description of
    membrane current and its application to conduction and excitation in nerve" (1952), with the potential of today's sign
    and a rest near -65 mV; there ``gL`` is 0.3.

    With quantities, conductances, capacitance and currents are all per area (``mS / cm^2``, ``uF / cm^2``, ``uA / cm^2``) or all
    those of the whole neuron (``mS``, ``uF``, ``uA``), to which synapses of nS belong. What is left to its default has the
    same number either way: 120 mS/cm², or 120 mS.

    Args:
      in_size: the shape of the population.
      ENa, gNa: the reversal potential (mV) and conductance (mS/cm²) of sodium.
      EK, gK: of potassium.
      EL, gL: of the leak.
      V_th: what potential counts as a spike (mV).
      C: the capacitance (µF/cm²).
      V_initializer: the potential at first (mV).
      m_initializer, h_initializer, n_initializer: the gates at first; None for their steady state.
      spk_fun: what makes spikes of ``(V - V_th) / (V_th - EL)``: a surrogate.
      spk_reset: ``"soft"`` or ``"hard"``, as all neurons have it; here there is no reset.
      name: a name for messages and listings.

    Attributes:
      V, m, h, n: ``HiddenState``, of the shape ``(*in_size)`` or ``(batch, *in_size)``.
      per_area: whether quantities said that it is computed per area (True), or for the whole neuron (False), in µS, nF and nA;
        None if none of them did.

    Raises:
      UnitError: some quantities are per area, and others not.

    Example: the squid axon with 10 µA/cm² fires at 68 Hz.

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> neuron = sg.nn.init_all_states(sg.nn.HH(1, gL=0.3, V_initializer=-65.0))
    >>> with sg.environ.context(dt=0.02):
    ...     spikes = sg.compile.for_loop(lambda i: neuron(10.0), jnp.arange(5000))  # 100 ms
    >>> int(spikes.sum())
    7
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("ENa", "EK", "EL", "V_th", "V", "delta"), "mV"),
        **dict.fromkeys(("gNa", "gK", "gL"), "mS / cm^2"),
        "C": "uF / cm^2", "input": "uA / cm^2", "current": "uA / cm^2",
    }  # fmt: skip

    UNITS_OF_A_NEURON: ClassVar[Mapping[str, str]] = {
        **UNITS, **dict.fromkeys(("gNa", "gK", "gL"), "uS"), "C": "nF", "input": "nA", "current": "nA",
    }  # fmt: skip
    """The units of a whole neuron. µS times mV are nA, which synapses send."""

    V: HiddenState[Any]
    m: HiddenState[Any]
    h: HiddenState[Any]
    n: HiddenState[Any]

    def __init__(
        self,
        in_size: Size,
        ENa: Parameter = 50.0,
        gNa: Parameter = 120.0,
        EK: Parameter = -77.0,
        gK: Parameter = 36.0,
        EL: Parameter = -54.387,
        gL: Parameter = 0.03,
        V_th: Parameter = 20.0,
        C: Parameter = 1.0,
        V_initializer: Initial = Uniform(-70.0, -60.0),  # noqa: B008 -- immutable
        m_initializer: Initial = None,
        h_initializer: Initial = None,
        n_initializer: Initial = None,
        spk_fun: Callable[[Any], Any] = ReluGrad(),  # noqa: B008
        spk_reset: str = "soft",
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, spk_fun, spk_reset, name)
        membrane = {"gNa": gNa, "gK": gK, "gL": gL, "C": C}
        self.per_area = _per_area(self, membrane)
        self.ENa, self.EK = self._parameter("ENa", ENa), self._parameter("EK", EK)
        self.EL = self._parameter("EL", EL)
        if self.per_area is False:  # defaults are mS and µF
            gNa, gK, gL, C = (x if has_unit(x) else 1000 * x for x in membrane.values())
        self.gNa, self.gK = self._parameter("gNa", gNa), self._parameter("gK", gK)
        self.gL = self._parameter("gL", gL)
        self.V_th = self._parameter("V_th", V_th)
        self._check_threshold(self.V_th, self.EL, "EL")
        self.C = self._parameter("C", C, positive=True)
        self.V_initializer = V_initializer
        self.m_initializer, self.h_initializer, self.n_initializer = (
            m_initializer,
            h_initializer,
            n_initializer,
        )

    @property
    def UNITS_HERE(self) -> Mapping[str, str]:
        """The units of this population."""
        return self.UNITS_OF_A_NEURON if self.per_area is False else self.UNITS

    def _arriving(self, value: Any, kind: str) -> Any:
        undecided = self.per_area is None and kind != DELTA and is_quantity(value)
        if undecided and value.unit.has_same_dim(named_unit("uA")):  # to 120 mS and 1 µF
            return in_unit(value, named_unit("uA"))
        return super()._arriving(value, kind)

    # -------------------------------------------------------------------------------- rates of the gates (1/ms)

    def m_alpha(self, V: Any) -> Any:
        return _linoid((V + 40) / 10)

    def m_beta(self, V: Any) -> Any:
        return 4 * jnp.exp(-(V + 65) / 18)

    def h_alpha(self, V: Any) -> Any:
        return 0.07 * jnp.exp(-(V + 65) / 20)

    def h_beta(self, V: Any) -> Any:
        return jax.nn.sigmoid((V + 35) / 10)

    def n_alpha(self, V: Any) -> Any:
        return 0.1 * _linoid((V + 55) / 10)

    def n_beta(self, V: Any) -> Any:
        return 0.125 * jnp.exp(-(V + 65) / 80)

    def m_inf(self, V: Any) -> Any:
        """The steady state of the gate ``m`` at a potential."""
        return _steady(self.m_alpha(V), self.m_beta(V))

    def h_inf(self, V: Any) -> Any:
        """The steady state of the gate ``h`` at a potential."""
        return _steady(self.h_alpha(V), self.h_beta(V))

    def n_inf(self, V: Any) -> Any:
        """The steady state of the gate ``n`` at a potential."""
        return _steady(self.n_alpha(V), self.n_beta(V))

    # -------------------------------------------------------------------------------------------------- State

    def _beginnings(self) -> dict[str, tuple[type[State[Any]], Initial]]:
        gates = {
            "m": (self.m_initializer, self.m_inf),
            "h": (self.h_initializer, self.h_inf),
            "n": (self.n_initializer, self.n_inf),
        }
        return {
            "V": (HiddenState, self.V_initializer),
            **{
                name: (
                    HiddenState,
                    (lambda _, steady=steady: steady(self.V.value)) if given is None else given,
                )
                for name, (given, steady) in gates.items()
            },
        }

    def get_spike(self, V: Any = None) -> Any:
        V_th, EL = values(self.V_th, self.EL)
        return self.spk_fun(((self.V.value if V is None else V) - V_th) / (V_th - EL))

    def update(self, x: Any = 0.0) -> Any:
        """One step with the current ``x`` (µA/cm², or what goes with the quantities given); returns the spikes."""
        ENa, gNa, EK, gK = values(self.ENa, self.gNa, self.EK, self.gK)
        EL, gL, C = values(self.EL, self.gL, self.C)
        before, m, h, n = self.V.value, self.m.value, self.h.value, self.n.value
        open_Na, open_K = gNa * m**3 * h, gK * n**4

        def slope(v: Any) -> Any:
            inner = open_Na * (ENa - v) + open_K * (EK - v) + gL * (EL - v)
            return (inner + self.sum_current_inputs(x, v)) / C

        V = self._checked(self.sum_delta_inputs(exp_euler_step(slope, before)), self.V)
        self.V.value = V
        self.m.value = _gate(m, self.m_alpha(before), self.m_beta(before))
        self.h.value = _gate(h, self.h_alpha(before), self.h_beta(before))
        self.n.value = _gate(n, self.n_alpha(before), self.n_beta(before))
        return self.get_spike(V) * (1 - self.get_spike(before))


def _per_area(owner: HH, membrane: Mapping[str, Parameter]) -> bool | None:
    """Whether the quantities among the parameters of a membrane are per area; None if there is none."""
    found: dict[bool, tuple[str, Any]] = {}
    for name, value in membrane.items():
        unit = given_unit(value)
        if is_unit(unit):
            whole = unit.has_same_dim(named_unit(owner.UNITS_OF_A_NEURON[name]))
            # what is neither is taken for one per area, and refused where its unit is looked at
            found.setdefault(not whole, (name, unit))
    if len(found) == 2 and found[True][1].has_same_dim(named_unit(owner.UNITS[found[True][0]])):
        (area, per_area), (neuron, whole) = found[True], found[False]
        raise UnitError(
            describe(
                f"{type(owner).__name__}({area}=...) is given per area, in {text_of(per_area)}, and {neuron} for the whole "
                f"neuron, in {text_of(whole)}.",
                at=_jax.line_in_charge(),
                why="the area of the membrane is not known",
                fix="give gNa, gK, gL and C all per area, or none of them",
            )
        )
    return False not in found if found else None


def _linoid(z: Any) -> Any:
    """``z / (1 - exp(-z))``, also near 0, where it is ``1 + z / 2``."""
    near = jnp.abs(z) < 1e-4
    safe = jnp.where(near, 1, z)
    return jnp.where(near, 1 + z / 2, -safe / jnp.expm1(-safe))


def _steady(alpha: Any, beta: Any) -> Any:
    return alpha / (alpha + beta)


def _gate(gate: Any, alpha: Any, beta: Any) -> Any:
    """A gate after a step at constant rates."""
    return exp_euler_step(lambda y: alpha * (1 - y) - beta * y, gate)

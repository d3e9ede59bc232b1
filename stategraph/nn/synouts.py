"""Outputs of synapses: the current that a conductance makes. Conductances in nS, potentials in mV, currents in nA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from stategraph.errors import describe
from stategraph.nn import arrivals
from stategraph.nn.module import Module
from stategraph.nn.population import Parameter, values
from stategraph.nn.units import number, parameter
from stategraph.units import is_quantity, named_unit, quantity

NS_MV_IN_NA = 1e-3
"""1 nS times 1 mV is 1 pA."""


class SynOut(Module):
    """Base class of outputs: a projection binds the conductance of this step, the population calls with its potential.
    Write ``update(conductance, potential)``.
    """

    def bind_cond(self, conductance: Any) -> None:
        """Say what the conductance is in this step."""
        arrivals.send(
            self, "conductance", number(conductance, "nS", f"The conductance of {type(self).__name__}")
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        conductance = arrivals.look(self, "conductance")
        if conductance is None:
            raise ValueError(
                describe(
                    f"{type(self).__name__} has no conductance in this step.",
                    why="a projection binds it, before the population that it sends to makes its step",
                    fix="call the projection, then the population, in each step",
                )
            )
        if args and is_quantity(args[0]):  # the potential of a population that computes with quantities
            potential = number(args[0], "mV", f"The potential that {type(self).__name__} is given")
            return quantity(self.update(conductance, potential, *args[1:], **kwargs), named_unit("nA"))
        return self.update(conductance, *args, **kwargs)


class COBA(SynOut):
    """Conductance-based: the current ``g (E - V)``. Destexhe, Mainen and Sejnowski, "Kinetic models of synaptic
    transmission" (1998).

    Args:
      E: the reversal potential (mV).

    Example:

    >>> import stategraph as sg
    >>> out = sg.nn.COBA(E=0.0)
    >>> out.bind_cond(2.0)  # nS
    >>> out(-60.0)  # nA
    0.12
    """

    UNITS: ClassVar[Mapping[str, str]] = {"E": "mV"}

    def __init__(self, E: Parameter) -> None:
        super().__init__()
        self.E = parameter(self, "E", E)

    def update(self, conductance: Any, potential: Any) -> Any:
        (E,) = values(self.E)
        return NS_MV_IN_NA * conductance * (E - potential)


class CUBA(SynOut):
    """Current-based: the current ``scale g``, whatever the potential.

    Args:
      scale: the driving force (V), so that nS give nA.

    Example:

    >>> import stategraph as sg
    >>> out = sg.nn.CUBA()
    >>> out.bind_cond(2.0)
    >>> out(-60.0)
    2.0
    """

    UNITS: ClassVar[Mapping[str, str]] = {"scale": "volt"}

    def __init__(self, scale: Parameter = 1.0) -> None:
        super().__init__()
        self.scale = parameter(self, "scale", scale)

    def update(self, conductance: Any, potential: Any = None) -> Any:
        (scale,) = values(self.scale)
        return conductance * scale


class MgBlock(SynOut):
    """Conductance-based with the magnesium block of NMDA receptors: the current
    ``g (E - V) / (1 + cc_Mg / beta exp(alpha (V_offset - V)))``. Jahr and Stevens, "Voltage dependence of NMDA-activated
    macroscopic conductances predicted by single-channel kinetics" (1990).

    Args:
      E: the reversal potential (mV).
      cc_Mg: the concentration of magnesium (mM).
      alpha: the slope (1/mV).
      beta: the concentration of half a block at ``V_offset`` (mM).
      V_offset: shifts the block (mV).

    Example:

    >>> import stategraph as sg
    >>> out = sg.nn.MgBlock()
    >>> out.bind_cond(1.0)
    >>> round(float(out(-60.0)), 5)
    0.00403
    """

    UNITS: ClassVar[Mapping[str, str]] = {
        "E": "mV",
        "cc_Mg": "mM",
        "alpha": "1 / mV",
        "beta": "mM",
        "V_offset": "mV",
    }
    NUMBERS: ClassVar[tuple[str, ...]] = ("cc_Mg", "alpha", "beta")
    """What is known by its number, beside quantities too: of mM and 1/mV."""

    def __init__(
        self,
        E: Parameter = 0.0,
        cc_Mg: Parameter = 1.2,
        alpha: Parameter = 0.062,
        beta: Parameter = 3.57,
        V_offset: Parameter = 0.0,
    ) -> None:
        super().__init__()
        self.E = parameter(self, "E", E)
        self.cc_Mg = parameter(self, "cc_Mg", cc_Mg)
        self.alpha = parameter(self, "alpha", alpha)
        self.beta = parameter(self, "beta", beta)
        self.V_offset = parameter(self, "V_offset", V_offset)

    def update(self, conductance: Any, potential: Any) -> Any:
        E, cc_Mg, alpha, beta, V_offset = values(self.E, self.cc_Mg, self.alpha, self.beta, self.V_offset)
        block = 1 + cc_Mg / beta * jnp.exp(alpha * (V_offset - potential))
        return NS_MV_IN_NA * conductance * (E - potential) / block

"""Initialisers: what a parameter or a State holds at first, as a recipe.

An *initialiser* is called with a shape and gives an array. Random ones draw from ``stategraph.random``, or
from a stream of their own when they are given a ``seed``. ``param`` turns whatever a layer was given for a
parameter (an initialiser, an array, a number, nothing) into its first value.
"""

from stategraph.init.distributions import (
    Constant,
    Exponential,
    Gamma,
    Identity,
    Normal,
    TruncatedNormal,
    Uniform,
    ZeroInit,
)
from stategraph.init.initializer import Initializer
from stategraph.init.parameters import Initial as Initial
from stategraph.init.parameters import param
from stategraph.init.scaled import (
    DeltaOrthogonal,
    KaimingNormal,
    KaimingUniform,
    LecunNormal,
    LecunUniform,
    Orthogonal,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    calculate_init_gain,
)

__all__ = [
    "Initializer", "ZeroInit", "Constant", "Identity", "Normal", "TruncatedNormal", "Uniform", "Gamma", "Exponential",
    "VarianceScaling", "KaimingUniform", "KaimingNormal", "XavierUniform", "XavierNormal", "LecunUniform", "LecunNormal",
    "Orthogonal", "DeltaOrthogonal", "param", "calculate_init_gain",
]  # fmt: skip

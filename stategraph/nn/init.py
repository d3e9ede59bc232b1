"""Initialisers, by the name that models use: ``nn.init.KaimingNormal()``. See ``stategraph.init``."""

from stategraph.init import *  # noqa: F403
from stategraph.init import __all__ as __all__

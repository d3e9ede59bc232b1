"""Which JAX this is, and the names that mean the same on all."""

from __future__ import annotations

from typing import Any

from jax._src import core
from jax.extend.source_info_util import register_exclusion as register_exclusion

FOLDED = getattr(core, "ClosedJaxpr", core.Jaxpr) is core.Jaxpr
"""Whether this JAX keeps constants inside ``Jaxpr`` (0.11 and later, first with the old name for the same class)."""
Jaxpr = Any
Tracer = core.Tracer
Var = core.Var
Literal = core.Literal

register_exclusion(__file__.rsplit("/", 2)[0])

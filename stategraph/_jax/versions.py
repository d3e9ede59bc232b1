"""Which JAX this is, and the names that mean the same on all."""

from __future__ import annotations

from typing import Any

from jax._src import core
from jax.extend.source_info_util import register_exclusion as register_exclusion

FOLDED = not hasattr(core, "ClosedJaxpr")
"""Whether this JAX keeps constants inside ``Jaxpr`` (0.12 and later)."""
Jaxpr = Any
Tracer = core.Tracer
Var = core.Var
Literal = core.Literal

register_exclusion(__file__.rsplit("/", 2)[0])

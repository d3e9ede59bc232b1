"""Which JAX this is, and the names that mean the same on all."""

from __future__ import annotations

from typing import Any

import jax
from jax._src import core
from jax.extend.source_info_util import register_exclusion as register_exclusion

FOLDED = getattr(core, "ClosedJaxpr", core.Jaxpr) is core.Jaxpr
"""Whether this JAX keeps constants inside ``Jaxpr`` (0.11 and later, first with the old name for the same class)."""
KNOWS_CALLS = jax.__version_info__ < (0, 13)
"""Whether the XLA of this JAX is known to compile a call as one function (see ``in_one_function``)."""
Jaxpr = Any
Tracer = core.Tracer
Var = core.Var
Literal = core.Literal

register_exclusion(__file__.rsplit("/", 2)[0])

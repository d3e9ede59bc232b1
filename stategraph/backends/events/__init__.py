"""Event products: the primitives behind the ops ``event.*``, and how each platform computes them."""

import stategraph.backends.events.sorting  # noqa: F401  (how rewrite-events sorts synapses)
from stategraph.backends.events.change_primitive import csr_change_p
from stategraph.backends.events.declared import declare_p
from stategraph.backends.events.jit_primitive import jit_p
from stategraph.backends.events.list_primitive import append_p, list_p
from stategraph.backends.events.primitives import csr_add_p, csr_outer_add_p, csr_outer_p, csr_p, dense_p
from stategraph.backends.events.ring_primitive import csr_ring_p

__all__ = [
    "append_p",
    "csr_add_p",
    "csr_change_p",
    "csr_outer_add_p",
    "csr_outer_p",
    "csr_p",
    "csr_ring_p",
    "declare_p",
    "dense_p",
    "jit_p",
    "list_p",
]

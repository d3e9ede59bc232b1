"""Event-driven connectivity: who is connected with whom, and products that cost what the events cost.

Only what is active is looked at: with one neuron in a hundred spiking, a product reads one row in a hundred of the
connections. Vocabulary: *pre* are the neurons that send, *post* those that receive; an *event* is an element of the
sending vector that is not zero.
"""

from stategraph.event.connections import Connections, FixedNumConn, FixedProb, Sparse
from stategraph.event.csr import CSR
from stategraph.event.declared import declare
from stategraph.event.delays import Delayed
from stategraph.event.dense import AllToAll, Linear, OneToOne
from stategraph.event.jit import JITConn
from stategraph.event.plasticity import STDP
from stategraph.event.product import product
from stategraph.event.sampling import bernoulli, fixed_number
from stategraph.event.weighted import Weighted

Dense = Linear

__all__ = [
    "CSR",
    "Weighted",
    "Connections",
    "Sparse",
    "FixedProb",
    "FixedNumConn",
    "Linear",
    "Dense",
    "AllToAll",
    "OneToOne",
    "JITConn",
    "Delayed",
    "STDP",
    "bernoulli",
    "declare",
    "fixed_number",
    "product",
]

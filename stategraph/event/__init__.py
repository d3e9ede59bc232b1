"""Event-driven connectivity: who is connected with whom, and products that cost what the events cost.

Only what is active is looked at: with one neuron in a hundred spiking, a product reads one row in a hundred of the
connections. Vocabulary: *pre* are the neurons that send, *post* those that receive; an *event* is an element of the
sending vector that is not zero.
"""

from stategraph.event.connections import FixedNumConn, FixedProb, Linear, Sparse
from stategraph.event.csr import CSR
from stategraph.event.product import product
from stategraph.event.sampling import bernoulli, fixed_number

__all__ = [
    "CSR",
    "FixedNumConn",
    "FixedProb",
    "Linear",
    "Sparse",
    "bernoulli",
    "fixed_number",
    "product",
]

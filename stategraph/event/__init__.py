"""Event-driven connectivity: who is connected with whom, and products that cost what the events cost.

Only what is active is looked at: with one neuron in a hundred spiking, a product reads one row in a hundred of the
connections. Vocabulary: *pre* are the neurons that send, *post* those that receive; an *event* is an element of the
sending vector that is not zero.
"""

from typing import TYPE_CHECKING, Any

from stategraph import errors as _errors
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

_SPIKES = "any array of spikes is a vector of events"
_ROWS = "synapses are listed by pre neuron, and the weights are no part of the list"
_DRAWN = "the connections are drawn, and the law of the weights is an initialiser"
_OTHERS = {
    **dict.fromkeys(
        ("EventArray", "BinaryArray"), (_SPIKES, "stategraph.event.product(spikes, weight, csr)")
    ),
    **dict.fromkeys(("COO", "CSC"), (_ROWS, "stategraph.event.CSR(indptr, indices, shape) * weight")),
    **dict.fromkeys(
        ("FixedPostNumConn", "FixedNumPerPre"),
        (_DRAWN, "stategraph.event.FixedNumConn(pre, post, number, weight)"),
    ),
    **dict.fromkeys(
        ("FixedPreNumConn", "FixedNumPerPost"),
        (_DRAWN, "stategraph.event.FixedNumConn(pre, post, number, weight, efferent_target='pre')"),
    ),
    **{
        f"JITC{law}{order}": (_DRAWN, f"stategraph.event.JITConn(pre, post, prob, {weight})")
        for law, weight in {
            "Homo": "weight",
            "Scalar": "weight",
            "Normal": "init.Normal(mean, scale)",
            "Uniform": "init.Uniform(low, high)",
        }.items()
        for order in "RC"
    },
}
"""Names of brainevent that are others here: why, and what to write."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        raise _errors.no_such_name(__name__, name, _OTHERS)


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

"""What a product costs, as an ordinary one and as one of events: the model by which ``rewrite-events`` decides.

    dense    = start + batch * pre * post * (``row``, in a batch ``few / batch`` if that is less, at least ``block``)
    events   = call + batch * (pre * scan + active * (visit + post * add))
    synapses = call + batch * (pre * scan + active * (visit + synapses / pre * scatter))

in nanoseconds, with ``active = rate * pre``. The figures are medians on two cores of an x86-64 server; only
their ratios matter, and a wrong decision is bounded: an event product counts its active rows when it runs, and above
its threshold it is an ordinary one.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Costs:
    """Nanoseconds on one kind of machine."""

    call: float
    """Of an event product: making a list of what is active, and choosing between rows and the whole matrix."""
    row: float
    """One element of the matrix in an ordinary product with one vector: it is read from memory."""
    few: float
    """The same in a product with a batch, which reads it once for all."""
    block: float
    """One multiplication in a product with a large batch."""
    scan: float
    """Passing over one neuron."""
    count: float
    """Counting one neuron, if that is all that is done."""
    visit: float
    """Beginning with one active row."""
    add: float
    """Adding one element of an active row."""
    strided: float
    """The same when the row is a column of the matrix as it lies in memory."""
    scatter: float
    """Adding one synapse at its place."""
    sparse: float
    """One synapse in an event product over all of them."""
    listed: float = 4.0
    """One synapse in XLA's own product with a list of synapses."""
    compressed: float = 4.0
    """The same with a matrix in compressed rows."""
    masked: float = 0.5
    """Writing one element of a masked matrix, and adding it up."""
    sort: float = 400.0
    """Sorting one synapse."""
    batches: bool = True
    """Whether there are kernels for batches of vectors times a matrix."""


TABLE: dict[str, Costs] = {
    # measured by benchmarks/event_costs.py: 256 to 8,192 neurons, batches of 1 to 512, rates of 0 to 100 %; without numba
    # for the second row
    "cpu-native": Costs(
        call=900,
        row=0.06,
        few=0.9,
        block=0.009,
        scan=0.6,
        count=0.3,
        visit=30,
        add=0.2,
        strided=2.5,
        scatter=0.4,
        sparse=0.5,
    ),
    "cpu": Costs(
        call=3000,
        row=0.06,
        few=0.9,
        block=0.009,
        scan=4.3,
        count=1.2,
        visit=450,
        add=0.4,
        strided=8.0,
        scatter=0.9,
        sparse=4.0,
    ),
    # measured by benchmarks/gpu.py on an H200: 1,000 to 20,000 neurons, rates of 0.1 to 100 %. A kernel reads no more
    # than the ordinary product, whatever is active.
    "gpu": Costs(
        call=900,
        row=0.0009,
        few=0.0009,
        block=0.00003,
        scan=0.02,
        count=0.0,
        visit=1.0,
        add=0.0012,
        strided=10.0,
        scatter=0.005,
        sparse=0.03,
        listed=0.03,
        compressed=0.12,
        masked=0.03,
        sort=20.0,
        batches=False,
    ),
}
"""By platform; ``cpu`` is a CPU without numba, or a program that is exported. Elsewhere a matrix is multiplied whole: a
loop over spikes would be slower."""
AT_MOST = 1.2
"""What a wrong guess may cost: an event product with so many events that it is an ordinary one in the end."""
START = 400.0
"""Nanoseconds to start an ordinary product."""
TURN = 1.5
"""Nanoseconds to transpose one element of a matrix."""
TRIPS = 100
"""How often a loop is taken to run that does not say."""
BRANCH = 300.0
"""Nanoseconds to look at a count and take a branch."""
APART = 4
"""How many times as long the columns of active neurons take in a batch, which an ordinary product reads only once."""
SMALL, LARGE, HUGE, MANY = 1 << 18, 1 << 20, 1 << 23, 64
"""Elements of a matrix that the memory of one core holds, that that of all holds, and that two threads read much faster than
one; rows from which on an ordinary product is as fast as it gets.
"""


def threshold(native: bool, transposed: bool, batch: int, elements: int) -> float:
    """Share of active events above which a kernel of event products leaves the product to XLA: measured on matrices of
    256 × 256 to 8,192 × 8,192 elements and batches of 1 to 512.
    """
    if not native:
        return 0.1 if batch == 1 else 0.01 if elements <= SMALL else 0.015
    small = elements <= SMALL
    if transposed:
        return 0.005 if batch > 1 else 0.08 if small else 0.03 if elements <= HUGE else 0.015
    if batch < MANY or small:
        return 0.5 if batch == 1 else 0.1 if elements <= HUGE else 0.08
    return 0.07 if elements <= LARGE else 0.04


def dense_cost(costs: Costs, batch: int, pre: int, post: int) -> float:
    """An ordinary product of ``batch`` rows of ``pre`` elements with a matrix."""
    return START + batch * pre * post * max(costs.block, min(costs.row, costs.few / batch))


def event_cost(costs: Costs, batch: int, pre: int, post: int, rate: float, transposed: bool) -> float:
    """The same, reading active rows only; of columns each vector of a batch has to look for its own again."""
    add = costs.strided * (1 if batch == 1 else APART) if transposed else costs.add
    return costs.call + batch * pre * (costs.scan + rate * (costs.visit + post * add))


def worst_cost(costs: Costs, batch: int, pre: int, post: int) -> float:
    """An event product that turns out to be an ordinary one: behind a count and a branch."""
    return dense_cost(costs, batch, pre, post) + BRANCH + batch * pre * costs.count


def synapse_costs(costs: Costs, batch: int, pre: int, synapses: int, rate: float) -> tuple[float, float]:
    """XLA's product with a sparse matrix, and the one over the synapses of active rows only."""
    per_row = synapses / max(pre, 1)
    whole = START + batch * synapses * costs.listed
    return whole, costs.call + batch * pre * (costs.scan + rate * (costs.visit + per_row * costs.scatter))

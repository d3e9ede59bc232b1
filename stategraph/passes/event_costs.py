"""What a product costs, as an ordinary one and as one of events: the model by which ``rewrite-events`` decides.

    dense    = start + batch * pre * post * (block + read / batch) / cores
    events   = call + batch * pre * (scan + rate * (visit + post * add))
    synapses = call + batch * pre * (scan + rate * (visit + synapses / pre * scatter))

in nanoseconds. ``read`` and ``add`` lie between a *near* and a *far* price, by the part of the matrix that the memory of
one core cannot hold, and are those of 32 bits: 64 take twice as long. ``cores`` is 1 for one vector, unless its matrix is huge.

Only the ratios of the figures matter, and a wrong decision is bounded: an event product counts its active rows when it runs,
and above its threshold it is an ordinary one. The threshold is the share of active events at which both would cost
the same, less a margin, since an ordinary product may take half as long in one run as in the next.
"""

from __future__ import annotations

import os

import attrs

Near = tuple[float, float]
"""The price of an element in the memory of one core, and of one further away."""


@attrs.frozen
class Costs:
    """Nanoseconds on one kind of machine."""

    call: float
    """Of an event product: making a list of what is active, and choosing between rows and the whole matrix."""
    block: float
    """One multiplication in a product with a large batch, by one core."""
    read: Near
    """One element of the matrix in an ordinary product."""
    scan: float
    """Passing over one neuron."""
    count: float
    """Counting one neuron, if that is all that is done."""
    listing: float
    """Beginning a list of what is active in one vector, and finding that it is long."""
    branch: float
    """Looking at the count of a batch and taking a branch of XLA, and by how much the small products vary that this matters to."""
    visit: float
    """Beginning with one active row."""
    add: Near
    """Adding one element of an active row."""
    strided: Near
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
    cores: int = 1
    """Among how many XLA shares a product, while an event product has one."""


def processors() -> int:
    """How many this process may use: so many threads XLA has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


TABLE: dict[str, Costs] = {
    # measured on two cores of an x86-64 server (benchmarks/event_costs.py model): 128 to 4,096 neurons, batches of 1 to 512,
    # rates of 0 to 10 %, float32 and float64; without numba for the second row. Ordinary products as fast as they were at times.
    "cpu-native": Costs(
        call=900,
        block=0.017,
        read=(0.045, 0.11),
        scan=0.6,
        count=0.06,
        listing=300,
        branch=3000,
        visit=20,
        add=(0.06, 0.18),
        strided=(0.5, 3.5),
        scatter=0.4,
        sparse=0.5,
        cores=processors(),
    ),
    "cpu": Costs(
        call=2000,
        block=0.017,
        read=(0.045, 0.11),
        scan=2.5,
        count=1.2,
        listing=1500,
        branch=1500,
        visit=150,
        add=(0.15, 0.25),
        strided=(1.3, 9.0),
        scatter=0.9,
        sparse=4.0,
        cores=processors(),
    ),
    # measured by benchmarks/gpu.py on an H200: 1,000 to 20,000 neurons, rates of 0.1 to 100 %. A kernel reads no more
    # than the ordinary product, whatever is active.
    "gpu": Costs(
        call=900,
        block=0.00003,
        read=(0.0009, 0.0009),
        scan=0.02,
        count=0.0,
        listing=300,
        branch=300,
        visit=1.0,
        add=(0.0012, 0.0012),
        strided=(10.0, 10.0),
        scatter=0.005,
        sparse=0.03,
        listed=0.03,
        compressed=0.12,
        masked=0.03,
        sort=20.0,
        batches=False,
    ),
}
"""By platform; ``cpu`` is a CPU without numba, or a program that is exported, or one with weights for which there are no native
kernels. Elsewhere a matrix is multiplied whole: a loop over spikes would be slower.
"""
AT_MOST = 1.2
"""What a wrong guess may cost: an event product with so many events that it is an ordinary one in the end."""
MARGIN = 0.8
"""What an event product may cost at its threshold, where an ordinary one costs 1."""
HALF = 0.5
"""The highest threshold: what reads most rows is no faster than what reads all."""
START = 400.0
"""Nanoseconds to start an ordinary product."""
TURN = 1.5
"""Nanoseconds to transpose one element of a matrix."""
TRIPS = 100
"""How often a loop is taken to run that does not say."""
CACHE = 1 << 21
"""Bytes that the memory of one core holds."""
LARGE, HUGE = 1 << 23, 1 << 25
"""Bytes of a matrix whose columns are far from all cores; bytes from which on XLA shares it among the cores for one vector."""
BEAR = 4
"""So many cores read from memory as fast as it gets."""


@attrs.frozen
class Size:
    """Of a product of ``batch`` vectors with a matrix."""

    batch: int
    pre: int
    post: int
    item: int = 4
    """Bytes of one element."""

    @property
    def elements(self) -> int:
        return self.pre * self.post

    @property
    def bytes(self) -> int:
        return self.elements * self.item


def threshold(costs: Costs, size: Size, transposed: bool) -> float:
    """Share of active events above which an event product is left to XLA."""
    whole = size.post * _multiplication(costs, size) - costs.scan
    share = MARGIN * whole / (costs.visit + size.post * _addition(costs, size, transposed))
    return round(min(max(share, 0.0), HALF), 3)


def dense_cost(costs: Costs, size: Size) -> float:
    """An ordinary product of ``batch`` rows of ``pre`` elements with a matrix."""
    return START + size.batch * size.elements * _multiplication(costs, size)


def event_cost(costs: Costs, size: Size, rate: float, transposed: bool) -> float:
    """The same, reading active rows only."""
    row = costs.visit + size.post * _addition(costs, size, transposed)
    return costs.call + size.batch * size.pre * (costs.scan + rate * row)


def worst_cost(costs: Costs, size: Size) -> float:
    """An event product that turns out to be an ordinary one: behind a count and a branch."""
    begin = costs.branch if size.batch > 1 else costs.listing
    return dense_cost(costs, size) + begin + size.batch * size.pre * costs.count


def _multiplication(costs: Costs, size: Size) -> float:
    """One of an ordinary product, by all cores that take part."""
    read = _between(costs.read, size)
    if size.batch > 1:
        return (costs.block + read / size.batch) * _words(size) / costs.cores
    return read * _words(size) / (min(costs.cores, BEAR) if size.bytes >= HUGE else 1)


def _addition(costs: Costs, size: Size, transposed: bool) -> float:
    return _between(costs.strided, size) if transposed else _between(costs.add, size) * _words(size)


def _between(near: Near, size: Size) -> float:
    """The price of an element of a matrix: the part that does not fit is far."""
    far = max(0.0, 1 - CACHE / max(size.bytes, 1))
    return near[0] + far * (near[1] - near[0])


def _words(size: Size) -> float:
    """How many times as long an element takes as one of 32 bits."""
    return max(size.item, 4) / 4


def synapse_costs(costs: Costs, batch: int, pre: int, synapses: int, rate: float) -> tuple[float, float]:
    """XLA's product with a sparse matrix, and the one over the synapses of active rows only."""
    per_row = synapses / max(pre, 1)
    whole = START + batch * synapses * costs.listed
    return whole, costs.call + batch * pre * (costs.scan + rate * (costs.visit + per_row * costs.scatter))

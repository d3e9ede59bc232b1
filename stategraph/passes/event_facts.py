"""Which values are events: a dataflow analysis over the whole program.

Every value has a *fact*, one of the levels below, the strongest first. Facts begin at ``UNSEEN`` and only rise; an op is
looked at again when a fact that it depends on has risen (``rules`` says what it makes of its operands). Region ops
copy facts along *edges*: what goes into a loop, comes around and comes out. So a carry is binary when its initial
value and what the body yields are.

A State is a node of its own that every write feeds. What a read gives is at most ``ENTRY``, because anybody may have
written to the State before the program begins; a State that nothing but constants is ever written to is no event.
The States whose writes are all binary are in ``Facts.states``: ``ENTRY`` means "if these hold 0 and 1 at entry".
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.types import TensorType
from stategraph.passes.event_rules import (
    BINARY,
    CONSTANT,
    ENTRY,
    SPARSE,
    SPIKE,
    UNKNOWN,
    UNSEEN,
    constant_fact,
    fact_of,
)


@attrs.define(eq=False)
class Leaf:
    """One leaf of one State."""

    path: str
    index: int
    at_entry: bool
    """Whether the State exists before the program does."""
    reads: list[Value] = attrs.Factory(list)


Node = Value | Leaf
PLAIN = ("flow.call", "xform.remat", "xform.vmap", "xform.shard_map")
"""Ops that give their operands to the body as arguments, whole or in slices, and their results are what it yields."""
RULED = {"flow.custom_jvp": 2, "flow.custom_vjp": 2}
"""How many regions of a function with a derivative rule compute its value."""


@attrs.frozen(eq=False)
class Facts:
    """The result of the analysis."""

    values: dict[Node, int]
    states: dict[str, tuple[int, ...]]
    """The leaves of States that are binary after every write, by path."""

    def of(self, value: Value) -> int:
        """The fact of a value."""
        return constant_fact(value) if isinstance(value, Constant) else self.values.get(value, UNKNOWN)


def event_facts(program: Program) -> Facts:
    """The facts of all values of ``program``, in any form of it."""
    analysis = _Analysis(program)
    analysis.run()
    leaves: dict[str, list[int]] = {}
    for leaf in analysis.leaves.values():
        if leaf.at_entry and analysis.facts.get(leaf) in (BINARY, SPIKE, ENTRY):
            leaves.setdefault(leaf.path, []).append(leaf.index)
    return Facts(analysis.facts, {path: tuple(sorted(found)) for path, found in leaves.items()})


class _Analysis:
    def __init__(self, program: Program) -> None:
        self.facts: dict[Node, int] = {}
        self.edges: dict[Node, list[tuple[Node, bool]]] = {}
        self.leaves: dict[tuple[str, int], Leaf] = {}
        self.pending: list[Node] = []
        self.first = True
        """Whether ops are being looked at for the first time, in order: those that take a value come later."""
        self.program = program
        self.local = {op.symbol for op in program.walk("state.alloc")}
        self.local |= {path for path, symbol in program.states.items() if symbol.born}

    def run(self) -> None:
        for arg in self.program.body.args:
            self.rise(arg, UNKNOWN)
        for op in self.program.walk():
            self.begin(op)
        self.first = False
        self.spread()
        # States that only pass around what they held, or constants: nothing says that they are events
        for leaf in self.leaves.values():
            if self.facts.get(leaf, UNSEEN) <= CONSTANT and leaf.at_entry:
                self.rise(leaf, UNKNOWN)
        self.spread()
        self.narrow()

    def narrow(self) -> None:
        """What seemed to be anything while less was known, and is sparse. Nothing rests on that but a guess at costs."""
        for op in self.program.walk():
            if not op.regions and any(self.facts.get(result) == UNKNOWN for result in op.results):
                facts = [self.fact(operand) for operand in op.operands]
                for result in op.results:
                    if self.facts.get(result) == UNKNOWN and fact_of(op, result, facts) == SPARSE:
                        self.facts[result] = SPARSE

    def spread(self) -> None:
        """Bounded: every fact rises at most six times."""
        pending = self.pending
        while pending:
            node = pending.pop()
            fact = self.facts[node]
            for target, spikes in self.edges.get(node, ()):
                self.rise(target, SPIKE if spikes and fact == BINARY else fact)
            if isinstance(node, Leaf):
                for read in node.reads:
                    self.rise(read, self.read(node, read))
                continue
            for user in node.users:
                if not user.regions and user.name != "flow.yield" and not user.name.startswith("state."):
                    self.evaluate(user)

    def rise(self, node: Node, fact: int) -> None:
        if fact >= ENTRY and not isinstance(node, Leaf) and _is_bool(node):
            fact = BINARY if fact == UNKNOWN else SPIKE
        known = self.facts.get(node, UNSEEN)
        if fact > known:
            self.facts[node] = fact
            if not self.first or known != UNSEEN or node in self.edges or isinstance(node, Leaf):
                self.pending.append(node)

    def fact(self, value: Value) -> int:
        return constant_fact(value) if type(value) is Constant else self.facts.get(value, UNSEEN)

    def evaluate(self, op: Op) -> None:
        facts = [self.fact(operand) for operand in op.operands]
        for result in op.results:
            self.rise(result, fact_of(op, result, facts))

    def begin(self, op: Op) -> None:
        """Look at an op for the first time: its edges, or its results."""
        name = op.name
        if name == "state.read":
            for i, result in enumerate(op.results):
                leaf = self.leaf(op.symbol, i)
                leaf.reads.append(result)
                self.rise(result, self.read(leaf, result))
        elif name in ("state.write", "state.alloc"):
            for i, operand in enumerate(op.operands):
                self.edge(operand, self.leaf(op.symbol, i))
        elif op.regions:
            self.structured(op)
        elif name != "flow.yield":
            self.evaluate(op)

    def leaf(self, path: str, index: int) -> Leaf:
        found = self.leaves.get((path, index))
        if found is None:
            found = self.leaves[path, index] = Leaf(path, index, path not in self.local)
        return found

    def read(self, leaf: Leaf, result: Value) -> int:
        """What reading gives. Before anything but constants is known to be written, nothing is said."""
        fact = self.facts.get(leaf, UNSEEN)
        if not leaf.at_entry:
            return fact
        if fact <= CONSTANT:
            return BINARY if _is_bool(result) else UNSEEN
        return ENTRY if fact <= ENTRY else fact

    # ------------------------------------------------------------------------------------------------- region ops

    def edge(self, source: Value, target: Node, spikes: bool = False) -> None:
        """``target`` may be ``source``; with ``spikes``, what is binary comes from a function that makes spikes."""
        fact = self.fact(source)
        if type(source) is not Constant:
            self.edges.setdefault(source, []).append((target, spikes))
        if fact != UNSEEN:
            self.rise(target, SPIKE if spikes and fact == BINARY else fact)

    def structured(self, op: Op) -> None:
        name, operands, results, regions = op.name, op.operands, op.results, op.regions
        if name == "flow.scan" or name == "flow.while":
            body = regions[-1]
            carried = op.attributes["carry"] if name == "flow.scan" else len(operands)
            for i, (init, result) in enumerate(zip(operands[:carried], results, strict=False)):
                for source in (init, body.yielded[i]):
                    self.edge(source, result)
                    for region in regions:
                        self.edge(source, region.args[i])
            self.pairs(operands[carried:], body.args[carried:])
            self.pairs(body.yielded[carried:], results[carried:])
        elif name == "flow.cond":
            for region in regions:
                self.pairs(region.yielded, results)
        elif name in PLAIN:
            self.pairs(operands, regions[0].args)
            self.pairs(regions[0].yielded, results)
        elif name in RULED:
            for region in regions[: RULED[name]]:
                self.pairs(operands, region.args)
                self.pairs(region.yielded[: len(results)], results, spikes=True)
            for region in regions[RULED[name] :]:
                self.unknown(region)
            if "recursive" in op.attributes:  # the function around it runs on these operands too
                for outer in _around(op):
                    if outer.name == name:
                        self.pairs(operands, outer.regions[0].args)
        elif name == "xform.grad":
            self.pairs(operands, regions[0].args)
            self.pairs(regions[0].yielded, results)
        elif name in ("xform.jvp", "xform.vjp"):
            args = regions[0].args
            self.pairs(operands[len(operands) - len(args) :], args)
            self.pairs(regions[0].yielded, results)
        else:
            for region in regions:
                self.unknown(region)
            self.pairs((), results)

    def pairs(self, sources: tuple[()] | list[Value], targets: list[Value], spikes: bool = False) -> None:
        """Edges one by one; of targets without a source nothing is known."""
        for source, target in zip(sources, targets, strict=False):
            self.edge(source, target, spikes)
        for target in targets[len(sources) :]:
            self.rise(target, UNKNOWN)

    def unknown(self, region: Region) -> None:
        for arg in region.args:
            self.rise(arg, UNKNOWN)


def _around(op: Op) -> Iterator[Op]:
    """The ops that an op stands in, the innermost first."""
    region = op.parent
    while region is not None and region.parent_op is not None:
        yield region.parent_op
        region = region.parent_op.parent


def _is_bool(value: Value) -> bool:
    return type(value.type) is TensorType and value.type.dtype == "bool"


NAMES: dict[int, str] = {BINARY: "binary", SPIKE: "binary", ENTRY: "entry", SPARSE: "sparse"}
"""How the program says it."""

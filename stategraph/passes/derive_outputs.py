"""Outputs of a loop that follow from its other outputs are computed from these after the loop.

    v, z, late = scan(...)  stacks v, z = v >= 0, and the z of the step before

stacks only ``v``: ``z`` is a comparison of all of it, and ``late`` is ``z`` moved by one step, behind what the carry was at
first. A loop writes every stacked output to memory step by step; an op on all steps at once is cheaper, and the op that
takes the output can often be computed with it. Gradients of loops stack much that follows from the rest.

Only ops that do not round are computed again, comparisons, selections and conversions, so that a spike is one here and in
the loop however a backend contracts what comes before. Small outputs stay, and so do all outputs of loops that become
kernels, which have at hand what they write.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.types import TensorType
from stategraph.passes.base import Pass
from stategraph.passes.batch_rules import RULES, Batch, has_rule, shape_of, stacked
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, carries, home
from stategraph.passes.native_ops import CONTROL, EVENTS, why_not
from stategraph.passes.outline_native import DRAW
from stategraph.passes.registry import register

EXACT = frozenset(
    f"jax.{name}"
    for name in (
        *("eq", "ne", "ge", "gt", "le", "lt", "and", "or", "xor", "not", "select_n"),
        *("convert_element_type", "max", "min", "abs", "neg", "sign", "copy"),
    )
)
"""Ops that do not round, but for conversions, which do where they stand."""
MOST = 6
"""Ops that are computed again for one output."""


@register
@attrs.frozen
class DeriveOutputs(Pass):
    """Compute stacked outputs of loops that follow from others after the loop."""

    name = "derive-outputs"
    min_bytes: int = 1 << 20
    """Outputs of fewer bytes, over all steps, stay."""

    def run(self, program: Program, context: Context) -> None:
        for loop in list(_loops(program.body)):
            found = _Outputs(loop, self.min_bytes)
            found.derive()
            if found.derived:
                context.report(
                    loop, "outputs follow from others", outputs=len(found.derived), bytes=found.bytes
                )


def _loops(region: Region) -> Iterable[Op]:
    """The scans that stay loops of the backend; not those on shards, whose types say less."""
    for op in region.ops:
        if op.name == "xform.shard_map" or (op.name in CONTROL and _is_kernel(op)):
            continue
        if op.name == "flow.scan" and op.attributes["length"] > 0:
            yield op
        for inner in op.regions:
            yield from _loops(inner)


def _is_kernel(loop: Op) -> bool:
    return next(loop.walk(*EVENTS, DRAW), None) is not None and why_not(loop) is None


def _same(value: Value) -> Value:
    """A value that is the same on every step, for an op outside."""
    return Constant(value.data, value.type) if isinstance(value, Constant) else value


class _Outputs:
    """The outputs of one loop."""

    def __init__(self, loop: Op, min_bytes: int) -> None:
        self.loop, self.body = loop, loop.regions[0]
        self.count, self.length = carries(loop), loop.attributes["length"]
        self.min_bytes = min_bytes
        self.derived: list[int] = []
        self.bytes = 0
        self.ops: list[Op] = []
        self.whole: dict[Value, Value] = dict(
            zip(self.body.args[self.count :], loop.operands[self.count :], strict=True)
        )
        """Values of all steps, by the value in the body: stacked inputs, and outputs that are kept or derived."""

    def derive(self) -> None:
        yielded, results = self.body.yielded, self.loop.results
        given = dict(self.whole)
        outputs = [k for k in range(self.count, len(results)) if results[k].has_uses]
        wanted = [k for k in outputs if self.is_large(results[k])]
        chains: dict[int, list[Op]] = {}
        for k in wanted:
            others = [yielded[j] for j in outputs if j != k and j not in chains]
            if yielded[k] in others or yielded[k] in given:
                chains[k] = []
                continue
            chain = self.chain(self.source(yielded[k]), {*given, *others})
            if chain is not None:
                chains[k] = chain
        self.whole |= {yielded[k]: results[k] for k in outputs if k not in chains}
        for k in reversed(chains):  # what was found last rests on nothing that was found before
            self.replace(k, chains[k])
        REWRITER.insert_after(self.loop, *self.ops)

    def is_large(self, result: Value) -> bool:
        return isinstance(result.type, TensorType) and result.type.nbytes >= self.min_bytes

    def source(self, value: Value) -> Value:
        """What has to be known of all steps: of a carry, what it is after each step."""
        if value.owner is self.body and value.index < self.count:
            return self.body.yielded[value.index]
        return value

    def chain(self, value: Value, known: set[Value]) -> list[Op] | None:
        """The ops of the body, in order, that make ``value`` of known values; None when others are needed."""
        found: list[Op] = []
        if value in known:
            return found
        pending, seen = [value], set()
        while pending:
            here = pending.pop()
            if here in known or here in seen or home(here) is not self.body:
                continue
            seen.add(here)
            op = here.owner
            if not isinstance(op, Op) or len(found) == MOST or not has_rule(op) or op.name not in EXACT:
                return None
            if op not in found:
                found.append(op)
            pending += op.operands
        if not any(operand in known for op in found for operand in op.operands):
            return None
        return sorted(found, key=self.body.ops.index)

    def replace(self, k: int, chain: list[Op]) -> None:
        value, result = self.body.yielded[k], self.loop.results[k]
        for op in chain:
            if op.result not in self.whole:
                moving = [operand in self.whole for operand in op.operands]
                operands = [self.whole.get(operand) or _same(operand) for operand in op.operands]
                self.whole[op.result] = RULES[op.name](Batch(op, operands, moving, self.length, self.ops))
                self.whole[op.result].event = op.result.event
        if value not in self.whole:
            self.whole[value] = self.moved(value)
        self.derived.append(k)
        self.bytes += result.type.nbytes
        self.whole[value].name = result.name
        REWRITER.replace_uses(result, self.whole[value])

    def moved(self, carry: Value) -> Value:
        """A carry before each step: what it was at first, and after the steps before."""
        type_ = carry.type
        assert isinstance(type_, TensorType)
        first = self.loop.operands[carry.index]
        one = self.emit(
            "jax.broadcast_in_dim",
            [first],
            TensorType(type_.dtype, (1, *type_.shape), type_.weak),
            {
                "shape": (1, *type_.shape),
                "broadcast_dimensions": tuple(range(1, len(type_.shape) + 1)),
                "sharding": None,
            },
        )
        if self.length == 1:
            return one
        after = self.whole[self.body.yielded[carry.index]]
        shape = shape_of(after)
        start = 1 if self.loop.attributes["reverse"] else 0
        rest = self.emit(
            "jax.slice",
            [after],
            TensorType(type_.dtype, (self.length - 1, *type_.shape), type_.weak),
            {
                "start_indices": (start, *[0] * len(type_.shape)),
                "limit_indices": (start + self.length - 1, *shape[1:]),
                "strides": None,
            },
        )
        parts = [rest, one] if self.loop.attributes["reverse"] else [one, rest]
        found = self.emit("jax.concatenate", parts, stacked(type_, self.length), {"dimension": 0})
        found.event = carry.event
        return found

    def emit(self, name: str, operands: list[Value], type_: object, attributes: dict[str, object]) -> Value:
        op = Op(name, operands, [type_], attributes, (), self.loop.location)  # type: ignore[list-item]
        self.ops.append(op)
        return op.result

"""``expm1(x) / x``, which a step of an exponential integrator multiplies with, for a block of elements at a time.

Neurons take small steps: ``x``, the step in units of a time constant, is seldom beyond 1, and up to there the quotient is one
polynomial. So a block of elements has a loop that computes the quotients, and what is made of them alone, with the
polynomial; if it does not hold for all of them, the same loop again with the function; and a loop with all other ops,
which finds the results in memory. An element's quotient does not depend on the others: where the polynomial holds, it
is the polynomial in both loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from stategraph.backends.codegen.functions import Maths
from stategraph.backends.codegen.fusing import FUSED, QUOTIENT
from stategraph.backends.codegen.places import Scalar
from stategraph.backends.codegen.schedule import is_cheap, tensor
from stategraph.ir.core import Op, Value
from stategraph.passes.native_ops import ELEMENTWISE, REDUCTIONS

if TYPE_CHECKING:
    from stategraph.backends.codegen.clusters import ClusterWriter

BLOCK, VECTOR = 512, 16
"""Elements of a block, at most, and those that a processor computes with at once."""


@attrs.frozen
class Quotients:
    """What of a cluster is computed first."""

    xs: dict[Op, Value]
    """The divisions, with what they are of."""
    early: set[Op]
    """What they are made of, cheap enough to be computed twice."""
    late: set[Op]
    """They, and what is made of them and of what is early."""
    kept: list[Value]
    """What the last loop finds in memory."""


def quotients(writer: ClusterWriter) -> Quotients | None:
    """The quotients of a cluster, if there are any."""
    of, ops, places = writer.block.kernel.aliases.of, writer.cluster.ops, writer.block.places
    xs: dict[Op, Value] = {}
    early: set[Op] = set()
    for op in ops:
        if op.name != QUOTIENT:
            continue
        x = of(op.operands[0])
        made = _made_of(x, writer)
        if all(map(is_cheap, made)):
            xs[op] = x
            early.update(made)
    if not xs:
        return None
    late: set[Op] = set()
    for op in ops:
        taken = [v.owner for v in map(of, op.operands) if not isinstance(places.get(v), Scalar)]
        owners = {owner for owner in taken if owner is not None}
        if op in xs or (
            (op.name in ELEMENTWISE or op.name == FUSED) and owners & late and owners <= early | late
        ):
            late.add(op)
        elif owners and owners <= early and is_cheap(op):
            early.add(op)
    small = writer.block.small
    stored = {small.get(value, value) for value in writer.block.stores}
    results = [op.result for op in ops if op in late]
    kept = [
        v for v in results if v in stored or any(u in ops and u not in late for u in writer.block.uses(v))
    ]
    return Quotients(xs, early, late, kept)


def _made_of(value: Value, writer: ClusterWriter) -> list[Op]:
    """The ops of a cluster that a value comes from."""
    wanted, found = {value}, []
    for op in reversed(writer.cluster.ops):
        if op.name not in REDUCTIONS and op.result in wanted:
            found.append(op)
            wanted.update(map(writer.block.kernel.aliases.of, op.operands))
    return found


def block_of(size: int) -> int:
    """Elements of a block: whole vectors, and whole blocks, where the size allows it."""
    fitting = (n for n in range(BLOCK, BLOCK // 4, -VECTOR) if size % n == 0)
    return min(size, next(fitting, BLOCK))


def in_blocks(writer: ClusterWriter, size: int, found: Quotients, rest: Callable[[], None]) -> None:
    """Write the loops of a cluster of ``size`` elements; ``rest`` writes those ops for one element whose value is not in
    a register.
    """
    f, length = writer.f, block_of(size)
    kept = {value: f.array(tensor(value).dtype, length) for value in found.kept}
    farthest = {
        dtype: f.variable(f"u{dtype[1:]}", "far")
        for dtype in sorted({tensor(x).dtype for x in found.xs.values()})
    }

    def begin(first: str, i: str) -> None:
        writer.begin([f.let(f"add nuw nsw i64 {first}, {i}")])

    def compute(first: str, i: str, exact: bool) -> None:
        begin(first, i)
        for op in writer.cluster.ops:
            if op in found.xs:
                x = found.xs[op]
                maths, value = Maths(f, tensor(x).dtype), writer.value(x)
                writer.names[op.result] = maths.quotient(value) if exact else maths.near_quotient(value)
                if not exact:
                    slot, whole = farthest[maths.dtype], f"u{maths.width}"
                    most = f.call(
                        f"llvm.umax.i{maths.width}", whole, f.load(slot, whole), maths.distance(value)
                    )
                    f.store(most, slot, whole)
            elif op in found.early or op in found.late:
                writer.element(op)
        for result, where in kept.items():
            f.store(writer.value(result), where, tensor(result).dtype, i)

    def block(first: str, count: int) -> None:
        for dtype, slot in farthest.items():
            f.store("0", slot, f"u{dtype[1:]}")
        with f.loop(count) as i:
            compute(first, i, False)
        for dtype, slot in farthest.items():
            maths = Maths(f, dtype)
            most = f.load(slot, f"u{maths.width}")
            beyond = f.let(f"icmp uge i{maths.width} {most}, {maths.near}")
            with f.when(beyond), f.loop(count) as i:
                compute(first, i, True)
        with f.loop(count) as i:
            begin(first, i)
            for result, where in kept.items():
                writer.names[result] = f.load(where, tensor(result).dtype, i)
            rest()

    whole = size // length
    if writer.shared is None:
        first, last = "0", str(whole)
    else:
        first, last = (f.let(f"udiv i64 {end}, {length}") for end in ("%from", "%to"))
    with f.loop(last, first) as number:
        block(f.let(f"mul nuw nsw i64 {number}, {length}"), length)
    if size % length:
        with f.when("true" if writer.shared is None else f.let(f"icmp eq i64 %to, {size}")):
            block(str(whole * length), size % length)

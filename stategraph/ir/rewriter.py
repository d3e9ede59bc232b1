"""Edits that keep a program consistent: uses, owners and locations.

All edits of a placed op go through here. Single edits are methods of ``Rewriter``; a pass that removes many
ops collects them and calls ``erase_all`` once, which is linear in the size of the region.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stategraph.ir.core import Op, Region, Value
from stategraph.ir.location import UNKNOWN


class Rewriter:
    """Insert, replace, erase and move ops. Stateless: one instance serves a whole pass."""

    def insert_before(self, anchor: Op, *ops: Op) -> None:
        """Place new ``ops`` right before ``anchor``; those without a location get the anchor's."""
        region = _region(anchor)
        position = region.ops.index(anchor)
        self._adopt(region, ops, anchor)
        region.ops[position:position] = ops

    def insert_after(self, anchor: Op, *ops: Op) -> None:
        """Place new ``ops`` right after ``anchor``; those without a location get the anchor's."""
        region = _region(anchor)
        position = region.ops.index(anchor) + 1
        self._adopt(region, ops, anchor)
        region.ops[position:position] = ops

    def insert_at_start(self, region: Region, *ops: Op) -> None:
        self._adopt(region, ops, None)
        region.ops[:0] = ops

    def replace_uses(self, old: Value, new: Value) -> None:
        """Everyone who took ``old`` now takes ``new``. A nameless ``new`` inherits the name."""
        if old is new:
            return
        for op in old.users:
            for i, operand in enumerate(op.operands):
                if operand is old:
                    op.operands[i] = new
                    new._users.append(op)
        old._users.clear()
        if new.name is None:
            new.name = old.name

    def set_operands(self, op: Op, operands: Iterable[Value]) -> None:
        """Give ``op`` a new operand list."""
        for operand in op.operands:
            operand._users.remove(op)
        op.operands = list(operands)
        for operand in op.operands:
            operand._users.append(op)

    def replace(self, op: Op, values: Sequence[Value]) -> None:
        """Put ``values`` in place of the op's results and erase the op."""
        for result, value in zip(op.results, values, strict=True):
            self.replace_uses(result, value)
        self.erase(op)

    def replace_with(self, op: Op, new: Op) -> Op:
        """Put ``new`` where ``op`` stands; ``new`` must have the same number of results."""
        self.insert_before(op, new)
        self.replace(op, new.results)
        return new

    def erase(self, op: Op) -> None:
        """Remove an op whose results nobody takes."""
        self.erase_all([op])

    def erase_all(self, ops: Iterable[Op]) -> None:
        """Remove many ops at once, and what is inside them; nobody else may take their results. Linear in what
        they touch.
        """
        doomed = list(ops)
        dead: set[Op] = set(doomed)
        for op in doomed:
            if op.regions:
                dead.update(op.walk())
        regions: dict[Region, None] = {}
        touched: dict[Value, None] = {}
        for op in dead:
            touched.update(dict.fromkeys(op.operands))
        for op in doomed:
            if op.parent is not None:
                regions[op.parent] = None
                op.parent = None
        for value in touched:
            value._users = [user for user in value._users if user not in dead]
        for op in dead:
            op.operands = []
        for region in regions:
            region.ops = [op for op in region.ops if op not in dead]
        for op in doomed:
            for result in op.results:
                if result._users:
                    raise ValueError(
                        f"{op!r} was erased, but its result is still taken by {result._users[0]!r}"
                    )

    def detach(self, op: Op) -> None:
        """Let go of the operands of ``op`` and of everything inside it, without removing it from its
        region."""
        for operand in op.operands:
            operand._users.remove(op)
        op.operands = []
        for nested in op.walk():
            for operand in nested.operands:
                operand._users.remove(nested)
            nested.operands = []

    def move_before(self, op: Op, anchor: Op) -> None:
        """Move ``op`` to right before ``anchor``, possibly in another region."""
        _region(op).ops.remove(op)
        region = _region(anchor)
        region.ops.insert(region.ops.index(anchor), op)
        op.parent = region

    def add_region_arg(self, region: Region, type: object, name: str | None = None) -> Value:
        arg = Value(type, region, len(region.args), name)  # type: ignore[arg-type]
        region.args.append(arg)
        return arg

    def add_result(self, op: Op, type: object, name: str | None = None) -> Value:
        result = Value(type, op, len(op.results), name)  # type: ignore[arg-type]
        op.results.append(result)
        return result

    def _adopt(self, region: Region, ops: Sequence[Op], anchor: Op | None) -> None:
        for op in ops:
            op.parent = region
            if anchor is not None and op.location is UNKNOWN:
                op.location = anchor.location


def _region(op: Op) -> Region:
    if op.parent is None:
        raise ValueError(f"{op!r} stands in no region")
    return op.parent

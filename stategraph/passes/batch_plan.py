"""Where each op of a loop body goes when the loop is taken apart (see ``batch_loops``): the decision, without the edit.

A value's *stage* is 0 for stacked inputs, even for ops on stacked values, odd for loops; values that are the same on every
step have none. An op comes no earlier than what it takes.
"""

from __future__ import annotations

from collections import Counter

import attrs
import numpy as np

from stategraph.ir.core import Constant, Op, Value
from stategraph.passes.batch_rules import has_rule, work
from stategraph.passes.edit import carries, home

PRODUCT, EVENTS = "jax.dot_general", "event.dense"
LINEAR = ("jax.transpose", "jax.reshape", "jax.pad")
"""What may stand between a product and the carry that it is added to: the same for the sum as for each term."""


CALL, EVENT_CALL, LOOP, LEAST = 500.0, 3000.0, 1500.0, 100.0
"""Nanoseconds per step: what a product costs besides its multiplications (a small one as much as 2,000 of them), what one
of events costs besides them (it counts and branches), what one more loop costs, what is worth the trouble.
"""
SAVED = 0.0075
"""Nanoseconds that a multiplication is cheaper in the large product. All three were measured with XLA on a CPU, where moving
pays least: steps are cheap to begin, and memory is slow.
"""


@attrs.frozen
class Limits:
    """What is worth moving."""

    max_bytes: int
    stack_price: float
    sums: tuple[str, ...]
    """Additions whose order over the steps may change."""


@attrs.frozen(eq=False)
class Sum:
    """A carry that collects a product: ``acc + x_t^T g_t``."""

    carry: int
    add: Op
    chain: tuple[Op, ...]
    """From the product on."""

    @property
    def product(self) -> Op:
        return self.chain[0]


@attrs.define(eq=False)
class Plan:
    """One way to take a loop apart."""

    stages: dict[Op, int]
    """Of all ops that differ from step to step, but those of sums."""
    carry_stages: list[int]
    sums: dict[int, Sum]
    """By carry."""
    moved: list[Op]
    """The products that leave the loop."""
    loops: int
    new_bytes: int
    """What is stacked that was not."""
    kept: dict[Op, str] = attrs.Factory(dict)
    """Products that could have been moved, and why they were not."""


class Body:
    """What depends on what in the body of a scan. Sets of carries are the bits of an int."""

    def __init__(self, loop: Op) -> None:
        self.loop = loop
        self.body = loop.regions[0]
        self.count = carries(loop)
        self.ops = self.body.ops[:-1]
        self.inputs = {op: [v for v in taken(op) if home(v) is self.body] for op in self.ops}
        """What each op takes of the values of this body."""
        self.outputs = set(self.body.yielded[self.count :])
        self.moving: set[Op] = set()
        """Ops whose results differ from step to step."""
        for op in self.ops:
            if any(type(value.owner) is not Op or value.owner in self.moving for value in self.inputs[op]):
                self.moving.add(op)
        self.reads = self._collected([1 << i for i in range(self.count)])
        """The carries that each op depends on within the step."""
        self.feeds = self._fed()
        """The carries that depend on each op within the step."""
        self.recurrent = self._recurrent()
        """Ops on a way from a carry to the same carry."""

    def _collected(self, sets: list[int]) -> dict[Op, int]:
        """For each op the union of the sets of the carries that it depends on within the step."""
        found: dict[Op, int] = {}
        for op in self.ops:
            mask = 0
            for value in self.inputs[op]:
                if type(value.owner) is Op:
                    mask |= found[value.owner]
                elif value.index < self.count:
                    mask |= sets[value.index]
            found[op] = mask
        return found

    def _fed(self) -> dict[Op, int]:
        found = dict.fromkeys(self.ops, 0)
        for i, value in enumerate(self.body.yielded[: self.count]):
            if value.owner in found:
                found[value.owner] |= 1 << i
        for op in reversed(self.ops):
            for value in self.inputs[op]:
                if value.owner in found:
                    found[value.owner] |= found[op]
        return found

    def _recurrent(self) -> set[Op]:
        ahead = [0] * self.count
        for i, value in enumerate(self.body.yielded[: self.count]):
            if type(value.owner) is Op:
                ahead[i] = self.reads.get(value.owner, 0)
            elif value.owner is self.body and value.index < self.count:
                ahead[i] = 1 << value.index
        before = _closure(ahead)
        reached = self._collected([mask | 1 << i for i, mask in enumerate(before)])
        return {op for op in self.ops if reached[op] & self.feeds[op]}

    def sum_of(self, carry: int, additions: tuple[str, ...]) -> Sum | None:
        """The product that a carry does nothing but collect."""
        arg, total = self.body.args[carry], self.body.yielded[carry]
        add = total.owner
        if type(add) is not Op or add.name not in additions or not _only(total, self.body.terminator):
            return None
        if home(total) is not self.body or not _only(arg, add) or arg.type != total.type:
            return None
        term = add.operands[1] if add.operands[0] is arg else add.operands[0]
        if term.type != total.type:
            return None
        chain: list[Op] = []
        op: Op = add
        while True:
            made = term.owner
            if type(made) is not Op or home(term) is not self.body or not _only(term, op):
                return None
            chain.insert(0, made)
            if made.name == PRODUCT:
                break
            if made.name not in LINEAR or not all(map(is_zero, made.operands[1:])):
                return None
            term, op = made.operands[0], made
        return Sum(carry, add, tuple(chain)) if self._sums_over_steps(chain[0]) else None

    def _sums_over_steps(self, product: Op) -> bool:
        """Whether both sides are stacked, and their step axes can be merged with an axis that is summed over already."""
        if not has_rule(product) or not all(self.moves(value) for value in product.operands):
            return False
        ((left, right), (batch, _)) = product.attributes["dimension_numbers"]
        return (0, 0) in zip(left, right, strict=True) or not (left or batch)

    def moves(self, value: Value) -> bool:
        """Whether a value differs from step to step."""
        if home(value) is not self.body:
            return False
        return type(value.owner) is not Op or value.owner in self.moving

    def is_candidate(self, op: Op) -> bool:
        """Whether an op is a product that could leave the loop: of a moving side and one that stays. An event product that
        has no threshold is cheapest within a kernel of the whole loop.
        """
        if op.name not in (PRODUCT, EVENTS) or op in self.recurrent or not self.batches(op):
            return False
        if op.name == EVENTS and op.attributes["threshold"] is None:
            return False
        return self.moves(op.operands[0]) != self.moves(op.operands[1])

    def batches(self, op: Op) -> bool:
        """Whether an op can run once for all steps."""
        return has_rule(op) and (op.name != EVENTS or not self.moves(op.operands[1]))

    def stack_bytes(self, value: Value) -> int:
        """The bytes per step of stacking a value, if it is not there for all steps anyway: an input, what follows from
        inputs, an output.
        """
        if not self.moves(value) or value in self.outputs:
            return 0
        known = not self.reads[value.owner] if type(value.owner) is Op else value.index >= self.count
        return 0 if known else value.type.nbytes

    def saved_by(self, op: Op, price: float) -> float:
        """The nanoseconds per step that moving a product should save."""
        new = sum(map(self.stack_bytes, op.operands))
        found = _cheaper(op) - price * new
        if self.feeds[op]:  # carries take it from a stack
            found -= price * op.result.type.nbytes
            if any(self.moves(value) and self._depends(value) for value in op.operands):
                found -= LOOP  # carries on both sides
        numbers = op.attributes.get("dimension_numbers")
        if numbers and numbers[1][0]:  # the step axis has to be put behind the batch axes, and back
            found -= price * sum(v.type.nbytes for v in (op.result, *op.operands) if self.moves(v))
        return found

    def _depends(self, value: Value) -> bool:
        """Whether a value depends on carries within the step."""
        return bool(self.reads[value.owner]) if type(value.owner) is Op else value.index < self.count

    def saved_by_sums(self, sums: list[Sum], price: float) -> dict[Sum, float]:
        """The same for sums, which share what is stacked for them."""
        takers = Counter(value for item in sums for value in set(item.product.operands))
        return {
            item: _cheaper(item.product)
            - price * sum(self.stack_bytes(value) / takers[value] for value in item.product.operands)
            for item in sums
        }


def taken(op: Op) -> list[Value]:
    """The operands of an op and of all ops inside it."""
    found = list(op.operands)
    for inner in op.walk():
        found += inner.operands
    return found


def plan(loop: Op, limits: Limits) -> Plan | None:
    """How to take a loop apart; None when nothing in it could be moved."""
    body = Body(loop)
    found = [body.sum_of(i, limits.sums) for i in range(body.count)]
    sums = body.saved_by_sums([item for item in found if item is not None], limits.stack_price)
    collected = {item.product for item in sums}
    wanted = {
        op: body.saved_by(op, limits.stack_price)
        for op in body.ops
        if op not in collected and body.is_candidate(op)
    }
    saved = {**wanted, **{item.product: saving for item, saving in sums.items()}}
    if not saved:
        return None
    kept = {
        op: f"moving it would save {saving:.0f} ns per step, what has to be stacked for it included"
        for op, saving in saved.items()
        if saving < LEAST and limits.stack_price
    }
    while True:  # every round but the last keeps one more product in the loop
        chosen = {item.carry: item for item in sums if item.product not in kept}
        made = _Stages(body, {op for op in wanted if op not in kept}, chosen).plan()
        made.kept = kept
        if not made.moved or made.new_bytes <= limits.max_bytes:
            return made
        least = min(made.moved, key=lambda op: saved[op])
        kept[least] = f"{made.new_bytes} bytes would be stacked, more than max_bytes={limits.max_bytes}"


class _Stages:
    """The stages for a choice of products to move."""

    def __init__(self, body: Body, wanted: set[Op], sums: dict[int, Sum]) -> None:
        self.body = body
        self.wanted = wanted
        self.sums = sums
        gone = {op for item in sums.values() for op in (item.add, *item.chain)}
        self.ops = [op for op in body.ops if op in body.moving and op not in gone]
        self.stages: dict[Op, int] = {}
        self.carry_stages = [1] * body.count
        self.leading = self._leading_to_products()

    def _leading_to_products(self) -> set[Op]:
        """The ops that could be batched and feed, directly or through such ops, a product that is."""
        targets = self.wanted | {item.product for item in self.sums.values()}
        found: set[Op] = set()
        for op in reversed(self.ops):
            if op in self.body.recurrent or not self.body.batches(op):
                continue
            if any(user in targets or user in found for user in op.result.users):
                found.add(op)
        return found

    def stage(self, value: Value) -> int:
        """The stage of a value; 0 for those that do not move."""
        if home(value) is not self.body.body:
            return 0
        if type(value.owner) is Op:
            return self.stages.get(value.owner, 0)
        return self.carry_stages[value.index] if value.index < self.body.count else 0

    def plan(self) -> Plan:
        for _ in range(2 * len(self.ops) + 2):  # stages only grow, and there are no more than ops
            if not self._raise():
                break
        self._sink()
        loops = {s for s in self.stages.values() if s % 2}
        loops |= {s for i, s in enumerate(self.carry_stages) if s % 2 and i not in self.sums}
        moved = [op for op in self.body.ops if op in self.wanted]
        moved += [item.product for item in self.sums.values()]
        return Plan(self.stages, self.carry_stages, self.sums, moved, len(loops), self._new_bytes())

    def _raise(self) -> bool:
        """One round of putting every op behind what it takes; whether a stage has changed."""
        changed = False
        for op in self.ops:
            base = max(map(self.stage, self.body.inputs[op]), default=0)
            stage = base + base % 2 if op in self.wanted else base if self._joins(op, base) else base | 1
            if self.stages.get(op) != stage:
                self.stages[op] = stage
                changed = True
        for i, value in enumerate(self.body.body.yielded[: self.body.count]):
            last = not self.body.body.args[i].has_uses  # only its last value is wanted, wherever it is made
            stage = self.stage(value) if last else max(self.stage(value) | 1, self.carry_stages[i])
            if i not in self.sums and self.carry_stages[i] != stage:
                self.carry_stages[i] = stage
                changed = True
        return changed

    def _joins(self, op: Op, base: int) -> bool:
        """Whether an op that is no product runs on stacked values: between an input or a product and a product, or
        between a product and the results.
        """
        if base % 2 or op in self.body.recurrent or not self.body.batches(op):
            return False
        after = any(self.stages.get(value.owner, 1) % 2 == 0 for value in self.body.inputs[op])  # type: ignore[arg-type]
        return op in self.leading or (after and not self.body.feeds[op])

    def _sink(self) -> None:
        """Ops that take only what was stacked before go to the loop that first needs them."""
        terminator = self.body.body.terminator
        floating: set[Op] = set()
        for op in self.ops:
            stage = self.stages[op]
            if stage % 2 and op not in self.body.recurrent:
                if all(self.stage(v) < stage or v.owner in floating for v in self.body.inputs[op]):
                    floating.add(op)
        for op in reversed(self.ops):
            if op not in floating:
                continue
            needed = []
            for result in op.results:
                for user, index in result.uses:
                    if user is terminator:
                        if index < self.body.count:
                            needed.append(self.carry_stages[index])
                        continue
                    while user.parent is not self.body.body:
                        user = user.parent.parent_op  # type: ignore[union-attr, assignment]
                    needed.append(self.stages.get(user, self._stage_of_sum(user)))
            if needed:
                earliest = min(needed)
                self.stages[op] = max(self.stages[op], earliest if earliest % 2 else earliest - 1)

    def _stage_of_sum(self, op: Op) -> int:
        """The stage of the product of a sum."""
        base = max(map(self.stage, self.body.inputs[op]), default=0)
        return base + base % 2

    def _new_bytes(self) -> int:
        """The bytes of values that are stacked, and were not."""
        body = self.body.body
        known = {*body.args[self.body.count :], *body.yielded[self.body.count :]}
        users: dict[Value, set[int]] = {}
        for op in self.ops:
            for value in self.body.inputs[op]:
                users.setdefault(value, set()).add(self.stages[op])
        for i, value in enumerate(body.yielded[: self.body.count]):
            if i not in self.sums:
                users.setdefault(value, set()).add(self.carry_stages[i])
        for item in self.sums.values():
            for value in item.product.operands:
                users.setdefault(value, set()).add(-1)
        crossing = {
            value
            for value, stages in users.items()
            if value not in known and self.body.moves(value) and stages != {self.stage(value)}
        }
        return self.body.loop.attributes["length"] * sum(value.type.nbytes for value in crossing)  # type: ignore[no-any-return]


def _cheaper(product: Op) -> float:
    """The nanoseconds per step by which a product is cheaper when it is part of a large one."""
    if product.name == EVENTS:
        return EVENT_CALL
    return min(CALL, work(product) / 4) + SAVED * work(product)


def is_zero(value: Value) -> bool:
    """Whether a value is zero, or an array of zeros."""
    made = value.owner
    if type(made) is Op and made.name == "jax.broadcast_in_dim":
        value = made.operands[0]
    return isinstance(value, Constant) and value.data.dtype.kind != "V" and not np.any(value.data)


def _only(value: Value, user: Op) -> bool:
    return value.uses == [(user, value.uses[0][1])] if value.has_uses else False


def _closure(masks: list[int]) -> list[int]:
    """The carries that each carry depends on, over one or more steps (Warshall 1962)."""
    found = list(masks)
    for k in range(len(found)):
        bit, through = 1 << k, found[k]
        if through:
            found = [mask | through if mask & bit else mask for mask in found]
    return found

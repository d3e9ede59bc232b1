"""Taking a loop apart as a plan says (see ``batch_loops``): ops on stacked values, loops, and sums over all steps.

Stage by stage, the ops are copied: those of an even stage by their batching rule, those of an odd stage into a loop of
their own. A value that a later stage takes is stacked by the loop that makes it. Ops whose result is the same on every
step are copied to wherever it is taken.
"""

from __future__ import annotations

import math

from stategraph.ir.clone import clone_op
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.types import TensorType
from stategraph.passes.batch_plan import Plan, Sum, is_zero, taken
from stategraph.passes.batch_rules import RULES, Batch, product_shape, shape_of, stacked
from stategraph.passes.edit import REWRITER, carries, home


def rebuild(loop: Op, plan: Plan) -> None:
    """Put what ``plan`` says in the place of a scan."""
    _Rebuild(loop, plan).run()


class _Rebuild:
    def __init__(self, loop: Op, plan: Plan) -> None:
        self.loop = loop
        self.body = loop.regions[0]
        self.plan = plan
        self.count = carries(loop)
        self.length: int = loop.attributes["length"]
        self.ops: list[Op] = []
        self.stacked: dict[Value, Value] = dict(
            zip(self.body.args[self.count :], loop.operands[self.count :], strict=True)
        )
        """The values of all steps, by the value in the body."""
        self.fixed: dict[Value, Value] = {}
        """Copies outside of the loop of values that are the same on every step."""
        self.finals: dict[int, Value] = {}
        """The last values of carries."""
        self.rows: dict[Value, Value] = {}
        """Stacked values whose step axis is merged with the next one."""

    def run(self) -> None:
        plan = self.plan
        loops = {stage for i, stage in enumerate(plan.carry_stages) if i not in plan.sums}
        for stage in range(max([0, *plan.stages.values(), *loops]) + 1):
            if stage % 2:
                self.repeat(stage)
            else:
                for op, its in plan.stages.items():
                    if its == stage:
                        self.batch(op)
        for item in plan.sums.values():
            self.sum(item)
        results = [self.finals[i] if i in self.finals else self.last(i) for i in range(self.count)]
        results += [self.all_steps(value) for value in self.body.yielded[self.count :]]
        REWRITER.insert_before(self.loop, *self.ops)
        REWRITER.replace(self.loop, results)

    # -------------------------------------------------------------------------------------------- stacked values

    def batch(self, op: Op) -> None:
        moving = [operand in self.stacked for operand in op.operands]
        operands = [self.stacked.get(value) or self.outside(value) for value in op.operands]
        result = RULES[op.name](Batch(op, operands, moving, self.length, self.ops))
        result.name = op.result.name
        self.stacked[op.result] = result

    def outside(self, value: Value) -> Value:
        """A value that is the same on every step, outside of the loop."""
        if home(value) is not self.body:
            return Constant(value.data, value.type) if isinstance(value, Constant) else value
        if value not in self.fixed:
            self.copy(value.owner, self.fixed, self.ops)  # type: ignore[arg-type]
        return self.fixed[value]

    def copy(self, op: Op, values: dict[Value, Value], ops: list[Op]) -> None:
        """A copy of an op that is the same on every step, with the ops that it takes."""
        for value in taken(op):
            if home(value) is self.body and value not in values:
                self.copy(value.owner, values, ops)  # type: ignore[arg-type]
        ops.append(clone_op(op, values))

    def all_steps(self, value: Value) -> Value:
        """A value of the body, of all steps."""
        if value in self.stacked:
            return self.stacked[value]
        type_ = stacked(value.type, self.length)
        shape: tuple[int, ...] = type_.shape  # type: ignore[union-attr]
        attributes = {
            "shape": shape,
            "broadcast_dimensions": tuple(range(1, len(shape))),
            "sharding": None,
        }
        self.ops.append(
            Op(
                "jax.broadcast_in_dim",
                [self.outside(value)],
                [type_],
                attributes,
                location=self.loop.location,
            )
        )
        return self.ops[-1].result

    def last(self, carry: int) -> Value:
        """What a carry is at the end, of which nothing but that is wanted."""
        value = self.body.yielded[carry]
        if value not in self.stacked:
            return self.outside(value)
        whole = self.stacked[value]
        shape = shape_of(whole)
        index = 0 if self.loop.attributes["reverse"] else self.length - 1
        attributes = {
            "start_indices": (index, *[0] * (len(shape) - 1)),
            "limit_indices": (index + 1, *shape[1:]),
            "strides": None,
        }
        one = TensorType(value.type.dtype, (1, *shape[1:]), value.type.weak)  # type: ignore[union-attr]
        piece = Op("jax.slice", [whole], [one], attributes, location=self.loop.location)
        element = Op(
            "jax.squeeze",
            piece.results,
            [self.loop.results[carry].type],
            {"dimensions": (0,)},
            location=self.loop.location,
        )
        self.ops += [piece, element]
        return element.result

    # ---------------------------------------------------------------------------------------------------- a loop

    def repeat(self, stage: int) -> None:
        """The loop of an odd stage."""
        plan, body = self.plan, self.body
        ops = [op for op, its in plan.stages.items() if its == stage]
        kept = [i for i, its in enumerate(plan.carry_stages) if its == stage and i not in plan.sums]
        if not ops and not kept:
            return
        inside = {result for op in ops for result in op.results} | {body.args[i] for i in kept}
        yielded = [body.yielded[i] for i in kept]
        used = dict.fromkeys([*(v for op in ops for v in taken(op)), *yielded])
        inputs = [value for value in used if value in self.stacked and value not in inside]
        outputs = self.wanted_later(inside, set(ops))

        region = Region([body.args[i].type for i in kept], [body.args[i].name for i in kept])
        values = dict(zip([body.args[i] for i in kept], region.args, strict=True))
        for value in inputs:
            values[value] = REWRITER.add_region_arg(region, value.type, value.name)
        for op in ops:
            copied: list[Op] = []
            self.copy(op, values, copied)
            for new in copied:
                region.append(new)
        copied = []
        for value in [*yielded, *outputs]:
            if home(value) is body and value not in values:
                self.copy(value.owner, values, copied)  # type: ignore[arg-type]
        for new in copied:
            region.append(new)
        region.yield_(
            [self.within(value, values) for value in [*yielded, *outputs]],
            body.terminator.location,
        )
        types = [self.loop.results[i].type for i in kept]
        types += [stacked(value.type, self.length) for value in outputs]
        operands = [self.loop.operands[i] for i in kept] + [self.stacked[value] for value in inputs]
        attributes = {**self.loop.attributes, "carry": len(kept)}
        scan = Op("flow.scan", operands, types, attributes, [region], self.loop.location)
        self.ops.append(scan)
        for i, result in zip(kept, scan.results, strict=False):
            result.name = self.loop.results[i].name
            self.finals[i] = result
        for value, result in zip(outputs, scan.results[len(kept) :], strict=True):
            result.name = self.name_of(value)
            self.stacked[value] = result

    def within(self, value: Value, values: dict[Value, Value]) -> Value:
        return Constant(value.data, value.type) if isinstance(value, Constant) else values.get(value, value)

    def wanted_later(self, inside: set[Value], ops: set[Op]) -> list[Value]:
        """The values made by a loop that others take, or that are results."""
        plan = self.plan
        found: dict[Value, None] = {}
        stage_of = plan.stages
        for value in self.body.yielded[self.count :]:
            if value in inside:
                found[value] = None
        for i, value in enumerate(self.body.yielded[: self.count]):
            if value in inside and i not in plan.sums and self.body.args[i] not in inside:
                found[value] = None
        for op in stage_of:
            if op not in ops:
                found.update((value, None) for value in taken(op) if value in inside)
        for item in plan.sums.values():
            found.update((value, None) for value in item.product.operands if value in inside)
        return list(found)

    def name_of(self, value: Value) -> str | None:
        for result, out in zip(self.loop.results[self.count :], self.body.yielded[self.count :], strict=True):
            if out is value:
                return result.name
        return value.name

    # ----------------------------------------------------------------------------------------------------- sums

    def sum(self, item: Sum) -> None:
        """One product that sums over the steps as well, instead of a carry that collects products."""
        product = item.product
        ((left, _), batch) = product.attributes["dimension_numbers"]
        sides = [self.all_steps(value) for value in product.operands]
        if left:  # the step axis is merged with an axis that is summed over
            sides = [self.merged(side, product) for side in sides]
            numbers = product.attributes["dimension_numbers"]
        else:
            numbers = (((0,), (0,)), batch)
        type_ = product.result.type
        assert isinstance(type_, TensorType) and type_.shape == product_shape(sides, numbers)
        attributes = {**product.attributes, "dimension_numbers": numbers}
        total = Op(product.name, sides, [type_], attributes, location=product.location)
        self.ops.append(total)
        values: dict[Value, Value] = {product.result: total.result}
        for op in item.chain[1:]:
            self.ops.append(clone_op(op, values))
        result = values[item.chain[-1].result]
        init = self.loop.operands[item.carry]
        if not is_zero(init):
            values[self.body.args[item.carry]] = init
            self.ops.append(clone_op(item.add, values))
            result = values[item.add.result]
        result.name = self.loop.results[item.carry].name
        self.finals[item.carry] = result

    def merged(self, value: Value, product: Op) -> Value:
        """``(length, n, ...)`` as ``(length n, ...)``."""
        if value not in self.rows:
            shape = shape_of(value)
            new = (math.prod(shape[:2]), *shape[2:])
            type_ = TensorType(value.type.dtype, new, value.type.weak)  # type: ignore[union-attr]
            attributes = {"new_sizes": new, "dimensions": None, "sharding": None}
            self.ops.append(Op("jax.reshape", [value], [type_], attributes, location=product.location))
            self.rows[value] = self.ops[-1].result
        return self.rows[value]

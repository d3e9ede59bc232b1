"""Reverse mode, op by op: the gradient of a straight line of ops.

JAX differentiates single ops; the chain rule along the line is done here. So each *distinct* op is differentiated
once, however often it stands in the program (a network of a hundred equal layers has four), and ops that the
gradient does not need stay as they are. An op with a body (a loop, a branch) is one op: JAX differentiates it whole.

A derivative of an op is two bodies. *forward*: the op's inputs to its results and the residuals. *backward*: the
residuals and the cotangents of the results to the cotangents of the inputs. Both are traced once as ops and copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import jax
import numpy as np

from stategraph import _jax
from stategraph.backends.emit import HOST, emit_op
from stategraph.errors import underivable
from stategraph.ir.clone import clone_op
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.location import Location
from stategraph.ir.regions import captures
from stategraph.ir.types import TensorType
from stategraph.passes.edit import EFFECTS_OF, REWRITER, erase_uses


@attrs.frozen(eq=False)
class Derivative:
    """What JAX made of one op, for one choice of inputs that move and results that matter."""

    forward: Region
    """From the inputs to results and residuals."""
    backward: Region
    """From residuals and cotangents of ``outputs`` to cotangents of ``moving``."""
    moving: tuple[int, ...]
    """The inputs that a cotangent comes back to."""
    outputs: tuple[int, ...]
    """The results whose cotangents go in."""


@attrs.define(eq=False)
class Step:
    """One differentiated op."""

    op: Op
    inputs: list[Value]
    """What its regions capture, and its operands."""
    derivative: Derivative
    residuals: list[Value] = attrs.Factory(list)


class Reverse:
    """Differentiates the first of the values that a region yields with respect to the region's arguments.

    1. From the first op to the last: which values move when the arguments do.
    2. From the last op to the first: which ops the gradient comes through, and their derivatives.
    3. The program: all ops in order, the differentiated ones as their forward bodies; then the backward bodies,
       last op first. Values are looked up by what they were in the region.
    """

    def __init__(self, region: Region, again: bool) -> None:
        self.region = region
        self.again = again
        """Whether the result will be differentiated itself: functions keep their derivative rules."""
        self.derivatives: dict[Any, Derivative] = {}
        self.moving: set[Value] = {arg for arg in region.args if _moves(arg)}
        self.steps: dict[Op, Step] = {}
        self.current: dict[Value, Value] = {}
        """What stands for the results of differentiated ops."""
        self.cotangents: dict[Value, Value] = {}
        self.ops: list[Op] = []

    def gradient(self) -> tuple[list[Op], list[Value], list[Value | None]]:
        """(ops, what the region yields, the gradient for each argument). None is zero."""
        region, loss = self.region, self.region.yielded[0]
        ops = region.ops[:-1]
        leads = _leading_to(loss, ops)
        for op in ops:
            self.move(op, leads)
        if loss in self.moving:
            self.find_steps(loss, ops)
        for op in ops:
            self.forward(op)
        if loss in self.moving:
            self.cotangents[loss] = Constant(np.ones((), _jax.aval_of(loss.type).dtype), loss.type)
        for step in reversed(self.steps.values()):
            self.backward(step)
        for old, new in self.current.items():
            REWRITER.replace_uses(old, new)
        values = list(region.yielded)
        REWRITER.detach(region.terminator)
        region.ops = []
        return self.ops, values, [self.cotangents.get(arg) for arg in region.args]

    def move(self, op: Op, leads: set[Value]) -> None:
        """Note which results move. Of an op with a body that may be more than do."""
        inputs = inputs_of(op)
        outputs = tuple(i for i, result in enumerate(op.results) if result in leads and _moves(result))
        if outputs and not self.moving.isdisjoint(inputs):
            if not _is_opaque(op):
                outputs = self.derivative(op, inputs, outputs).outputs
            self.moving.update(op.results[i] for i in outputs)

    def find_steps(self, loss: Value, ops: Sequence[Op]) -> None:
        wanted = {loss}
        found: list[Step] = []
        for op in reversed(ops):
            outputs = tuple(i for i, r in enumerate(op.results) if r in wanted and r in self.moving)
            if not outputs:
                continue
            inputs = inputs_of(op)
            derivative = self.derivative(op, inputs, outputs)
            if derivative.outputs:
                found.append(Step(op, inputs, derivative))
                wanted.update(inputs[i] for i in derivative.moving)
        self.steps = {step.op: step for step in reversed(found)}

    def derivative(self, op: Op, inputs: list[Value], outputs: tuple[int, ...]) -> Derivative:
        moving = tuple(i for i, value in enumerate(inputs) if value in self.moving)
        key: Any = None
        if not _is_opaque(op):
            types = tuple(value.type for value in inputs)
            key = (op.name, types, moving, outputs, tuple(op.attributes.items()))
        try:
            found = self.derivatives.get(key)
        except TypeError:  # attributes that cannot be compared
            key = found = None
        if found is None:
            try:
                found = differentiate(op, inputs, moving, outputs, self.again)
            except (TypeError, ValueError, NotImplementedError) as error:
                raise underivable(f"The gradient through {op.name}", op.location, error) from error
            if key is not None:
                self.derivatives[key] = found
        return found

    # -------------------------------------------------------------------------------------------- the program

    def forward(self, op: Op) -> None:
        step = self.steps.get(op)
        if step is None:
            self.ops.append(op)
            return
        inputs = [self.current.get(value, value) for value in step.inputs]
        values = self.copied(step, step.derivative.forward, inputs)
        for old, new in zip(op.results, values, strict=False):
            new.name = new.name or old.name
            self.current[old] = new
        step.residuals = values[len(op.results) :]
        erase_uses(op)

    def backward(self, step: Step) -> None:
        results = [step.op.results[i] for i in step.derivative.outputs]
        given = [self.cotangents[result] for result in results]
        values = self.copied(step, step.derivative.backward, [*step.residuals, *given])
        for i, value in zip(step.derivative.moving, values, strict=True):
            target = step.inputs[i]
            before = self.cotangents.get(target)
            if before is not None:
                total = Op("jax.add_any", [before, value], [before.type], location=step.op.location)
                self.ops.append(total)
                value = total.result
            self.cotangents[target] = value

    def copied(self, step: Step, body: Region, inputs: Sequence[Value]) -> list[Value]:
        """A copy of the ops of a body. A body that equal ops share gets this one's location."""
        values: dict[Value, Value] = dict(zip(body.args, inputs, strict=True))
        for op in body.ops[:-1]:
            new = clone_op(op, values)
            if not _is_opaque(step.op):
                new.location = step.op.location
            self.ops.append(new)
        return [
            Constant(value.data, value.type) if isinstance(value, Constant) else values[value]
            for value in body.yielded
        ]


def _is_opaque(op: Op) -> bool:
    """Whether an op is not like others of its name and types: it has a body, or effects."""
    return bool(op.regions) or op.name in HOST or "effects" in op.attributes


def differentiate(
    op: Op, inputs: Sequence[Value], moving: tuple[int, ...], outputs: tuple[int, ...], again: bool
) -> Derivative:
    """Let JAX differentiate one op."""
    body = emit_op(op, inputs, again)
    run = _jax.body_as_function(body)
    count = len(op.results)
    rest = [i for i in range(count) if i not in outputs]
    pulls: list[Any] = []

    def forward(*given: Any) -> list[Any]:
        def pure(*moved: Any) -> tuple[list[Any], list[Any]]:
            full = list(given)
            for i, value in zip(moving, moved, strict=True):
                full[i] = value
            results = run(*full)
            return [results[i] for i in outputs], [results[i] for i in rest]

        out, pull, other = jax.vjp(pure, *[given[i] for i in moving], has_aux=True)
        leaves, tree = jax.tree.flatten(pull)
        pulls.append(tree)
        results = dict(zip((*outputs, *rest), (*out, *other), strict=True))
        return [*(results[i] for i in range(count)), *leaves]

    avals = [_jax.aval_of(value.type) for value in inputs]
    jaxpr, consts = _jax.trace_flat(forward, avals, traced_for="stategraph grad", name="forward")
    forward_region = as_region(jaxpr, consts, op.location, again)
    residuals = [value.type for value in forward_region.yielded[count:]]

    def backward(*given: Any) -> list[Any]:
        pull = jax.tree.unflatten(pulls[0], given[: len(residuals)])
        return list(pull(list(given[len(residuals) :])))

    avals = [_jax.aval_of(kind) for kind in (*residuals, *(op.results[i].type for i in outputs))]
    jaxpr, consts = _jax.trace_flat(backward, avals, traced_for="stategraph grad", name="backward")
    backward_region = as_region(jaxpr, consts, op.location, again)
    return _without_zeros(forward_region, backward_region, count, moving, outputs)


def _without_zeros(
    forward: Region, backward: Region, results: int, moving: tuple[int, ...], outputs: tuple[int, ...]
) -> Derivative:
    """Drop what does not depend on a cotangent (being linear in them, it is zero), results that send nothing back,
    and residuals that nobody needs.
    """
    first = len(backward.args) - len(outputs)
    linear = set(backward.args[first:])
    for op in backward.ops[:-1]:
        if not linear.isdisjoint(inputs_of(op)):
            linear.update(op.results)
    kept = [i for i, value in enumerate(backward.yielded) if value in linear]
    REWRITER.set_operands(backward.terminator, [backward.yielded[i] for i in kept])
    _sweep(backward)
    used = [arg.has_uses for arg in backward.args]
    stay = [value for value, use in zip(forward.yielded[results:], used[:first], strict=True) if use]
    REWRITER.set_operands(forward.terminator, [*forward.yielded[:results], *stay])
    _sweep(forward)
    backward.args = [arg for arg, use in zip(backward.args, used, strict=True) if use]
    for i, arg in enumerate(backward.args):
        arg.index = i
    return Derivative(
        forward,
        backward,
        tuple(moving[i] for i in kept),
        tuple(i for i, use in zip(outputs, used[first:], strict=True) if use),
    )


def _sweep(region: Region) -> None:
    """Remove the pure ops whose results nobody takes."""
    for op in reversed(region.ops[:-1]):
        if not op.regions and not any(r.has_uses for r in op.results) and not EFFECTS_OF[op.name](op):
            REWRITER.erase(op)


def as_region(jaxpr: Any, consts: Sequence[Any], location: Location, again: bool) -> Region:
    """A jaxpr as a region of its own."""
    from stategraph.tracing.importer import import_inline

    region = Region([_jax.type_of(var.aval) for var in jaxpr.invars])
    ops, results = import_inline(jaxpr, consts, region.args, location, keep_rules=again)
    for op in ops:
        region.append(op)
    region.yield_(results, location)
    return region


def zeros(type_: Any) -> tuple[list[Op], list[Value]]:
    """The ops of an array of zeros."""
    from stategraph.tracing.importer import import_inline

    aval = _jax.aval_of(type_)
    if isinstance(type_, TensorType) and type_.dtype == "f0":
        return [], [Constant(_jax.zero_tangent(aval), type_)]
    jaxpr, consts = _jax.trace_flat(
        lambda: [jax.numpy.zeros(aval.shape, aval.dtype)], [], traced_for="stategraph grad", name="zero"
    )
    return import_inline(jaxpr, consts, [], Location(), keep_rules=False)


def inputs_of(op: Op) -> list[Value]:
    """The values from outside that the regions of ``op`` use, and its operands."""
    return [*captures(*op.regions), *op.operands]


def _moves(value: Value) -> bool:
    return _jax.has_tangent(_jax.aval_of(value.type))


def _leading_to(target: Value, ops: Sequence[Op]) -> set[Value]:
    """The values on which ``target`` depends, itself included."""
    found = {target}
    for op in reversed(ops):
        if not found.isdisjoint(op.results):
            found.update(inputs_of(op))
    return found

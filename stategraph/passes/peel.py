"""Two ways to take a loop apart without changing what it computes: peel off the last trip, or move the
condition.
"""

from __future__ import annotations

from collections.abc import Sequence

from stategraph.ir.clone import clone_ops
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.types import KeyType, OpaqueType, TensorType, Type
from stategraph.passes.edit import REWRITER


def peel_last(loop: Op, values: Sequence[Value]) -> tuple[list[Op], list[Op], dict[Value, Value]]:
    """Run the last trip of a ``flow.scan`` without stacked outputs after the loop, which then makes one trip
    less.

    Returns the ops to stand before the loop, those to stand after it, and what ``values`` of the body, and
    the loop's own results, are there. Users of the loop's results are given the new ones.
    """
    (body,) = loop.regions
    carry, length, reverse = loop.attributes["carry"], loop.attributes["length"], loop.attributes["reverse"]
    uses = [(result, list(result.uses)) for result in loop.results]
    elements, before, slices = _cut(loop, carry, length, reverse)
    mapping: dict[Value, Value] = dict(zip(body.args, [*loop.results[:carry], *elements], strict=True))
    copied = clone_ops(body.ops[:-1], mapping)
    after: dict[Value, Value] = {value: mapping.get(value, value) for value in values}
    for (result, users), yielded in zip(uses, body.yielded, strict=True):
        new = mapping.get(yielded, yielded)
        after[result] = new
        for user, index in users:
            operands = list(user.operands)
            operands[index] = new
            REWRITER.set_operands(user, operands)
    loop.attributes = {**loop.attributes, "length": length - 1}
    return before, [*slices, *copied], after


def _cut(loop: Op, carry: int, length: int, reverse: bool) -> tuple[list[Value], list[Op], list[Op]]:
    """Split the scanned inputs: the loop keeps all but the last trip's element, which is returned with the
    ops that split.
    """
    before: list[Op] = []
    after: list[Op] = []
    elements: list[Value] = []
    operands = list(loop.operands)
    last, rest = (0, (1, length)) if reverse else (length - 1, (0, length - 1))
    for i in range(carry, len(operands)):
        stacked = operands[i]
        one = _slice(stacked, last, last + 1, loop)
        element = Op(
            "jax.squeeze", one.results, [_resized(stacked.type, ())], {"dimensions": (0,)}, (), loop.location
        )
        kept = _slice(stacked, *rest, loop)
        before.append(kept)
        after += [one, element]
        operands[i] = kept.result
        elements.append(element.result)
    REWRITER.set_operands(loop, operands)
    return elements, before, after


def _slice(stacked: Value, start: int, stop: int, loop: Op) -> Op:
    shape = stacked.type.shape  # type: ignore[union-attr]
    attributes = {
        "start_indices": (start, *[0] * (len(shape) - 1)),
        "limit_indices": (stop, *shape[1:]),
        "strides": None,
    }
    return Op(
        "jax.slice", [stacked], [_resized(stacked.type, (stop - start,))], attributes, (), loop.location
    )


def _resized(type: Type, leading: tuple[int, ...]) -> Type:
    if isinstance(type, TensorType):
        return TensorType(type.dtype, (*leading, *type.shape[1:]), type.weak)
    if isinstance(type, KeyType):
        return KeyType(type.impl, (*leading, *type.shape[1:]))
    assert isinstance(type, OpaqueType)
    return type


def rotate_condition(loop: Op) -> list[Op]:
    """Make the condition of a ``flow.while`` part of its body: evaluated once before the loop and again at
    the end of every trip.

    Returns the ops to stand before the loop. The loop carries the condition's value in front of everything
    else.
    """
    cond, body = loop.regions
    first: dict[Value, Value] = dict(zip(cond.args, loop.operands, strict=True))
    before = clone_ops(cond.ops[:-1], first)
    start = first.get(cond.yielded[0], cond.yielded[0])

    again: dict[Value, Value] = dict(zip(cond.args, body.yielded, strict=True))
    yielded = list(body.yielded)
    REWRITER.erase(body.terminator)
    for op in clone_ops(cond.ops[:-1], again):
        body.append(op)
    body.yield_([again.get(cond.yielded[0], cond.yielded[0]), *yielded], loop.location)
    flag = Value(cond.yielded[0].type, body, 0, "continue")
    body.args.insert(0, flag)

    for op in reversed(list(cond.ops)):
        REWRITER.detach(op)
    test = Region(
        [flag.type, *[arg.type for arg in cond.args]], ["continue", *[arg.name for arg in cond.args]]
    )
    test.owner = loop
    test.yield_([test.args[0]], loop.location)
    loop.regions[0] = test
    if isinstance(start, Constant):
        start = Constant(start.data, start.type)
    REWRITER.set_operands(loop, [start, *loop.operands])
    loop.results.insert(0, Value(flag.type, loop, 0, "continue"))
    for values in (body.args, loop.results):
        for index, value in enumerate(values):
            value.index = index
    return before

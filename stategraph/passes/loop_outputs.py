"""Stacked outputs of scans that need no stack (see ``simplify_loops``)."""

from __future__ import annotations

from stategraph.ir.core import Constant, Op, Value
from stategraph.ir.types import KeyType, TensorType, Type
from stategraph.passes.edit import REWRITER, add_carry, carries, home, keep_operands, keep_results, same_value
from stategraph.passes.fold_constants import filled


def replace_invariant_outputs(loop: Op) -> int:
    """Outputs that are known without running the loop; how many were replaced."""
    body, count = loop.regions[0], carries(loop)
    kept = [True] * count
    for result, value in zip(loop.results[count:], body.yielded[count:], strict=True):
        found = _unstacked(loop, value, result.type) if result.has_uses else None
        kept.append(found is None)
        if found is not None:
            REWRITER.replace_uses(result, found)
    return _drop(loop, kept)


def _unstacked(loop: Op, value: Value, type_: Type) -> Value | None:
    """The stack of ``value`` over all trips, when it is a stacked input or the same on every trip."""
    body, count = loop.regions[0], carries(loop)
    if value.owner is body:
        source = loop.operands[value.index] if value.index >= count else None
        return source if source is not None and source.type == type_ else None
    if home(value) is body or not isinstance(type_, TensorType | KeyType):
        return None
    broadcast = _broadcast(value, type_, loop)
    REWRITER.insert_after(loop, broadcast)
    return broadcast.result


def replace_last_outputs(loop: Op) -> int:
    """Outputs of which only the element of the last trip is taken become carries; how many were replaced."""
    if loop.attributes["length"] < 1:
        return 0
    count = carries(loop)
    outputs = list(zip(loop.results[count:], loop.regions[0].yielded[count:], strict=True))
    replaced: set[Value] = set()
    for result, value in outputs:
        takers = result.users
        if not takers or not isinstance(value.type, TensorType) or value.type.weak != result.type.weak:  # type: ignore[union-attr]
            continue
        if all(_takes_last(taker, result, loop) for taker in takers):
            last = _last(loop, value)
            for taker in takers:
                REWRITER.replace_with(taker, _broadcast(last, taker.result.type, taker))
            replaced.add(result)
    return _drop(loop, [result not in replaced for result in loop.results])


def _last(loop: Op, value: Value) -> Value:
    """What ``value`` is on the last trip: a carry's result, of a new carry when there is none."""
    count = carries(loop)
    for result, yielded in zip(loop.results[:count], loop.regions[0].yielded, strict=False):
        if same_value(yielded, value) and result.type == value.type:
            return result
    init = filled(value.type, loop)  # never seen: there is at least one trip
    if value.type.shape:  # type: ignore[union-attr]
        REWRITER.insert_before(loop, init)
        return add_carry(loop, init.result, value)
    zero = init.operands[0]
    REWRITER.detach(init)
    return add_carry(loop, zero, value)


def _takes_last(taker: Op, output: Value, loop: Op) -> bool:
    """Whether an op takes exactly the element of the last trip from a stacked output."""
    if taker.operands[:1] != [output] or output in taker.operands[1:]:
        return False
    length = loop.attributes["length"]
    last = 0 if loop.attributes["reverse"] else length - 1
    shape: tuple[int, ...] = output.type.shape  # type: ignore[union-attr]
    if taker.name == "jax.slice":
        start, limit, strides = (
            taker.attributes.get(key) for key in ("start_indices", "limit_indices", "strides")
        )
        zeros = (0,) * (len(shape) - 1)
        return (
            start == (last, *zeros)
            and limit == (last + 1, *shape[1:])
            and (not strides or set(strides) == {1})
        )
    if taker.name == "jax.dynamic_slice" and isinstance(taker.operands[1], Constant):
        index = min(max(int(taker.operands[1].data), 0), length - 1)  # as JAX clamps it
        return index == last and taker.attributes.get("slice_sizes") == (1, *shape[1:])
    return False


def _drop(loop: Op, kept: list[bool]) -> int:
    if not all(kept):
        keep_operands(loop.regions[0].terminator, kept)
        keep_results(loop, kept)
    return kept.count(False)


def _broadcast(value: Value, type_: Type, at: Op) -> Op:
    """``value`` with one more leading dimension, of the given type."""
    shape: tuple[int, ...] = type_.shape  # type: ignore[union-attr]
    dimensions = tuple(range(1, len(shape)))
    attributes = {"shape": shape, "broadcast_dimensions": dimensions, "sharding": None}
    return Op("jax.broadcast_in_dim", [value], [type_], attributes, location=at.location)

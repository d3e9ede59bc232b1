"""Algebra that keeps every bit: the rules below hold for NaN, infinities, signed zeros and wrapping integers.

Rules for floats are few. ``x + 0`` turns -0.0 into 0.0, ``x - x`` is NaN for NaN and infinity, and ``x * 1``
flushes subnormal numbers to zero on backends that do: these are ``fast-math`` and run only where the user
allowed it.
"""

from __future__ import annotations

import attrs

from stategraph.ir.attributes import DType
from stategraph.ir.core import Op, Program
from stategraph.ir.types import KeyType, TensorType
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.patterns import Pattern, PatternRewriter, apply_patterns, rules
from stategraph.passes.registry import register

EXACT = rules(
    "exact",
    """
    jax.neg(jax.neg(x))        -> x
    jax.not(jax.not(x))        -> x
    jax.sub(0, x:int)          -> jax.neg(x)
    jax.add(x:int, 0)          -> x
    jax.sub(x:int, 0)          -> x
    jax.sub(x:int, x)          -> 0
    jax.mul(x:int, 1)          -> x
    jax.mul(x:int, 0)          -> 0
    jax.div(x:int, 1)          -> x
    jax.and(x:int|bool, ~0)    -> x
    jax.and(x:int|bool, 0)     -> 0
    jax.and(x:int|bool, x)     -> x
    jax.or(x:int|bool, 0)      -> x
    jax.or(x:int|bool, ~0)     -> ~0
    jax.or(x:int|bool, x)      -> x
    jax.xor(x:int|bool, 0)     -> x
    jax.xor(x:int|bool, x)     -> 0
    jax.max(x:int|bool, x)     -> x
    jax.min(x:int|bool, x)     -> x
    jax.select_n(p, x, x)      -> x
    """,
)

FAST_MATH = rules(
    "fast-math",
    """
    jax.add(x:float, 0)        -> x
    jax.sub(x:float, 0)        -> x
    jax.mul(x:float, 1)        -> x    # subnormals
    jax.div(x:float, 1)        -> x    # subnormals
    jax.mul(x:float, 0)        -> 0
    jax.sub(x:float, x)        -> 0
    """,
)


class SameType(Pattern):
    """An op that only changes the type, to the type it has: convert(x) -> x, reshape(x) -> x, broadcast(x) ->
    x.
    """

    name = "change of type to the same type"
    ops = ("jax.convert_element_type", "jax.reshape", "jax.broadcast_in_dim")

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        operand = op.operands[0]
        reordered = op.name == "jax.reshape" and op.attributes.get("dimensions") is not None
        if (
            len(op.operands) != 1
            or operand.type != op.result.type
            or reordered
            or op.attributes.get("sharding") is not None
        ):
            return False
        rewriter.replace(op, [operand])
        return True


class ReshapeOfReshape(Pattern):
    """reshape(reshape(x)) -> reshape(x)"""

    name = "reshape of reshape"
    ops = ("jax.reshape", "jax.squeeze")

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        inner = op.operands[0].defining_op
        if (
            inner is None
            or inner.name not in ("jax.reshape", "jax.expand_dims")
            or not _is_plain(op)
            or not _is_plain(inner)
        ):
            return False
        source, type_ = inner.operands[0], op.result.type
        if source.type == type_:
            rewriter.replace(op, [source])
            return True
        if op.name != "jax.reshape":
            return False
        rewriter.replace_with(op, Op("jax.reshape", [source], [type_], dict(op.attributes)))
        return True


class SqueezeOfBroadcast(Pattern):
    """squeeze(broadcast(x)) -> x where the broadcast only added the dimensions of size 1 that are squeezed"""

    name = "squeeze of broadcast"
    ops = ("jax.squeeze", "jax.reshape")

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        inner = op.operands[0].defining_op
        if inner is None or inner.name != "jax.broadcast_in_dim" or not _is_plain(op) or not _is_plain(inner):
            return False
        source, wide = inner.operands[0], inner.result.type
        if len(inner.operands) != 1 or source.type != op.result.type:
            return False
        if (
            not isinstance(source.type, TensorType)
            or not isinstance(wide, TensorType)
            or source.type.size != wide.size
        ):
            return False
        # of equal size: dimensions that are new or stretched have size 1, and the order is that of the source
        rewriter.replace(op, [source])
        return True


class TransposeOfTranspose(Pattern):
    """transpose(transpose(x)) -> transpose(x), or x when nothing is left to permute"""

    name = "transpose of transpose"
    ops = ("jax.transpose",)

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        outer = op.attributes["permutation"]
        source, inner = op.operands[0], op.operands[0].defining_op
        if tuple(outer) == tuple(range(len(outer))) and source.type == op.result.type:
            rewriter.replace(op, [source])
            return True
        if inner is None or inner.name != "jax.transpose":
            return False
        composed = tuple(inner.attributes["permutation"][axis] for axis in outer)
        attributes = {**op.attributes, "permutation": composed}
        rewriter.replace_with(op, Op("jax.transpose", [inner.operands[0]], [op.result.type], attributes))
        return True


class ReverseOfReverse(Pattern):
    """rev(rev(x)) -> x along the same dimensions"""

    name = "reverse of reverse"
    ops = ("jax.rev",)

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        inner = op.operands[0].defining_op
        if (
            inner is None
            or inner.name != "jax.rev"
            or set(inner.attributes["dimensions"]) != set(op.attributes["dimensions"])
        ):
            return False
        rewriter.replace(op, [inner.operands[0]])
        return True


class PadWithNothing(Pattern):
    """pad(x) -> x with no padding on any side"""

    name = "pad with nothing"
    ops = ("jax.pad",)

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        if any(any(sides) for sides in op.attributes["padding_config"]):
            return False
        rewriter.replace(op, [op.operands[0]])
        return True


class ProductOfTruthValues(Pattern):
    """dot_general(p, w) -> dot_general(convert(p), w) for truth values p and floats w, on either side: native kernels
    multiply numbers of one type
    """

    name = "product of truth values"
    ops = ("jax.dot_general",)

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        types = [value.type for value in (*op.operands, op.result)]
        dtypes = [type_.dtype if isinstance(type_, TensorType) else None for type_ in types]
        if (
            sorted(map(str, dtypes)) not in (["bool", "f32", "f32"], ["bool", "f64", "f64"])
            or dtypes[2] == "bool"
        ):
            return False
        side = dtypes.index("bool")
        truths, dtype = op.operands[side], str(dtypes[2])
        attributes = {"new_dtype": DType(dtype), "sharding": None, "weak_type": False}
        shape = types[side].shape  # type: ignore[union-attr]
        numbers = Op("jax.convert_element_type", [truths], [TensorType(dtype, shape)], attributes)
        rewriter.insert_before(op, numbers)
        rewriter.set_operands(
            op, [numbers.result if i == side else value for i, value in enumerate(op.operands)]
        )
        return True


class Unstack(Pattern):
    """unstack(x) -> slices of x without their axis: other passes, and native kernels, know these"""

    name = "unstack"
    ops = ("jax.unstack",)

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        (source,), axis = op.operands, op.attributes["axis"]
        if not isinstance(source.type, (TensorType, KeyType)) or not isinstance(axis, int):
            return False
        shape, parts = source.type.shape, []
        wide = attrs.evolve(source.type, shape=(*shape[:axis], 1, *shape[axis + 1 :]))
        for i, result in enumerate(op.results):
            attributes = {
                "start_indices": tuple(i if d == axis else 0 for d in range(len(shape))),
                "limit_indices": tuple(i + 1 if d == axis else n for d, n in enumerate(shape)),
                "strides": None,
            }
            part = Op("jax.slice", [source], [wide], attributes)
            flat = Op("jax.squeeze", [part.result], [result.type], {"dimensions": (axis,)})
            rewriter.insert_before(op, part)
            rewriter.insert_before(op, flat)
            parts.append(flat.result)
        rewriter.replace(op, parts)
        return True


PATTERNS: list[Pattern] = [
    *EXACT,
    *FAST_MATH,
    SameType(),
    ReshapeOfReshape(),
    SqueezeOfBroadcast(),
    TransposeOfTranspose(),
    ReverseOfReverse(),
    PadWithNothing(),
    ProductOfTruthValues(),
    Unstack(),
]
"""What ``algebra`` applies, as far as the chosen exactness goes."""


@register
@attrs.frozen
class Algebra(Pass):
    """Remove ops that give back what they were given."""

    name = "algebra"

    def run(self, program: Program, context: Context) -> None:
        for name, times in apply_patterns(program, PATTERNS, context).items():
            context.report(program.name, name, times=times)


def _is_plain(op: Op) -> bool:
    return op.attributes.get("sharding") is None and (
        op.name != "jax.reshape" or op.attributes.get("dimensions") is None
    )

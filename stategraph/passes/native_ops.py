"""Which ops a kernel of generated code can hold: the table that the pass and the code generator share.

A kernel computes with tensors of ``DTYPES`` and random keys of JAX's default generator. An op is *elementwise*; or a
*view*, which only renames elements; or *indexed*, an element of its result being one of its operand's; or a *reduction*;
or a *stage*, which is code of its own; or it has regions, all of whose ops a kernel can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from stategraph.ir.core import Constant, Op, Value
from stategraph.ir.types import KeyType, TensorType, itemsize_bits

DTYPES = frozenset(("f32", "f64", "bool", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"))
FLOATS = frozenset(("f32", "f64"))

ELEMENTWISE = frozenset(
    f"jax.{name}"
    for name in [
        "add",
        "add_any",
        "sub",
        "mul",
        "div",
        "rem",
        "max",
        "min",
        "neg",
        "abs",
        "sign",
        "square",
        "integer_pow",
        "pow",
        "select_n",
        "clamp",
        "convert_element_type",
        "bitcast_convert_type",
        "stop_gradient",
        "copy",
        "copy_p",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "and",
        "or",
        "xor",
        "not",
        "shift_left",
        "shift_right_logical",
        "shift_right_arithmetic",
    ]
)
SUMS = ("jax.add", "jax.add_any", "jax.sub")
FLOAT_ONLY = frozenset(
    f"jax.{name}"
    for name in [
        "floor",
        "ceil",
        "round",
        "sqrt",
        "rsqrt",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log1p",
        "tanh",
        "logistic",
        "cbrt",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "atan2",
        "erf",
        "erfc",
        "erf_inv",
        "lgamma",
        "is_finite",
    ]
)
"""Elementwise ops of floats."""
RESHAPES = frozenset(("jax.reshape", "jax.squeeze", "jax.expand_dims"))
INDEXED = frozenset(
    (
        "jax.broadcast_in_dim",
        "jax.slice",
        "jax.dynamic_slice",
        "jax.transpose",
        "jax.rev",
        "jax.iota",
        "jax.gather",
    )
)
REDUCTIONS = {
    "jax.reduce_sum": "add",
    "jax.reduce_prod": "mul",
    "jax.reduce_max": "max",
    "jax.reduce_min": "min",
    "jax.reduce_and": "and",
    "jax.reduce_or": "or",
}
INLINED = frozenset(("flow.custom_jvp", "flow.custom_vjp", "flow.call", "xform.remat"))
"""Ops that run their first region once."""
CONTROL = frozenset(("flow.scan", "flow.while", "flow.cond"))
EVENTS = frozenset(
    f"event.{name}"
    for name in (
        "csr",
        "csr_add",
        "csr_ring",
        "csr_outer",
        "csr_outer_add",
        "csr_change",
        "dense",
        "jit",
    )
)
IN_PLACE = frozenset(
    ("event.csr_add", "event.csr_ring", "event.csr_outer_add", "event.csr_change", "event.append")
)
"""Event ops whose result is their first operand with something added or changed."""
EMPTY = "jax.empty"
"""An array of anything, zeros as well: what a loop begins with that writes every element."""
COMPACT = "event.compact"
"""Lists events: with the loop that stacks them, no stack is made."""
APPEND = "event.append"
"""Lists events behind others."""
GENERATOR = "fry"
"""The random keys that a kernel knows: those of JAX's default generator, threefry with two words."""
RANDOM = frozenset(
    f"jax.random_{name}" for name in ("seed", "split", "fold_in", "bits", "wrap", "unwrap", "clone")
)
"""Ops of random keys."""
_MOVES_KEYS = frozenset(
    f"jax.{name}"
    for name in [
        "slice",
        "squeeze",
        "expand_dims",
        "reshape",
        "broadcast_in_dim",
        "transpose",
        "rev",
        "concatenate",
        "dynamic_slice",
        "dynamic_update_slice",
        "select_n",
        "copy",
        "copy_p",
        "stop_gradient",
    ]
)
_PRODUCT = 2**12
"""The multiplications of a matrix product that a kernel can hold."""
_MOST = 2**31
"""A kernel counts fewer random numbers than this with one key."""


def why_not(op: Op) -> str | None:
    """Why a kernel cannot hold ``op``; None when it can."""
    known = _RULES.get(op.name)
    if known is None:
        return f"a kernel cannot hold {op.name}"
    keys = op.name in RANDOM or op.name in _MOVES_KEYS or bool(op.regions)
    for value in (*op.operands, *op.results):
        reason = _bad_type(value, keys)
        if reason is not None:
            return f"{op.name} {reason}"
    if "effects" in op.attributes:
        return f"{op.name} has an effect"
    return known(op)


def _bad_type(value: Value, keys: bool) -> str | None:
    """What is wrong with a value, for an op that takes ``keys`` or none."""
    type_ = value.type
    if keys and isinstance(type_, KeyType) and type_.impl == GENERATOR:
        return f"has an empty array, {type_}" if 0 in type_.shape else None
    if not isinstance(type_, TensorType) or type_.dtype not in DTYPES:
        return f"computes with {type_}"
    if type_.size == 0:
        return f"has an empty array, {type_}"
    if type(value) is Constant and type_.size > 1:
        return f"takes a literal of the type {type_}"
    return None


def _dtype(op: Op, index: int = 0) -> str:
    type_ = op.operands[index].type
    return type_.dtype if isinstance(type_, TensorType) else ""


def _fine(op: Op) -> str | None:
    return None


def _floats(op: Op) -> str | None:
    return None if _dtype(op) in FLOATS else f"{op.name} takes {_dtype(op)}"


def _power(op: Op) -> str | None:
    return _floats(op)


def _integer_power(op: Op) -> str | None:
    if op.attributes.get("y", 0) < 0 and _dtype(op) not in FLOATS:
        return "jax.integer_pow takes a negative power of a whole number"
    return None


def _bitcast(op: Op) -> str | None:
    sizes = {itemsize_bits(_dtype(op)), itemsize_bits(str(getattr(op.result.type, "dtype", "bool")))}
    if len(sizes) > 1 or "bool" in (_dtype(op), getattr(op.result.type, "dtype", "bool")):
        return "jax.bitcast_convert_type changes the size of elements"
    return None


def _random(op: Op) -> str | None:
    shapes = [getattr(value.type, "shape", ()) for value in op.operands]
    if op.name == "jax.random_fold_in" and shapes[0] != shapes[1] and () not in shapes:
        return f"{op.name} combines keys and numbers of different shapes"
    if math.prod(op.attributes.get("shape", ())) * (op.attributes.get("bit_width", 32)) // 32 >= _MOST:
        return f"{op.name} draws too many numbers"
    return None


def _reshape(op: Op) -> str | None:
    return (
        None
        if op.attributes.get("dimensions") is None or op.name != "jax.reshape"
        else "it reorders dimensions"
    )


def _gather(op: Op) -> str | None:
    numbers = op.attributes["dimension_numbers"]
    fields = dict(getattr(numbers, "fields", ()))
    if fields.get("operand_batching_dims") or fields.get("start_indices_batching_dims"):
        return "jax.gather has batch dimensions"
    mode = str(getattr(op.attributes["mode"], "member", ""))
    if mode not in ("CLIP", "PROMISE_IN_BOUNDS", "FILL_OR_DROP"):
        return f"jax.gather has the mode {mode}"
    if not isinstance(op.attributes.get("fill_value"), int | float | None):
        return "jax.gather fills with something of its own"
    return None


def _scatter(op: Op) -> str | None:
    fields = dict(getattr(op.attributes["dimension_numbers"], "fields", ()))
    if fields.get("operand_batching_dims") or fields.get("scatter_indices_batching_dims"):
        return f"{op.name} has batch dimensions"
    if op.name == "jax.scatter-add" and _dtype(op) == "bool":
        return "jax.scatter-add adds booleans"
    return None


def _product(op: Op) -> str | None:
    (contracted, _), (batch, _) = op.attributes["dimension_numbers"]
    left, result = op.operands[0].type, op.result.type
    if batch or not isinstance(left, TensorType) or not isinstance(result, TensorType):
        return "jax.dot_general has batch dimensions"
    if {_dtype(op), _dtype(op, 1), result.dtype} not in ({dtype} for dtype in FLOATS):
        return f"jax.dot_general multiplies {left} and {op.operands[1].type}"
    if result.size * math.prod(left.shape[axis] for axis in contracted) > _PRODUCT:
        return "jax.dot_general is a large product, which XLA computes faster"
    return None


def _event(op: Op) -> str | None:
    threshold = op.attributes.get("threshold")
    if threshold is not None and threshold < 1:
        return f"{op.name} is an ordinary product where more than {threshold:.3g} of its events are active"
    type_ = op.result.type
    dtype = type_.dtype if isinstance(type_, TensorType) else ""
    if dtype not in FLOATS:
        return f"{op.name} has weights of {dtype}"
    return "event.jit has no synapses" if op.attributes.get("prob") == 0 else None


def _inside(op: Op) -> str | None:
    """For ops with regions: what the regions that run hold."""
    regions = op.regions[:1] if op.name in INLINED else op.regions
    for region in regions:
        for inner in region.ops[:-1]:
            reason = why_not(inner)
            if reason is not None:
                return reason
        for value in region.yielded:
            reason = _bad_type(value, True)
            if reason is not None:
                return f"{op.name} {reason}"
    return None


def _call(op: Op) -> str | None:
    if op.name == "flow.call" and not op.attributes.keys() <= {"name"}:
        return "it is a call with options of its own"
    return _inside(op)


_RULES: dict[str, Callable[[Op], str | None]] = {
    **dict.fromkeys(ELEMENTWISE, _fine),
    **dict.fromkeys(FLOAT_ONLY, _floats),
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(INDEXED, _fine),
    **dict.fromkeys(REDUCTIONS, _fine),
    **dict.fromkeys(INLINED, _call),
    **dict.fromkeys(CONTROL, _inside),
    **dict.fromkeys(EVENTS, _event),
    COMPACT: _fine,
    APPEND: _fine,
    EMPTY: _fine,
    **dict.fromkeys(RANDOM, _random),
    "jax.bitcast_convert_type": _bitcast,
    "jax.pow": _power,
    "jax.integer_pow": _integer_power,
    "jax.gather": _gather,
    "jax.scatter": _scatter,
    "jax.scatter-add": _scatter,
    "jax.concatenate": _fine,
    "jax.split": _fine,
    "jax.cumsum": lambda op: "jax.cumsum takes bool" if _dtype(op) == "bool" else None,
    "jax.dot_general": _product,
    "jax.stack": _fine,
    "jax.dynamic_update_slice": _fine,
}

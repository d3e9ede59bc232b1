"""Which ops a kernel of generated code can hold: the table that the pass and the code generator share.

A kernel computes with tensors of ``DTYPES``. An op is *elementwise*; or a *view*, which only renames elements; or
*indexed*, an element of its result being one of its operand's; or a *reduction*; or a *stage*, which is code of its own;
or it has regions, all of whose ops a kernel can hold.
"""

from __future__ import annotations

from collections.abc import Callable

from stategraph.ir.core import Constant, Op, Value
from stategraph.ir.types import TensorType

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
EVENTS = frozenset(("event.csr", "event.csr_add", "event.dense"))
COMPACT = "event.compact"
"""Lists events: with the loop that stacks them, no stack is made."""


def why_not(op: Op) -> str | None:
    """Why a kernel cannot hold ``op``; None when it can."""
    known = _RULES.get(op.name)
    if known is None:
        return f"a kernel cannot hold {op.name}"
    for value in (*op.operands, *op.results):
        reason = _bad_type(value)
        if reason is not None:
            return f"{op.name} {reason}"
    if "effects" in op.attributes:
        return f"{op.name} has an effect"
    return known(op)


def _bad_type(value: Value) -> str | None:
    type_ = value.type
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


def _event(op: Op) -> str | None:
    dtype = _dtype(op, 2 if op.name == "event.csr_add" else 1)
    return None if dtype in FLOATS else f"{op.name} has weights of {dtype}"


def _inside(op: Op) -> str | None:
    """For ops with regions: what the regions that run hold."""
    regions = op.regions[:1] if op.name in INLINED else op.regions
    for region in regions:
        for inner in region.ops[:-1]:
            reason = why_not(inner)
            if reason is not None:
                return reason
        for value in region.yielded:
            reason = _bad_type(value)
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
    "jax.pow": _power,
    "jax.integer_pow": _integer_power,
    "jax.gather": _gather,
    "jax.scatter": _scatter,
    "jax.scatter-add": _scatter,
    "jax.concatenate": _fine,
    "jax.stack": _fine,
    "jax.dynamic_update_slice": _fine,
}

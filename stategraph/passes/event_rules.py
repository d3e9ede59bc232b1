"""What an op makes of events: one function per op name, from the facts of the operands to the fact of a result.

The facts, strongest first:

``UNSEEN``    nothing has reached this value yet;
``CONSTANT``  0 or 1, and nothing but constants went into it;
``BINARY``    every element is 0 or 1;
``SPIKE``     the same, and it comes from a function with a derivative rule: a spike function, so mostly 0;
``ENTRY``     0 or 1 if the States that hold spikes did so at entry;
``SPARSE``    zero wherever some spikes are zero, or declared to be mostly zero;
``UNKNOWN``   anything.

``-0.0`` counts as 0. What a rule says of 0 and 1 is monotonic: better known operands never give a worse known result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stategraph.ir.core import Constant, Op, Value
from stategraph.ir.types import TensorType

UNSEEN, CONSTANT, BINARY, SPIKE, ENTRY, SPARSE, UNKNOWN = range(7)
WITHOUT_ZERO = "f8_e8m0fnu"
"""The one dtype that holds powers of two only: what is 0 becomes NaN."""
Rule = Callable[[Op, Value, Sequence[int]], int]


def fact_of(op: Op, result: Value, facts: Sequence[int]) -> int:
    """The fact of a result of an op without regions."""
    rule = _RULES.get(op.name)
    if isinstance(result.type, TensorType) and result.type.dtype == "bool":
        fact = _truth(facts) if rule is None else rule(op, result, facts)
        return BINARY if fact == UNSEEN else fact  # whatever it is made of
    if rule is not None:
        return rule(op, result, facts)
    return UNSEEN if UNSEEN in facts else UNKNOWN


def constant_fact(constant: Constant) -> int:
    """What a literal is."""
    if type(constant.type) is not TensorType:
        return UNKNOWN
    data = constant.data
    if data.dtype == np.bool_:
        return CONSTANT
    if data.size == 1:
        return CONSTANT if data.item() in (0, 1) else UNKNOWN
    return CONSTANT if data.size <= 1024 and bool(np.all((data == 0) | (data == 1))) else UNKNOWN


def _truth(facts: Sequence[int]) -> int:
    """A comparison or another op with truth values: those of spikes are spikes."""
    if any(SPIKE <= fact <= SPARSE for fact in facts):
        return SPIKE
    return CONSTANT if facts and all(fact == CONSTANT for fact in facts) else BINARY


# ------------------------------------------------------------------------------------------------------------ rules


def _same(op: Op, result: Value, facts: Sequence[int]) -> int:
    """Elements are moved, repeated, left out, or mapped so that 0 stays 0 and 1 stays 1."""
    return facts[0]


def _converted(op: Op, result: Value, facts: Sequence[int]) -> int:
    """0 and 1 are that in every dtype that has a 0."""
    return facts[0] if _has_zero(result) else UNKNOWN


def _matching(op: Op, result: Value, facts: Sequence[int]) -> int:
    """Result ``i`` holds elements of operand ``i``."""
    return facts[result.index]


def _mix(op: Op, result: Value, facts: Sequence[int]) -> int:
    """Every element is one of an operand; what has not been seen yet says nothing."""
    return max(facts)


def _join(op: Op, result: Value, facts: Sequence[int]) -> int:
    """0 and 1 give 0 and 1 (``max``, ``min``, ``and``, ``or``)."""
    return UNSEEN if UNSEEN in facts else max(facts)


def _scatter(op: Op, result: Value, facts: Sequence[int]) -> int:
    """Operand and updates; the indices in between do not count."""
    return max(facts[0], facts[2])


def _gather(op: Op, result: Value, facts: Sequence[int]) -> int:
    """What lies outside is filled in one of its modes."""
    mode = getattr(op.attributes.get("mode"), "member", None)
    if mode in ("CLIP", "PROMISE_IN_BOUNDS", "ONE_HOT"):
        return facts[0]
    fill = op.attributes.get("fill_value")
    if isinstance(fill, (bool, int, float)) and fill in (0, 1):
        return facts[0]
    return _scaled(op, result, facts)


def _select(op: Op, result: Value, facts: Sequence[int]) -> int:
    """``select_n(which, *cases)``: a mixture of the cases. Constants chosen by data are data."""
    which, cases = facts[0], facts[1:]
    mixed = max(cases)
    if UNSEEN in facts:
        return UNSEEN if which == UNSEEN else mixed
    if mixed == CONSTANT and which != CONSTANT:
        return SPIKE if SPIKE <= which <= SPARSE else BINARY
    if mixed == UNKNOWN and SPIKE <= which <= SPARSE and len(cases) == 2:
        return SPARSE if is_filled(op.operands[1], 0) else UNKNOWN  # where(spikes, x, 0)
    return mixed


def _product(op: Op, result: Value, facts: Sequence[int]) -> int:
    """Zero wherever one of them is, as long as the other one is finite."""
    if UNSEEN in facts:
        return UNSEEN
    if max(facts) <= ENTRY:
        return max(facts)
    return SPARSE if any(SPIKE <= fact <= SPARSE for fact in facts) else UNKNOWN


def _quotient(op: Op, result: Value, facts: Sequence[int]) -> int:
    if UNSEEN in facts:
        return UNSEEN
    if is_filled(op.operands[1], 1):
        return facts[0]
    return SPARSE if SPIKE <= facts[0] <= SPARSE else UNKNOWN


def _sum(op: Op, result: Value, facts: Sequence[int]) -> int:
    """Two trains of spikes together are sparse, but no longer binary."""
    if UNSEEN in facts:
        return UNSEEN
    return SPARSE if all(SPIKE <= fact <= SPARSE for fact in facts) else UNKNOWN


def _difference(op: Op, result: Value, facts: Sequence[int]) -> int:
    if UNSEEN in facts:
        return UNSEEN
    if is_filled(op.operands[0], 1) and facts[1] <= ENTRY:
        return ENTRY if facts[1] == ENTRY else BINARY  # 1 - x
    return _sum(op, result, facts)


def _scaled(op: Op, result: Value, facts: Sequence[int]) -> int:
    """0 stays 0."""
    return SPARSE if SPIKE <= facts[0] <= SPARSE else UNKNOWN if facts[0] != UNSEEN else UNSEEN


def _power(op: Op, result: Value, facts: Sequence[int]) -> int:
    power = op.attributes.get("y")
    return facts[0] if isinstance(power, int) and power > 0 else UNKNOWN


def _extreme(op: Op, result: Value, facts: Sequence[int]) -> int:
    """The largest or smallest of some elements; of none, it is infinite."""
    type_ = op.operands[0].type
    return facts[0] if isinstance(type_, TensorType) and type_.size else UNKNOWN


def _negation(op: Op, result: Value, facts: Sequence[int]) -> int:
    """``not`` of truth values; whole numbers change in all bits."""
    if UNSEEN in facts:
        return UNSEEN
    is_bool = isinstance(result.type, TensorType) and result.type.dtype == "bool"
    return min(facts[0], BINARY) if is_bool else UNKNOWN


def _declared(op: Op, result: Value, facts: Sequence[int]) -> int:
    """``event.declare``: the user says that these are events."""
    if facts[0] in (CONSTANT, BINARY):
        return SPIKE
    return min(facts[0], SPARSE)


def is_filled(value: Value, number: int) -> bool:
    """Whether all elements are this number: a literal, or a broadcast or conversion of one."""
    made_by = value.defining_op
    while made_by is not None and made_by.name in ("jax.broadcast_in_dim", "jax.convert_element_type"):
        if not _has_zero(value):
            return False
        value = made_by.operands[0]
        made_by = value.defining_op
    if not isinstance(value, Constant) or not isinstance(value.type, TensorType):
        return False
    if value.data.size == 1:
        return bool(value.data.item() == number)
    return value.data.size > 0 and bool(np.all(value.data == number))


def _has_zero(value: Value) -> bool:
    return not (isinstance(value.type, TensorType) and value.type.dtype == WITHOUT_ZERO)


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return {f"jax.{name}": rule for name in names.split()}


_RULES: dict[str, Rule] = {
    **_named(
        _same,
        "reshape transpose rev squeeze expand_dims slice dynamic_slice broadcast_in_dim tile copy unstack "
        "copy_p stop_gradient reduce_precision sharding_constraint name real split abs sign "
        "floor ceil round square sqrt cummax cummin cumprod reduce_prod",
    ),
    **_named(_converted, "convert_element_type"),
    **_named(_extreme, "reduce_max reduce_min reduce_and reduce_or"),
    **_named(_matching, "optimization_barrier sort device_put pvary pcast"),
    **_named(_mix, "concatenate stack pad"),
    **_named(_join, "max min and or clamp"),
    **_named(_product, "mul"),
    **_named(_quotient, "div"),
    **_named(_sum, "add add_any"),
    **_named(_difference, "sub"),
    **_named(_scaled, "neg imag conj"),
    **_named(_power, "integer_pow"),
    **_named(_negation, "not"),
    **_named(_gather, "gather"),
    **_named(_scatter, "scatter"),
    **_named(_select, "select_n"),
    "jax.dynamic_update_slice": lambda op, result, facts: max(facts[:2]),
    "event.declare": _declared,
}

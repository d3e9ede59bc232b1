"""Arithmetic on constants that is the same everywhere, bit for bit.

Only ops whose result IEEE or two's complement fixes are evaluated: no transcendental functions, no sums, no
subnormal numbers (some backends flush them), no division of integers. Everything else is left to the program.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stategraph.ir.core import Constant, Op
from stategraph.ir.types import TensorType, numpy_dtype

Arrays = list[np.ndarray]

_FLOAT = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative}
_INTEGER = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
}
_LOGIC = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert}
_COMPARE = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def evaluate_exactly(op: Op) -> Arrays | None:
    """The result of an op on constants, None when it is not known to be the same on every backend."""
    if not op.name.startswith("jax.") or len(op.results) != 1 or "effects" in op.attributes:
        return None
    kind = op.results[0].type
    operands = [operand.data for operand in op.operands if isinstance(operand, Constant)]
    if not isinstance(kind, TensorType) or len(operands) != len(op.operands) or not operands:
        return None
    found = _evaluate(op.name.removeprefix("jax."), operands, kind, op)
    if found is None or found.shape != kind.shape:
        return None
    return [np.asarray(found, numpy_dtype(kind.dtype))]


def _evaluate(name: str, operands: Arrays, kind: TensorType, op: Op) -> np.ndarray | None:
    first = operands[0].dtype
    if name == "select_n" and operands[0].ndim == 0:
        which = int(operands[0])
        return operands[1 + which] if 0 <= which < len(operands) - 1 else None
    if name == "convert_element_type":
        return _convert(operands[0], kind)
    if first.kind in "biu":
        table: dict[str, Callable[..., np.ndarray]] = {
            **_LOGIC,
            **_COMPARE,
            **({} if first.kind == "b" else _INTEGER),
        }
        function = table.get(name)
        with np.errstate(all="ignore"):
            return None if function is None else function(*operands)
    if first not in (np.float32, np.float64) or not all(map(_normal, operands)):
        return None
    if name in _COMPARE:
        return _COMPARE[name](*operands)
    if name not in _FLOAT or (name == "div" and not operands[1].all()):
        return None
    with np.errstate(all="ignore"):
        result = _FLOAT[name](*operands)
    return result if _normal(result) else None


def _normal(array: np.ndarray) -> bool:
    """Finite, and no subnormal numbers."""
    size = np.abs(array)
    return bool(np.isfinite(array).all() and ((size == 0) | (size >= np.finfo(array.dtype).tiny)).all())


def _convert(value: np.ndarray, kind: TensorType) -> np.ndarray | None:
    """Conversions that lose nothing."""
    target = numpy_dtype(kind.dtype)
    if value.dtype == target:
        return value
    if value.dtype != bool and value.dtype.kind not in "iu":
        return None
    converted = value.astype(target)
    return converted if bool((converted.astype(np.float64) == value.astype(np.float64)).all()) else None

"""When two values of a setting count as the same.

Programs depend on values, not on the objects that hold them: a number, a string and a small array count by
  type and content, anything else by
identity. A fingerprint is either text or the object itself.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from stategraph import _jax
from stategraph.recording import MISSING as MISSING
from stategraph.units import is_quantity

LARGEST = 64
"""Arrays of more elements count by identity."""


def fingerprint(value: Any) -> Any:
    """Equal (``is`` or ``==`` of strings) for values that a program may exchange."""
    kind = type(value)
    if kind in (bool, int, str, bytes, type(None)):
        return f"{kind.__name__} {value!r}"
    if kind is float or kind is complex:
        return f"{kind.__name__} {value!r}"  # repr tells 0.0 from -0.0, and nan is nan
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype != object and value.size <= LARGEST:
        return f"{kind.__name__} {value.dtype}{list(value.shape)} {np.asarray(value).tobytes()!r}"
    if isinstance(value, jax.Array) and not _jax.is_tracer(value) and _is_small(value):
        return f"jax {value.dtype}{list(value.shape)} {value.weak_type} {np.asarray(value).tobytes()!r}"
    if is_quantity(value):
        inner = fingerprint(value.mantissa)
        return f"{value.unit!r} {inner}" if type(inner) is str else value
    return value


def same(a: Any, b: Any) -> bool:
    """Whether two fingerprints are equal."""
    return a is b or (type(a) is str and type(b) is str and a == b)


def _is_small(value: Any) -> bool:
    return (
        not _jax.is_key_array(value)
        and not value.is_deleted()
        and value.is_fully_addressable
        and value.size <= LARGEST
    )


def holds_tracer(value: Any) -> bool:
    """Whether a value is, or contains, one that is only traced."""
    return any(_jax.is_tracer(leaf) for leaf in jax.tree.leaves(value))

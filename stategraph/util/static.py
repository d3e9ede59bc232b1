"""Comparing what is not data: the settings, functions and names that are part of a structure.

JAX compares structures to decide whether it knows a function already, so a comparison must be right, cheap
and never fail: values of
different types are different (``1``, ``1.0`` and ``True`` compile differently), ``nan`` equals itself,
``0.0`` is not ``-0.0``, and an
object that cannot be hashed is compared with ``==`` or else is only equal to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class _ByEquality:
    """A value that cannot be hashed."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return hash(type(self.value))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _ByEquality) or type(other.value) is not type(self.value):
            return False
        return same_value(self.value, other.value)


def same_value(a: Any, b: Any) -> bool:
    """Whether two values are one object or of one type and equal. Never raises."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    try:
        return bool(a == b)
    except Exception:  # an `==` that gives an array, or fails: no equality to speak of
        return False


def static_key(value: Any) -> Any:
    """Something that hashes and compares as ``value`` should: by type and value, or by identity."""
    kind = type(value)
    if kind in (str, int, bool, type(None), type):
        return (kind, value)
    if kind in (float, complex):
        return (kind, repr(value))
    if isinstance(value, (tuple, list)):
        return (kind, *map(static_key, value))
    if isinstance(value, Mapping):
        return (kind, *((static_key(key), static_key(item)) for key, item in value.items()))
    if isinstance(value, np.ndarray):
        return (kind, value.dtype.str, value.shape, value.tobytes() if value.dtype != object else id(value))
    try:
        hash(value)
    except TypeError:
        return _ByEquality(value)
    return (kind, value)

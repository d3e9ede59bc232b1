"""Names for the types in signatures: paths, filters, arrays, shapes.

A *path* is a tuple of keys, from a model to something in it: ``("layers", 0, "weight")``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

Key = Hashable
"""One step of a path: the name of an attribute, a position in a list, a key of a dict."""

PathParts = tuple[Any, ...]
"""A path: the keys from a model to something in it."""

Predicate = Callable[[PathParts, Any], bool]
"""What a filter becomes: whether the thing at a path is meant."""

Filter = Any
"""What selects States or Nodes: a type, a tag, a predicate, ``...``, ``None``, or a tuple of these."""

T = TypeVar("T")

Array = jax.Array
ArrayLike = jax.typing.ArrayLike
PyTree = Any
Shape = tuple[int, ...]
Size = int | Sequence[int]
Axes = int | Sequence[int]
DType = np.dtype
DTypeLike = jax.typing.DTypeLike
SeedOrKey = int | jax.Array | np.ndarray


class Missing:
    """The absence of a value where ``None`` is one."""

    def __repr__(self) -> str:
        return "<missing>"


__all__ = [
    "Array",
    "ArrayLike",
    "Axes",
    "DType",
    "DTypeLike",
    "Filter",
    "Key",
    "Missing",
    "PathParts",
    "Predicate",
    "PyTree",
    "SeedOrKey",
    "Shape",
    "Size",
]

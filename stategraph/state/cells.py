"""What State is made of: cells, and how a value becomes the leaves that cells hold."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax

RUNTIME_LOCK = threading.RLock()
"""Held by compiled calls from gathering to scattering State, and by readers that take an owned array."""


class Checks(threading.local):
    """What is checked besides, per thread."""

    same_tree = False
    """Whether a State may only be given values of the structure that it has."""


CHECKS = Checks()


class Cell:
    """One leaf of a State: the array, and whether the runtime owns it."""

    __slots__ = ("owned", "v")

    def __init__(self, v: Any) -> None:
        self.v = v
        self.owned = False


class Poisoned:
    """What a cell holds after a compiled call failed and its buffers were already given away."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __repr__(self) -> str:
        return "<lost>"


class Unborn:
    """What a cell holds while its State exists only inside a trace."""

    __slots__ = ("example",)

    def __init__(self, leaf: Any) -> None:
        self.example = jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)


SPECIAL = frozenset((Unborn, Poisoned))
"""What no reader may get."""

_LEAF = jax.tree.structure(0)


def unweaken(leaf: Any) -> Any:
    """A leaf as a State keeps it: a jax array (or tracer) that is not weakly typed; other objects as they
    are.
    """
    if isinstance(leaf, jax.Array):
        if getattr(leaf, "weak_type", False):
            return jax.lax.convert_element_type(leaf, leaf.dtype)
        return leaf
    if isinstance(leaf, (bool, int, float, complex)):
        return jnp.asarray(leaf, dtype=jax.dtypes.canonicalize_dtype(jnp.result_type(leaf)))
    if isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype != object and leaf.dtype.kind not in "USOMm":
        return jnp.array(leaf)
    return leaf


def _make_array_class() -> type:
    return type(jnp.zeros(()))


_ARRAY_IMPL: type | None = None


def flatten(value: Any) -> tuple[list[Any], Any]:
    """(leaves, treedef); the treedef is None for a single array."""
    global _ARRAY_IMPL
    if type(value) is _ARRAY_IMPL:
        assert isinstance(value, jax.Array)
        return [value if not value.weak_type else unweaken(value)], None
    if _ARRAY_IMPL is None:
        _ARRAY_IMPL = _make_array_class()
    leaves, tree = jax.tree.flatten(value)
    return [unweaken(leaf) for leaf in leaves], (None if _jax.same_tree(tree, _LEAF) else tree)

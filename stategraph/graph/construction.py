"""How a Node was made: the arguments that its class was called with, so that it can be made again.

The Node itself holds them, outside of its attributes. Arrays among them are held weakly: nobody wants to keep
the initial value of a large table alive. A copy of a Node was not made by a call, and has no construction.
"""

from __future__ import annotations

import weakref
from typing import Any

import attrs
import jax
import numpy as np


@attrs.define(eq=False)
class Construction:
    """One call of a class."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Construction:
        return cls(
            tuple(map(_held, args)), {name: _held(arg) for name, arg in kwargs.items()} if kwargs else {}
        )

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments; raises ``ReferenceError`` when an array among them is gone."""
        return tuple(map(_given, self.args)), {name: _given(arg) for name, arg in self.kwargs.items()}


def construction_of(node: Any) -> Construction | None:
    """How a Node was made, None when nobody knows."""
    found: Construction | None = getattr(node, "_construction", None)
    return found


_PLAIN = frozenset((bool, int, float, str, tuple, list, dict, type(None)))


def _held(arg: Any) -> Any:
    if type(arg) in _PLAIN:
        return arg
    return weakref.ref(arg) if isinstance(arg, (jax.Array, np.ndarray)) else arg


def _given(arg: Any) -> Any:
    if not isinstance(arg, weakref.ref):
        return arg
    found = arg()
    if found is None:
        raise ReferenceError("an array that it was made with is gone")
    return found

"""Lanes: what the axes of an ``xform.vmap`` mean for types.

The op runs its body once per *lane*. ``in_axes`` says, per operand, along which axis the lanes' slices lie
(None: every lane gets the whole), ``out_axes`` the same of the results. ``in_states`` and ``out_states``
say it of States, by path; an axis there may be negative, counted per leaf. A State in ``private`` starts
from the same value in every lane, and what lanes write to it is forgotten. ``shared`` names results that
are values of States which every lane has to leave equal: (position of the first leaf, State).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stategraph.ir.attributes import Symbol
from stategraph.ir.core import Op
from stategraph.ir.types import KeyType, TensorType, Type

LANE_REDUCTIONS = ("unvmap_any", "unvmap_all", "unvmap_max", "unvmap_first")
"""Primitives that reduce over the lanes of every ``vmap`` around them, named axis or not."""


def lane_names(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What the lanes are called, for JAX's own ``vmap``: by collectives, and where they lie on a mesh."""
    names = {name: attributes.get(name) for name in ("axis_name", "spmd_axis_name")}
    return {name: value for name, value in names.items() if value is not None}


def resized(type: Type, shape: tuple[int, ...]) -> Type:
    """The type with another shape."""
    if isinstance(type, TensorType):
        return TensorType(type.dtype, shape, type.weak)
    return KeyType(type.impl, shape) if isinstance(type, KeyType) else type


def all_lanes(type: Type, axis: int, size: int) -> Type:
    """``size`` of these, along ``axis`` of the result."""
    shape = list(shape_of(type))
    shape.insert(axis + len(shape) + 1 if axis < 0 else axis, size)
    return resized(type, tuple(shape))


def one_lane(type: Type, axis: int) -> Type:
    """One slice of this along ``axis``; raises ``IndexError`` when it has no such axis."""
    shape = list(shape_of(type))
    shape.pop(axis)
    return resized(type, tuple(shape))


def shape_of(type: Type) -> tuple[int, ...]:
    return type.shape if isinstance(type, (TensorType, KeyType)) else ()


def state_axes(op: Op, name: str) -> dict[str, int]:
    """The States of ``in_states`` or ``out_states``, with their axes."""
    pairs: tuple[tuple[Symbol, int], ...] = op.attributes[name]
    return {symbol.path: axis for symbol, axis in pairs}


def private_states(op: Op) -> set[str]:
    """The States whose values end with the lane."""
    symbols: tuple[Symbol, ...] = op.attributes["private"]
    return {symbol.path for symbol in symbols}


def lane_writes(op: Op) -> Iterator[Op]:
    """The ops inside ``op`` that write State, but for what lanes in there write to copies of their own."""
    for region in op.regions:
        for inner in region.ops:
            if inner.name == "state.write":
                yield inner
            elif inner.regions:
                private = private_states(inner) if "private" in inner.attributes else ()
                yield from (
                    write for write in lane_writes(inner) if write.attributes.get("symbol") not in private
                )


def is_state_axes(value: Any) -> bool:
    """Whether an attribute is a tuple of (symbol, axis)."""
    return isinstance(value, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Symbol) and type(pair[1]) is int
        for pair in value
    )

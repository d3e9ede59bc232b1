"""Shards: what the specs of an ``xform.shard_map`` mean for types.

The op runs its body once per device of a *mesh*, a grid of devices with named axes. A *spec* says, per axis of
an array, over which axes of the mesh it is cut: a name, a tuple of names, or none; ``()`` means that every
device has the whole. ``in_specs`` and ``out_specs`` say it of operands and results, ``states`` of States, leaf
by leaf: (State, specs at entry, specs at exit). Other States are whole on every device. A State in
``private`` starts from what the body writes first, and what devices write to it is forgotten. ``written``
names results that are values of States: (position of the first leaf, State).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stategraph.ir.attributes import Record, Symbol
from stategraph.ir.core import Op
from stategraph.ir.lanes import resized, shape_of
from stategraph.ir.types import Type

Spec = tuple[str | tuple[str, ...] | None, ...]
Specs = tuple[Spec, ...]


def mesh_sizes(mesh: Record) -> dict[str, int]:
    """The axes of a mesh with their sizes."""
    return dict(mesh.get("axes"))


def names_in(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The axes of the mesh that cut one axis of an array."""
    return () if entry is None else (entry,) if isinstance(entry, str) else entry


def local_type(type: Type, spec: Spec, sizes: Mapping[str, int]) -> Type:
    """What one device has of a value of this type; raises ``ValueError`` when it cannot be cut so."""
    return _scaled(type, spec, sizes, True)


def global_type(type: Type, spec: Spec, sizes: Mapping[str, int]) -> Type:
    """What the devices have together when each has one of these."""
    return _scaled(type, spec, sizes, False)


def _scaled(type: Type, spec: Spec, sizes: Mapping[str, int], cut: bool) -> Type:
    shape = list(shape_of(type))
    if len(spec) > len(shape):
        raise ValueError(f"the spec {spec} has more entries than {type} has axes")
    for i, entry in enumerate(spec):
        count = math.prod(sizes[name] for name in names_in(entry))
        if cut and shape[i] % count:
            raise ValueError(f"axis {i} of {type} cannot be cut into {count} equal parts")
        shape[i] = shape[i] // count if cut else shape[i] * count
    return resized(type, tuple(shape))


def state_specs(op: Op) -> dict[str, tuple[Specs, Specs]]:
    """The States of ``states`` with their specs at entry and at exit."""
    rows: tuple[tuple[Symbol, Specs, Specs], ...] = op.attributes["states"]
    return {symbol.path: (before, after) for symbol, before, after in rows}


def sharding_text(sharding: Any) -> str:
    """How a leaf of a State is cut, in a few words: ``sharded (i, -)``; empty for what says nothing."""
    if sharding is None:
        return ""
    spec = sharding.get("spec") if isinstance(sharding, Record) and sharding.name == "sharding" else None
    if not isinstance(spec, Record):
        return f"in {sharding}"
    cuts = ["-" if entry is None else "+".join(names_in(entry)) for entry in spec.get("partitions")]
    return f"sharded ({', '.join(cuts)})" if cuts else "replicated"


def problem(op: Op) -> str | None:
    """What is wrong with the attributes of an ``xform.shard_map``, None if nothing is."""
    mesh = op.attributes.get("mesh")
    if not isinstance(mesh, Record) or mesh.name not in ("mesh", "abstract_mesh"):
        return f"mesh is {mesh!r}, no mesh"
    sizes = mesh_sizes(mesh)
    if type(op.attributes.get("check_vma")) is not bool:
        return "check_vma is no bool"
    axes = op.attributes.get("axes")
    if not isinstance(axes, tuple) or not set(axes) <= set(sizes):
        return f"axes is {axes!r}, not a tuple of axes of the mesh"
    for name, values in (("in_specs", op.operands), ("out_specs", op.results)):
        specs = op.attributes.get(name)
        if not isinstance(specs, tuple) or not all(_is_spec(spec, axes) for spec in specs):
            return f"{name} is {specs!r}, not a tuple of specs over {axes}"
        if len(specs) != len(values):
            return f"{name} are {len(specs)}, for {len(values)} values"
    for name in ("states", "private", "written"):
        if not isinstance(op.attributes.get(name), tuple):
            return f"{name} is no tuple"
    for row in op.attributes["states"]:
        if not isinstance(row, tuple) or len(row) != 3 or not isinstance(row[0], Symbol):
            return "states is no tuple of (@state, specs at entry, specs at exit)"
        if not all(isinstance(part, tuple) and all(_is_spec(s, axes) for s in part) for part in row[1:]):
            return f"the specs of {row[0].path} are no tuples of specs over {axes}"
    return None


def _is_spec(value: Any, axes: tuple[str, ...]) -> bool:
    return isinstance(value, tuple) and all(
        entry is None or (isinstance(entry, (str, tuple)) and set(names_in(entry)) <= set(axes))
        for entry in value
    )

"""Parameters of JAX primitives as attributes of ops, and back.

``encode`` turns a parameter into the plain data of ``ir.attributes``; ``decode`` undoes it. Function bodies
are handed to a callback, since they become regions. What has no plain form (callables, shardings) becomes an
``Opaque`` that keeps the object.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from stategraph import _jax, units
from stategraph.errors import LoweringError
from stategraph.ir.attributes import Dense, DType, EnumValue, Opaque, Record, RegionRef, Symbol
from stategraph.ir.tree import LEAF, NONE, Tree
from stategraph.ir.types import numpy_dtype, short_dtype

PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
_KEPT = frozenset((DType, Dense, EnumValue, Opaque, Record, RegionRef, Symbol, Tree))
BodyToRegion = Callable[[Any], RegionRef]
RegionToBody = Callable[[RegionRef, bool], Any]


def encode(value: Any, body: BodyToRegion) -> Any:
    """The attribute for a parameter."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is tuple:
        for item in value:
            if type(item) not in PLAIN:
                return tuple(encode(item, body) for item in value)
        return value
    if isinstance(value, np.dtype):
        return DType(short_dtype(value.name))
    if isinstance(value, enum.Enum):
        return EnumValue(kind.__name__, value.name)
    if _jax.is_body(value):
        ref = body(value)
        return Record("body", (("region", ref), ("closed", _jax.is_closed(value))))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return Record(kind.__name__, tuple((f, encode(getattr(value, f), body)) for f in value._fields))
    if isinstance(value, list):
        return [encode(item, body) for item in value]
    if isinstance(value, dict):
        return {key: encode(item, body) for key, item in value.items()}
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    if isinstance(value, (np.ndarray, np.generic)):
        return Dense(np.asarray(value))
    if isinstance(value, jax.Array) and not _jax.is_tracer(value) and not _jax.is_key_array(value):
        return Dense(np.asarray(value))
    if _jax.is_treedef(value):
        return tree_of(value)
    if hasattr(value, "_impl") and jax.numpy.issubdtype(value, jax.dtypes.prng_key):
        return Record("key_dtype", (("impl", value._impl.name),))
    impl = _jax.prng_impl_name(value)
    if impl is not None:
        return Record("prng_impl", (("name", impl),))
    if isinstance(value, type) and issubclass(value, np.generic):
        return DType(short_dtype(np.dtype(value).name))
    if isinstance(value, frozenset):
        return Record(
            "frozenset", (("items", tuple(encode(item, body) for item in sorted(value, key=repr))),)
        )
    if isinstance(value, (Mesh, AbstractMesh)):
        return mesh_record(value)
    if isinstance(value, PartitionSpec) and not (value.unreduced or value.reduced):
        return Record("spec", (("partitions", spec_of(value)),))
    if isinstance(value, NamedSharding) and isinstance(value.mesh, AbstractMesh) and not spec_of(value.spec):
        return None  # it only says which mesh the code stands in
    if isinstance(value, NamedSharding) and value == NamedSharding(value.mesh, value.spec):
        return Record("sharding", (("mesh", encode(value.mesh, body)), ("spec", encode(value.spec, body))))
    return Opaque(opaque_name(value), value)


def decode(value: Any, region: RegionToBody) -> Any:
    """The parameter for an attribute; raises ``LoweringError`` for an opaque one that was read from text."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is tuple:
        for item in value:
            if type(item) not in PLAIN:
                return tuple(decode(item, region) for item in value)
        return value
    if kind is DType:
        return numpy_dtype(value.name)
    if kind is EnumValue:
        return _known_class(value.enum)[value.member]  # type: ignore[index]
    if kind is Record:
        if value.name == "body":
            return region(value.get("region"), value.get("closed"))
        if value.name == "prng_impl":
            return _jax.prng_impl(value.get("name"))
        if value.name == "key_dtype":
            return jax.random.key(0, impl=value.get("impl")).dtype
        if value.name == "frozenset":
            return frozenset(decode(item, region) for item in value.get("items"))
        if value.name in ("mesh", "abstract_mesh"):
            return mesh_of(value)
        if value.name == "spec":
            return PartitionSpec(*value.get("partitions"))
        if value.name == "sharding":
            return NamedSharding(decode(value.get("mesh"), region), decode(value.get("spec"), region))
        return _known_class(value.name)(**{field: decode(item, region) for field, item in value.fields})
    if kind is list:
        return [decode(item, region) for item in value]
    if kind is dict:
        return {key: decode(item, region) for key, item in value.items()}
    if kind is Dense:
        return value.data if value.data.ndim else value.data[()]  # a scalar is hashable, an array is not
    if kind is Tree:
        return treedef_of(value)
    if kind is Opaque:
        if value.payload is None:
            raise LoweringError(
                f"the parameter {value.name!r} has no text form, so a program read from text cannot run it; "
                "lower the traced program instead, or replace the op"
            )
        return value.payload
    raise LoweringError(f"the attribute {value!r} is no parameter of a JAX primitive")


def _known_class(name: str) -> type:
    found = _jax.class_by_name(name)
    if found is None:
        raise LoweringError(f"JAX {jax.__version__} has no {name}, which this program uses")
    return found


def opaque_name(value: Any) -> str:
    """A name for an object without a text form: stable between runs, free of addresses."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if name is None and hasattr(value, "func"):
        name = f"partial({opaque_name(value.func)})"
    if name is None:
        text = repr(value)
        name = type(value).__name__ if " at 0x" in text or len(text) > 60 else text
    return re.sub(r" at 0x[0-9a-f]+", "", str(name))


# ----------------------------------------------------------------------------------------------------- meshes


def spec_of(spec: Any) -> tuple[Any, ...]:
    """A ``PartitionSpec`` as plain data, without trailing entries that say nothing."""
    entries = [entry if entry is None or isinstance(entry, str) else tuple(entry) for entry in spec]
    while entries and entries[-1] in (None, ()):
        entries.pop()
    return tuple(None if entry == () else entry for entry in entries)


def mesh_record(mesh: Any) -> Record:
    """A mesh as plain data: axes with their sizes and types, and the numbers of its devices."""
    axes = tuple(mesh.shape.items())
    types = tuple(kind.name for kind in mesh.axis_types)
    if isinstance(mesh, AbstractMesh):
        return Record("abstract_mesh", (("axes", axes), ("types", types)))
    devices = () if mesh.empty else tuple(int(device.id) for device in mesh.devices.flat)
    if all(kind == "Auto" for kind in types):
        return Record("mesh", (("axes", axes), ("devices", devices)))
    return Record("mesh", (("axes", axes), ("devices", devices), ("types", types)))


def mesh_of(record: Record) -> Any:
    """The mesh; raises ``LoweringError`` when this process does not have its devices."""
    fields = dict(record.fields)
    names, sizes = zip(*fields["axes"], strict=True) if fields["axes"] else ((), ())
    types = tuple(AxisType[name] for name in fields.get("types", ("Auto",) * len(names)))
    if record.name == "abstract_mesh":
        return AbstractMesh(sizes, names, axis_types=types)
    if not names:
        return Mesh(np.empty((), object), ())
    known = {device.id: device for device in jax.devices()}
    missing = [number for number in fields["devices"] if number not in known]
    if missing:
        raise LoweringError(
            f"the program runs on a mesh of the devices {fields['devices']}, and there is no device "
            f"{', '.join(map(str, missing))} here; those that there are: {', '.join(map(str, known))}"
        )
    devices = np.array([known[number] for number in fields["devices"]]).reshape(sizes)
    return Mesh(devices, names, axis_types=types)


# ------------------------------------------------------------------------------------------------- structures


def tree_of(treedef: Any, package: Any = None) -> Tree:
    """The IR's own description of a JAX tree structure (None stands for a single leaf); quantities of ``package`` are
    leaves.
    """
    if treedef is None or treedef == _LEAF_DEF:
        return LEAF
    data = treedef.node_data()
    if data is None:
        return LEAF if treedef.num_leaves == 1 and treedef.num_nodes == 1 else NONE
    kind, meta = data
    if package is not None and kind is package.Quantity:
        return Tree("leaf", payload=_Quantity(meta))
    children = tuple(tree_of(child, package) for child in treedef.children())
    if kind is tuple:
        return Tree("tuple", children)
    if kind is list:
        return Tree("list", children)
    if kind is dict:
        return Tree("dict", children, tuple(meta))
    if kind is type(None):
        return NONE
    keys = tuple(kind._fields) if hasattr(kind, "_fields") else ()
    return Tree("custom", children, keys, kind.__name__, _CustomNode(treedef))


def state_tree_of(treedef: Any) -> Tree:
    """The IR's description of the structure of a State: a quantity is a leaf, since its unit is an attribute of the
    State's symbol.
    """
    return tree_of(treedef, units.loaded())


class _Quantity:
    """A leaf that is a quantity in its State."""

    def __init__(self, unit: Any) -> None:
        self.unit = unit


class _CustomNode:
    """How to rebuild a node of a registered class: the treedef it came from."""

    def __init__(self, treedef: Any) -> None:
        self.treedef = treedef


def treedef_of(tree: Tree) -> Any:
    """The JAX tree structure of a ``Tree``; raises ``LoweringError`` when it names a class that only its own
    program knows.
    """
    return jax.tree.structure(example_of(tree))


def example_of(tree: Tree) -> Any:
    """A nested value with that structure, all leaves 0."""
    if tree.kind == "leaf":
        return 0 if tree.payload is None else units.quantity(0, tree.payload.unit)
    if tree.kind == "none":
        return None
    children = [example_of(child) for child in tree.children]
    if tree.kind == "tuple":
        return tuple(children)
    if tree.kind == "list":
        return children
    if tree.kind == "dict":
        return dict(zip(tree.keys, children, strict=True))
    if tree.payload is None:
        raise LoweringError(
            f"the structure of {tree.name} is known to the program that was traced, not to its text"
        )
    return jax.tree.unflatten(tree.payload.treedef, [0] * tree.payload.treedef.num_leaves)


_LEAF_DEF = jax.tree.structure(0)

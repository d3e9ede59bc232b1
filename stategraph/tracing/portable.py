"""Values in and out of an exported program, without the classes of the model.

A ``Tree`` says how a value nests. ``flatten`` takes a value apart as the tree says and names the place where
it does not fit; ``rebuild`` puts it together from dicts, lists, tuples and None. A namedtuple comes back as a
namedtuple of the same name and fields, an ``OrderedDict`` as one; other registered classes cannot be known
where the model's source is not (``check_portable``).
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.errors import CallError, ExportError, describe
from stategraph.ir.arrays import Resources
from stategraph.ir.attribute_text import AttributeWriter
from stategraph.ir.lexer import Tokens
from stategraph.ir.tree import Tree
from stategraph.ir.types import KeyType, TensorType, Type
from stategraph.ir.value_parser import ValueParser

ORDERED = "OrderedDict"


def check_portable(tree: Tree, what: str) -> Tree:
    """The tree with all that is needed to rebuild values; raises ``ExportError`` when a process without the
    model's source could not.
    """
    children = tuple(check_portable(child, what) for child in tree.children)
    if tree.kind != "custom":
        return attrs.evolve(tree, children=children)
    kind, meta = tree.payload.treedef.node_data() if tree.payload is not None else (None, None)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return Tree("custom", children, tuple(kind._fields), kind.__name__)
    if kind is collections.OrderedDict and meta is not None:
        return Tree("custom", children, tuple(meta), ORDERED)
    raise ExportError(
        describe(
            f"{what} holds a {tree.name}, which an exported program cannot rebuild.",
            why="the program is loaded where the source of that class is not",
            fix="use dicts, lists, tuples and namedtuples at the border of what you export",
        )
    )


def tree_text(tree: Tree) -> str:
    """A portable tree in the spelling of the IR."""
    return AttributeWriter(Resources()).tree(tree)


def parse_tree(text: str) -> Tree:
    return ValueParser(Tokens(text, "<tree>")).tree()


def parse_type(text: str) -> Type:
    return ValueParser(Tokens(text, "<type>")).type()


@functools.cache
def _namedtuple(name: str, fields: tuple[str, ...]) -> Any:
    return collections.namedtuple(name, fields)


def rebuild(tree: Tree, leaves: Iterable[Any]) -> Any:
    """The value of a tree and its leaves."""
    return _rebuild(tree, iter(leaves))


def _rebuild(tree: Tree, leaves: Iterator[Any]) -> Any:
    if tree.kind == "leaf":
        return next(leaves)
    if tree.kind == "none":
        return None
    children = [_rebuild(child, leaves) for child in tree.children]
    if tree.kind == "list":
        return children
    if tree.kind == "tuple":
        return tuple(children)
    if tree.kind == "dict":
        return dict(zip(tree.keys, children, strict=True))
    if tree.name == ORDERED:
        return collections.OrderedDict(zip(tree.keys, children, strict=True))
    return _namedtuple(tree.name, tree.keys)(*children)


def flatten(tree: Tree, value: Any, what: str) -> list[Any]:
    """The leaves of a value that nests as the tree says. Raises ``CallError`` that names the place
    otherwise.
    """
    if tree.kind == "leaf":
        if isinstance(value, (list, tuple, dict)) or value is None:
            raise CallError(
                f"{what} is a {type(value).__name__}, and the exported program takes an array there"
            )
        return [value]
    if tree.kind == "none":
        if value is not None:
            raise CallError(f"{what} is a {type(value).__name__}, and was None when the program was exported")
        return []
    if tree.kind == "dict" or tree.name == ORDERED:
        if not isinstance(value, dict) or set(value) != set(tree.keys):
            raise CallError(f"{what} has to be a dict with the keys {_listed(tree.keys)}, not {_kind(value)}")
        return [
            leaf
            for key, child in zip(tree.keys, tree.children, strict=True)
            for leaf in flatten(child, value[key], f"{what}[{key!r}]")
        ]
    fits = isinstance(value, list) if tree.kind == "list" else isinstance(value, tuple)
    if tree.kind in ("tuple", "custom"):
        fits = fits and getattr(value, "_fields", ()) == tree.keys
    if not fits or len(value) != len(tree.children):
        wanted = (
            f"the namedtuple {tree.name}({_listed(tree.keys)})"
            if tree.kind == "custom"
            else f"a {tree.kind} of {len(tree.children)}"
        )
        raise CallError(f"{what} has to be {wanted}, not {_kind(value)}")
    return [
        leaf
        for i, (child, item) in enumerate(zip(tree.children, value, strict=True))
        for leaf in flatten(child, item, f"{what}[{i}]")
    ]


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict with the keys {_listed(value)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "(none)"


# ----------------------------------------------------------------------------------------------------- leaves


def as_leaf(value: Any, wanted: Type, what: str) -> Any:
    """A leaf as an array of the type that the program takes. Raises ``CallError`` naming it and both
    types.
    """
    try:
        array = value if isinstance(value, jax.Array) else jnp.asarray(value)
    except (TypeError, ValueError):
        raise CallError(
            f"{what} is a {type(value).__name__}, and the exported program takes a {wanted}"
        ) from None
    found = strong(_jax.type_of(_jax.typeof(array)))
    if found != strong(wanted):
        raise CallError(f"{what} is {found}, and the exported program takes {strong(wanted)}")
    return array


def strong(type: Type) -> Type:
    return type.strong() if isinstance(type, TensorType) else type


def to_raw(leaf: Any) -> Any:
    """What crosses the border of the artefact: typed PRNG keys as their data."""
    return jax.random.key_data(leaf) if _jax.is_key_array(leaf) else leaf


def from_raw(leaf: Any, type: Type) -> Any:
    """The inverse of ``to_raw``."""
    return jax.random.wrap_key_data(leaf, impl=key_impl(type.impl)) if isinstance(type, KeyType) else leaf


@functools.cache
def key_impl(tag: str) -> str:
    """The name of the PRNG implementation that prints as ``tag``: ``threefry2x32`` for ``fry``."""
    return str(_jax.key_dtype(tag)._impl.name)


def raw_struct(type: Type) -> Any:
    """The shape and dtype of a raw leaf."""
    if isinstance(type, KeyType):
        impl = key_impl(type.impl)
        data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl)))
        return jax.ShapeDtypeStruct((*type.shape, *data.shape), data.dtype)
    aval = _jax.aval_of(type)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def needs_x64(types: Iterable[Type]) -> bool:
    """Whether some array has 64 bits where this process cuts them to 32."""
    return any(
        isinstance(type, TensorType)
        and jax.dtypes.canonicalize_dtype(_jax.aval_of(type).dtype) != _jax.aval_of(type).dtype
        for type in types
        if not (isinstance(type, TensorType) and type.dtype == "f0")
    )


def to_host(leaf: Any) -> np.ndarray:
    """The raw leaf as a NumPy array."""
    return np.asarray(to_raw(leaf))

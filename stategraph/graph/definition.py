"""NodeDef: the structure of an object graph without the values of its States.

A definition is one flat table with a row for each Node and container, in the order in which they are met
(``flatten``). A row holds, for
every attribute in sorted order, one *field*: a row further down, a State or row met before, a setting, or
an array. Nothing in it nests,
so neither size nor depth matters; the nested view that prints is made on demand.

Arrays that sit on plain attributes are data: a definition carries them beside the table, as the leaves of a
pytree. They take no part in its
hash, and two definitions with different arrays are different.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import jax
import numpy as np

from stategraph import _jax
from stategraph.errors import describe
from stategraph.graph.kinds import DICT, LIST, NODE, NONE, REGISTERED, TUPLE, registered
from stategraph.typing import PathParts
from stategraph.util.mapping import NestedDict
from stategraph.util.static import static_key

ROW, STATE_AT, SEEN, SEEN_CONTAINER, SETTING, DATA = range(6)
"""Fields of a row: (ROW, row number), (STATE_AT, index, type), (SEEN, index, type), (SEEN_CONTAINER, row
number), (SETTING, value),
(DATA, array number)."""

Field = tuple[Any, ...]


class PytreeType:
    """In a definition, the type of what is no Node: lists, tuples, dicts, ``None`` and other pytrees."""


@attrs.frozen
class NodeRef:
    """In a definition: a State, or a Node met before, by index."""

    type: type
    index: int

    def __repr__(self) -> str:
        return f"NodeRef(\n  type={self.type.__name__},\n  index={self.index}\n)"


class Row:
    """One Node or container of a definition."""

    __slots__ = ("fields", "index", "keys", "kind", "meta", "order", "type")

    def __init__(
        self, kind: int, type: type, index: int, keys: tuple[Any, ...], meta: Any, order: Any
    ) -> None:
        self.kind = kind
        self.type = type
        self.index = index
        """Its number among Nodes and States; -1 for containers."""
        self.keys = keys
        self.fields: list[Field] = []
        self.meta = meta
        """What else it takes to make the object: the metadata of a registered type, the tree definition of
        a pytree, the keys of a dict in their order.
        """
        self.order: tuple[Any, ...] | None = order
        """The attributes of a Node in the order they were set, where that is not sorted. Not compared."""


class Table:
    """All rows of a definition, and where its States are."""

    __slots__ = ("_hash", "_key", "rows", "states")

    def __init__(self, rows: Sequence[Row], states: Sequence[tuple[PathParts, int, type]]) -> None:
        self.rows = tuple(rows)
        self.states = tuple(states)
        """(path, index, type) of each State, where it is met first."""
        self._key: Any = None
        self._hash: int | None = None

    def key(self) -> Any:
        """What two tables are compared by."""
        if self._key is None:
            self._key = tuple([_row_key(row) for row in self.rows])
        return self._key

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.key())
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Table) and hash(self) == hash(other) and bool(self.key() == other.key())

    def __reduce__(self) -> Any:
        return Table, (self.rows, self.states)


def _row_key(row: Row) -> Any:
    fields = tuple([static_key(field[1]) if field[0] == SETTING else field for field in row.fields])
    meta = row.meta if row.kind == LIST or row.kind == TUPLE else static_key(row.meta)
    return (row.kind, row.type, row.index, row.keys, tuple(f[0] for f in row.fields), fields, meta)


class NodeDef:
    """The structure of a model: hashable, comparable, printable, and a pytree whose leaves are the arrays
    on plain attributes.

    Made by ``graphdef``, ``flatten`` and ``treefy_split``. It can be closed over by a function, be a static
    argument of ``jax.jit``, or an ordinary one.
    """

    __slots__ = ("arrays", "position", "table")

    def __init__(self, table: Table, arrays: Sequence[Any], position: int = 0) -> None:
        if not isinstance(table, Table):
            raise TypeError(
                describe(
                    f"A GraphDef is not made of a {type(table).__name__}.",
                    at=_jax.here(),
                    why="it is found out about a model: .attributes, .subgraphs, .leaves and .static_fields show what it holds",
                    fix="stategraph.graph.graphdef(model), or treefy_split(model)",
                )
            )
        self.table = table
        self.arrays = tuple(arrays)
        """The arrays on plain attributes, of the whole definition."""
        self.position = position

    # -------------------------------------------------------------------------------------- the nested view

    @property
    def row(self) -> Row:
        """The row of the table that this is about."""
        return self.table.rows[self.position]

    @property
    def type(self) -> type:
        """The class of the Node; ``PytreeType`` for a container."""
        return self.row.type if self.row.kind in (NODE, REGISTERED) else PytreeType

    @property
    def index(self) -> int:
        """The Node's number among Nodes and States, in the order in which they are met; -1 for a container."""
        return self.row.index

    @property
    def attributes(self) -> tuple[Any, ...]:
        """The names of the attributes, sorted."""
        return self.row.keys

    @property
    def subgraphs(self) -> dict[Any, NodeDef | NodeRef]:
        """The Nodes and containers that it holds, by attribute; a ``NodeRef`` for one met before."""
        return {key: self._below(field) for key, field in self._fields(ROW, SEEN, SEEN_CONTAINER)}

    @property
    def static_fields(self) -> dict[Any, Any]:
        """Settings and arrays, by attribute."""
        return {
            key: field[1] if field[0] == SETTING else self.arrays[field[1]]
            for key, field in self._fields(SETTING, DATA)
        }

    @property
    def leaves(self) -> dict[Any, NodeRef]:
        """The States, by attribute."""
        return {key: NodeRef(field[2], field[1]) for key, field in self._fields(STATE_AT)}

    @property
    def metadata(self) -> Any:
        """What else it takes to make the object again."""
        row = self.row
        if row.kind == NODE:
            return (row.type,)
        if row.kind == NONE:
            return jax.tree.structure(None)
        if row.kind == LIST:
            return jax.tree.structure([0] * len(row.keys))
        if row.kind == DICT:
            return (
                jax.tree.structure([0] * len(row.keys))
                if _mixed(row.keys)
                else jax.tree.structure(dict.fromkeys(row.keys, 0))
            )
        if row.kind == TUPLE:
            return jax.tree.structure(_tuple_of(row.type, [0] * len(row.keys)))
        return row.meta

    @property
    def index_mapping(self) -> None:
        """Always None; older definitions renumbered Nodes with it."""
        return None

    def _fields(self, *wanted: int) -> list[tuple[Any, Field]]:
        row = self.row
        return [(key, field) for key, field in zip(row.keys, row.fields, strict=True) if field[0] in wanted]

    def _below(self, field: Field) -> NodeDef | NodeRef:
        if field[0] == ROW:
            return NodeDef(self.table, self.arrays, field[1])
        if field[0] == SEEN:
            return NodeRef(field[2], field[1])
        return NodeRef(PytreeType, -1)

    # -------------------------------------------------------------------------------------------- comparing

    def __hash__(self) -> int:
        return hash((self.table, self.position))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, NodeDef):
            return NotImplemented
        if (
            self.position != other.position
            or self.table != other.table
            or len(self.arrays) != len(other.arrays)
        ):
            return False
        return all(map(_same_array, self.arrays, other.arrays))

    def __reduce__(self) -> Any:
        return NodeDef, (self.table, self.arrays, self.position)

    def __repr__(self) -> str:
        from stategraph.graph.show import definition_repr

        return definition_repr(self)


GraphDef = NodeDef
"""The structure of a model, under its other name."""


def _mixed(keys: tuple[Any, ...]) -> bool:
    return len({type(key) for key in keys}) > 1


def _tuple_of(cls: type, items: list[Any]) -> Any:
    return tuple(items) if cls is tuple else cls._make(items)  # type: ignore[attr-defined]


def _same_array(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if _jax.is_tracer(a) or _jax.is_tracer(b) or not (hasattr(a, "shape") and hasattr(b, "shape")):
        return False
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if _jax.is_key_array(a):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


jax.tree_util.register_pytree_node(
    NodeDef,
    lambda definition: (definition.arrays, (definition.table, definition.position)),
    lambda aux, arrays: NodeDef(aux[0], arrays, aux[1]),
)
jax.tree_util.register_static(NodeRef)


# --------------------------------------------------------------------------------------- making the objects


def create_empty(row: Row) -> Any:
    """The object of a row, holding nothing yet; None for what can only be made whole."""
    if row.kind == NODE:
        from stategraph.graph.node import Node

        node = Node.__new__(row.type)
        object.__setattr__(node, "_construction", None)
        return node
    if row.kind == REGISTERED:
        return registered(row.type).create_empty(row.meta)
    if row.kind == LIST:
        return _new(row.type)
    if row.kind == DICT:
        new = _new(row.type)
        if row.meta[1] is not None:
            new.default_factory = row.meta[1]
        return new
    return None


def _new(cls: Any) -> Any:
    return cls.__new__(cls)


def create_whole(row: Row, items: list[Any]) -> Any:
    """The object of a row that cannot be filled: a tuple, ``None``, or a pytree of a type registered with
    JAX.
    """
    if row.kind == NONE:
        return None
    if row.kind == TUPLE:
        return _tuple_of(row.type, items)
    return jax.tree.unflatten(row.meta, items)


def fill(row: Row, obj: Any, items: list[Any]) -> None:
    """Put into the object of a row what it holds."""
    if row.kind == LIST:
        list.extend(obj, items)
        return
    found = dict(zip(row.keys, items, strict=True))
    if row.kind == DICT:
        put: Any = dict.__setitem__ if row.type in (dict, NestedDict) else getattr(row.type, "__setitem__")  # noqa: B009
        for key in row.meta[0] or row.keys:
            put(obj, key, found[key])
    elif row.kind == NODE:
        attributes = object.__getattribute__(obj, "__dict__")
        for key in row.order or row.keys:
            attributes[key] = found[key]
    else:
        set_key = registered(row.type).set_key
        for key, item in found.items():
            set_key(obj, key, item)


def as_mapping(states: Any) -> Mapping[Any, Any]:
    """States by path or nested, as they were given; refuses everything else."""
    if not isinstance(states, Mapping):
        raise TypeError(f"the States of a model come as a mapping by path, not as a {type(states).__name__}")
    return states

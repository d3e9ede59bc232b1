"""Between objects and values: taking a model apart into a definition and the values of its States, and
putting it together again.

``treefy_split`` and ``treefy_merge`` are what programs on plain JAX use; ``flatten`` and ``unflatten`` are
the same for one mapping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import jax
import numpy as np

from stategraph.errors import describe
from stategraph.graph.definition import (
    DATA,
    ROW,
    SEEN,
    SEEN_CONTAINER,
    SETTING,
    STATE_AT,
    Field,
    NodeDef,
    NodeRef,
    Row,
    Table,
    as_mapping,
    create_empty,
    create_whole,
    fill,
)
from stategraph.graph.kinds import (
    ARRAY,
    DICT,
    LEAF,
    LIST,
    NODE,
    NONE,
    PYTREE,
    REGISTERED,
    STATE,
    check_root,
    children_of,
    kind_of,
    registered,
)
from stategraph.graph.node import Node, instance_dict, saw_structure
from stategraph.graph.references import RefMap
from stategraph.recording import LOCAL
from stategraph.state import State
from stategraph.typing import Filter, PathParts
from stategraph.util.mapping import FlattedDict, NestedDict, iter_entries, split_entries
from stategraph.util.treefy import TreefyState, treefy

Found = list[tuple[PathParts, State[Any]]]


# --------------------------------------------------------------------------------------------- taking apart


def take_apart(root: Any, index: RefMap) -> tuple[NodeDef | NodeRef, Found]:
    """The definition of a model, and its States that ``index`` did not hold, with their paths."""
    check_root(root, "this")
    numbers = index._items
    kind = kind_of(root)
    if kind == STATE:
        raise TypeError(
            describe(
                "A State by itself has no structure.",
                state=root._describe(),
                fix="use a Node that holds it, or `state.value`",
            )
        )
    if id(root) in numbers:
        return NodeRef(type(root), numbers[id(root)][1]), []
    recorder = LOCAL.recorder
    rows: list[Row] = []
    containers: dict[int, tuple[Any, int]] = {}
    arrays: list[Any] = []
    found: Found = []
    places: list[tuple[PathParts, int, type]] = []

    def begin(
        path: PathParts, obj: Any, kind: int
    ) -> tuple[PathParts, list[Field], Iterator[tuple[Any, Any]]]:
        number = -1
        if kind in (NODE, REGISTERED):
            number = len(numbers)
            numbers[id(obj)] = (obj, number)
            if recorder is not None and kind == NODE:
                saw_structure(recorder, obj)
        elif kind in (LIST, DICT):
            containers[id(obj)] = (obj, len(rows))
        items = children_of(obj, kind)
        row = _new_row(obj, kind, number, tuple([key for key, _ in items]))
        rows.append(row)
        return path, row.fields, iter(items)

    stack = [begin((), root, kind)]
    while stack:
        path, fields, items = stack[-1]
        for key, child in items:
            kind = kind_of(child)
            if kind == LEAF:
                if isinstance(child, (set, frozenset)):
                    _check_set(child, (*path, key))
                fields.append((SETTING, child))
            elif kind == STATE:
                known = numbers.get(id(child))
                if known is None:
                    number = len(numbers)
                    numbers[id(child)] = (child, number)
                    found.append(((*path, key), child))
                    places.append(((*path, key), number, type(child)))
                else:
                    number = known[1]
                fields.append((STATE_AT, number, type(child)))
            elif kind == ARRAY:
                fields.append((DATA, len(arrays)))
                arrays.append(child)
            elif id(child) in numbers:
                fields.append((SEEN, numbers[id(child)][1], type(child)))
            elif id(child) in containers:
                fields.append((SEEN_CONTAINER, containers[id(child)][1]))
            else:
                fields.append((ROW, len(rows)))
                if kind == NONE:
                    rows.append(_NONE_ROW)
                    continue
                stack.append(begin((*path, key), child, kind))
                break
        else:
            stack.pop()
    return NodeDef(Table(rows, places), arrays), found


_NONE_ROW = Row(NONE, type(None), -1, (), None, None)


def _new_row(obj: Any, kind: int, number: int, keys: tuple[Any, ...]) -> Row:
    meta: Any = None
    order: tuple[Any, ...] | None = None
    if kind == NODE:
        given = tuple(instance_dict(obj))
        order = None if given == keys else given
    elif kind == DICT:
        given = tuple(obj)
        meta = (None if given == keys else given, getattr(obj, "default_factory", None))
    elif kind == REGISTERED:
        meta = registered(type(obj)).flatten(obj)[1]
    elif kind == PYTREE:
        meta = jax.tree.structure(obj, is_leaf=lambda x: x is not obj)
    return Row(kind, type(obj), number, keys, meta, order)


def _check_set(items: Any, path: PathParts) -> None:
    for item in items:
        if isinstance(item, (Node, State)):
            raise TypeError(
                describe(
                    f"There is a {type(item).__name__} in a set, at {path!r}.",
                    why="a set has no order, so what it holds has no path",
                    fix="use a list, a tuple or a dict",
                )
            )


# ----------------------------------------------------------------------------------------- putting together


def put_together(
    definition: NodeDef | NodeRef,
    given: Mapping[Any, Any],
    index: MutableMapping[int, Any],
    reuse: Mapping[int, Any],
) -> Any:
    """The model of a definition. ``index`` holds objects that exist, by index, and gets those that are
    made.
    """
    if isinstance(definition, NodeRef):
        if definition.index not in index:
            raise ValueError(
                describe(
                    f"The definition is a reference to a {definition.type.__name__} of another one.",
                    why="the model was split in a split_context, after one that shares Nodes with it",
                    fix="merge them in the same order in one merge_context",
                )
            )
        return index[definition.index]
    if definition.position != 0:
        raise ValueError("a part of a definition cannot be merged by itself; take the definition of the part")
    table = definition.table
    for (_, number, _), value in zip(table.states, _match(table, given), strict=True):
        known = reuse.get(number)
        if known is not None:
            known.value = value.value if isinstance(value, (TreefyState, State)) else value
            index[number] = known
        else:
            index[number] = value if isinstance(value, State) else value.to_state()
    objects: list[Any] = []
    for row in table.rows:
        obj = reuse.get(row.index) if row.index >= 0 else None
        if obj is None:
            obj = create_empty(row)
        else:
            _clear(obj)
        objects.append(obj)
        if row.index >= 0:
            index[row.index] = obj
    arrays = definition.arrays
    for position in reversed(range(len(objects))):
        # What a row holds comes after it, and is whole before it is held.
        row = table.rows[position]
        items = []
        for field in row.fields:
            what = field[0]
            if what in (ROW, SEEN_CONTAINER):
                items.append(objects[field[1]])
            elif what == SETTING:
                items.append(field[1])
            elif what == DATA:
                items.append(arrays[field[1]])
            else:
                items.append(_known(index, field))
        if objects[position] is None:
            objects[position] = create_whole(row, items)
        else:
            fill(row, objects[position], items)
    return objects[0]


def _known(index: Mapping[int, Any], field: Field) -> Any:
    try:
        return index[field[1]]
    except KeyError:
        raise ValueError(
            describe(
                f"The definition refers to {field[2].__name__} number {field[1]}, which it does not define.",
                why="the model was split in a split_context, after one that shares Nodes or States with it",
                fix="merge them in the same order in one merge_context",
            )
        ) from None


def _clear(obj: Any) -> None:
    if kind_of(obj) == REGISTERED:
        registered(type(obj)).clear(obj)
        return
    for name in list(instance_dict(obj)):
        delattr(obj, name)


def _match(table: Table, given: Mapping[Any, Any]) -> list[Any]:
    """What is given for each State of a table: a ``TreefyState``, or a State to be used itself."""
    wanted = {path: (number, kind) for path, number, kind in table.states}
    found = given if type(given) is FlattedDict else dict(iter_entries(given, stop=wanted))
    if len(found) != len(wanted) or any(path not in found for path in wanted):
        _refuse(wanted, found)
    values = []
    for path, (_, kind) in wanted.items():
        value = found[path]
        values.append(value if isinstance(value, (TreefyState, State)) else TreefyState(kind, value))
    return values


def _refuse(wanted: Mapping[PathParts, Any], found: Mapping[PathParts, Any]) -> None:
    missing = [path for path in wanted if path not in found]
    extra = [path for path in found if path not in wanted]
    parts = [f"missing: {', '.join(map(repr, missing[:5]))}"] if missing else []
    parts += [f"unknown: {', '.join(map(repr, extra[:5]))}"] if extra else []
    raise ValueError(
        describe(
            f"The values do not fit the definition: {len(missing)} States of {len(wanted)} have none"
            f"{f', and {len(extra)} values have no State' if extra else ''}.",
            why="; ".join(parts),
            fix="pass all groups that treefy_split gave: treefy_merge(graphdef, *groups)",
        )
    )


# ---------------------------------------------------------------------------------------------- public face


def graphdef(node: Any) -> NodeDef:
    """The structure of a model, without the values of its States.

    Args:
      node: a model, or a list, tuple or dict of models.

    Returns:
      A ``NodeDef``: printable, hashable, comparable. Models that differ only in the values of their States
      have equal definitions.

    Example:

    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self, gain):
    ...         self.gain = gain
    ...         self.v = sg.HiddenState(0.0)
    >>> [sg.graph.graphdef(Net(2)) == sg.graph.graphdef(Net(gain)) for gain in (2, 3, 2.0)]
    [True, False, False]
    """
    definition, _ = take_apart(node, RefMap())
    assert isinstance(definition, NodeDef)
    return definition


def flatten(
    node: Any, ref_index: RefMap | None = None, treefy_state: bool = True
) -> tuple[NodeDef | NodeRef, NestedDict]:
    """The structure of a model, and its States.

    Args:
      node: a model, or a list, tuple or dict of models.
      ref_index: Nodes and States that other definitions hold already, by index; gets those of this one.
      treefy_state: whether the mapping has values (``TreefyState``) or the States themselves.

    Returns:
      (definition, States by path as a ``NestedDict``), for ``unflatten``.
    """
    definition, found = take_apart(node, RefMap() if ref_index is None else ref_index)
    return definition, NestedDict.from_flat(
        {path: treefy(state) if treefy_state else state for path, state in found}
    )


def unflatten(
    graphdef: NodeDef | NodeRef,
    state_mapping: Mapping[Any, Any],
    index_ref: MutableMapping[int, Any] | None = None,
    index_ref_cache: Mapping[int, Any] | None = None,
) -> Any:
    """The model that ``flatten`` took apart.

    Args:
      graphdef: the structure.
      state_mapping: the States, nested or by path: as ``TreefyState``, as plain values, or States that the
        model is to hold themselves.
      index_ref: objects that exist already, by index; gets those that are made.
      index_ref_cache: objects to fill anew instead of making others, by index.

    Raises:
      ValueError: when a State has no value, or a value no State.
    """
    index: MutableMapping[int, Any] = {} if index_ref is None else index_ref
    return put_together(graphdef, as_mapping(state_mapping), index, index_ref_cache or {})


def treefy_split(node: Any, *filters: Filter) -> Any:
    """Take a model apart into its structure and the values of its States, for plain JAX.

    Args:
      node: a model, or a list, tuple or dict of models.
      *filters: one group of values for each; every State goes to the first filter that matches.

    Returns:
      ``(graphdef, values)``, or ``(graphdef, values_1, values_2, …)``, each a ``NestedDict`` of
      ``TreefyState``.

    Raises:
      ValueError: when a State matches none of the filters; ``...`` as the last one takes the rest.

    Example:

    >>> import jax
    >>> import stategraph as sg
    >>> class Scale(sg.graph.Node):
    ...     def __init__(self):
    ...         self.gain = sg.ParamState(3.0)
    ...         self.calls = sg.State(0)
    ...     def __call__(self, x):
    ...         self.calls.value += 1
    ...         return self.gain.value * x
    >>> graphdef, params, others = sg.graph.treefy_split(Scale(), sg.ParamState, ...)
    >>> jax.grad(lambda params: sg.graph.treefy_merge(graphdef, params, others)(2.0))(params)["gain"].value
    Array(2., dtype=float32)
    """
    definition, found = take_apart(node, RefMap())
    return (definition, *grouped(found, filters))


def grouped(found: Found, filters: tuple[Filter, ...]) -> list[NestedDict]:
    if not filters:
        return [NestedDict.from_flat({path: treefy(state) for path, state in found})]
    groups = split_entries(FlattedDict(found), filters, exhaustive=True)
    return [NestedDict.from_flat({path: treefy(state) for path, state in group.items()}) for group in groups]


def treefy_merge(graphdef: NodeDef | NodeRef, *state_mappings: Mapping[Any, Any]) -> Any:
    """Put a model together again from its structure and all groups of values.

    The model is a new one, also inside ``jax.jit``, ``jax.grad`` and ``jax.lax.scan``, where its States may
    be written.

    Raises:
      ValueError: when a State has no value, or a value no State.
    """
    return put_together(graphdef, merged(graphdef, state_mappings), {}, {})


def merged(definition: NodeDef | NodeRef, mappings: Iterable[Mapping[Any, Any]]) -> Mapping[Any, Any]:
    given = [as_mapping(one) for one in mappings]
    if len(given) == 1:
        return given[0]
    wanted = {path: None for path, _, _ in definition.table.states} if isinstance(definition, NodeDef) else {}
    merged = FlattedDict()
    for one in given:
        merged.update(iter_entries(one, stop=wanted))
    return merged


def treefy_states(node: Any, *filters: Filter) -> Any:
    """The values of the States of a model, as pytrees.

    Args:
      node: a model, or a list, tuple or dict of models.
      *filters: which States; one group for each, and States that match none are left out.

    Returns:
      A ``NestedDict`` of ``TreefyState``; with several filters a tuple of them.
    """
    from stategraph.graph.walk import states

    found = states(node, *filters)
    if isinstance(found, tuple):
        return tuple(NestedDict.from_flat(group.treefy_state()) for group in found)
    return NestedDict.from_flat(found.treefy_state())


def clone(node: Any) -> Any:
    """A copy of a model: new Nodes, containers and States, shared where they are shared in the model.
    Settings are the same objects.

    Example:

    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self):
    ...         self.v = sg.HiddenState(1.0)
    >>> net = Net()
    >>> twin = sg.graph.clone(net)
    >>> twin.v.value += 1
    >>> net.v.value, twin.v.value
    (Array(1., dtype=float32), Array(2., dtype=float32))
    """
    definition, found = take_apart(node, RefMap())
    assert isinstance(definition, NodeDef)
    copies = FlattedDict((path, state.copy()) for path, state in found)
    arrays = [array.copy() if isinstance(array, np.ndarray) else array for array in definition.arrays]
    return put_together(NodeDef(definition.table, arrays), copies, {}, {})

"""How States, Nodes, mappings and definitions print: stable, free of addresses, and no deeper than one can
read.

A State by itself prints its value; in the listing of a model it prints shape and dtype. ``show_values``
chooses one of them for both.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from stategraph import _jax
from stategraph.graph.kinds import NODE, REGISTERED, STATE, children, kind_of
from stategraph.graph.node import Node, instance_dict
from stategraph.state import State, Unborn
from stategraph.util.mapping import FlattedDict, sorted_keys
from stategraph.util.treefy import TreefyState

READABLE = 1000
"""Elements of a value that is printed unasked; NumPy abbreviates longer arrays."""

DEPTH = 20
"""Levels that are printed; below, ``...`` stands."""


class _Style:
    values: bool | None = None


class show_values:
    """Choose whether States print their values or only shape and dtype.

    Args:
      values: True for values everywhere, False for shapes and dtypes everywhere, None for the default: the
        value for a State by itself, shape and
        dtype in the listing of a model.

    The choice holds from now on; as a context manager, to the end of the block.

    Example:

    >>> import stategraph as sg
    >>> with sg.graph.show_values(False):
    ...     sg.State(1.0)
    State(
      value=ShapedArray(float32[])
    )
    """

    def __init__(self, values: bool | None) -> None:
        self.before = _Style.values
        _Style.values = values

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: Any) -> None:
        _Style.values = self.before


# ---------------------------------------------------------------------------------------------------- texts


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def _block(left: str, lines: list[str], right: str) -> str:
    """``left``, one indented item a line, ``right``; on one line when there is nothing inside."""
    body = _indent(",\n".join(lines))
    return f"{left}\n  {body}\n{right}" if lines else f"{left}{right}"


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def plain_repr(value: Any) -> str:
    """``repr`` without addresses; functions by name."""
    if isinstance(value, (set, frozenset)):
        items = ", ".join(sorted(map(plain_repr, value)))
        return (
            f"{{{items}}}"
            if type(value) is set and value
            else f"{type(value).__name__}({f'{{{items}}}' if value else ''})"
        )
    if not isinstance(value, type) and callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return _ADDRESS.sub("", repr(value))


class _Bare(str):
    def __repr__(self) -> str:
        return str(self)


def leaf_text(leaf: Any, values: bool) -> str:
    """One array: its value, or ``ShapedArray(float32[3])``, which stands also for what has no value now."""
    if isinstance(leaf, Unborn):
        leaf = leaf.example
    if isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        known = isinstance(leaf, np.ndarray) or (
            isinstance(leaf, jax.Array) and not _jax.is_tracer(leaf) and not leaf.is_deleted()
        )
        if values and known and not _jax.is_key_array(leaf):
            return repr(leaf)
        return f"ShapedArray({leaf.dtype}[{','.join(map(str, leaf.shape))}])"
    return plain_repr(leaf)


def value_text(leaves: list[Any], tree: Any, values: bool) -> str:
    """The value of a State: on one line with values, one leaf a line without."""
    texts = [_Bare(leaf_text(leaf, values)) for leaf in leaves]
    if tree is None:
        return texts[0]
    whole = jax.tree.unflatten(tree, texts)
    return repr(whole) if values or not isinstance(whole, dict) else _dict_text(whole, 0)


def _dict_text(items: dict[Any, Any], depth: int) -> str:
    if depth > DEPTH:
        return "{...}"
    lines = []
    for key in sorted_keys(items):
        item = items[key]
        lines.append(f"{key!r}: {_dict_text(item, depth + 1) if type(item) is dict else repr(item)}")
    return _block("{", lines, "}")


# --------------------------------------------------------------------------------------------------- States


def state_repr(state: State[Any], listed: bool = False) -> str:
    """``ParamState(\\n  value=Array([1., 1.], dtype=float32)\\n)``; ``listed`` in the listing of a model."""
    values = _Style.values if _Style.values is not None else not listed and state.size <= READABLE
    lines = [f"value={value_text(state._peek(), state._tree, values)}"]
    if state.name is not None:
        lines.append(f"name={state.name!r}")
    if state.tag:
        lines.append(f"tag={sorted(state.tag)!r}")
    lines += [f"{key}={plain_repr(item)}" for key, item in sorted(state.metadata.items())]
    return _block(f"{type(state).__name__}(", lines, ")")


def treefy_repr(state: TreefyState) -> str:
    """``TreefyState(\\n  type=…,\\n  value=…,\\n  tag=None\\n)``."""
    values = _Style.values is not False
    leaves, tree = jax.tree.flatten(state.value)
    whole = jax.tree.unflatten(tree, [_Bare(leaf_text(leaf, values)) for leaf in leaves])
    value = _dict_text(whole, 0) if type(whole) is dict else repr(whole)
    lines = [f"type={state.type}", f"value={value}"]
    if state.name is not None:
        lines.append(f"name={state.name!r}")
    lines.append(f"tag={sorted(state.tag) if state.tag else None!r}")
    lines += [f"{key}={plain_repr(item)}" for key, item in sorted(state.metadata.items())]
    return _block("TreefyState(", lines, ")")


# ---------------------------------------------------------------------------------------------------- Nodes


def node_repr(node: Any) -> str:
    """``Class(\\n  attribute=…,\\n)`` with nested Nodes; an object met again prints as ``Class(...)``."""
    return _text(node, {}, 0)


def _text(value: Any, seen: dict[int, Any], depth: int) -> str:
    kind = kind_of(value)
    if kind in (NODE, REGISTERED):
        return _node_text(value, kind, seen, depth)
    if kind == STATE:
        return state_repr(value, listed=True)
    if isinstance(value, (list, tuple)) and any(map(_is_part, value)):
        if id(value) in seen:
            return "[...]"
        seen[id(value)] = value
        left, right = ("[", "]") if isinstance(value, list) else ("(", ")")
        return _block(left, [_text(item, seen, depth + 1) for item in value], right)
    if isinstance(value, dict) and any(map(_is_part, value.values())):
        if id(value) in seen:
            return "{...}"
        seen[id(value)] = value
        return _block("{", [f"{key!r}: {_text(item, seen, depth + 1)}" for key, item in value.items()], "}")
    if isinstance(value, (jax.Array, np.ndarray)):
        return leaf_text(value, values=_Style.values is True)
    return plain_repr(value)


def _is_part(item: Any) -> bool:
    return kind_of(item) in (NODE, REGISTERED, STATE) or (
        isinstance(item, (list, tuple, dict))
        and bool(item)
        and any(
            kind_of(inner) in (NODE, REGISTERED, STATE)
            for inner in (item.values() if isinstance(item, dict) else item)
        )
    )


def _node_text(node: Any, kind: int, seen: dict[int, Any], depth: int) -> str:
    name = type(node).__name__
    if id(node) in seen or depth > DEPTH:
        return f"{name}(...)"
    seen[id(node)] = node
    items = list(instance_dict(node).items()) if kind == NODE else children(node)
    own: Any = type(node).__repr__
    if depth and kind == NODE and own is not Node.__repr__:
        if not any(_is_part(item) for _, item in items):  # else it may lead back here
            return repr(node)
    lines = [
        f"{str(key).removeprefix('_')}={_text(value, seen, depth + 1)}"
        for key, value in items
        if key != "_name"
    ]
    return _block(f"{name}(", lines, ")")


# ------------------------------------------------------------------------------------------------- mappings


def mapping_repr(mapping: Any) -> str:
    """``FlattedDict({\\n  ('layer', 'weight'): …\\n})``."""
    return f"{type(mapping).__name__}({_level_text(mapping, 0)})"


def _level_text(level: Any, depth: int) -> str:
    if depth > DEPTH:
        return "{...}"
    lines = []
    for key, item in level.items():
        inside = not isinstance(level, FlattedDict) and isinstance(item, type(level))
        lines.append(f"{key!r}: {_level_text(item, depth + 1) if inside else _text(item, {}, 1)}")
    return _block("{", lines, "}")


# ---------------------------------------------------------------------------------------------- definitions


def definition_repr(definition: Any, depth: int = 0) -> str:
    """``NodeDef(\\n  type=A,\\n  index=0,\\n  …)``."""
    from stategraph.graph.definition import NodeDef

    if depth > DEPTH:
        return "NodeDef(...)"

    def table(items: dict[Any, str]) -> str:
        return _block("{", [f"{key!r}: {text}" for key, text in items.items()], "}")

    below = {
        key: definition_repr(part, depth + 1) if isinstance(part, NodeDef) else repr(part)
        for key, part in definition.subgraphs.items()
    }
    settings = {
        key: leaf_text(value, values=_Style.values is not False)
        for key, value in definition.static_fields.items()
    }
    lines = [
        f"type={definition.type.__name__}",
        f"index={definition.index}",
        f"attributes={definition.attributes!r}",
        f"subgraphs={table(below)}",
        f"static_fields={table(settings)}",
        f"leaves={table({key: repr(ref) for key, ref in definition.leaves.items()})}",
        f"metadata={plain_repr(definition.metadata)}",
        f"index_mapping={definition.index_mapping}",
    ]
    return _block("NodeDef(", lines, ")")

"""How States and Nodes print: stable, free of addresses, one attribute a line."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from stategraph import _jax
from stategraph.state import State, Unborn


def state_repr(state: State[Any]) -> str:
    """``ParamState(\\n  value={'bias': f32[3], 'weight': f32[2,3]}\\n)``; small arrays are shown with their values."""
    leaves = [_leaf_text(leaf) for leaf in state._peek()]
    value = leaves[0] if state._tree is None else str(jax.tree.unflatten(state._tree, [_Bare(leaf) for leaf in leaves]))
    lines = [f"value={value}"]
    if state.name is not None:
        lines.append(f"name={state.name!r}")
    if state.tag:
        lines.append(f"tag={sorted(state.tag)!r}")
    lines += [f"{key}={item!r}" for key, item in sorted(state.metadata.items())]
    return f"{type(state).__name__}(\n  " + ",\n  ".join(lines) + "\n)"


class _Bare(str):
    def __repr__(self) -> str:
        return str(self)


def _leaf_text(leaf: Any) -> str:
    if isinstance(leaf, (jax.ShapeDtypeStruct, Unborn)) or _jax.is_tracer(leaf):
        aval = leaf.example if isinstance(leaf, Unborn) else leaf
        return f"{_jax.type_of(jax.core.ShapedArray(aval.shape, aval.dtype))}"
    if isinstance(leaf, jax.Array):
        if leaf.size <= 8 and not _jax.is_key_array(leaf) and not leaf.is_deleted():
            return f"Array({np.array2string(np.asarray(leaf), separator=', ')}, dtype={leaf.dtype})"
        return str(_jax.type_of(jax.core.ShapedArray(leaf.shape, leaf.dtype)))
    return repr(leaf)


def node_repr(node: Any, seen: frozenset[int] = frozenset(), depth: int = 0) -> str:
    """``Class(\\n  attribute=…,\\n)`` with nested Nodes; an object met again prints as ``Class(...)``."""
    name = type(node).__name__
    if id(node) in seen or depth > 20:
        return f"{name}(...)"
    inner = seen | {id(node)}
    lines = []
    for key, value in object.__getattribute__(node, "__dict__").items():
        if key in ("_name",):
            continue
        lines.append(f"{key.removeprefix('_')}={_value_text(value, inner, depth)}")
    if not lines:
        return f"{name}()"
    body = ",\n".join(lines).replace("\n", "\n  ")
    return f"{name}(\n  {body}\n)"


def _value_text(value: Any, seen: frozenset[int], depth: int) -> str:
    from stategraph.graph.node import Node

    if isinstance(value, Node):
        return node_repr(value, seen, depth + 1)
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Node, State)) for item in value):
        if id(value) in seen:
            return "[...]"
        items = [_value_text(item, seen | {id(value)}, depth + 1) for item in value]
        left, right = ("[", "]") if isinstance(value, list) else ("(", ")")
        return left + "\n  " + ",\n".join(items).replace("\n", "\n  ") + "\n" + right
    if isinstance(value, (jax.Array, np.ndarray)):
        return _leaf_text(value) if isinstance(value, jax.Array) else f"ndarray({value.dtype}{list(value.shape)})"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return repr(value)

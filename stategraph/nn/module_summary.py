"""What a model consists of, counted: Nodes, States and parameters, each once however many paths lead to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import jax

from stategraph import units
from stategraph.graph.kinds import is_node
from stategraph.graph.show import leaf_text
from stategraph.graph.walk import seen_walk, states
from stategraph.nn.module_views import dotted
from stategraph.state import ParamState, State
from stategraph.typing import Filter, PathParts


def count_parameters(node: Any, *filters: Filter) -> int:
    """The number of trainable scalars of a model: the elements of all its ``ParamState``, each counted once.

    Args:
      node: any Node, or a container of Nodes.
      *filters: which States to count instead.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Layer(sg.graph.Node):
    ...     def __init__(self):
    ...         self.weight = sg.ParamState({"weight": jnp.ones((2, 3)), "bias": jnp.zeros(3)})
    >>> sg.nn.count_parameters([Layer(), Layer()])
    18
    """
    return sum(state.size for state in states(node, filters or ParamState).values())


@attrs.frozen
class SummaryRow:
    """One Node of a summary."""

    path: PathParts
    type: str
    states: tuple[tuple[str, str, str], ...]
    """(name, kind, shape and dtype) of the States that the Node holds itself."""
    parameters: int
    """Trainable scalars that the Node holds itself."""
    level: int


@attrs.frozen
class Summary:
    """What a model consists of; prints as a table."""

    rows: tuple[SummaryRow, ...]
    nodes: int
    """Nodes, the model itself included."""
    states: int
    """States of any kind."""
    parameters: int
    """Trainable scalars."""
    values: int
    """Scalars in all States."""
    nbytes: int
    """Bytes of all States."""
    depth: int
    """The highest level: 0 for a Node that holds no others."""

    def __str__(self) -> str:
        lines = [("node", "state", "kind", "value", "parameters")]
        for row in self.rows:
            name = dotted(row.path[-1:])
            title = "  " * row.level + (f"{name} ({row.type})" if name else row.type)
            first, *more = row.states or (("", "", ""),)
            lines.append((title, *first, f"{row.parameters:,}"))
            lines += [("", *state, "") for state in more]
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        texts = []
        for *cells, number in lines:
            left = [cell.ljust(width) for cell, width in zip(cells, widths[:4], strict=True)]
            texts.append("  ".join([*left, number.rjust(widths[4])]).rstrip())
        rule = "-" * (sum(widths) + 8)
        counts = [
            _count(self.nodes, "node"),
            _count(self.states, "state"),
            _count(self.parameters, "parameter"),
        ]
        total = f"{', '.join(counts)}, {_count(self.values, 'value')} in {_bytes(self.nbytes)}"
        return "\n".join([texts[0], rule, *texts[1:], rule, total])

    __repr__ = __str__


def summary(node: Any) -> Summary:
    """What a model consists of: a row for each Node with the States that it holds itself, and the totals.

    Every Node and State counts once, at the first of its paths.

    Args:
      node: any Node, or a container of Nodes.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Net(sg.graph.Node):
    ...     def __init__(self):
    ...         self.weight = sg.ParamState(jnp.ones((2, 3)))
    ...         self.v = sg.HiddenState(jnp.zeros(3))
    >>> sg.nn.summary(Net())
    node  state   kind         value         parameters
    ---------------------------------------------------
    Net   v       HiddenState  float32[3]             6
          weight  ParamState   float32[2,3]
    ---------------------------------------------------
    1 node, 2 states, 6 parameters, 9 values in 36 bytes
    """
    found = {path: obj for path, obj in seen_walk(node) if is_node(obj)}
    held = states(node)
    own: dict[PathParts, list[tuple[PathParts, State[Any]]]] = {}
    for path, state in held.items():
        length = max((i for i in range(len(path)) if path[:i] in found), default=0)
        own.setdefault(path[:length], []).append((path[length:], state))
    rows = []
    for path, obj in found.items():
        mine = own.get(path, [])
        rows.append(
            SummaryRow(
                path=path,
                type=type(obj).__name__,
                states=tuple((dotted(name), type(state).__name__, _shape(state)) for name, state in mine),
                parameters=_parameters(state for _, state in mine),
                level=sum(path[:i] in found for i in range(len(path))),
            )
        )
    return Summary(
        rows=tuple(rows),
        nodes=len(found),
        states=len(held),
        parameters=_parameters(held.values()),
        values=sum(state.size for state in held.values()),
        nbytes=sum(state.nbytes for state in held.values()),
        depth=max((row.level for row in rows), default=0),
    )


def _parameters(found: Iterable[State[Any]]) -> int:
    return sum(state.size for state in found if isinstance(state, ParamState))


def _shape(state: State[Any]) -> str:
    texts = [
        leaf_text(leaf, values=False).removeprefix("ShapedArray(").removesuffix(")") for leaf in state._peek()
    ]
    texts = [f"{text} {unit}".rstrip() for text, unit in zip(texts, units.texts_of(state), strict=True)]
    tree = units.plain_structure(state._tree)
    if tree is None:
        return texts[0]
    return repr(jax.tree.unflatten(tree, texts)).replace("'", "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _bytes(number: int) -> str:
    size, unit = float(number), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{number} bytes" if unit == "bytes" else f"{size:.1f} {unit}"

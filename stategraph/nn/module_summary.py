"""What a model consists of, counted: Nodes, States and parameters, each once however many paths lead to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, overload

import attrs
import jax

from stategraph import units
from stategraph.graph.kinds import is_node
from stategraph.graph.show import leaf_text
from stategraph.graph.walk import seen_walk, states
from stategraph.nn.module_views import dotted
from stategraph.state import ParamState, State
from stategraph.typing import Filter, PathParts


@overload
def count_parameters(
    module: Any, *filters: Filter, precision: int = 2, return_table: Literal[False] = False
) -> int: ...
@overload
def count_parameters(
    module: Any, *filters: Filter, precision: int = 2, return_table: Literal[True]
) -> tuple[int, Summary]: ...
def count_parameters(
    module: Any, *filters: Filter, precision: int = 2, return_table: bool = False
) -> int | tuple[int, Summary]:
    """The number of trainable scalars of a model: the elements of all its ``ParamState``, each counted once.

    Args:
      module: any Node, or a container of Nodes.
      *filters: which States to count instead.
      precision: the decimals of the size in memory that the table ends with.
      return_table: whether to return the table of ``summary`` as well: ``(number, table)``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Layer(sg.graph.Node):
    ...     def __init__(self):
    ...         self.weight = sg.ParamState({"weight": jnp.ones((2, 3)), "bias": jnp.zeros(3)})
    >>> sg.nn.count_parameters([Layer(), Layer()])
    18
    """
    number = sum(state.size for state in states(module, filters or ParamState).values())
    return (number, attrs.evolve(summary(module), precision=precision)) if return_table else number


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
    precision: int = 1
    """The decimals of the bytes in the text."""

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
        total = (
            f"{', '.join(counts)}, {_count(self.values, 'value')} in {_bytes(self.nbytes, self.precision)}"
        )
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
        length = next((i for i in range(len(path) - 1, -1, -1) if path[:i] in found), 0)
        own.setdefault(path[:length], []).append((path[length:], state))
    rows: list[SummaryRow] = []
    levels: dict[PathParts, int] = {}
    for path, obj in found.items():
        above = next((i for i in range(len(path) - 1, -1, -1) if path[:i] in found), None)
        levels[path] = 0 if above is None else levels[path[:above]] + 1
        mine = own.get(path, [])
        rows.append(
            SummaryRow(
                path=path,
                type=type(obj).__name__,
                states=tuple((dotted(name), type(state).__name__, _shape(state)) for name, state in mine),
                parameters=_parameters(state for _, state in mine),
                level=levels[path],
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


def _bytes(number: int, precision: int) -> str:
    size, unit = float(number), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{number} bytes" if unit == "bytes" else f"{size:.{precision}f} {unit}"

"""Shardings at ``jit``: of arguments, of results, and of States by filter.

What is said of States becomes an attribute of their symbols, where passes, listings and the backend find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from stategraph.backends.params import treedef_of
from stategraph.backends.placement import sharding_attribute
from stategraph.sharding import per_leaf, prefix
from stategraph.state import State
from stategraph.tracing.tracer import Trace
from stategraph.util.filter import to_predicate

Rows = list[tuple[Any, Any]]
"""(State or predicate, what is said of it), in the order in which they are asked."""
UNSAID: Any = object()


@attrs.frozen(eq=False)
class Shardings:
    """What ``jit`` was told."""

    arguments: Any
    results: Any
    states: Rows

    def options(self) -> dict[str, Any]:
        """What ``backends.xla.build`` is told."""
        return {"in_shardings": self.arguments, "out_shardings": self.results}

    def declare(self, trace: Trace) -> None:
        """Write down in the program where its States lie."""
        for path, state in {**trace.states, **trace.born}.items():
            said, _ = said_of(state, path, self.states)
            if said is not UNSAID:
                symbol = trace.program.states[path]
                leaves = per_leaf("state_shardings", said, treedef_of(symbol.tree))
                symbol.attributes = {**symbol.attributes, "sharding": sharding_attribute(leaves)}


def shardings_of(in_shardings: Any, out_shardings: Any, state_shardings: Any) -> Shardings | None:
    """What the options of ``jit`` say, None if nothing; raises ``TypeError`` for what is no sharding."""
    if in_shardings is None and out_shardings is None and state_shardings is None:
        return None
    rows = rows_of("state_shardings", state_shardings, lambda value: False, "a Sharding")
    return Shardings(
        prefix("in_shardings", in_shardings),
        prefix("out_shardings", out_shardings),
        [(key, prefix("state_shardings", said)) for key, said in rows],
    )


def rows_of(what: str, wanted: Any, is_one: Callable[[Any], bool], kind: str) -> Rows:
    """The rows of ``{State or filter: value}``; a tuple of States counts as each of them. One value alone, where
    that is allowed, is for all States.
    """
    if wanted is None:
        return []
    if is_one(wanted):
        return [(to_predicate(...), wanted)]
    if not isinstance(wanted, Mapping):
        raise TypeError(f"{what} is a {type(wanted).__name__}; give {{State or filter: {kind}}}")
    rows: Rows = []
    for key, value in wanted.items():
        several = isinstance(key, tuple) and key and all(isinstance(item, State) for item in key)
        if isinstance(key, State) or several:
            rows += [(state, value) for state in (key if several else (key,))]
        else:
            rows.append((to_predicate(key), value))
    return rows


def said_of(state: State[Any], path: str, rows: Iterable[tuple[Any, Any]]) -> tuple[Any, bool]:
    """(what is said of a State, ``UNSAID`` for nothing; whether it is named)."""
    for key, value in rows:
        if isinstance(key, State):
            if key is state:
                return value, True
        elif key(tuple(path.split(".")), state):
            return value, False
    return UNSAID, False

"""Placement: where a program's arguments, results and States lie.

A State's sharding is an attribute of its symbol, one entry per leaf: it is moved there before a call, and what
the program writes comes out there. JAX takes the shardings of arguments and results as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from stategraph.backends.params import decode, encode
from stategraph.errors import LoweringError
from stategraph.ir.attributes import RegionRef
from stategraph.ir.core import Program

Leaf = tuple[str, int]


@attrs.frozen(eq=False)
class Placement:
    """Shardings of State leaves, of arguments and of results."""

    states: dict[Leaf, Any]
    arguments: Any = None
    """As ``jax.jit`` takes them for the positional arguments; None: wherever they are."""
    results: Any = None

    given: Sequence[int] = ()
    """Positions of donated arguments, which JAX gets with the State leaves."""

    def options(self, written: Sequence[Leaf], in_tree: Any, checked: bool) -> dict[str, Any]:
        """``in_shardings`` and ``out_shardings`` of ``jax.jit`` for (donated, kept, *arguments) and (new leaves,
        results); ``checked`` results come with the leaves of runtime checks.
        """
        results = (self.results, None) if checked else self.results
        found: dict[str, Any] = {"out_shardings": ([self.states.get(leaf) for leaf in written], results)}
        if self.arguments is not None:
            each = self._each(in_tree)
            first = None if not self.given else (None, ({i: each[i] for i in self.given}, None))
            rest = [None if i in self.given else sharding for i, sharding in enumerate(each)]
            found["in_shardings"] = (first, None, *rest)
        return found

    def _each(self, in_tree: Any) -> Sequence[Any]:
        """What is said of each positional argument."""
        positional, named = in_tree.children()
        if named.num_leaves:
            raise TypeError(
                "in_shardings are those of positional arguments, and this call gives arguments by name; "
                "give them by position"
            )
        count = len(positional.children())
        if not isinstance(self.arguments, (tuple, list)):
            return [self.arguments] * count
        if len(self.arguments) != count:
            raise TypeError(
                f"in_shardings has {len(self.arguments)} entries, and the function was given {count} arguments "
                "that are not static"
            )
        return self.arguments


def placement_of(
    program: Program, arguments: Any = None, results: Any = None, given: Sequence[int] = ()
) -> Placement | None:
    """The placement that a program's State table and these shardings ask for; None when nothing does."""
    states: dict[Leaf, Any] = {}
    for path, symbol in program.states.items():
        for i, item in enumerate(symbol.attributes.get("sharding", ())):
            if item is not None:
                states[(path, i)] = decode(item, _no_body)
    if not states and arguments is None and results is None:
        return None
    return Placement(states, arguments, results, given)


def sharding_attribute(shardings: Sequence[Any]) -> tuple[Any, ...]:
    """Shardings of a State's leaves as an attribute of its symbol."""
    return tuple(encode(sharding, _no_body) for sharding in shardings)


def _no_body(*_: Any) -> RegionRef:
    raise LoweringError("a sharding holds a function body")

"""Tree structures: how a nested Python value is laid out as a flat list of leaves.

A State may hold a nested value (a dict of weight and bias), and a program takes and returns nested values.
The IR sees their leaves; a ``Tree`` remembers the nesting, independently of JAX. It prints like the value it
stands for, with ``*`` for a leaf: ``{'bias': *, 'weight': *}``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

TREE_KINDS = ("leaf", "none", "tuple", "list", "dict", "custom")


@attrs.frozen(slots=True, cache_hash=True)
class Tree:
    """One node of a structure.

    ``kind`` is one of ``TREE_KINDS``. ``keys`` are a dict's keys, ``name`` names a custom node (a namedtuple
    or registered class) and ``payload`` is whatever the front end needs to rebuild that class; it takes no
    part in comparison.
    """

    kind: str
    children: tuple[Tree, ...] = ()
    keys: tuple[Any, ...] = ()
    name: str = ""
    payload: Any = attrs.field(default=None, eq=False, repr=False)

    @property
    def leaf_count(self) -> int:
        if self.kind == "leaf":
            return 1
        return sum(child.leaf_count for child in self.children)

    @property
    def is_leaf(self) -> bool:
        return self.kind == "leaf"

    def leaf_paths(self, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """The path of every leaf, in order: keys of dicts, positions elsewhere."""
        if self.kind == "leaf":
            yield prefix
            return
        steps = self.keys if self.kind == "dict" or self.keys else range(len(self.children))
        for step, child in zip(steps, self.children, strict=True):
            yield from child.leaf_paths((*prefix, step))

    def __str__(self) -> str:
        if self.kind == "leaf":
            return "*"
        if self.kind == "none":
            return "None"
        inner = [str(child) for child in self.children]
        if self.kind == "tuple":
            return f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
        if self.kind == "list":
            return f"[{', '.join(inner)}]"
        if self.kind == "dict":
            return (
                "{" + ", ".join(f"{key!r}: {text}" for key, text in zip(self.keys, inner, strict=True)) + "}"
            )
        names = self.keys or range(len(inner))
        return (
            f"{self.name}(" + ", ".join(f"{key}={text}" for key, text in zip(names, inner, strict=True)) + ")"
        )


LEAF = Tree("leaf")
NONE = Tree("none")


def tuple_tree(*children: Tree) -> Tree:
    return Tree("tuple", children)

"""Collections of modules and parameters: iterated, they give the things; by path or dotted name, one of
them.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any, Generic, TypeVar

from stategraph.typing import PathParts

T = TypeVar("T")


class Collection(Generic[T]):
    """Things of a model in order: iterable like a list of them, and a mapping by path or dotted name.

    Example:

    >>> from stategraph.nn.module_views import Collection
    >>> found = Collection([(("layers", 0), "first"), (("out",), "last")])
    >>> list(found), found["layers.0"], found["layers", 0], found[-1], len(found)
    (['first', 'last'], 'first', 'first', 'last', 2)
    """

    def __init__(self, items: Iterable[tuple[PathParts, T]]) -> None:
        self._items = dict(items)
        self._iterator: Iterator[T] | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self._items.values())

    def __next__(self) -> T:
        """The next of them, for ``next(model.parameters())``."""
        if self._iterator is None:
            self._iterator = iter(self)
        return next(self._iterator)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, key: PathParts | str | int) -> T:
        if isinstance(key, int):
            return list(self._items.values())[key]
        if isinstance(key, tuple):
            return self._items[key]
        return {dotted(path): item for path, item in self._items.items()}[key]

    def __contains__(self, key: object) -> bool:
        return key in self._items or any(
            item is key or dotted(path) == key for path, item in self._items.items()
        )

    def keys(self) -> KeysView[PathParts]:
        """The paths."""
        return self._items.keys()

    def values(self) -> ValuesView[T]:
        """The things."""
        return self._items.values()

    def items(self) -> ItemsView[PathParts, T]:
        """(path, thing)."""
        return self._items.items()

    def __repr__(self) -> str:
        lines = [f"{dotted(path) or '(itself)'}: {type(item).__name__}" for path, item in self._items.items()]
        return "\n".join(lines) if lines else "nothing"


def dotted(path: PathParts, prefix: str = "") -> str:
    """A path as one name: ``layers.0.weight``."""
    steps: list[Any] = [prefix] if prefix else []
    return ".".join(map(str, (*steps, *path)))

"""A mapping by identity: which object was seen, whatever it equals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any


class RefMap(MutableMapping[Any, Any]):
    """A mapping whose keys are objects themselves, not what they equal.

    Example:

    >>> import stategraph as sg
    >>> a, b = [1], [1]
    >>> refs = sg.graph.RefMap([(a, "a")])
    >>> a in refs, b in refs
    (True, False)
    """

    def __init__(self, mapping: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        self._items: dict[int, tuple[Any, Any]] = {}
        self.update(mapping)

    def __getitem__(self, key: Any) -> Any:
        return self._items[id(key)][1]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._items[id(key)] = (key, value)

    def __delitem__(self, key: Any) -> None:
        del self._items[id(key)]

    def __contains__(self, key: object) -> bool:
        return id(key) in self._items

    def __iter__(self) -> Iterator[Any]:
        return (key for key, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"RefMap({[(type(key).__name__, value) for key, value in self._items.values()]})"

"""Values with named parts: dataclasses and dicts that never change and that JAX sees into."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar, dataclass_transform, overload

import jax

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def field(pytree_node: bool = True, **kwargs: Any) -> Any:
    """A field of a ``dataclass``.

    Args:
      pytree_node: whether it is data (arrays, or pytrees of them); if not, it is a setting, part of the
        structure, hashable and compared with ``==``.
      **kwargs: as for ``dataclasses.field``.
    """
    metadata = {**(kwargs.pop("metadata", None) or {}), "pytree_node": pytree_node}
    return dataclasses.field(metadata=metadata, **kwargs)


@overload
def dataclass(cls: type[T], **kwargs: Any) -> type[T]: ...


@overload
def dataclass(cls: None = None, **kwargs: Any) -> Any: ...


@dataclass_transform(field_specifiers=(field,), frozen_default=True)
def dataclass(cls: type[T] | None = None, **kwargs: Any) -> Any:
    """A frozen dataclass that is a JAX pytree, with a method ``replace``.

    Args:
      cls: the class.
      **kwargs: as for ``dataclasses.dataclass``.

    Example:

    >>> import jax
    >>> import stategraph as sg
    >>> @sg.util.struct.dataclass
    ... class Neuron:
    ...     v: float
    ...     name: str = sg.util.struct.field(pytree_node=False, default="a")
    >>> jax.tree.map(lambda x: 2 * x, Neuron(1.0)).replace(name="b")
    Neuron(v=2.0, name='b')
    """
    if cls is None:
        return lambda found: dataclass(found, **kwargs)
    made: Any = dataclasses.dataclass(cls, **{"frozen": True, **kwargs})
    parts: dict[bool, list[str]] = {True: [], False: []}
    for part in dataclasses.fields(made):
        if part.init:
            parts[part.metadata.get("pytree_node", True)].append(part.name)
    jax.tree_util.register_dataclass(made, data_fields=parts[True], meta_fields=parts[False])
    if not hasattr(made, "replace"):
        made.replace = dataclasses.replace
    return made


@dataclass_transform(field_specifiers=(field,), frozen_default=True)
class PyTreeNode:
    """Base whose subclasses are made a ``dataclass``.

    Example:

    >>> import jax
    >>> import stategraph as sg
    >>> class Point(sg.util.struct.PyTreeNode):
    ...     x: float
    ...     y: float
    >>> jax.tree.leaves(Point(1.0, 2.0).replace(x=3.0))
    [3.0, 2.0]
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()
        dataclass(cls, **kwargs)

    def replace(self, **updates: Any) -> Self:
        """The same with other values in some fields."""
        return dataclasses.replace(self, **updates)  # type: ignore[type-var]


class FrozenDict(Mapping[K, V]):
    """A dict that never changes, all the way down; hashable where its values are, and a JAX pytree.

    Example:

    >>> import stategraph as sg
    >>> frozen = sg.util.FrozenDict({"a": {"b": 1}, "c": 2})
    >>> frozen["a"], frozen.copy({"c": 3})["c"], frozen.pop("a")[0]
    (FrozenDict({'b': 1}), 3, FrozenDict({'c': 2}))
    """

    __slots__ = ("_dict", "_hash")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        items = dict(*args, **kwargs)
        self._dict: dict[K, V] = {key: _frozen(item) for key, item in items.items()}
        self._hash: int | None = None

    def __getitem__(self, key: K) -> V:
        return self._dict[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._dict)

    def __len__(self) -> int:
        return len(self._dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenDict) and self._dict == other._dict

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._dict.items()))
        return self._hash

    def __reduce__(self) -> Any:
        return (FrozenDict, (self.unfreeze(),))

    def copy(self, add_or_replace: Mapping[K, V] | None = None) -> FrozenDict[K, V]:
        """A new one, with some entries added or replaced."""
        return FrozenDict({**self._dict, **(add_or_replace or {})})

    def pop(self, key: K) -> tuple[FrozenDict[K, V], V]:
        """(a new one without an entry, the value of that entry)."""
        return FrozenDict({name: item for name, item in self._dict.items() if name != key}), self._dict[key]

    def unfreeze(self) -> dict[K, V]:
        """Plain dicts with the same entries."""
        return {key: _thawed(item) for key, item in self._dict.items()}

    def pretty_repr(self, indent: int = 2) -> str:
        """One line for each entry."""
        return _pretty(self, " " * indent, "")

    def __repr__(self) -> str:
        return f"FrozenDict({self._dict!r})"


def _frozen(item: Any) -> Any:
    return FrozenDict(item) if type(item) is dict else item


def _thawed(item: Any) -> Any:
    return item.unfreeze() if isinstance(item, FrozenDict) else item


def _pretty(item: Any, indent: str, before: str) -> str:
    if not isinstance(item, FrozenDict):
        return repr(item)
    inner = before + indent
    lines = [f"{inner}{key!r}: {_pretty(value, indent, inner)},\n" for key, value in item.items()]
    return "FrozenDict({\n" + "".join(lines) + before + "})"


def _keys(frozen: FrozenDict[Any, Any]) -> tuple[Any, ...]:
    from stategraph.util.mapping import sorted_keys

    return tuple(sorted_keys(frozen))


def _unflatten(keys: tuple[Any, ...], children: Any) -> FrozenDict[Any, Any]:
    made: FrozenDict[Any, Any] = FrozenDict()
    made._dict = dict(zip(keys, children, strict=True))
    return made


jax.tree_util.register_pytree_with_keys(
    FrozenDict,
    lambda frozen: ([(jax.tree_util.DictKey(key), frozen[key]) for key in _keys(frozen)], _keys(frozen)),
    _unflatten,
    lambda frozen: ([frozen[key] for key in _keys(frozen)], _keys(frozen)),
)

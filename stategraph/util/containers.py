"""Containers that print well, and a dict whose keys are attributes. All are JAX pytrees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax

from stategraph.util.mapping import sorted_keys, split_entries


class PrettyObject:
    """Base of objects that print their public attributes, one line for each.

    Example:

    >>> import stategraph as sg
    >>> class Settings(sg.util.PrettyObject):
    ...     def __init__(self):
    ...         self.rate, self._secret = 0.1, None
    >>> Settings()
    Settings(
      rate=0.1
    )
    """

    def __repr__(self) -> str:
        parts = [f"{name}={item!r}" for name, item in vars(self).items() if not name.startswith("_")]
        return _block(f"{type(self).__name__}(", parts, ")")


class PrettyDict(dict[Any, Any]):
    """A dict that prints one line for each entry, and splits by filters.

    Example:

    >>> import stategraph as sg
    >>> sg.util.PrettyDict(a=1, b=sg.util.PrettyList([2, 3]))
    {
      'a': 1,
      'b': [
        2,
        3
      ]
    }
    """

    def to_dict(self) -> dict[Any, Any]:
        """A plain dict with the same entries."""
        return dict(self)

    def split(self, first: Any, /, *filters: Any) -> Any:
        """One PrettyDict for each filter; every entry goes to the first that matches. A filter sees
        ``(key,)`` as path.

        Raises:
          ValueError: when an entry matches no filter.
        """
        return self._groups((first, *filters), exhaustive=True)

    def filter(self, first: Any, /, *filters: Any) -> Any:
        """One PrettyDict for each filter; entries that match none are left out."""
        return self._groups((first, *filters), exhaustive=False)

    subset = filter

    def _groups(self, filters: tuple[Any, ...], exhaustive: bool) -> Any:
        entries = {(key,): item for key, item in self.items()}
        groups = split_entries(entries, filters, exhaustive)
        made = tuple(type(self)({path[0]: item for path, item in group.items()}) for group in groups)
        return made[0] if len(made) == 1 else made

    @classmethod
    def merge(cls, first: Mapping[Any, Any], /, *others: Mapping[Any, Any]) -> Self:
        """The entries of all; the last one counts where several have a key."""
        merged = cls(first)
        for other in others:
            merged.update(other)
        return merged

    def __repr__(self) -> str:
        return _block("{", [f"{key!r}: {item!r}" for key, item in self.items()], "}")


class PrettyList(list[Any]):
    """A list that prints one line for each item."""

    def __repr__(self) -> str:
        return _block("[", [repr(item) for item in self], "]")


def _block(left: str, parts: list[str], right: str) -> str:
    if not parts:
        return left + right
    inside = ",\n".join(parts).replace("\n", "\n  ")
    return f"{left}\n  {inside}\n{right}"


class DotDict(dict[str, Any]):
    """A dict whose keys are attributes as well; plain dicts in it become DotDicts.

    Example:

    >>> import stategraph as sg
    >>> config = sg.util.DotDict({"model": {"size": 3}, "rate": 0.1})
    >>> config.model.size += 1
    >>> config.update({"model": {"depth": 2}})
    >>> config.model
    DotDict({'size': 4, 'depth': 2})
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for key, item in dict(*args, **kwargs).items():
            self[key] = item

    def __setitem__(self, key: str, item: Any) -> None:
        super().__setitem__(key, DotDict(item) if type(item) is dict else item)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no entry {name!r}; there are {', '.join(map(repr, self))}") from None

    def __setattr__(self, name: str, item: Any) -> None:
        if hasattr(dict, name):
            raise AttributeError(f"{name!r} is a method of dicts; write config[{name!r}] = …")
        self[name] = item

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"no entry {name!r}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *filter(str.isidentifier, self)]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set entries; dicts under the same key are merged."""
        for key, item in dict(*args, **kwargs).items():
            mine = self.get(key)
            if isinstance(mine, DotDict) and isinstance(item, Mapping):
                mine.update(item)
            else:
                self[key] = item

    def setdefault(self, key: str, default: Any = None) -> Any:
        """``self[key]``, after setting it to ``default`` where it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def copy(self) -> DotDict:
        """A DotDict with the same items; the levels are new."""
        return DotDict(
            {key: item.copy() if isinstance(item, DotDict) else item for key, item in self.items()}
        )

    def deepcopy(self) -> DotDict:
        """A DotDict with copies of the items."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> DotDict:
        return DotDict({key: copy.deepcopy(item, memo) for key, item in self.items()})

    def __reduce__(self) -> Any:
        return (DotDict, (self.to_dict(),))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts with the same items."""
        return {key: item.to_dict() if isinstance(item, DotDict) else item for key, item in self.items()}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> DotDict:
        """A DotDict of nested dicts."""
        return cls(d)

    def __repr__(self) -> str:
        return f"DotDict({self.to_dict()!r})"


def register_dict(cls: type[Any], build: Callable[[dict[Any, Any]], Any] | None = None) -> None:
    """Make a class of dicts a pytree, whose structure depends on the keys, not on their order."""
    make = cls if build is None else build

    def flatten(mapping: Any) -> tuple[list[Any], tuple[Any, ...]]:
        keys = tuple(sorted_keys(mapping))
        return [mapping[key] for key in keys], keys

    def flatten_with_keys(mapping: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        items, keys = flatten(mapping)
        return [(jax.tree_util.DictKey(key), item) for key, item in zip(keys, items, strict=True)], keys

    jax.tree_util.register_pytree_with_keys(
        cls, flatten_with_keys, lambda keys, items: make(dict(zip(keys, items, strict=True))), flatten
    )


def _dot_dict(items: dict[str, Any]) -> DotDict:
    made = DotDict()
    dict.update(made, items)
    return made


register_dict(PrettyDict)
register_dict(DotDict, _dot_dict)
jax.tree_util.register_pytree_with_keys(
    PrettyList,
    lambda items: ([(jax.tree_util.SequenceKey(i), item) for i, item in enumerate(items)], None),
    lambda _, items: PrettyList(items),
    lambda items: (list(items), None),
)

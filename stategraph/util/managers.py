"""Dicts that choose among their entries by type, key and value; one of them for States."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from stategraph.state import State
from stategraph.util.containers import register_dict

Types = type | tuple[type, ...]


class DictManager(dict[Any, Any]):
    """A dict with set operations on its entries. What returns a dict returns a new one of the same class.

    Example:

    >>> import stategraph as sg
    >>> found = sg.util.DictManager(a=1, b=2.0, c=3)
    >>> found.subset(int), found.split(float)
    (DictManager({'a': 1, 'c': 3}), (DictManager({'b': 2.0}), DictManager({'a': 1, 'c': 3})))
    """

    def _chosen(self, keep: Callable[[Any, Any], bool]) -> Self:
        return type(self)({key: item for key, item in self.items() if keep(key, item)})

    # ------------------------------------------------------------------------------------------- by type

    def subset(self, sep: Types | Callable[[Any], bool]) -> Self:
        """The entries whose value is of a type, or for which a predicate of the value holds."""
        if isinstance(sep, (type, tuple)):
            return self._chosen(lambda key, item: isinstance(item, sep))
        return self._chosen(lambda key, item: bool(sep(item)))

    def not_subset(self, sep: Types) -> Self:
        """The entries whose value is not of a type."""
        return self._chosen(lambda key, item: not isinstance(item, sep))

    def split(self, *types: Types) -> tuple[Self, ...]:
        """One dict for each type, with the entries of that type that no earlier one has; then the rest."""
        rest, found = self, []
        for kind in types:
            found.append(rest.subset(kind))
            rest = rest.not_subset(kind)
        return (*found, rest)

    # ---------------------------------------------------------------------------------- by key and value

    def filter_by_predicate(self, predicate: Callable[[Any, Any], bool]) -> Self:
        """The entries for which ``predicate(key, value)`` holds."""
        return self._chosen(predicate)

    def difference_by_keys(self, keys: Iterable[Any]) -> Self:
        """The entries with other keys."""
        gone = set(keys)
        return self._chosen(lambda key, item: key not in gone)

    def intersection_by_keys(self, keys: Iterable[Any]) -> Self:
        """The entries with one of these keys."""
        kept = set(keys)
        return self._chosen(lambda key, item: key in kept)

    def difference_by_values(self, values: Iterable[Any], by: str = "id") -> Self:
        """The entries with other values; ``by`` is ``"id"`` for identity or ``"value"`` for equality."""
        among = _among(values, by)
        return self._chosen(lambda key, item: not among(item))

    def intersection_by_values(self, values: Iterable[Any], by: str = "id") -> Self:
        """The entries with one of these values; ``by`` as in ``difference_by_values``."""
        among = _among(values, by)
        return self._chosen(lambda key, item: among(item))

    def pop_by_keys(self, keys: Iterable[Any]) -> None:
        """Remove entries by key."""
        for key in set(keys) & self.keys():
            del self[key]

    def pop_by_values(self, values: Iterable[Any], by: str = "id") -> None:
        """Remove entries by value; ``by`` as in ``difference_by_values``."""
        among = _among(values, by)
        for key in [key for key, item in self.items() if among(item)]:
            del self[key]

    # --------------------------------------------------------------------------------------------- unique

    def add_unique_key(self, key: Any, val: Any) -> None:
        """Add an entry.

        Raises:
          ValueError: when the key has another value already.
        """
        if key in self and self[key] is not val:
            raise ValueError(f"{key!r} is there already, with another value")
        self[key] = val

    def add_unique_value(self, key: Any, val: Any) -> bool:
        """Add an entry, unless some entry has this value (by identity); tells whether it was added."""
        if any(item is val for item in self.values()):
            return False
        self[key] = val
        return True

    def unique(self) -> Self:
        """The entries without those whose value (by identity) an earlier one has."""
        first: dict[int, Any] = {}
        for key, item in self.items():
            first.setdefault(id(item), key)
        return self._chosen(lambda key, item: first[id(item)] == key)

    def unique_(self) -> Self:
        """``unique`` in place."""
        kept = self.unique()
        self.clear()
        self.update(kept)
        return self

    # -------------------------------------------------------------------------------------------- as a whole

    def assign(self, *args: Mapping[Any, Any], **kwargs: Any) -> None:
        """Take over the entries of several dicts."""
        for one in (*args, kwargs):
            self.update(one)

    def map_values(self, func: Callable[[Any], Any]) -> Self:
        """The same keys with ``func(value)``."""
        return type(self)({key: func(item) for key, item in self.items()})

    def map_keys(self, func: Callable[[Any], Any]) -> Self:
        """The same values under ``func(key)``.

        Raises:
          ValueError: when two keys become one.
        """
        made = type(self)({func(key): item for key, item in self.items()})
        if len(made) < len(self):
            raise ValueError("two keys become one")
        return made

    def to_dict(self) -> dict[Any, Any]:
        """A plain dict with the same entries."""
        return dict(self)

    def __add__(self, other: Mapping[Any, Any]) -> Self:
        return type(self)({**self, **other})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"


def _among(values: Iterable[Any], by: str) -> Callable[[Any], bool]:
    found = list(values)
    if by == "id":
        ids = set(map(id, found))
        return lambda item: id(item) in ids
    if by == "value":
        return lambda item: any(item is one or bool(item == one) for one in found)
    raise ValueError(f"by is 'id' or 'value', not {by!r}")


class StateDictManager(DictManager):
    """A ``DictManager`` of States.

    Example:

    >>> import stategraph as sg
    >>> states = sg.util.StateDictManager(w=sg.ParamState(1.0), h=sg.HiddenState(2.0))
    >>> states.assign_values({"w": 3.0})
    >>> states.split_values(sg.ParamState)
    ({'w': Array(3., dtype=float32)}, {'h': Array(2., dtype=float32)})
    """

    def assign_values(self, *args: Mapping[Any, Any]) -> None:
        """Give the States new values, by key. Unknown keys are noticed before anything changes.

        Raises:
          KeyError: for a key that is not here.
        """
        new: dict[Any, Any] = {}
        for one in args:
            new.update(one)
        unknown = [key for key in new if key not in self]
        if unknown:
            raise KeyError(
                f"no State at {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, self))}"
            )
        for key, value in new.items():
            self[key].value = value.value if isinstance(value, State) else value

    def collect_values(self) -> dict[Any, Any]:
        """The values by key."""
        return {key: state.value for key, state in self.items()}

    to_dict_values = collect_values

    def split_values(self, *filters: Types) -> tuple[dict[Any, Any], ...]:
        """The values by key, one dict for each type of State, then the rest."""
        return tuple(group.collect_values() for group in self.split(*filters))


register_dict(DictManager)
register_dict(StateDictManager)

"""FlattedDict and NestedDict: things of a model by path.

A ``FlattedDict`` has whole paths as keys, ``{("layer", "weight"): …}``; a ``NestedDict`` has one level of
dicts for each step,
``{"layer": {"weight": …}}``. Both are dicts and JAX pytrees. As pytrees their structure depends on the
paths alone, not on the order in
which entries were added, and is flat: depth costs nothing.

In a ``NestedDict`` the levels are NestedDicts themselves, so that a plain dict can be an entry; one that is
assigned or given to the
constructor becomes a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax

from stategraph.errors import describe
from stategraph.state import State
from stategraph.typing import Filter, PathParts
from stategraph.util.filter import to_predicates
from stategraph.util.treefy import TreefyState, treefy

M = TypeVar("M", "FlattedDict", "NestedDict")


class FlattedDict(dict[PathParts, Any]):
    """Things by path: ``{("layer", "weight"): ParamState(…)}``.

    Example:

    >>> import stategraph as sg
    >>> flat = sg.util.FlattedDict({("layer", "weight"): 1.0, ("layer", "bias"): 2.0, ("v",): 3.0})
    >>> flat.to_nest()["layer"]["bias"]
    2.0
    >>> sorted(flat.filter(lambda path, value: path[0] == "layer"))
    [('layer', 'bias'), ('layer', 'weight')]
    """

    @classmethod
    def from_nest(cls, nested: Mapping[Any, Any]) -> FlattedDict:
        """The entries of nested dicts by path."""
        return cls(iter_entries(nested))

    def to_nest(self) -> NestedDict:
        """The same entries, one level of dicts for each step of a path."""
        return NestedDict.from_flat(self)

    def to_dict(self) -> dict[PathParts, Any]:
        """A plain dict with the same entries."""
        return dict(self)

    def to_dict_values(self) -> dict[PathParts, Any]:
        """A plain dict with the values of the States instead of the States."""
        return {path: _value_of(item) for path, item in self.items()}

    def assign_dict_values(self, data: Mapping[PathParts, Any]) -> None:
        """Give States new values: ``data[path]`` to the State at ``path``. All paths are looked up before
        anything is assigned.

        Raises:
          KeyError: for a path that is not here.
        """
        unknown = [path for path in data if path not in self]
        if unknown:
            raise KeyError(
                f"no State at {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, self))}"
            )
        for path, value in data.items():
            if isinstance(self[path], (State, TreefyState)):
                self[path].value = _value_of(value)
            else:
                self[path] = value

    def split(self, first: Filter, /, *filters: Filter) -> Any:
        """One FlattedDict for each filter; every entry goes to the first filter that matches.

        Raises:
          ValueError: when an entry matches no filter.
        """
        return _split(self, self, (first, *filters), exhaustive=True)

    def filter(self, first: Filter, /, *filters: Filter) -> Any:
        """One FlattedDict for each filter; entries that match none are left out."""
        return _split(self, self, (first, *filters), exhaustive=False)

    subset = filter

    @staticmethod
    def merge(first: Mapping[PathParts, Any], /, *others: Mapping[PathParts, Any]) -> FlattedDict:
        """The entries of all; the last one counts where several have a path."""
        merged = FlattedDict(first)
        for other in others:
            merged.update(other)
        return merged

    def treefy_state(self) -> FlattedDict:
        """The same with ``TreefyState`` (a pytree) instead of States."""
        return FlattedDict(
            {path: treefy(item) if isinstance(item, State) else item for path, item in self.items()}
        )

    def copy(self) -> FlattedDict:
        """A FlattedDict with the same entries."""
        return FlattedDict(self)

    def __or__(self, other: Any) -> Any:
        return FlattedDict.merge(self, other) if isinstance(other, Mapping) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        return FlattedDict({path: item for path, item in self.items() if path not in other})

    def __repr__(self) -> str:
        from stategraph.graph.show import mapping_repr

        return mapping_repr(self)


class NestedDict(dict[Any, Any]):
    """Things by path, one level of dicts for each step: ``{"layer": {"weight": …}}``.

    Example:

    >>> import stategraph as sg
    >>> nested = sg.util.NestedDict({"layer": {"weight": 1.0, "bias": 2.0}})
    >>> nested.to_flat()[("layer", "bias")]
    2.0
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        levels: list[tuple[NestedDict, dict[Any, Any]]] = [(self, dict(*args, **kwargs))]
        while levels:
            level, given = levels.pop()
            for key, item in given.items():
                if type(item) is dict:
                    inner = NestedDict()
                    levels.append((inner, item))
                    item = inner
                dict.__setitem__(level, key, item)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, NestedDict(value) if type(value) is dict else value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set entries of this level; plain dicts become levels."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """``self[key]``, after setting it to ``default`` where it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    @classmethod
    def from_flat(cls, flat: Mapping[PathParts, Any]) -> NestedDict:
        """Nested dicts from entries by path.

        Raises:
          ValueError: when a path goes on where another one ends.
        """
        root = cls()
        levels: dict[PathParts, NestedDict] = {(): root}
        for path, item in flat.items():
            if not path:
                raise ValueError("the empty path has no place in nested dicts")
            above = path[:-1]
            level = levels.get(above)
            if level is None:
                level = root
                for depth, key in enumerate(above, 1):
                    inner = dict.get(level, key)
                    if inner is None:
                        inner = NestedDict()
                        dict.__setitem__(level, key, inner)
                    elif not isinstance(inner, NestedDict):
                        raise ValueError(
                            f"there is an entry at {above[:depth]!r}, and {path!r} goes on below it"
                        )
                    level = inner
                levels[above] = level
            if isinstance(dict.get(level, path[-1]), NestedDict):
                raise ValueError(f"there are entries below {path!r}, so it cannot be an entry itself")
            dict.__setitem__(level, path[-1], item)
        return root

    def to_flat(self) -> FlattedDict:
        """The same entries by path."""
        return FlattedDict(iter_entries(self))

    def to_dict(self) -> dict[Any, Any]:
        """Plain nested dicts with the same entries."""
        return self._plain(lambda item: item)

    def to_pure_dict(self) -> dict[Any, Any]:
        """Plain nested dicts of values: no State, no ``TreefyState``."""
        return self._plain(_value_of)

    def _plain(self, convert: Callable[[Any], Any]) -> dict[Any, Any]:
        root: dict[Any, Any] = {}
        levels: list[tuple[dict[Any, Any], NestedDict]] = [(root, self)]
        while levels:
            into, level = levels.pop()
            for key, item in level.items():
                if isinstance(item, NestedDict):
                    into[key] = inner = dict[Any, Any]()
                    levels.append((inner, item))
                else:
                    into[key] = convert(item)
        return root

    def replace_by_pure_dict(
        self, pure_dict: Mapping[Any, Any], replace_fn: Callable[[Any, Any], Any] | None = None
    ) -> None:
        """Take values from nested dicts as ``to_pure_dict`` gives them. Nothing changes when a path is
        unknown.

        Args:
          pure_dict: new values by path; the others stay.
          replace_fn: a function of an entry and its new value that gives the entry to put there. By default a State
            is given the value, and what refers to one is replaced with that value.

        Raises:
          KeyError: for a path that is not here.
        """
        mine = self.to_flat()
        found = dict(iter_entries(pure_dict, stop=mine))
        unknown = [path for path in found if path not in mine]
        if unknown:
            raise KeyError(
                f"no entry at {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, mine))}"
            )
        for path, value in found.items():
            item = mine[path]
            level: Any = self
            for key in path[:-1]:
                level = level[key]
            if replace_fn is not None:
                dict.__setitem__(level, path[-1], replace_fn(item, value))
            elif isinstance(item, State):
                item.value = value
            else:
                new = item.replace(value) if isinstance(item, TreefyState) else value
                dict.__setitem__(level, path[-1], new)

    def split(self, first: Filter, /, *filters: Filter) -> Any:
        """One NestedDict for each filter; every entry goes to the first filter that matches.

        Raises:
          ValueError: when an entry matches no filter.
        """
        return _split(self, self.to_flat(), (first, *filters), exhaustive=True)

    def filter(self, first: Filter, /, *filters: Filter) -> Any:
        """One NestedDict for each filter; entries that match none are left out."""
        return _split(self, self.to_flat(), (first, *filters), exhaustive=False)

    subset = filter

    @staticmethod
    def merge(first: Mapping[Any, Any], /, *others: Mapping[Any, Any]) -> NestedDict:
        """The entries of all; the last one counts where several have a path."""
        flat = FlattedDict()
        for one in (first, *others):
            flat.update(iter_entries(one))
        return NestedDict.from_flat(flat)

    def treefy_state(self) -> NestedDict:
        """The same with ``TreefyState`` (a pytree) instead of States."""
        return NestedDict.from_flat(self.to_flat().treefy_state())

    def copy(self) -> NestedDict:
        """A NestedDict with the same entries; the levels are new."""
        return NestedDict.from_flat(self.to_flat())

    def __or__(self, other: Any) -> Any:
        return NestedDict.merge(self, other) if isinstance(other, Mapping) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        gone = dict(iter_entries(other))
        return NestedDict.from_flat({path: item for path, item in iter_entries(self) if path not in gone})

    def __repr__(self) -> str:
        from stategraph.graph.show import mapping_repr

        return mapping_repr(self)


def _value_of(item: Any) -> Any:
    return item.value if isinstance(item, (State, TreefyState)) else item


def iter_entries(mapping: Mapping[Any, Any], stop: Any = ()) -> Iterator[tuple[PathParts, Any]]:
    """(path, entry) of nested or flat dicts, in order. A path in ``stop`` is an entry even when a dict is
    there.

    In a NestedDict, plain dicts are entries. In a plain dict they are levels, and tuples among its first
    keys are whole paths.
    """
    if isinstance(mapping, FlattedDict):
        yield from mapping.items()
        return
    plain = not isinstance(mapping, NestedDict)
    level = Mapping if plain else NestedDict
    stack: list[tuple[PathParts, Iterator[tuple[Any, Any]]]] = [((), iter(mapping.items()))]
    while stack:
        above, items = stack[-1]
        for key, item in items:
            path = key if plain and not above and isinstance(key, tuple) else (*above, key)
            if isinstance(item, level) and path not in stop:
                stack.append((path, iter(item.items())))
                break
            yield path, item
        else:
            stack.pop()


def _split(like: M, flat: FlattedDict, filters: tuple[Filter, ...], exhaustive: bool) -> M | tuple[M, ...]:
    groups = split_entries(flat, filters, exhaustive)
    made = tuple(group.to_nest() if isinstance(like, NestedDict) else group for group in groups)
    return made[0] if len(made) == 1 else made


def split_entries(
    flat: Mapping[PathParts, Any], filters: Iterable[Filter], exhaustive: bool
) -> list[FlattedDict]:
    """One FlattedDict for each filter; every entry goes to the first that matches."""
    predicates = to_predicates(filters)
    groups = [FlattedDict() for _ in predicates]
    rest: dict[PathParts, Any] = {}
    for path, item in flat.items():
        for predicate, group in zip(predicates, groups, strict=True):
            if predicate(path, item):
                group[path] = item
                break
        else:
            rest[path] = item
    if rest and exhaustive:
        some = ", ".join(f"{path!r} ({_kind(item)})" for path, item in list(rest.items())[:5])
        more = ", …" if len(rest) > 5 else ""
        raise ValueError(
            describe(
                f"{len(rest)} of {len(flat)} entries match no filter: {some}{more}.",
                why="a split gives every entry to some group, so that the groups merge to the whole",
                fix="add `...` as the last filter for the rest",
            )
        )
    return groups


def _kind(item: Any) -> str:
    return item.type.__name__ if isinstance(item, TreefyState) else type(item).__name__


# ----------------------------------------------------------------------------------------------- as pytrees


class _MixedKey:
    """Orders steps of different types: by the name of the type, then by value."""

    __slots__ = ("rank",)

    def __init__(self, step: Any) -> None:
        kind = type(step).__name__
        self.rank = (kind, step) if isinstance(step, (int, str, float, bytes)) else (kind, repr(step))

    def __lt__(self, other: _MixedKey) -> bool:
        return bool(self.rank < other.rank)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _MixedKey) and self.rank == other.rank


def sorted_paths(paths: Iterable[PathParts]) -> list[PathParts]:
    """Paths in the one order that their set has, whatever the types of their steps."""
    given = list(paths)
    try:
        return sorted(given)
    except TypeError:
        return sorted(given, key=lambda path: tuple(map(_MixedKey, path)))


def path_part(key: Any) -> Any:
    """A step of a path in a pytree, which JAX has classes for, as the key, index or name that it is."""
    for name in ("key", "idx", "name"):
        if hasattr(key, name):
            return getattr(key, name)
    return str(key)


def sorted_keys(keys: Iterable[Any]) -> list[Any]:
    """Keys in the one order that their set has, whatever their types."""
    given = list(keys)
    try:
        return sorted(given)
    except TypeError:
        return sorted(given, key=_MixedKey)


def _path_key(path: PathParts) -> Any:
    return jax.tree_util.DictKey(path[0] if len(path) == 1 else path)


def _register(
    cls: type[Any], flat: Callable[[Any], dict[PathParts, Any]], build: Callable[[Any], Any]
) -> None:
    def flatten(mapping: Any) -> tuple[list[Any], tuple[PathParts, ...]]:
        entries = flat(mapping)
        paths = sorted_paths(entries)
        return [entries[path] for path in paths], tuple(paths)

    def flatten_with_keys(mapping: Any) -> tuple[list[tuple[Any, Any]], tuple[PathParts, ...]]:
        children, paths = flatten(mapping)
        return list(zip(map(_path_key, paths), children, strict=True)), paths

    def unflatten(paths: tuple[PathParts, ...], children: Any) -> Any:
        return build(zip(paths, children, strict=True))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


_register(FlattedDict, lambda mapping: mapping, FlattedDict)
_register(
    NestedDict,
    lambda mapping: dict(iter_entries(mapping)),
    lambda entries: NestedDict.from_flat(dict(entries)),
)


# ---------------------------------------------------------------------------------------------- plain dicts


def flat_mapping(
    xs: Mapping[Any, Any],
    /,
    *,
    keep_empty_nodes: bool = False,
    is_leaf: Callable[[PathParts, Mapping[Any, Any]], bool] | None = None,
    sep: str | None = None,
) -> dict[Any, Any]:
    """Nested dicts as one dict by path, or by joined path with ``sep``.

    Args:
      xs: the nested dicts.
      keep_empty_nodes: whether an empty dict is an entry.
      is_leaf: ``is_leaf(path, dict)`` says which dicts are entries.
      sep: joins the steps of a path (which must be strings) to a key.

    Example:

    >>> import stategraph as sg
    >>> sg.util.flat_mapping({"a": {"b": 1}, "c": 2}, sep=".")
    {'a.b': 1, 'c': 2}
    """
    found: dict[Any, Any] = {}
    stack: list[tuple[PathParts, Any]] = [((), xs)]
    while stack:
        path, item = stack.pop()
        inside = isinstance(item, Mapping) and not (path and is_leaf is not None and is_leaf(path, item))
        if inside and (item or not path):
            stack += [((*path, key), value) for key, value in reversed(item.items())]
        elif not inside or keep_empty_nodes:
            found[path if sep is None else sep.join(path)] = item
    return found


def nest_mapping(xs: Mapping[Any, Any], /, *, sep: str | None = None) -> dict[Any, Any]:
    """The nested dicts that ``flat_mapping`` makes flat.

    Example:

    >>> import stategraph as sg
    >>> sg.util.nest_mapping({"a.b": 1, "c": 2}, sep=".")
    {'a': {'b': 1}, 'c': 2}
    """
    root: dict[Any, Any] = {}
    for name, item in xs.items():
        path = name if sep is None else name.split(sep)
        level = root
        for key in path[:-1]:
            level = level.setdefault(key, {})
        level[path[-1]] = item
    return root

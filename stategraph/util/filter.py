"""Filters: which States or Nodes of a model are meant.

==========================  =====================================================================
``...`` or ``True``         everything; as one of several filters, only the last
``None`` or ``False``       nothing
a type                      instances of it, and references (``TreefyState``) to States of it
a string                    what has this tag
a tuple or list             what any of its members selects
``f(path, value) -> bool``  whatever it says; ``f(value)``, with one argument, also does
==========================  =====================================================================

The classes here say the same as objects that compare, print and nest: ``All(OfType(ParamState),
PathContains("decoder"))``.
"""

from __future__ import annotations

import inspect
import types
import typing as t
from collections.abc import Callable, Iterable

import attrs

from stategraph.errors import describe
from stategraph.typing import Filter, Key, PathParts, Predicate


@attrs.frozen
class WithTag:
    """What has a tag.

    Example:

    >>> import stategraph as sg
    >>> state = sg.State(1.0, tag={"slow", "bias"})
    >>> sg.util.WithTag("slow")((), state), sg.util.WithTag("fast")((), state)
    (True, False)
    """

    tag: str

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        found = getattr(value, "tag", None)
        return found == self.tag if isinstance(found, str) else found is not None and self.tag in found


@attrs.frozen
class PathContains:
    """What lies below (or at) a key: ``PathContains("decoder")`` means ``model.decoder`` and all in it."""

    key: Key

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        return self.key in path


@attrs.frozen
class OfType:
    """Instances of a type, and references to States of that type. Subclasses count."""

    type: t.Any

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        if isinstance(value, self.type):
            return True
        kind = getattr(value, "type", None)
        return isinstance(kind, type) and issubclass(kind, self.type)


@attrs.frozen(init=False)
class Any:
    """What at least one of the filters selects."""

    predicates: tuple[Predicate, ...]

    def __init__(self, *filters: Filter) -> None:
        self.__attrs_init__(tuple(map(to_predicate, filters)))

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        return any(predicate(path, value) for predicate in self.predicates)


@attrs.frozen(init=False)
class All:
    """What every one of the filters selects.

    Example:

    >>> import stategraph as sg
    >>> wanted = sg.util.All(sg.ParamState, sg.util.Not(sg.util.PathContains("bias")))
    >>> wanted(("layer", "weight"), sg.ParamState(1.0)), wanted(("layer", "bias"), sg.ParamState(1.0))
    (True, False)
    """

    predicates: tuple[Predicate, ...]

    def __init__(self, *filters: Filter) -> None:
        self.__attrs_init__(tuple(map(to_predicate, filters)))

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        return all(predicate(path, value) for predicate in self.predicates)


def _as_predicate(the_filter: Filter) -> Predicate:
    return to_predicate(the_filter)


@attrs.frozen
class Not:
    """What the filter does not select."""

    collection_filter: Predicate = attrs.field(converter=_as_predicate)

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        return not self.collection_filter(path, value)


@attrs.frozen
class Everything:
    """Everything."""

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        return True


@attrs.frozen
class Nothing:
    """Nothing."""

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        return False


@attrs.frozen
class _OfValue:
    """A predicate that looks at the value alone."""

    function: Callable[[t.Any], t.Any]

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        return bool(self.function(value))


@attrs.frozen
class _OfBoth:
    """A predicate of path and value that may answer with any truth value."""

    function: Callable[[PathParts, t.Any], t.Any]

    def __call__(self, path: PathParts, value: t.Any) -> bool:
        return bool(self.function(path, value))


_READY = (WithTag, PathContains, OfType, Any, All, Not, Everything, Nothing, _OfValue, _OfBoth)


def to_predicate(the_filter: Filter) -> Predicate:
    """The predicate ``(path, value) -> bool`` that a filter stands for.

    Raises:
      TypeError: for what is no filter.

    Example:

    >>> import stategraph as sg
    >>> sg.util.to_predicate((sg.ParamState, "slow"))
    Any(predicates=(OfType(type=<class 'stategraph.state.kinds.ParamState'>), WithTag(tag='slow')))
    """
    if isinstance(the_filter, _READY):
        return the_filter
    if the_filter is ... or the_filter is True:
        return Everything()
    if the_filter is None or the_filter is False:
        return Nothing()
    if isinstance(the_filter, (type, types.UnionType)):
        return OfType(the_filter)
    if isinstance(the_filter, str):
        return WithTag(the_filter)
    if isinstance(the_filter, (tuple, list)):
        return Any(*the_filter)
    if callable(the_filter):
        return _OfValue(the_filter) if _arguments(the_filter) == 1 else _OfBoth(the_filter)
    raise TypeError(
        describe(
            f"{the_filter!r} is no filter.",
            fix="use a type, a tag, a function of (path, value) or of value, a tuple of these, or `...`",
        )
    )


def to_predicates(filters: Iterable[Filter]) -> tuple[Predicate, ...]:
    """The predicates of several filters, of which the first that matches counts.

    Raises:
      ValueError: when ``...`` or ``True`` is not the last, since what follows it would never match.
    """
    given = tuple(filters)
    for position, one in enumerate(given[:-1]):
        if one is ... or one is True:
            raise ValueError(
                describe(
                    f"The filter {one!r} matches everything, so the filters after it match nothing.",
                    why=f"it is number {position + 1} of {len(given)}, and the first match counts",
                    fix="put `...` last: (ParamState, ...)",
                )
            )
    return tuple(map(to_predicate, given))


def _arguments(function: Callable[..., t.Any]) -> int:
    """How many positional arguments a predicate asks for. A default is the function's own: ``lambda node,
    kept=kept: …`` asks for one.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return 2
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required > 2 or (not positional and not open_ended):
        raise TypeError(
            describe(
                f"A filter function takes (path, value) or (value), not {inspect.signature(function)}.",
                fix="write `lambda path, value: ...` or `lambda value: ...`",
            )
        )
    if open_ended or required == 0:
        return 2 if open_ended or len(positional) > 1 else 1
    return required

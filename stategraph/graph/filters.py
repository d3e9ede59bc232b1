"""Filters: which States or Nodes of a model are meant.

``...`` or ``True`` is everything, ``None`` or ``False`` nothing, a type everything of that type, a string everything with that tag, a tuple or list any
of its members, a callable whatever it says of ``(path, value)`` or of ``value`` alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Predicate = Callable[[tuple[Any, ...], Any], bool]
Filter = Any


def to_predicate(the_filter: Filter) -> Predicate:
    """The predicate ``(path, value) -> bool`` that a filter stands for; raises ``TypeError`` for what is no filter."""
    if the_filter is ... or the_filter is True:
        return lambda path, value: True
    if the_filter is None or the_filter is False:
        return lambda path, value: False
    if isinstance(the_filter, type):
        return lambda path, value: isinstance(value, the_filter)
    if isinstance(the_filter, str):
        return lambda path, value: the_filter in (getattr(value, "tag", None) or ())
    if isinstance(the_filter, (tuple, list)):
        members = [to_predicate(member) for member in the_filter]
        return lambda path, value: any(member(path, value) for member in members)
    if callable(the_filter):
        if _positional(the_filter) == 1:
            return lambda path, value: bool(the_filter(value))
        return lambda path, value: bool(the_filter(path, value))
    raise TypeError(f"{the_filter!r} is no filter; use a type, a tag, a callable of (path, value), a tuple of these, or ...")


def _positional(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)

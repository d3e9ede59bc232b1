"""Utilities of the modelling layer: filters, and dicts by path."""

from stategraph.util import filter
from stategraph.util.filter import (
    All,
    Any,
    Everything,
    Not,
    Nothing,
    OfType,
    PathContains,
    WithTag,
    to_predicate,
)
from stategraph.util.mapping import FlattedDict, NestedDict, flat_mapping, nest_mapping

__all__ = [
    "filter",
    "to_predicate",
    "WithTag",
    "PathContains",
    "OfType",
    "Any",
    "All",
    "Not",
    "Everything",
    "Nothing",
    "FlattedDict",
    "NestedDict",
    "flat_mapping",
    "nest_mapping",
]

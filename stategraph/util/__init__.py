"""Utilities of the modelling layer: filters, dicts by path, and other containers."""

from stategraph.util import filter, struct
from stategraph.util.containers import DotDict, PrettyDict, PrettyList, PrettyObject
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
from stategraph.util.managers import DictManager, StateDictManager
from stategraph.util.mapping import FlattedDict, NestedDict, flat_mapping, nest_mapping
from stategraph.util.memory import BoundedCache, clear_buffer_memory, get_unique_name
from stategraph.util.struct import FrozenDict, PyTreeNode, dataclass, field

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
    "struct",
    "dataclass",
    "field",
    "PyTreeNode",
    "FrozenDict",
    "DotDict",
    "PrettyDict",
    "PrettyList",
    "PrettyObject",
    "DictManager",
    "StateDictManager",
    "BoundedCache",
    "get_unique_name",
    "clear_buffer_memory",
]

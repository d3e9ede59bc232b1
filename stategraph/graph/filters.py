"""Filters under their older address; see ``stategraph.util.filter``."""

from stategraph.typing import Filter, Predicate
from stategraph.util.filter import to_predicate, to_predicates

__all__ = ["Filter", "Predicate", "to_predicate", "to_predicates"]

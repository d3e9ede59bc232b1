"""The object graph of a model: Nodes, their States, and how they are found."""

from stategraph.graph.filters import to_predicate
from stategraph.graph.node import Node
from stategraph.graph.walk import nodes, states

__all__ = ["Node", "nodes", "states", "to_predicate"]

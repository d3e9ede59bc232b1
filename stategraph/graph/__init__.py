"""The object graph of a model: Nodes, their States, and how they are found."""

from stategraph.graph.filters import to_predicate
from stategraph.graph.kinds import register_graph_node_type
from stategraph.graph.node import Node
from stategraph.graph.walk import iter_children, iter_leaf, iter_node, nodes, states

__all__ = ["Node", "nodes", "states", "to_predicate"]

"""The object graph of a model: Nodes, their States, how they are found, and how a model becomes values and
a model again.
"""

from stategraph.graph.contexts import merge_context, split_context
from stategraph.graph.convert import (
    clone,
    flatten,
    graphdef,
    treefy_merge,
    treefy_split,
    treefy_states,
    unflatten,
)
from stategraph.graph.definition import GraphDef, NodeDef, NodeRef, PytreeType
from stategraph.graph.edit import pop_states, update_states
from stategraph.graph.filters import to_predicate
from stategraph.graph.kinds import register_graph_node_type
from stategraph.graph.node import Node
from stategraph.graph.references import RefMap
from stategraph.graph.show import show_values
from stategraph.graph.trees import NodeStates, Static, graph_to_tree, tree_to_graph
from stategraph.graph.walk import iter_children, iter_leaf, iter_node, nodes, states

__all__ = [
    "Node",
    "states",
    "nodes",
    "iter_leaf",
    "iter_node",
    "iter_children",
    "graphdef",
    "NodeDef",
    "NodeRef",
    "GraphDef",
    "PytreeType",
    "treefy_states",
    "treefy_split",
    "treefy_merge",
    "flatten",
    "unflatten",
    "clone",
    "split_context",
    "merge_context",
    "pop_states",
    "update_states",
    "graph_to_tree",
    "tree_to_graph",
    "NodeStates",
    "Static",
    "RefMap",
    "register_graph_node_type",
    "to_predicate",
    "show_values",
]

"""Modules: Nodes that compute."""

from stategraph.nn.collective import call_all_fns, call_order, init_all_states, reset_all_states
from stategraph.nn.collective_assign import assign_state_values
from stategraph.nn.module import Module
from stategraph.nn.module_params import Const, Param
from stategraph.nn.module_summary import Summary, count_parameters, summary

__all__ = [
    "Module",
    "Param",
    "Const",
    "call_order",
    "call_all_fns",
    "init_all_states",
    "reset_all_states",
    "assign_state_values",
    "count_parameters",
    "summary",
    "Summary",
]

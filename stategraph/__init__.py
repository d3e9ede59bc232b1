"""StateGraph: stateful models as explicit, printable programs on JAX."""

from typing import TYPE_CHECKING, Any

from stategraph import (
    augment,
    compile,
    environ,
    errors,
    event,
    functional,
    graph,
    init,
    interop,
    ir,
    mixin,
    nir,
    nn,
    optim,
    passes,
    random,
    spikes,
    surrogate,
    transform,
    typing,
    util,
    viz,
)
from stategraph._version import __version__
from stategraph.errors import BatchAxisError
from stategraph.errors import StateAccessError as TraceContextError
from stategraph.errors import StateGraphError as BrainStateError
from stategraph.graph import Node
from stategraph.saving import load, save
from stategraph.state import (
    BatchState,
    DelayState,
    FakeState,
    HiddenState,
    LongTermState,
    ParamState,
    ShortTermState,
    State,
)
from stategraph.state.groups import HiddenGroupState, HiddenTreeState
from stategraph.state.hooks import clear_state_hooks, list_state_hooks, register_state_hook
from stategraph.state.new import catch_new_states, check_state_jax_tracer, check_state_value_tree, maybe_state
from stategraph.tracing.entry import lower, trace
from stategraph.tracing.export import export, load_exported
from stategraph.util.managers import StateDictManager
from stategraph.util.treefy import TreefyState

_REPLACED = {
    "StateTraceStack": (
        "compiled calls access State without Python, so that nothing could collect what they do",
        "stategraph.trace(function, ...): the States that a function accesses, by name",
    )
}
"""What BrainState has for its own insides, and what there is instead."""


if not TYPE_CHECKING:  # for type checkers, what is not here is an error

    def __getattr__(name: str) -> Any:
        raise errors.no_such_name(__name__, name, _REPLACED)


__all__ = [
    "BatchAxisError",
    "BatchState",
    "BrainStateError",
    "DelayState",
    "FakeState",
    "HiddenGroupState",
    "HiddenState",
    "HiddenTreeState",
    "LongTermState",
    "Node",
    "ParamState",
    "ShortTermState",
    "State",
    "StateDictManager",
    "TraceContextError",
    "TreefyState",
    "__version__",
    "augment",
    "catch_new_states",
    "check_state_jax_tracer",
    "check_state_value_tree",
    "clear_state_hooks",
    "compile",
    "environ",
    "errors",
    "event",
    "export",
    "functional",
    "graph",
    "init",
    "interop",
    "ir",
    "list_state_hooks",
    "load",
    "load_exported",
    "lower",
    "maybe_state",
    "mixin",
    "nir",
    "nn",
    "optim",
    "passes",
    "random",
    "register_state_hook",
    "spikes",
    "surrogate",
    "save",
    "trace",
    "transform",
    "typing",
    "util",
    "viz",
]

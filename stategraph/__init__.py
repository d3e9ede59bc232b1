"""StateGraph: stateful models as explicit, printable programs on JAX."""

from stategraph import (
    augment,
    compile,
    environ,
    errors,
    graph,
    ir,
    nn,
    passes,
    random,
    transform,
    typing,
    util,
)
from stategraph._version import __version__
from stategraph.graph import Node
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
from stategraph.tracing.entry import lower, trace
from stategraph.tracing.export import export, load_exported
from stategraph.util.treefy import TreefyState

__all__ = [
    "BatchState",
    "DelayState",
    "FakeState",
    "HiddenState",
    "LongTermState",
    "Node",
    "ParamState",
    "ShortTermState",
    "State",
    "TreefyState",
    "__version__",
    "augment",
    "compile",
    "environ",
    "errors",
    "export",
    "graph",
    "ir",
    "load_exported",
    "lower",
    "nn",
    "passes",
    "random",
    "trace",
    "transform",
    "typing",
    "util",
]

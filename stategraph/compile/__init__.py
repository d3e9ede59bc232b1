"""Compilation: ``jit`` and control flow over State."""

from stategraph.compile.checkpoint import (
    bounded_while_loop,
    checkpoint,
    checkpointed_for_loop,
    checkpointed_scan,
    remat,
)
from stategraph.compile.control import cond, for_loop, ifelse, scan, switch, while_loop
from stategraph.compile.jaxprs import make_jaxpr
from stategraph.compile.jit import JittedFunction, jit

__all__ = [
    "JittedFunction",
    "bounded_while_loop",
    "checkpoint",
    "checkpointed_for_loop",
    "checkpointed_scan",
    "cond",
    "for_loop",
    "ifelse",
    "jit",
    "make_jaxpr",
    "remat",
    "scan",
    "switch",
    "while_loop",
]

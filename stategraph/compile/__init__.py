"""Compilation: ``jit`` and control flow over State."""

from stategraph.compile.checkpoint import (
    bounded_while_loop,
    checkpoint,
    checkpointed_for_loop,
    checkpointed_scan,
    remat,
)
from stategraph.compile.checks import checkify, jit_error_if
from stategraph.compile.control import cond, for_loop, ifelse, scan, switch, while_loop
from stategraph.compile.jaxprs import make_jaxpr
from stategraph.compile.jit import JittedFunction, jit
from stategraph.compile.lanes import unvmap
from stategraph.compile.nans import debug_nan
from stategraph.compile.progress import ProgressBar
from stategraph.compile.scopes import breakpoint_if, named_scope
from stategraph.compile.shapes import StateFinder, eval_shape

__all__ = [
    "JittedFunction",
    "ProgressBar",
    "StateFinder",
    "bounded_while_loop",
    "breakpoint_if",
    "checkify",
    "checkpoint",
    "checkpointed_for_loop",
    "checkpointed_scan",
    "cond",
    "debug_nan",
    "eval_shape",
    "for_loop",
    "ifelse",
    "jit",
    "jit_error_if",
    "make_jaxpr",
    "named_scope",
    "remat",
    "scan",
    "switch",
    "unvmap",
    "while_loop",
]

"""Compilation: ``jit`` and control flow over State."""

from stategraph.compile.control import cond, for_loop, ifelse, scan, switch, while_loop
from stategraph.compile.jaxprs import make_jaxpr
from stategraph.compile.jit import JittedFunction, jit

__all__ = ["JittedFunction", "cond", "for_loop", "ifelse", "jit", "make_jaxpr", "scan", "switch", "while_loop"]

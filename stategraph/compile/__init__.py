"""Compilation: ``jit`` and control flow over State."""

from stategraph.compile.jit import JittedFunction, jit

__all__ = ["JittedFunction", "jit"]

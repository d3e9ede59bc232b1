"""Modules: Nodes that compute."""

from stategraph.nn.module import Module

__all__ = ["Module"]

"""Module: a Node that computes. Write ``update``; calling the module calls it."""

from __future__ import annotations

from typing import Any

from stategraph.graph.filters import Filter
from stategraph.graph.node import Node
from stategraph.graph.walk import nodes, states


class Module(Node):
    """Base class of models and layers.

    Args:
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Double(sg.nn.Module):
    ...     def update(self, x):
    ...         return 2 * x
    >>> Double()(3.0)
    6.0
    """

    __array_ufunc__ = None

    def __init__(self, name: str | None = None) -> None:
        self._name = name

    @property
    def name(self) -> str | None:
        """The name given at construction; read-only."""
        found: str | None = getattr(self, "_name", None)
        return found

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses write it."""
        raise NotImplementedError(f"{type(self).__name__} has no update method; write `def update(self, x): ...`")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.update(*args, **kwargs)

    def __rrshift__(self, other: Any) -> Any:
        """``x >> module`` is ``module(x)``."""
        return self(other)

    def states(self, *filters: Filter) -> Any:
        """The States below this module by path; see ``stategraph.graph.states``."""
        return states(self, *filters)

    def nodes(self, *filters: Filter) -> Any:
        """The Nodes below this module by path, itself under ``()``; see ``stategraph.graph.nodes``."""
        return nodes(self, *filters)

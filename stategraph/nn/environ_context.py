"""A layer that runs with settings of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stategraph import environ
from stategraph.nn.module import Module


class EnvironContext(Module):
    """A layer that is called inside ``stategraph.environ.context``.

    Args:
      layer: the layer.
      **context: the settings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> always = sg.nn.EnvironContext(sg.nn.Dropout(0.0), fit=True)
    >>> always(jnp.ones(2))
    Array([0., 0.], dtype=float32)
    """

    def __init__(self, layer: Module, **context: Any) -> None:
        super().__init__()
        if not isinstance(layer, Module):
            raise TypeError(f"EnvironContext needs a module, not a {type(layer).__name__}")
        self._in_size, self._out_size = layer.in_size, layer.out_size
        self.layer = layer
        self.context = context

    def update(self, *args: Any, context: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Call the layer.

        Args:
          *args: arguments of the layer.
          context: more settings, for this call.
          **kwargs: arguments of the layer.
        """
        with environ.context(**{**self.context, **(context or {})}):
            return self.layer(*args, **kwargs)

    def add_context(self, **context: Any) -> None:
        """Add settings, or give them other values."""
        self.context = {**self.context, **context}

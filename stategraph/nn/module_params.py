"""Param: a parameter that is a module, so that it can have a name, a place in listings, and a value that is
computed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from stategraph.nn.module import Module
from stategraph.state import ParamState, State


class BoundValue:
    """``param.value``: call it for the value; shape, dtype and size can be asked without."""

    __slots__ = ("_param",)

    def __init__(self, param: Param) -> None:
        self._param = param

    def __call__(self) -> Any:
        return self._param.val.value

    @property
    def shape(self) -> Any:
        """The shape of the value."""
        return self._param.val.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        return self._param.val.dtype

    @property
    def size(self) -> int:
        """The number of elements of the value."""
        return self._param.val.size

    @property
    def ndim(self) -> int:
        """The number of axes of the value."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<value of Param {self.dtype}{list(self.shape)}; call it>"


class Param(Module):
    """A parameter as a module.

    Args:
      value: an array, or a pytree of arrays.
      fit: whether it is trained; if not, its State is a plain ``State`` that gradients leave alone.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> gain = sg.nn.Param(jnp.ones(3))
    >>> gain.value().sum(), gain.value.shape
    (Array(3., dtype=float32), (3,))
    """

    def __init__(self, value: Any, fit: bool = True, name: str | None = None) -> None:
        super().__init__(name)
        value = jax.tree.map(jnp.asarray, value)
        self.fit = fit
        self.val: State[Any] = ParamState(value) if fit else State(value)

    @property
    def value(self) -> BoundValue:
        """``param.value()`` is the value; ``param.value.shape``, ``.dtype`` and ``.size`` are known without
        it.
        """
        return BoundValue(self)

    def set_value(self, value: Any) -> None:
        """Give the parameter a new value."""
        self.val.value = value

    def update(self) -> Any:
        """The value."""
        return self.val.value


class Const(Param):
    """A value that stands where a ``Param`` can, and is not trained."""

    def __init__(self, value: Any, name: str | None = None) -> None:
        super().__init__(value, fit=False, name=name)

"""Several hidden States in one array, along its last axis: as many neuron models keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from stategraph.state import HiddenState


class HiddenGroupState(HiddenState[Any]):
    """An array whose last axis counts hidden states of the same shape.

    Args:
      value: the array ``[*varshape, num_state]``.
      **kwargs: as for ``State``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> group = sg.HiddenGroupState(jnp.zeros((3, 2)))
    >>> group.set_value({1: jnp.ones(3)})
    >>> group.varshape, group.num_state, group.get_value(1)
    ((3,), 2, Array([1., 1., 1.], dtype=float32))
    """

    __slots__ = ()

    def __init__(self, value: Any, **kwargs: Any) -> None:
        if np.ndim(value) == 0:
            raise ValueError(
                "a group of hidden states is an array with an axis that counts them, not a scalar"
            )
        super().__init__(value, **kwargs)

    @property
    def varshape(self) -> tuple[int, ...]:
        """The shape of each hidden state."""
        return tuple(self.shape[:-1])

    @property
    def num_state(self) -> int:
        """How many hidden states there are."""
        return int(self.shape[-1])

    def index(self, item: int | str) -> int:
        """The position of a hidden state along the last axis.

        Raises:
          KeyError: when there is none of that name or number.
        """
        if isinstance(item, (int, np.integer)) and -self.num_state <= item < self.num_state:
            return int(item)
        raise KeyError(f"there is no hidden state {item!r}; there are {self.num_state}")

    def get_value(self, item: int | str) -> Any:
        """One hidden state, ``[*varshape]``."""
        return self.value[..., self.index(item)]

    def set_value(self, val: Mapping[Any, Any] | Sequence[Any]) -> None:
        """Give some hidden states (by number or name) or all of them (in order) new values.

        Raises:
          KeyError: when there is none of that name or number.
          ValueError: for a value of another shape.
        """
        items = dict(val) if isinstance(val, Mapping) else dict(enumerate(val))
        new = self.value
        for item, one in items.items():
            position = self.index(item)
            if jnp.shape(one) != self.varshape:
                raise ValueError(
                    f"hidden state {item!r} has shape {self.varshape}, and the value {jnp.shape(one)}"
                )
            new = new.at[..., position].set(one)
        self.value = new


class HiddenTreeState(HiddenGroupState):
    """A ``HiddenGroupState`` made of hidden states with names.

    Args:
      value: a dict of arrays of one shape, or a sequence of them, whose names are their numbers.
      **kwargs: as for ``State``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> tree = sg.HiddenTreeState({"v": jnp.zeros(3), "u": jnp.ones(3)})
    >>> tree.value.shape, tree.get_value("u")
    ((3, 2), Array([1., 1., 1.], dtype=float32))
    """

    def __init__(self, value: Mapping[str, Any] | Sequence[Any], **kwargs: Any) -> None:
        items = dict(value) if isinstance(value, Mapping) else dict(enumerate(value))
        if len({jnp.shape(one) for one in items.values()}) != 1:
            raise ValueError(
                "the hidden states of a HiddenTreeState have one shape; these have several, or there is none"
            )
        self.names: tuple[int | str, ...] = tuple(items)
        super().__init__(jnp.stack(list(items.values()), axis=-1), **kwargs)

    def index(self, item: int | str) -> int:
        if isinstance(item, str) and item in self.names:
            return self.names.index(item)
        return super().index(item)

"""What a run recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.spikes import Spikes


@jax.tree_util.register_pytree_node_class
class Recording(Mapping[str, Any]):
    """What a run recorded, by the names of its monitors. A pytree: compiled functions may return it.

    Args:
      values: what was recorded, by name: arrays with a row for every look, or ``Spikes``.
      every: how many steps lie between two looks, by name.
      steps: how many steps were made.
      dt: their length (ms).
      first: the number of the first.

    Example:

    >>> import stategraph as sg
    >>> neurons = sg.nn.init_all_states(sg.nn.LIF(3, tau=20.0))
    >>> rec = sg.nn.run(neurons, 40.0, 1.5, {"V": (neurons.V, 0, 20), "spk": neurons.spike}, dt=0.5)
    >>> rec
    Recording(80 steps of 0.5 ms from 0 ms: V float32[4], spk 3 spikes of 3 neurons)
    >>> rec.t[:3], rec.times("V")
    (array([0. , 0.5, 1. ]), array([ 0., 10., 20., 30.]))
    """

    def __init__(
        self, values: dict[str, Any], every: dict[str, int], steps: int, dt: float, first: Any
    ) -> None:
        self.values_by_name = values
        self.every = every
        self.steps = steps
        self.dt = dt
        self.first = first

    @property
    def t(self) -> Any:
        """The time of each step (ms), as ``environ``'s ``t`` was in it."""
        return self._times(1)

    def times(self, name: str) -> Any:
        """The time of each row of what a monitor recorded (ms)."""
        return self._times(self.every[name])

    def _times(self, every: int) -> Any:
        numbers = np.arange(0, self.steps, every)
        if _jax.is_tracer(self.first):
            return (self.first[..., None] + jnp.asarray(numbers, jnp.int32)) * self.dt
        return (np.asarray(self.first, np.int64)[..., None] + numbers) * self.dt

    @property
    def duration(self) -> float:
        """How long the run was (ms)."""
        return self.steps * self.dt

    def __getitem__(self, name: str) -> Any:
        if name not in self.values_by_name:
            raise KeyError(
                f"nothing was recorded as {name!r}; there is {', '.join(map(repr, self.values_by_name)) or 'nothing'}"
            )
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        begin = (
            ""
            if _jax.is_tracer(self.first) or np.ndim(self.first)
            else f" from {int(self.first) * self.dt:g} ms"
        )
        found = ", ".join(f"{name} {_text(value)}" for name, value in self.values_by_name.items())
        return f"Recording({self.steps} steps of {self.dt:g} ms{begin}{': ' if found else ''}{found})"

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """For JAX: what it holds, and the rest."""
        settled = (tuple(self.values_by_name), tuple(self.every.items()), self.steps, self.dt)
        return (*self.values_by_name.values(), self.first), settled

    @classmethod
    def tree_unflatten(cls, settled: tuple[Any, ...], children: tuple[Any, ...]) -> Recording:
        """For JAX: the reverse of ``tree_flatten``."""
        names, every, steps, dt = settled
        *values, first = children
        return cls(dict(zip(names, values, strict=True)), dict(every), steps, dt, first)


def _text(value: Any) -> str:
    if isinstance(value, Spikes):
        return repr(value).removeprefix("Spikes(").removesuffix(")").split(" in ")[0]
    leaves = jax.tree.leaves(value)
    return " ".join(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for leaf in leaves)

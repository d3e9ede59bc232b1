"""Sequential: layers one after another."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

from stategraph.errors import describe
from stategraph.mixin import ParamDescriber
from stategraph.nn.activations import ElementWiseBlock
from stategraph.nn.module import Module

Layer = Callable[[Any], Any]


class Sequential(Module):
    """Layers that are called one after another, each with the output of the one before.

    ``in_size`` and ``out_size`` are those of the whole, as far as the layers know them: the ``in_size`` of the first layer
    and the ``out_size`` of the last that are not element by element.

    Args:
      first: the first layer, a module.
      *layers: the others: modules; functions of one argument, whose output has the size of their input; or descriptions of
        modules, ``Linear.desc(10)``, which are made with the ``out_size`` of the layers before them as ``in_size``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> net = sg.nn.Sequential(sg.nn.Linear(4, 8), sg.nn.ReLU(), sg.nn.Linear(8, 2))
    >>> net(jnp.ones((5, 4))).shape, net.in_size, net.out_size, net.layers[1]
    ((5, 2), (4,), (2,), ReLU())
    """

    def __init__(self, first: Module, *layers: Layer) -> None:
        super().__init__()
        if not isinstance(first, Module):
            raise TypeError(f"the first layer of Sequential is a module, not a {type(first).__name__}")
        self._in_size = None
        self._out_size = None
        self.layers: list[Any] = []
        self.extend((first, *layers))

    def update(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    # -------------------------------------------------------------------------------------------- as a list

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int]) -> Sequential: ...
    def __getitem__(self, key: int | slice | Sequence[int]) -> Any:
        """A layer; for a slice or a sequence of positions, a ``Sequential`` of the same layers."""
        if isinstance(key, int):
            return self.layers[key]
        return Sequential(*(self.layers[key] if isinstance(key, slice) else [self.layers[i] for i in key]))

    def append(self, layer: Layer) -> None:
        """Add a layer at the end."""
        self.insert(len(self.layers), layer)

    def extend(self, layers: Iterable[Layer]) -> None:
        """Add layers at the end."""
        for layer in layers:
            self.append(layer)

    def insert(self, index: int, layer: Layer) -> None:
        """Add a layer before the one at ``index``."""
        if not callable(layer):
            raise TypeError(f"a layer of Sequential is a module or a function, not a {type(layer).__name__}")
        if isinstance(layer, ParamDescriber):
            layer = _made(layer, _sizes(self.layers[:index])[1])
        self.layers.insert(index, layer)
        self._in_size, self._out_size = _sizes(self.layers)


def _sizes(layers: Sequence[Any]) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """``in_size`` and ``out_size`` of layers one after another, None where a layer does not say."""
    sized = [
        layer for layer in layers if isinstance(layer, Module) and not isinstance(layer, ElementWiseBlock)
    ]
    return (sized[0].in_size, sized[-1].out_size) if sized else (None, None)


def _made(description: ParamDescriber[Any], in_size: tuple[int, ...] | None) -> Any:
    """The layer that is described, for an input of a size."""
    if in_size is None:
        raise ValueError(
            describe(
                f"{description} cannot be made: the size of its input is not known.",
                why="no layer before it has an out_size",
                fix="give that layer its in_size, or make this one yourself",
            )
        )
    first = next(iter(inspect.signature(description.cls).parameters), "")
    return description(in_size) if first == "in_size" else description(in_size=in_size)

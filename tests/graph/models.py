"""Models for the tests of the object graph, shaped like those of the reference documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import stategraph as sg


class Linear(sg.nn.Module):
    """One ParamState with weight and bias, as the documents' layers have."""

    def __init__(self, inputs: int, outputs: int, seed: int = 0) -> None:
        super().__init__()
        self._in_size = (inputs,)
        self._out_size = (outputs,)
        self.w_mask = None
        weight = jax.random.normal(jax.random.key(seed), (inputs, outputs)) * 0.1
        self.weight = sg.ParamState({"weight": weight, "bias": jnp.zeros(outputs)})

    def update(self, x: jax.Array) -> jax.Array:
        value = self.weight.value
        return x @ value["weight"] + value["bias"]


class Count(sg.State[jax.Array]):
    """A kind of State that only tests know."""


class MLP(sg.graph.Node):
    def __init__(self) -> None:
        self.l1 = Linear(2, 3)
        self.l2 = Linear(3, 4)
        self.l3 = Linear(4, 5)
        self.st = sg.ShortTermState(jnp.zeros(5))


class Block(sg.graph.Node):
    def __init__(self, size: int) -> None:
        self.linear1 = Linear(size, size)
        self.linear2 = Linear(size, size)


class ResNet(sg.graph.Node):
    """Each block by two paths."""

    def __init__(self, size: int, number: int) -> None:
        self.blocks = [Block(size) for _ in range(number)]
        for i, block in enumerate(self.blocks):
            setattr(self, f"block_{i}", block)


class Inception(sg.graph.Node):
    def __init__(self, inputs: int, outputs: int) -> None:
        part = outputs // 4
        self.path1 = Linear(inputs, part)
        self.path2_a = Linear(inputs, part)
        self.path2_b = Linear(part, part)
        self.path3_a = Linear(inputs, part)
        self.path3_b = Linear(part, part)
        self.path4 = Linear(inputs, part)


class Regressor(sg.graph.Node):
    """The documents' model for functional training: it counts its calls."""

    def __init__(self) -> None:
        self.count = Count(jnp.array(0))
        self.linear1 = Linear(1, 16, seed=1)
        self.linear2 = Linear(16, 1, seed=2)

    def __call__(self, x: jax.Array) -> jax.Array:
        self.count.value += 1
        out: jax.Array = self.linear2(jax.nn.relu(self.linear1(x)))
        return out


class Chain(sg.graph.Node):
    def __init__(self) -> None:
        self.s = sg.State(0.0)


def chain(length: int) -> Chain:
    """A chain of Nodes, each holding the next, the last one the first."""
    root = node = Chain()
    for _ in range(length - 1):
        node.next = Chain()  # type: ignore[attr-defined]
        node = node.next  # type: ignore[attr-defined]
    node.next = root  # type: ignore[attr-defined]
    return root


def kinds(found: Any) -> Iterator[tuple[Any, str]]:
    for path, obj in found:
        yield path, type(obj).__name__

"""What the tests of lanes share: ways to run a call, and a model with State of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stategraph as sg

XS = jnp.arange(3, dtype=jnp.float32) + 1
GRID = jnp.arange(6, dtype=jnp.float32).reshape(3, 2)


def close(a: Any, b: Any) -> bool:
    la, lb = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(la) == len(lb) and all(
        np.shape(x) == np.shape(y) and np.allclose(x, y, rtol=1e-5) for x, y in zip(la, lb, strict=True)
    )


WAYS = ("eager", "jit", "disable_jit", "foreign")


def run(way: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Eagerly (compiled and cached), inside jit, as a Python loop over lanes, or inside a JAX trace."""
    if way == "eager":
        return call(*args, **kwargs)
    if way == "jit":
        return sg.compile.jit(lambda *a, **k: call(*a, **k))(*args, **kwargs)
    if way == "foreign":
        return jax.jit(lambda *a, **k: call(*a, **k))(*args, **kwargs)
    with jax.disable_jit():
        return call(*args, **kwargs)


class Cell(sg.nn.Module):
    """A neuron: shared weight, its own potential, a counter."""

    def __init__(self, lanes: int = 3) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.array([0.5, -1.0]))
        self.v = sg.ShortTermState(jnp.zeros((lanes, 2)))
        self.trace = sg.ShortTermState({"a": jnp.ones((lanes,)), "b": jnp.zeros((lanes, 4))})
        self.count = sg.State(0)

    def update(self, x: Any) -> Any:
        self.v.value = self.v.value * 0.9 + self.w.value * x
        held = self.trace.value
        self.trace.value = {"a": held["a"] + x, "b": held["b"] + self.v.value.sum()}
        self.count.value += 1
        return self.v.value.sum() + held["a"]


def states_of(cell: Cell) -> list[Any]:
    return [cell.w, cell.v, cell.trace, cell.count]

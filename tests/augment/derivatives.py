"""What the tests of derivatives share: a model, and the same as a pure function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stategraph as sg

augment = sg.augment


X = jnp.array([0.3, -0.7, 1.1])


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.25]]))
        self.b = sg.ParamState({"b": jnp.array([0.5, 0.1])})
        self.count = sg.State(0)
        self.last = sg.State(jnp.zeros(2))

    def update(self, x: Any) -> Any:
        self.count.value += 1
        self.last.value = jnp.tanh(self.w.value @ x + self.b.value["b"])
        return self.last.value * 2


def pure_net(w: Any, b: Any, x: Any) -> Any:
    return jnp.tanh(w @ x + b) * 2


def close(a: Any, b: Any, tolerance: float = 1e-5) -> bool:
    la, lb = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(la) == len(lb) and all(
        np.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in zip(la, lb, strict=True)
    )


Way = Callable[[Callable[[], Any]], Any]

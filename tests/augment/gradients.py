"""A model that the tests of gradients share."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

import stategraph as sg

grad, value_and_grad = sg.augment.grad, sg.augment.value_and_grad


XS = jnp.arange(4, dtype=jnp.float32) + 1


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.array([1.0, 2.0, 3.0]))
        self.b = sg.ParamState({"b": jnp.float32(0.5)})
        self.count = sg.State(0)
        self.scale = sg.State(2.0)

    def update(self, x: Any) -> Any:
        self.count.value += 1
        return (self.w.value * x).sum() * self.scale.value + self.b.value["b"]

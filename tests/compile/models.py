"""A model that the tests of jit share."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

import stategraph as sg


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.ones(3))
        self.count = sg.State(0)
        self.rate = 0.5
        self.layers = [sg.State(1.0), sg.State(2.0)]
        self.table = {"a": sg.State(3.0)}
        self.sizes = (1, 2)

    def update(self, x: Any) -> Any:
        self.count.value += 1
        total = sum(s.value for s in self.layers) + self.table["a"].value
        return self.w.value * x * self.rate + total * self.sizes[0]

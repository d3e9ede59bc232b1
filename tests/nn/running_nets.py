"""A network of two populations to run, and the loop that a run is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import stategraph as sg
from stategraph import nn
from stategraph.spikes import Spikes
from tests.nn.checking import numbers

DT = 0.5


class Net(nn.Module):
    """Two populations, of which one drives the other, one step later. It returns the mean potential."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.E = nn.LIFRef(size, tau=10.0, tau_ref=2.0, V_th=1.0)
        self.I = nn.LIF(size, tau=5.0, V_th=1.0, spk_reset="hard")
        self.weight = sg.ParamState(jnp.asarray(0.5 + numbers(size, size) / 2))

    def update(self, x: Any = 1.6) -> Any:
        sent = self.E.get_spike()
        self.E(x - 0.1 * self.I.get_spike())
        self.I(0.4 * x + sent @ self.weight.value)
        return self.E.V.value.mean()


def make(size: int = 4) -> Net:
    return nn.init_all_states(Net(size))


def drive(t: Any) -> Any:
    return 1.5 + jnp.sin(t) * jnp.arange(1, 5) / 4


def written_out(net: Any, steps: int, x: Callable[[Any], Any], first: int = 0) -> dict[str, np.ndarray]:
    """The loop, with everything recorded at every step."""

    def step(i: Any) -> Any:
        with sg.environ.context(i=i, t=i * DT):
            output = net(x(i))
            return {"V": net.E.V.value, "I": net.I.V.value, "spk": net.E.get_spike(), "output": output}

    found = sg.compile.for_loop(step, jnp.arange(first, first + steps))
    return {name: np.asarray(array) for name, array in found.items()}


def monitors(net: Any) -> dict[str, Any]:
    return {"V": net.E.V, "I": "I.V", "spk": net.E.spike, "output": lambda output: output}


def assert_equals(rec: Any, expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        found = rec[name].dense if isinstance(rec[name], Spikes) else rec[name]
        np.testing.assert_array_equal(np.asarray(found), array, err_msg=name)

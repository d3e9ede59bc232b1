"""NMDA receptors, against exact solutions and fine integration."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.oracle import agree

DT = 0.1


def response(synapse: Any, spikes: set[int], steps: int) -> np.ndarray:
    """The fraction of open channels after each step, with spikes in some."""
    nn.init_all_states(synapse)
    train = jnp.asarray([i in spikes for i in range(steps)])

    def step(i: Any) -> Any:
        with sg.environ.context(dt=DT, t=i * DT):
            return synapse(train[i])

    return np.asarray(sg.compile.for_loop(step, jnp.arange(steps)))[:, 0]


def fine(slopes: Any, drive: Any, steps: int, jump: Any = None, parts: int = 200) -> np.ndarray:
    """Both variables ``(x, g)`` by small Euler steps."""
    x = g = 0.0
    found = []
    for i in range(steps):
        for _ in range(parts):
            dx, dg = slopes(x, g, drive(i))
            x, g = x + dx * DT / parts, g + dg * DT / parts
        x += 0.0 if jump is None else jump(i)
        found.append(g)
    return np.asarray(found)


def test_a_train_of_spikes_saturates_the_receptors() -> None:
    spikes = {0, 100, 130, 160, 190}
    found = response(nn.NMDA(1), spikes, 600)
    exact = fine(
        lambda x, g, _: (-x / 2, 0.5 * x * (1 - g) - g / 100),
        lambda i: 0.0,
        600,
        lambda i: float(i in spikes),
    )
    np.testing.assert_allclose(found, exact, atol=1e-3)
    assert found[250] < 1


def test_one_spike_opens_what_the_equations_say() -> None:
    found = response(nn.NMDA(1, tau_decay=1e7, tau_rise=3.0, a=0.2), {0}, 400)
    t = DT * np.arange(400)
    np.testing.assert_allclose(found, 1 - np.exp(-0.2 * 3.0 * (1 - np.exp(-t / 3.0))), rtol=1e-4, atol=1e-6)


def test_two_steps_of_kinetics() -> None:
    found = response(nn.BioNMDA(1), {3}, 400)
    exact = fine(
        lambda x, g, T: (T * (1 - x) - 0.5 * x, 2 * x * (1 - g) - 0.01 * g),
        lambda i: float(3 <= i < 8),  # 1 mM for 0.5 ms
        400,
    )
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_magnesium_blocks_what_is_open() -> None:
    """Half of the receptors conduct where cc_Mg exp(-alpha V) = beta."""
    out = nn.MgBlock(cc_Mg=1.0)
    V = -math.log(3.57) / 0.062
    out.bind_cond(jnp.asarray(2.0))
    assert math.isclose(float(out(jnp.asarray(V))), 0.5e-3 * 2.0 * -V, rel_tol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize("kind", [nn.NMDA, nn.BioNMDA])
def test_compiled_loops_do_what_python_does(kind: Any) -> None:
    spikes = jnp.asarray(np.random.default_rng(0).random((8, 2, 3)) < 0.4)

    def make() -> Any:
        synapse = nn.init_all_states(kind(3), batch_size=2)

        def run(spikes: Any) -> Any:
            def step(i: Any, spike: Any) -> Any:
                with sg.environ.context(dt=0.5, t=i * 0.5):
                    return synapse(spike)

            return sg.compile.for_loop(step, jnp.arange(8), spikes)

        return run, list(sg.graph.states(synapse).values())

    agree(make, (spikes,), (spikes,), reference=False)

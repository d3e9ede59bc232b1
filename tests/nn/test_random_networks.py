"""``nn.run`` of random networks is the loop written out, bit for bit, whatever is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, nn
from stategraph.nn import running_chunks
from stategraph.spikes import Spikes
from tests.nn import random_networks
from tests.nn.random_networks import Draw, Matrix, make

DT, STEPS = 0.1, (24, 10)
SEEDS = (3,)


@pytest.fixture(autouse=True)
def time_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(running_chunks, "LONGEST", 12)
    monkeypatch.setattr(running_chunks, "SHORTEST", 1)
    with sg.environ.context(dt=DT):
        yield


class Halves(nn.Module):
    """Two populations, and between them a matrix so large that XLA keeps the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.senders, self.receivers = nn.LIF(64, tau=7.0), nn.HH(100)
        self.populations = [self.senders, self.receivers]
        weight = jnp.asarray(np.random.default_rng(0).normal(0, 0.3, (64, 100)), jnp.float32)
        self.within = nn.AlignPostProj(
            comm=event.FixedProb(64, 64, 0.3, 0.2, seed=0),
            syn=nn.Expon.desc(tau=3.0),
            out=nn.CUBA.desc(),
            post=self.senders,
        )
        self.between = nn.AlignPreProj(
            comm=Matrix(weight), syn=nn.STP(64), out=nn.COBA(E=0.0), post=self.receivers
        )

    def update(self, x: Any = 1.0) -> Any:
        spikes = self.senders.get_spike()
        self.within(spikes)
        self.between(spikes)
        sent = [self.senders(x * 2.1), self.receivers(x * 9.0)]
        return self.senders.V.value.mean(), sent


def halves(seed: int) -> Any:
    sg.random.seed(seed)
    network = nn.init_all_states(Halves())
    nn.clock(network)
    return network


def ran(network: Any, seed: int, how: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(what was recorded, the State in the end) of two runs that follow on one another: by ``nn.run``, by it without
    monitors, or by the loop.
    """
    draw = Draw(seed + 1)
    given = random_networks.inputs(draw, sum(STEPS))
    wanted = random_networks.monitors(network, draw)
    recorded, first = [], 0
    for steps in STEPS:
        own = given[first : first + steps] if isinstance(given, np.ndarray) else given
        if how == "loop":
            recorded.append(_loop(network, own, wanted, first, steps))
        else:
            monitor = {name: target for name, (target, _) in wanted.items()} if how == "run" else {}
            found = nn.run(network, steps * DT, own, monitor)
            recorded.append({name: found[name] for name in monitor})
        first += steps
    states = {path: state.value for path, state in sg.graph.states(network).items() if "clock" not in path}
    return recorded, states


def _loop(network: Any, given: Any, wanted: dict[str, Any], first: int, steps: int) -> dict[str, Any]:
    def step(i: Any, *row: Any) -> dict[str, Any]:
        with sg.environ.context(i=i, t=i * DT):
            output = network(given(i * DT)) if callable(given) else network(*row)
            return {name: look(output) for name, (_, look) in wanted.items()}

    rows = [jnp.asarray(given)] if isinstance(given, np.ndarray) else []
    found: dict[str, Any] = sg.compile.for_loop(step, jnp.arange(first, first + steps), *rows)
    return found


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if jax.dtypes.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("made", [*(partial(make, seed) for seed in SEEDS), partial(halves, 1)])
def test_a_run_is_the_loop_written_out(made: Any) -> None:
    (seed,) = made.args
    (recorded, states), (looped, expected) = ran(made(), seed, "run"), ran(made(), seed, "loop")
    for one, other in zip(recorded, looped, strict=True):
        dense = {name: x.dense if isinstance(x, Spikes) else x for name, x in one.items()}
        assert dense.keys() == other.keys()
        assert_same(dense, other)
    assert_same(states, expected)
    assert_same(ran(made(), seed, "bare")[1], expected)

"""Synapses made of a seed, products from post to pre, and plasticity, step after step.

python benchmarks/synapses.py
STATEGRAPH_PEERS=/path/to/python make bench ARGS=synapses

Each call is a compiled loop over steps of random spikes, and the figure is the time of a step. *Made* adds what arrives over
synapses that are not stored, ``g + spikes @ conn``, whose weights are all the same or normal, beside the same product with
stored ones; *back* is ``conn @ spikes`` with stored synapses, each with a weight of its own, whose post neurons are
active; *plastic* is spike-timing-dependent plasticity of all pairs, with the traces of both populations. The tools run in turn
as in ``events.py``: ours, and brainevent's. Two tools that make synapses make other ones, as many within 3 %.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.events import Call, in_turn, looped, serve, steps_of, timed

Case = tuple[str, int, int, float]
Tools = dict[str, tuple[Call, np.ndarray]]

CASES: tuple[Case, ...] = (
    # what, neurons, synapses of each, rate
    *(("made", n, 100, 0.01) for n in (4_000, 20_000, 100_000)),
    ("made", 10_000, 10, 0.01),
    ("made, normal weights", 20_000, 100, 0.01),
    *(("back", n, 100, 0.01) for n in (4_000, 20_000)),
    *(("plastic", n, 100, 0.01) for n in (4_000, 20_000)),
)
UP, DOWN, TAU = 0.005, 0.00525, 20.0


def spikes_of(case: Case) -> np.ndarray:
    """``(steps, 2, neurons)``: those of both populations."""
    _, size, count, rate = case
    steps = max(steps_of(size, rate, count) // 4, 5)
    return np.random.default_rng(size).random((steps, 2, size)) < rate


def stored(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(post neurons ``(neurons, synapses)``, a weight of each): the same in every process."""
    _, size, count, _ = case
    rng = np.random.default_rng(size + 1)
    targets = np.sort(rng.integers(0, size, (size, count)), axis=1).astype(np.int32)
    return targets, rng.uniform(0.2, 0.8, targets.size).astype(np.float32)


def ours(case: Case) -> Tools:
    import jax.numpy as jnp

    import stategraph as sg
    from stategraph import event, init

    what, size, count, _ = case
    spikes = jnp.asarray(spikes_of(case))
    found: Tools = {}
    g = sg.ShortTermState(jnp.zeros(size))

    def measured(name: str, step: Callable[[Any], None], state: Any) -> None:
        start = jnp.copy(state.value)

        @sg.compile.jit
        def loop(spikes: Any) -> None:
            sg.compile.for_loop(step, spikes)

        def run(total: Any, spikes: Any) -> Any:
            loop(spikes)
            return state._cells[0].v

        loop(spikes)
        first = np.asarray(state.value)
        found[name] = timed(run, None, spikes), first
        state.value = start

    if what.startswith("made"):
        law = 0.5 if what == "made" else init.Normal(0.5, 0.1)
        layers = {
            "stategraph": event.JITConn(size, size, count / size, law, seed=1),
            "stored": event.FixedProb(size, size, count / size, law, seed=1),
        }
        for name, layer in layers.items():

            def send(spike: Any, layer: Any = layer) -> None:
                g.value = g.value + spike[0] @ layer

            measured(name, send, g)
        return found
    targets, weights = stored(case)
    csr = event.CSR(np.arange(size + 1) * count, targets.ravel(), (size, size))
    layer = event.Sparse(csr, weights)
    if what == "back":

        def back(spike: Any) -> None:
            g.value = g.value + layer @ spike[1]

        measured("stategraph", back, g)
        return found
    plasticity = sg.nn.init_all_states(event.STDP(layer, TAU, TAU, UP, DOWN))

    def change(spike: Any) -> None:
        with sg.environ.context(dt=1.0):
            plasticity(spike[0], spike[1])

    measured("stategraph", change, layer.weight)
    return found


def theirs(case: Case) -> Tools:
    import brainevent
    import jax
    import jax.numpy as jnp

    what, size, count, _ = case
    spikes = spikes_of(case)
    if what.startswith("made"):
        given = (jnp.float32(0.5), count / size, 42)
        if what != "made":
            made = brainevent.JITCNormalR(
                (given[0], jnp.float32(0.1), *given[1:]), shape=(size, size), corder=True
            )
        else:
            made = brainevent.JITCScalarR(given, shape=(size, size), corder=True)
        send = lambda g, spike: g + brainevent.EventArray(spike[0]) @ made  # noqa: E731
        return {"brainevent": looped(send, (), size, spikes)}
    targets, weights = stored(case)
    starts, ends = jnp.asarray(np.arange(size + 1) * count, jnp.int32), jnp.asarray(targets.ravel())
    if what == "back":
        rows = brainevent.CSR((jnp.asarray(weights), ends, starts), shape=(size, size))
        back = lambda g, spike: g + rows @ brainevent.EventArray(spike[1])  # noqa: E731
        return {"brainevent": looped(back, (), size, spikes)}
    order = np.argsort(targets.ravel(), kind="stable").astype(np.int32)
    pres = jnp.asarray(np.repeat(np.arange(size, dtype=np.int32), count)[order])
    columns = jnp.asarray(np.searchsorted(targets.ravel()[order], np.arange(size + 1)), jnp.int32)
    places = jnp.asarray(order)
    decay = np.float32(np.exp(-1.0 / TAU))

    @jax.jit
    def run(state: Any, spikes: Any) -> Any:
        def step(state: Any, spike: Any) -> Any:
            w, x, y = state
            x, y = x * decay, y * decay
            w = brainevent.update_csr_on_binary_pre(
                w, ends, starts, spike[0], -DOWN * y, 0.0, 1.0, shape=(size, size)
            )
            w = brainevent.update_csr_on_binary_post(
                w, pres, columns, places, UP * x, spike[1], 0.0, 1.0, shape=(size, size)
            )
            return (w, x + spike[0], y + spike[1]), None

        return jax.lax.scan(step, state, spikes)[0]

    begin, rows_of_spikes = (jnp.asarray(weights), jnp.zeros(size), jnp.zeros(size)), jnp.asarray(spikes)
    first = np.asarray(run(begin, rows_of_spikes)[0])
    return {"brainevent": (timed(lambda _, s: run(begin, s)[0], None, rows_of_spikes), first)}


def measure(cases: Any = CASES) -> dict[str, dict[str, float]]:
    """Microseconds of a step, by case and tool."""

    def label(case: Case) -> str:
        what, size, count, rate = case
        return f"{what}: {size:,} neurons, {count} synapses each, {rate:.1%} active"

    return in_turn(cases, label, __file__, lambda case: 0.03 if case[0].startswith("made") else 1e-4)


def markdown(results: dict[str, dict[str, float]]) -> str:
    from benchmarks.common import table

    names = list(dict.fromkeys(name for row in results.values() for name in row))
    rows = []
    for label, row in results.items():
        best = row["stategraph"]
        cells = [f"{row[name]:.1f} ({row[name] / best:.2f}×)" if name in row else "-" for name in names]
        rows.append([label, *cells])
    return table(rows, ["µs of a step (× stategraph)", *names])


if __name__ == "__main__":
    if sys.argv[1:] == ["ours"]:
        serve(ours)
    elif sys.argv[1:] == ["theirs"]:
        serve(theirs)
    else:
        chosen = [CASES[int(i)] for i in sys.argv[1:]] or CASES
        print(markdown(measure(chosen)))

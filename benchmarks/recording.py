"""What recording costs: the balanced network COBA, run without and with monitors.

make bench ARGS=recording

Every case makes the same steps from the same State, in turn. The loop written out records nothing, or stacks the spikes of every
step and all potentials of every ms; ``nn.run`` records nothing, who spiked when, and that with potentials too. Processor time is
given beside the time that passes: what was recorded is put away while the next chunk runs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import jax
import jax.numpy as jnp

import stategraph as sg
from benchmarks.common import table
from stategraph import nn

DT, DURATION, SIZES = 0.1, 500.0, (4000, 20000)


def measure(sizes: tuple[int, ...] = SIZES, rounds: int = 15) -> list[dict[str, Any]]:
    """One record for each size and case."""
    from coba import COBA

    records = []
    for size in sizes:
        sg.random.seed(0)
        network = nn.init_all_states(COBA(size))
        neurons = network.neurons
        nn.run(network, 100.0, dt=DT)  # the network settles
        kept = {path: jnp.copy(state.value) for path, state in sg.graph.states(network).items()}

        def loop(network: Any = network) -> None:
            def step(i: Any) -> None:
                with sg.environ.context(i=i, t=i * DT, dt=DT):
                    network()

            sg.compile.for_loop(step, jnp.arange(1000, 1000 + round(DURATION / DT), dtype=jnp.int32))

        def stacked(network: Any = network, neurons: Any = neurons) -> Any:
            def step(i: Any) -> Any:
                with sg.environ.context(i=i, t=i * DT, dt=DT):
                    return network() != 0

            def millisecond(first: Any) -> Any:
                spikes = sg.compile.for_loop(step, first + jnp.arange(10, dtype=jnp.int32))
                return spikes, neurons.V.value

            starts = jnp.arange(1000, 1000 + round(DURATION / DT), 10, dtype=jnp.int32)
            return sg.compile.for_loop(millisecond, starts)

        spikes = {"spk": neurons.spike}
        monitors = {
            "run": {},
            "run, spikes": spikes,
            "run, spikes, 10 potentials every 1 ms": {**spikes, "V": (neurons.V, slice(0, 10), 10)},
            "run, spikes, all potentials every 1 ms": {**spikes, "V": (neurons.V, None, 10)},
        }
        cases: dict[str, Callable[[], Any]] = {
            "loop written out": loop,
            "loop written out, stacking both": stacked,
        }
        cases |= {
            name: (lambda given=given, network=network: nn.run(network, DURATION, monitor=given, dt=DT))
            for name, given in monitors.items()
        }
        records += _interleaved(size, network, kept, cases, rounds)
    return records


def _interleaved(
    size: int, network: Any, kept: dict[Any, Any], cases: dict[str, Callable[[], Any]], rounds: int
) -> list[dict[str, Any]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    states = sg.graph.states(network)
    for turn in range(rounds + 1):
        for name, case in cases.items():
            for path, value in kept.items():
                states[path].value = jnp.copy(value)
            jax.block_until_ready([state.value for state in states.values()])
            began, used = time.perf_counter(), time.process_time()
            case()
            jax.block_until_ready(network.neurons.V.value)
            if turn:
                times[name].append((time.perf_counter() - began, time.process_time() - used))
    base = [_middle(times["loop written out"], kind) for kind in (0, 1)]
    return [
        {
            "size": size,
            "case": name,
            "seconds": _middle(found, 0),
            "processor": _middle(found, 1),
            "ratio": _middle(found, 0) / base[0],
            "processor ratio": _middle(found, 1) / base[1],
            "least ratio": min(one[0] for one in found) / min(one[0] for one in times["loop written out"]),
        }
        for name, found in times.items()
    ]


def _middle(found: list[tuple[float, float]], kind: int) -> float:
    return statistics.median(one[kind] for one in found)


def markdown(records: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{r['size']:,}",
            r["case"],
            f"{1e3 * r['seconds']:.1f} ms",
            f"{r['ratio']:.3f}",
            f"{r['least ratio']:.3f}",
            f"{1e3 * r['processor']:.1f} ms",
            f"{r['processor ratio']:.3f}",
        ]
        for r in records
    ]
    header = [
        "neurons",
        "case",
        f"{DURATION:.0f} ms take",
        "ratio",
        "ratio of the least",
        "processor time",
        "ratio",
    ]
    return table(rows, header)


if __name__ == "__main__":
    print(markdown(measure(tuple(map(int, sys.argv[1:])) or SIZES)))

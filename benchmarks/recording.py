"""What recording costs: the balanced network COBA, and neurons without synapses, run without and with monitors.

make bench ARGS=recording, or python -m benchmarks.recording [alone] [sizes]

Every case makes the same steps from the same State, in turn. The loop written out records nothing, or stacks the spikes of every
step and all potentials of every ms; ``nn.run`` records nothing, who spiked when, and that with potentials too. Processor time is
given beside the time that passes: what was recorded is put away while the next chunk runs, and the memory of rows made ready.

Neurons alone (``alone``) have no event products, so XLA runs their loop. There is next to nothing that recording could hide behind.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import jax
import jax.numpy as jnp

import stategraph as sg
from benchmarks.common import table
from stategraph import nn

DT, DURATION, SIZES, ALONE = 0.1, 500.0, (4000, 20000), (1000, 4000, 20000)
BASE = "loop written out"


def measure(sizes: tuple[int, ...] = SIZES, rounds: int = 15) -> list[dict[str, Any]]:
    """One record for each size and case."""
    from coba import COBA

    records = []
    for size in sizes:
        sg.random.seed(0)
        network = nn.init_all_states(COBA(size))
        neurons = network.neurons
        nn.run(network, 100.0, dt=DT)  # the network settles

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
        cases = {BASE: _written_out(network, ()), f"{BASE}, stacking both": stacked}
        cases |= _runs(network, None, monitors)
        records += _interleaved(size, network, cases, rounds)
    return records


def measure_alone(sizes: tuple[int, ...] = ALONE, rounds: int = 15) -> list[dict[str, Any]]:
    """The same for leaky neurons without synapses, and for adaptive ones."""
    records = []
    for size in sizes:
        current = jnp.linspace(0.9, 1.3, size)
        for neurons in (nn.LIF(size, tau=20.0), nn.ALIF(size)):
            nn.init_all_states(neurons)
            spikes, some, all_ = (
                {"spk": neurons.spike},
                {"V": (neurons.V, slice(0, 10), 10)},
                {"V": (neurons.V, None, 10)},
            )
            monitors = {
                "run": {},
                "run, spikes": spikes,
                "run, 10 potentials every 1 ms": some,
                "run, all potentials every 1 ms": all_,
                "run, both": {**spikes, **all_},
            }
            cases = {BASE: _written_out(neurons, (current,))}
            cases |= _runs(neurons, lambda t, current=current: current, monitors)
            kind = type(neurons).__name__
            records += [
                {**one, "case": f"{kind}, {one['case']}"}
                for one in _interleaved(size, neurons, cases, rounds)
            ]
    return records


def _written_out(network: Any, given: tuple[Any, ...]) -> Callable[[], None]:
    """The loop, which records nothing."""

    def loop() -> None:
        def step(i: Any) -> None:
            with sg.environ.context(i=i, t=i * DT, dt=DT):
                network(*given)

        sg.compile.for_loop(step, jnp.arange(1000, 1000 + round(DURATION / DT), dtype=jnp.int32))

    return loop


def _runs(network: Any, inputs: Any, monitors: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    return {
        name: partial(nn.run, network, DURATION, inputs, given, dt=DT) for name, given in monitors.items()
    }


def _interleaved(
    size: int, network: Any, cases: dict[str, Callable[[], Any]], rounds: int
) -> list[dict[str, Any]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    nn.clock(network)
    states = sg.graph.states(network)
    kept = {path: jnp.copy(state.value) for path, state in states.items()}
    for turn in range(rounds + 1):
        for name, case in cases.items():
            for path, value in kept.items():
                states[path].value = jnp.copy(value)
            jax.block_until_ready([state.value for state in states.values()])
            began, used = time.perf_counter(), time.process_time()
            case()
            jax.block_until_ready([state.value for state in states.values()])
            if turn:
                times[name].append((time.perf_counter() - began, time.process_time() - used))
    base = [_middle(times[BASE], kind) for kind in (0, 1)]
    return [
        {
            "size": size,
            "case": name,
            "seconds": _middle(found, 0),
            "processor": _middle(found, 1),
            "ratio": _middle(found, 0) / base[0],
            "processor ratio": _middle(found, 1) / base[1],
            "least ratio": min(one[0] for one in found) / min(one[0] for one in times[BASE]),
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
    alone = sys.argv[1:2] == ["alone"]
    sizes = tuple(map(int, sys.argv[1 + alone :]))
    print(markdown(measure_alone(sizes or ALONE) if alone else measure(sizes or SIZES)))

"""Whole simulations: the balanced networks COBA and CUBA, one second of biological time in steps of 0.1 ms.

python benchmarks/networks.py [SIZE ...]          (4000 and 40000 without sizes)
STATEGRAPH_PEERS=/path/to/python make bench ARGS=networks

Ours are the modules of ``examples/coba.py`` and ``examples/cuba.py``; the others are ``networks_brainstate.py`` and
``networks_brian2.py``, which run with the interpreter that ``STATEGRAPH_PEERS`` names (this one without it). Each
measurement is a process of its own with a seed of its own, the tools in turn; spikes are recorded by all. What is timed is
the simulation: not building the network, not compiling. Firing rates and the irregularity of the spikes come along, with
their spread over the seeds: tools that simulate the same network agree within it. The time of the processor, of all
threads together, is given too: on a busy machine it says more.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import table

HERE = Path(__file__).resolve().parent
SIZES = (4000, 40000)
TOOLS = {
    "stategraph": ["networks.py", "measure"],
    "brainstate": ["networks_brainstate.py"],
    "Brian2 C++, 1 thread": ["networks_brian2.py", "1"],
    "Brian2 C++, 2 threads": ["networks_brian2.py", "2"],
}
TARGETS = {4000: {"brainstate": 20.0, "Brian2 C++": 3.0}, 40000: {"brainstate": 4.0, "Brian2 C++": 2.5}}
"""How many times as long the others are to take."""
DT, DURATION, REPEATS = 0.1, 1000.0, 3
PATIENCE = 10.0
"""What takes more seconds is measured once: threads that wait for each other on a busy machine."""


def ours(kind: str, size: int, seed: int, out: str) -> None:
    """One measurement of ours: the median of a few seconds that follow on one another; the spikes of the last."""
    import importlib

    import stategraph as sg

    sg.random.seed(seed)
    network = sg.nn.init_all_states(getattr(importlib.import_module(kind), kind.upper())(size))
    seconds, processor = [], []
    for _ in range(REPEATS + 1):  # the first compiles, and lets the network settle
        start, before = time.perf_counter(), time.process_time()
        found = sg.nn.run(network, DURATION, monitor={"spikes": network.neurons.spike}, dt=DT)["spikes"]
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - before)
    times = found.times - found.start
    medians = {"seconds": np.median(seconds[1:]), "processor": np.median(processor[1:])}
    np.savez(out, times=times, ids=found.ids, **medians)


def one(tool: str, kind: str, size: int, seed: int) -> dict[str, float] | None:
    """One measurement in a process of its own; None when the tool is not there."""
    from stategraph.spikes import Spikes, cv, rates

    script, *more = TOOLS[tool]
    mine = tool == "stategraph"
    python = sys.executable if mine else os.environ.get("STATEGRAPH_PEERS", sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.npz")
        words = [kind, str(size), str(seed), out]
        command = [python, str(HERE / script), *(more + words if mine else words + more)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "ModuleNotFoundError" in done.stderr and not mine:
            return None
        if done.returncode:
            raise RuntimeError(f"{tool} failed on {kind} with {size} neurons:\n{done.stderr[-2000:]}")
        found = np.load(out)
        when = np.round(found["times"] / DT).astype(np.int32)
        spikes = Spikes(when, found["ids"], shape=(size,), length=round(DURATION / DT), dt=DT)
        numbers = {"rate": rates(spikes).mean(), "cv": np.nanmean(cv(spikes, least=5))}
        numbers |= {name: found[name] for name in ("seconds", "processor")}
        return {name: float(value) for name, value in numbers.items()}


def measure(sizes: tuple[int, ...] = SIZES, rounds: int = 3) -> list[dict[str, Any]]:
    """One record for each network, size and tool: medians over the rounds, rates and CV with their spread."""
    records = []
    for kind in ("coba", "cuba"):
        for size in sizes:
            found: dict[str, list[dict[str, float]]] = {}
            for seed in range(rounds):
                for tool in TOOLS:
                    again = tool in found and found[tool][0]["seconds"] < PATIENCE
                    result = one(tool, kind, size, seed) if seed == 0 or again else None
                    if result is not None:
                        found.setdefault(tool, []).append(result)
            records += [_record(kind, size, tool, found) for tool in TOOLS]
    return records


def _record(kind: str, size: int, tool: str, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    if tool not in found:
        return {"network": kind, "size": size, "tool": tool, "seconds": None}
    seconds = statistics.median(one["seconds"] for one in found[tool])
    base = statistics.median(one["seconds"] for one in found["stategraph"])
    return {
        "network": kind,
        "size": size,
        "tool": tool,
        "seconds": seconds,
        "ratio": seconds / base,
        "all_seconds": [one["seconds"] for one in found[tool]],
        "processor_seconds": statistics.median(one["processor"] for one in found[tool]),
        "rate": [one["rate"] for one in found[tool]],
        "cv": [one["cv"] for one in found[tool]],
        "target": next(
            (factor for name, factor in TARGETS.get(size, {}).items() if tool.startswith(name)), None
        ),
    }


def markdown(records: list[dict[str, Any]]) -> str:
    rows = []
    for r in records:
        about = [r["network"].upper(), f"{r['size']:,}", r["tool"]]
        if r["seconds"] is None:
            rows.append([*about, "not run: not installed", "", "", "", "", ""])
            continue
        spread = [f"{np.mean(r[key]):.2f} ± {np.std(r[key]):.2f}" for key in ("rate", "cv")]
        target = "" if r["target"] is None else f"{r['target']:g}"
        rows.append(
            [
                *about,
                f"{r['seconds']:.3f} s",
                f"{r['processor_seconds']:.3f} s",
                f"{r['ratio']:.2f}",
                target,
                *spread,
            ]
        )
    header = [
        "network",
        "neurons",
        "tool",
        "1 s takes",
        "processor time",
        "ratio to ours",
        "target",
        "rate (Hz)",
        "CV of intervals",
    ]
    return table(rows, header)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        ours(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        records = measure(tuple(int(word) for word in sys.argv[1:]) or SIZES)
        print(markdown(records))
        print(json.dumps(records))

"""Drawing connectivity: 100,000 x 100,000 neurons with 100 synapses each, time and memory beside what the indices need.

python benchmarks/connectivity.py

Each kind is drawn in a process of its own; the memory is its largest resident size less that before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

NEURONS, SYNAPSES = 100_000, 100
KINDS = {
    "FixedProb": {"prob": SYNAPSES / NEURONS},
    "FixedProb, include_self=False": {"prob": SYNAPSES / NEURONS, "include_self": False},
    "FixedNumConn": {"number": SYNAPSES},
    "FixedNumConn, distinct partners": {"number": SYNAPSES, "repeated": False},
    "FixedNumConn, by post": {"number": SYNAPSES, "by": "post"},
}


def resident(which: str) -> float:
    """The resident size of this process in MB: ``VmRSS`` now, ``VmHWM`` the largest. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) / 1024
    raise LookupError(which)


def drawn(kind: str) -> dict[str, float]:
    """Seconds and MB of one drawing, in this process."""
    from stategraph import event

    options = dict(KINDS[kind])
    draw = event.bernoulli if "prob" in options else event.fixed_number
    first = options.pop("prob" if "prob" in options else "number")
    draw(1000, 1000, min(first, 0.1) if draw is event.bernoulli else 10, seed=0)  # what is made only once
    before, start = resident("VmRSS"), time.perf_counter()
    csr = draw(NEURONS, NEURONS, first, seed=0, **options)
    csr.indices.block_until_ready()
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "megabytes": resident("VmHWM") - before,
        "indices": (csr.size + NEURONS + 1) * 4 / 2**20,
    }


def measure() -> dict[str, Any]:
    here = [sys.executable, str(Path(__file__).resolve())]
    return {
        kind: json.loads(subprocess.run([*here, kind], check=True, capture_output=True, text=True).stdout)
        for kind in KINDS
    }


def markdown(results: dict[str, Any]) -> str:
    lines = [
        f"{NEURONS:,} x {NEURONS:,} neurons, {SYNAPSES} synapses each",
        "",
        "| connectivity | seconds | memory (MB) | of it indices |",
        "|---|---|---|---|",
    ]
    for kind, found in results.items():
        lines.append(
            f"| {kind} | {found['seconds']:.2f} | {found['megabytes']:.0f} | {found['indices']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(drawn(sys.argv[1])))
    else:
        print(markdown(measure()))

"""All benchmarks: a Markdown table on stdout and ``benchmarks/results/latest.json``.

make bench
make bench ARGS=per_call
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from benchmarks import (
    augment,
    carried,
    connectivity,
    events,
    first_call,
    modelling,
    networks,
    per_call,
    recording,
    synapses,
    training,
)

PARTS = {
    "per_call": per_call,
    "first_call": first_call,
    "carried": carried,
    "augment": augment,
    "modelling": modelling,
    "events": events,
    "synapses": synapses,
    "connectivity": connectivity,
    "networks": networks,
    "recording": recording,
    "training": training,
}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.exit(f"no benchmark called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    results = {}
    for name in names or PARTS:
        print(f"\n## {name.replace('_', ' ')}\n", flush=True)
        results[name] = PARTS[name].measure()
        print(PARTS[name].markdown(results[name]), flush=True)
    out = Path(__file__).resolve().parent / "results"
    out.mkdir(exist_ok=True)
    about = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "backend": jax.default_backend(),
    }
    (out / "latest.json").write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""What the cost model of ``rewrite-events`` rests on: ordinary and event products with a matrix, side by side.

python benchmarks/event_costs.py

Microseconds of a product inside a compiled loop, the best of several calls, for vectors (batch 1) and batches, at several
rates; ``columns`` reads the matrix the wrong way round. ``threshold=1`` keeps the event product from becoming an
ordinary one; ``own`` leaves that to it. Beside each figure stands what the model says
(``stategraph/passes/event_costs.py``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

import stategraph  # noqa: F401
from stategraph.backends.events.primitives import dense_product
from stategraph.passes import hooks
from stategraph.passes.event_costs import TABLE, dense_cost, event_cost

SIZES = (100, 256, 500, 1_000, 4_000)
BATCHES = (1, 8, 32, 128)
RATES = (0.0, 0.01, 0.1, 0.5, 1.0)
STEPS = 10
MOST = 5e8
"""Multiplications of one step beyond which a case is left out."""


def seconds(product: Callable[[Any, Any], Any], events: Any, matrix: Any) -> float:
    """Of one step of a loop over products."""

    @jax.jit
    def run(events: Any, matrix: Any) -> Any:
        def step(total: Any, own: Any) -> Any:
            return total + product(own, matrix).sum(), None

        return jax.lax.scan(step, 0.0, events)[0]

    best, spent = float("inf"), 0.0
    run(events, matrix).block_until_ready()
    while spent < 0.15:
        start = time.perf_counter()
        run(events, matrix).block_until_ready()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best / len(events)


def measure() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    costs = TABLE[hooks.platform()]
    rows = []
    for size in SIZES:
        matrix = jnp.asarray(rng.normal(size=(size, size)), jnp.float32)
        for batch in BATCHES:
            if batch * size**2 > MOST:
                continue
            shape = (STEPS, size) if batch == 1 else (STEPS, batch, size)
            for rate in RATES:
                events = jnp.asarray(rng.random(shape) < rate, jnp.float32)

                def by(transposed: bool, threshold: float | None) -> Callable[[Any, Any], Any]:
                    return lambda s, w: dense_product(s, w, transposed, threshold)

                found = {
                    "dense": seconds(lambda s, w: s @ w, events, matrix),
                    "rows": seconds(by(False, 1.0), events, matrix),
                    "columns": seconds(by(True, 1.0), events, matrix),
                    "own": seconds(by(False, None), events, matrix),
                }
                model = {
                    "dense": dense_cost(costs, batch, size, size),
                    "rows": event_cost(costs, batch, size, size, rate, False),
                    "columns": event_cost(costs, batch, size, size, rate, True),
                }
                rows.append(
                    {
                        "size": size,
                        "batch": batch,
                        "rate": rate,
                        "measured": {name: 1e6 * value for name, value in found.items()},
                        "model": {name: 1e-3 * value for name, value in model.items()},
                    }
                )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| neurons | batch | rate | dense (model) | rows (model) | columns (model) | own | own / dense |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found, model = row["measured"], row["model"]
        pairs = [f"{found[name]:.1f} ({model[name]:.1f})" for name in ("dense", "rows", "columns")]
        lines.append(
            f"| {row['size']} | {row['batch']} | {row['rate']:.0%} | {' | '.join(pairs)} | {found['own']:.1f} | "
            f"{found['own'] / found['dense']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(measure()))

"""Per call: N States of shape (8,), each read and written, against ``jax.jit`` on a list and the peers' jit.

A round of one function takes about as long whatever N is (some 10 ms for ``jax.jit``): its first call, which finds the caches
full of what ran before, takes two to three times as long as the others.

python benchmarks/per_call.py
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import stategraph as sg
from benchmarks.common import interleaved, peer, ratios, table

TARGETS = {1: 1.1, 10: 0.85, 100: 0.75, 1000: 0.9}


def _ours(n: int) -> Any:
    states = [sg.State(jnp.zeros(8)) for _ in range(n)]

    @sg.compile.jit
    def step() -> None:
        for state in states:
            state.value = state.value + 1.0

    def call() -> Any:
        step()
        return states[-1]._cells[0].v

    return call


def _raw(n: int, donate: bool) -> Any:
    step = jax.jit(lambda xs: [x + 1.0 for x in xs], donate_argnums=(0,) if donate else ())
    box = [[jnp.zeros(8) for _ in range(n)]]

    def call() -> Any:
        box[0] = step(box[0])
        return box[0][-1]

    return call


def _brainstate(n: int) -> Any | None:
    bst = peer("brainstate")
    if bst is None:
        return None
    states = [bst.ShortTermState(jnp.zeros(8)) for _ in range(n)]

    @bst.transform.jit
    def step() -> None:
        for state in states:
            state.value = state.value + 1.0

    def call() -> Any:
        step()
        return states[-1].value

    return call


def _nnx(n: int) -> Any | None:
    nnx = peer("flax.nnx")
    if nnx is None:
        return None

    class Holder(nnx.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            for i in range(n):
                setattr(self, f"s{i}", nnx.Variable(jnp.zeros(8)))

    holder = Holder()

    @nnx.jit
    def step(model: Any) -> None:
        for i in range(n):
            variable = getattr(model, f"s{i}")
            variable.value = variable.value + 1.0

    def call() -> Any:
        step(holder)
        return holder.s0.value

    return call


def measure(sizes: tuple[int, ...] = (1, 10, 100, 1000), rounds: int = 25) -> list[dict[str, Any]]:
    """One record per N: medians in microseconds and ratios to undonated ``jax.jit``."""
    records = []
    for n in sizes:
        calls = {"jax.jit": _raw(n, False), "jax.jit donated": _raw(n, True), "stategraph": _ours(n)}
        for name, make in (("brainstate", _brainstate), ("flax nnx", _nnx)):
            call = make(n)
            if call is not None:
                calls[name] = call
        times = interleaved(calls, inner=max(20, 20_000 // (n + 10)), rounds=rounds)
        records.append(
            {
                "n": n,
                "microseconds": {k: v * 1e6 for k, v in times.items()},
                "ratio": ratios(times, "jax.jit"),
                "target": TARGETS.get(n),
            }
        )
    return records


def markdown(records: list[dict[str, Any]]) -> str:
    names = list(records[0]["ratio"])
    rows = [
        [
            str(r["n"]),
            f"{r['microseconds']['jax.jit']:.1f} µs",
            *(f"{r['ratio'][k]:.2f}" for k in names[1:]),
            str(r["target"]),
        ]
        for r in records
    ]
    return table(rows, ["States", "jax.jit", *names[1:], "target"])


if __name__ == "__main__":
    print(markdown(measure()))

"""Products of events with sparse connectivity: what arrives is added to a conductance, step after step.

python benchmarks/events.py
STATEGRAPH_PEERS=/path/to/python make bench ARGS=events

Each call is a compiled loop over many steps of random spikes, ``g = g + spikes @ W``, with one weight for all synapses;
the figure is the time of a step. The tools run in turn: ours in this process, brainevent in one that
``STATEGRAPH_PEERS`` names (this interpreter without it), which waits while others are measured. The yardstick is a
kernel written by hand in C++ (``events.cc``), where there is a compiler.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CASES: tuple[tuple[int, int, int, float], ...] = (
    # pre, post, synapses of a neuron, rate
    (10_000, 1_000, 10, 0.01),  # the documents' case: each synapse exists with probability 0.01
    *((n, n, 100, rate) for n in (4_000, 20_000, 100_000) for rate in (0.001, 0.01, 0.1)),
)
TARGETS = {(10_000, 0.01): 7.0, (4_000, 0.01): 7.0, (20_000, 0.01): 1.8, (100_000, 0.01): 1.3}
"""How many times as long brainevent is to take."""
ROUNDS = 9
Call = Callable[[], float]


def steps_of(pre: int, rate: float, count: int) -> int:
    return int(min(400, max(10, 4e6 / (pre + 20 * pre * rate * count))))


def drawn(case: tuple[int, int, int, float]) -> tuple[np.ndarray, np.ndarray]:
    """(spikes ``(steps, pre)``, post neurons ``(pre, synapses)``), the same in every process."""
    pre, post, count, rate = case
    rng = np.random.default_rng(pre)
    targets = np.sort(rng.integers(0, post, (pre, count)), axis=1).astype(np.int32)
    return rng.random((steps_of(pre, rate, count), pre)) < rate, targets


def timed(run: Callable[[Any, Any], Any], start: Any, spikes: Any) -> Call:
    """Seconds of a step, the best of a few calls."""
    total = run(start, spikes).block_until_ready()

    def call() -> float:
        nonlocal total
        best = float("inf")
        for _ in range(3):
            before = time.perf_counter()
            total = run(total, spikes).block_until_ready()
            best = min(best, time.perf_counter() - before)
        return best / len(spikes)

    return call


def looped(
    product: Callable[..., Any], shared: Any, size: int, spikes: np.ndarray
) -> tuple[Call, np.ndarray]:
    """(the measurement, the conductance after one call) of ``product(g, spike, *shared)``."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(total: Any, spikes: Any, shared: Any) -> Any:
        return jax.lax.scan(lambda g, spike: (product(g, spike, *shared), None), total, spikes)[0]

    given, nothing = jnp.asarray(spikes), jnp.zeros(size)
    return timed(lambda g, s: run(g, s, shared), nothing, given), np.asarray(run(nothing, given, shared))


def ours(case: tuple[int, int, int, float]) -> dict[str, tuple[Call, np.ndarray]]:
    import jax
    import jax.numpy as jnp

    import stategraph as sg
    from stategraph import event
    from stategraph.backends.events import loops
    from stategraph.backends.events.primitives import csr_product

    pre, post, count, _ = case
    spikes, targets = drawn(case)
    csr = event.CSR(np.arange(pre + 1) * count, targets.ravel(), (pre, post))
    weight = jnp.float32(0.5)
    g = sg.ShortTermState(jnp.zeros(post))

    @sg.compile.jit
    def loop(spikes: Any) -> None:
        def step(spike: Any) -> None:
            g.value = g.value + event.product(spike, 0.5, csr)

        sg.compile.for_loop(step, spikes)

    def run(total: Any, spikes: Any) -> Any:
        loop(spikes)
        return g._cells[0].v

    found = {}
    given = jnp.asarray(spikes)
    loop(given)
    first = np.asarray(g.value)
    found["stategraph"] = timed(run, None, given), first

    def product(g: Any, spike: Any, weight: Any, indptr: Any, indices: Any) -> Any:
        return g + csr_product(spike, weight, indptr, indices, csr.shape)

    shared = (weight, csr.indptr, csr.indices)
    found["our op in plain JAX"] = looped(product, shared, post, spikes)

    def generically(g: Any, *operands: Any) -> Any:
        return g + loops.csr(*operands, shape=csr.shape, transposed=False)

    found["ours without kernels"] = looped(generically, shared, post, spikes)
    if yardstick():

        def by_hand(g: Any, spike: Any, *shared: Any) -> Any:
            send = jax.ffi.ffi_call("benchmark_send", g, input_output_aliases={4: 0})
            return send(spike, *shared, g)

        found["C++ by hand"] = looped(by_hand, shared, post, spikes)
    if pre * post <= 10_000_000:
        matrix = jnp.asarray(csr.todense(0.5))
        found["dense product"] = looped(
            lambda g, spike, m: g + spike.astype(m.dtype) @ m, (matrix,), post, spikes
        )
    return found


def yardstick() -> bool:
    """Compile and register the kernel in C++; False where there is no compiler."""
    import ctypes

    import jax

    if not hasattr(yardstick, "library"):
        compiler = shutil.which("g++") or shutil.which("clang++")
        yardstick.library = None  # type: ignore[attr-defined]
        if compiler is not None:
            folder = Path(tempfile.mkdtemp())
            target = folder / f"events{sysconfig.get_config_var('SHLIB_SUFFIX')}"
            flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", f"-I{jax.ffi.include_dir()}"]
            source = Path(__file__).with_name("events.cc")
            subprocess.run([compiler, *flags, str(source), "-o", str(target)], check=True)
            library = ctypes.CDLL(str(target))
            jax.local_devices(backend="cpu")
            jax.ffi.register_ffi_target(
                "benchmark_send", jax.ffi.pycapsule(library.SendHandler), platform="cpu"
            )
            yardstick.library = library  # type: ignore[attr-defined]
    return yardstick.library is not None  # type: ignore[attr-defined]


def theirs(case: tuple[int, int, int, float]) -> dict[str, tuple[Call, np.ndarray]]:
    import brainevent
    import jax.numpy as jnp

    pre, post, count, _ = case
    spikes, targets = drawn(case)
    number = brainevent.FixedPostNumConn((jnp.float32(0.5), jnp.asarray(targets)), shape=(pre, post))
    rows = brainevent.CSR(
        (jnp.float32(0.5), jnp.asarray(targets.ravel()), jnp.asarray(np.arange(pre + 1) * count, jnp.int32)),
        shape=(pre, post),
    )
    found = {}
    for name, connectivity in (("fixed number", number), ("CSR", rows)):

        def product(g: Any, spike: Any, connectivity: Any = connectivity) -> Any:
            return g + brainevent.EventArray(spike) @ connectivity

        found[f"brainevent {name}"] = looped(product, (), post, spikes)
    return found


def serve(tools: Callable[[Any], dict[str, tuple[Call, np.ndarray]]]) -> None:
    """Answer one line with one line: a case with checksums, anything else with the seconds of each tool."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    found: dict[str, tuple[Call, np.ndarray]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked != "go":
            found.clear()
            found.update(tools(tuple(asked)))
            answer: Any = {name: float(np.float64(total).sum()) for name, (_, total) in found.items()}
        else:
            answer = {name: call() for name, (call, _) in found.items()}
        out.write(json.dumps(answer) + "\n")
        out.flush()


class Worker:
    """A process that measures some of the tools when it is asked."""

    def __init__(self, python: str, which: str, file: str = __file__) -> None:
        self.process = subprocess.Popen(
            [python, file, which], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: Any) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def has_brainevent(python: str) -> bool:
    return not subprocess.run([python, "-c", "import brainevent"], capture_output=True).returncode


def measure(cases: Any = CASES) -> dict[str, dict[str, float]]:
    """Microseconds of a step, by case and tool."""

    def label(case: tuple[int, int, int, float]) -> str:
        pre, post, count, rate = case
        return f"{pre:,} × {post:,}, {count} synapses each, {rate:.1%} active"

    return in_turn(cases, label, __file__)


def in_turn(
    cases: Any, label: Callable[[Any], str], file: str, tolerance: Callable[[Any], float] = lambda case: 1e-4
) -> dict[str, dict[str, float]]:
    """Microseconds of a step, by case and tool: medians of rounds in which the tools take turns.

    Args:
      cases: what the tools of ``file`` are asked for.
      label: names a case.
      file: a script that serves ours and theirs.
      tolerance: by which share the sums of what tools compute in a case may differ.
    """
    peers = os.environ.get("STATEGRAPH_PEERS", sys.executable)
    workers = [Worker(sys.executable, "ours", file)]
    if has_brainevent(peers):
        workers.append(Worker(peers, "theirs", file))
    results = {}
    for case in cases:
        sums: dict[str, float] = {}
        for worker in workers:
            sums |= worker.ask(list(case))
        right = next(iter(sums.values()))
        wrong = [name for name, total in sums.items() if abs(total - right) > tolerance(case) * abs(right)]
        times: dict[str, list[float]] = {name: [] for name in sums if name not in wrong}
        for _ in range(ROUNDS):
            for worker in workers:
                for name, seconds in worker.ask("go").items():
                    if name in times:
                        times[name].append(seconds)
        found = {name: 1e6 * statistics.median(values) for name, values in times.items()}
        results[label(case)] = found | {f"{name} (WRONG SUM)": float("nan") for name in wrong}
    for worker in workers:
        worker.close()
    return results


def markdown(results: dict[str, dict[str, float]]) -> str:
    from benchmarks.common import table

    names = list(dict.fromkeys(name for row in results.values() for name in row))
    rows = []
    for label, row in results.items():
        best = row["stategraph"]
        cells = [f"{row[name]:.1f} ({row[name] / best:.2f}×)" if name in row else "-" for name in names]
        rows.append([label, *cells])
    wanted = ", ".join(f"{times}× at {pre:,}" for (pre, _), times in TARGETS.items())
    return (
        table(rows, ["µs of a step (× stategraph)", *names])
        + f"\n\nTargets for brainevent at 1 % active: {wanted}."
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["ours"]:
        serve(ours)
    elif sys.argv[1:] == ["theirs"]:
        serve(theirs)
    else:
        chosen = [CASES[int(i)] for i in sys.argv[1:]] or CASES
        print(markdown(measure(chosen)))

"""What a GPU makes of event products, networks and training, and what its kernels gain over XLA's own code.

    python -m benchmarks.gpu [products|matrices|operations|networks|training|calls ...]

Needs a GPU. Products and operations run in compiled loops over random spikes, as they do in a network, so that the time to
start a kernel counts; a loop whose body is one addition is the floor. *XLA* is the generic form, which looks at every
synapse. Networks are COBA and CUBA with their spikes recorded, simulated as a user does; without the kernels the host looks for the spikes.
"""

from __future__ import annotations

import functools
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import per_call, training
from benchmarks.common import interleaved, ratios, table

SIZES = (4_000, 20_000, 100_000, 1_000_000)
RATES = (0.001, 0.01, 0.1)
SYNAPSES = 100
"""Of each neuron."""
DENSE = 20_000
"""Neurons of the largest dense matrix."""
NETWORKS = ((4_000, 1000.0), (40_000, 500.0), (400_000, 100.0))
"""Neurons, and milliseconds of biological time."""
ROUNDS = 5
Records = list[dict[str, Any]]


def timed(run: Callable[..., Any], *operands: Any) -> float:
    """Seconds of a call: the median of a few."""
    for _ in range(2):
        jax.block_until_ready(run(*operands))
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(run(*operands))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def looped(step: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled loop ``total = step(total, spikes of a step, *shared)``."""

    @jax.jit
    def run(total: Any, spikes: Any, *shared: Any) -> Any:
        return lax.scan(lambda total, own: (step(total, own, *shared), None), total, spikes)[0]

    return run


def connectivity(n: int) -> tuple[Any, Any]:
    """``indptr`` and ``indices`` of random synapses."""
    indices = jax.random.randint(jax.random.key(1), (n * SYNAPSES,), 0, n, dtype=jnp.int32)
    return jnp.arange(n + 1, dtype=jnp.int32) * SYNAPSES, indices


def steps_of(n: int) -> int:
    return max(10, min(400, 20_000_000 // n))


@contextmanager
def without_kernels() -> Iterator[None]:
    """Let the dispatch take what XLA makes of the generic forms."""
    from stategraph.backends.events import dispatch
    from stategraph.nn import running

    before = dispatch.on_gpu, running.can_list
    dispatch.on_gpu = running.can_list = lambda: False
    try:
        yield
    finally:
        dispatch.on_gpu, running.can_list = before


def both(bind: Callable[..., Any], *operands: Any, steps: int) -> dict[str, float]:
    """Microseconds of a step with our kernels and with XLA's code."""
    found = {}
    for name, context in (("kernels", None), ("XLA", without_kernels())):
        run = looped(functools.partial(lambda bind, *given: bind(*given), bind))
        if context is None:
            found[name] = 1e6 * timed(run, *operands) / steps
        else:
            with context:
                found[name] = 1e6 * timed(run, *operands) / steps
    return found


def products() -> Records:
    """``g + spikes @ W`` with one weight, from pre to post."""
    from stategraph.backends.events.primitives import csr_add

    records = []
    for n in SIZES:
        steps = steps_of(n)
        indptr, indices = connectivity(n)
        weight, nothing = jnp.float32(0.5), jnp.zeros(n)

        def add(total: Any, own: Any, *shared: Any, n: int = n) -> Any:
            return csr_add(total, own, *shared, shape=(n, n))

        ours = looped(add)
        with without_kernels():
            generic = looped(functools.partial(add))
            draws = {rate: jax.random.uniform(jax.random.key(3), (steps, n)) < rate for rate in RATES}
            xla = {rate: timed(generic, nothing, own, weight, indptr, indices) for rate, own in draws.items()}
        floor = timed(looped(lambda total, own: total + own[0]), nothing, draws[0.01])
        matrix = None
        if n <= DENSE:
            rows = jnp.repeat(jnp.arange(n), SYNAPSES)
            matrix = jnp.zeros((n, n)).at[rows, indices].add(0.5)
        for rate, own in draws.items():
            seconds = {
                "loop": floor,
                "kernels": timed(ours, nothing, own, weight, indptr, indices),
                "XLA": xla[rate],
            }
            if matrix is not None:
                dense = looped(lambda total, own, matrix: total + own.astype(jnp.float32) @ matrix)
                seconds["dense"] = timed(dense, nothing, own, matrix)
            records.append(
                {"neurons": n, "rate": rate, **{name: 1e6 * s / steps for name, s in seconds.items()}}
            )
    return records


def matrices() -> Records:
    """``g + spikes @ W`` with a dense matrix: its active rows, or the ordinary product."""
    from stategraph.backends.events.primitives import dense_product

    records = []
    for n in (1_000, 4_000, DENSE):
        steps = steps_of(n)
        matrix = jax.random.normal(jax.random.key(2), (n, n))
        declared, guessed = (
            looped(lambda total, own, matrix, at=at: total + dense_product(own, matrix, threshold=at))
            for at in (None, 0.1)
        )
        whole = looped(lambda total, own, matrix: total + own.astype(jnp.float32) @ matrix)
        for rate in (*RATES, 1.0):
            own = jax.random.uniform(jax.random.key(3), (steps, n)) < rate
            seconds = {
                "rate declared": timed(declared, jnp.zeros(n), own, matrix),
                "not declared": timed(guessed, jnp.zeros(n), own, matrix),
                "XLA": timed(whole, jnp.zeros(n), own, matrix),
            }
            records.append(
                {"neurons": n, "rate": rate, **{name: 1e6 * s / steps for name, s in seconds.items()}}
            )
    return records


def operations(n: int = 100_000) -> Records:
    """Other products of as many events, at a rate of 1 %."""
    from stategraph import event
    from stategraph.backends.events import primitives
    from stategraph.backends.events.change_primitive import csr_change
    from stategraph.backends.events.ring_primitive import csr_ring

    shape, steps = (n, n), steps_of(n)
    indptr, indices = connectivity(n)
    spikes = jax.random.uniform(jax.random.key(3), (steps, n)) < 0.01
    values = jax.random.normal(jax.random.key(4), (n,))
    each = jax.random.uniform(jax.random.key(5), indices.shape)
    columns, order = event.CSR(indptr, indices, shape).by_post
    listed = columns.indptr, columns.indices, order
    seed = event.JITConn(n, n, SYNAPSES / n, 0.5, seed=0)
    batch = jax.random.uniform(jax.random.key(6), (10, 32, n)) < 0.01
    law = {"shape": shape, "low": 0.0, "high": 1.0, "mu": 0.0, "up": True}

    def columns_of(total: Any, own: Any, *given: Any) -> Any:
        weight, indptr, indices, *by_post = given
        return total + primitives.csr_product(own, weight, indptr, indices, shape, True, tuple(by_post))

    cases: dict[str, tuple[Any, ...]] = {
        "weight of each synapse": (
            lambda total, own, *given: primitives.csr_add(total, own, *given, shape),
            (jnp.zeros(n), spikes, each, indptr, indices),
        ),
        "weight of each synapse, bfloat16": (
            lambda total, own, *given: primitives.csr_add(total, own, *given, shape),
            (jnp.zeros(n, jnp.bfloat16), spikes, each.astype(jnp.bfloat16), indptr, indices),
        ),
        "32 vectors": (
            lambda total, own, *given: primitives.csr_add(total, own, *given, shape),
            (jnp.zeros((32, n)), batch, jnp.float32(0.5), indptr, indices),
        ),
        "post to pre": (columns_of, (jnp.zeros(n), spikes, each, indptr, indices)),
        "post to pre, listed": (columns_of, (jnp.zeros(n), spikes, each, indptr, indices, *listed)),
        "of synapses (outer)": (
            lambda total, own, *given: primitives.csr_outer(own, values + total[:n], *given, shape),
            (jnp.zeros(indices.size), spikes, indptr, indices),
        ),
        "of synapses, added": (
            lambda total, own, *given: primitives.csr_outer_add(total, own, values, *given, shape),
            (jnp.zeros(indices.size), spikes, indptr, indices),
        ),
        "plasticity": (
            lambda total, own, *given: csr_change(total, own, values, jnp.float32(0.1), *given, **law),
            (each, spikes, indptr, indices),
        ),
        "delays": (
            lambda total, own, *given: csr_ring(
                total, own, jnp.float32(0.5), *given, jnp.int32(n), (n, 4 * n)
            ),
            (jnp.zeros(5 * n), spikes, indptr, indices),
        ),
        "made of a seed": (
            lambda total, own: total + seed._send(own, False),
            (jnp.zeros(n), spikes[:10]),
        ),
    }
    return [
        {"operation": name, "neurons": n, **both(step, *operands, steps=len(operands[1]))}
        for name, (step, operands) in cases.items()
    ]


def networks() -> Records:
    """COBA and CUBA by ``nn.run``, spikes recorded."""
    import stategraph as sg

    def simulated(kind: str, size: int, duration: float) -> tuple[float, float]:
        sg.random.seed(0)
        network = sg.nn.init_all_states(getattr(importlib.import_module(kind), kind.upper())(size))
        seconds = []
        for _ in range(4):  # the first compiles
            start = time.perf_counter()
            monitor = {"spikes": network.neurons.spike}
            found = sg.nn.run(network, duration, monitor=monitor, dt=0.1)["spikes"]
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[1:]), len(found.times) / size / duration * 1000

    records = []
    for kind in ("coba", "cuba"):
        for size, duration in NETWORKS:
            step = 1e6 / (duration / 0.1)
            seconds, hertz = simulated(kind, size, duration)
            records.append({"network": kind, "neurons": size, "kernels": seconds * step, "rate": hertz})
            if kind == "coba":
                with without_kernels():
                    records[-1]["XLA"] = simulated(kind, size, duration)[0] * step
    return records


def calls() -> Records:
    """A call with many States, against a list of arrays under ``jax.jit``."""
    records = []
    for n in (1, 10, 100):
        compared = {"stategraph": per_call._ours(n), "jax": per_call._raw(n, True)}
        times = interleaved(compared, inner=100, rounds=11)
        records.append(
            {"States": n, "jax": times["jax"] * 1e6, "stategraph / jax": ratios(times, "jax")["stategraph"]}
        )
    return records


def steps() -> Records:
    """A training step of a recurrent network of spiking neurons, against the same in JAX."""
    found = []
    for record in training.measure(7):
        found.append({"neurons": record["neurons"], "jax, ms": record["milliseconds"]["jax"]})
        found[-1] |= {f"{name} / it": ratio for name, ratio in record["ratio"].items() if name != "jax"}
    return found


PARTS: dict[str, Callable[[], Records]] = {
    "products": products,
    "matrices": matrices,
    "operations": operations,
    "networks": networks,
    "training": steps,
    "calls": calls,
}


def markdown(records: Records) -> str:
    names = list(dict.fromkeys(name for record in records for name in record))

    def shown(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    return table([[shown(record.get(name, "-")) for name in names] for record in records], names)


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.exit(f"no part called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if jax.default_backend() != "gpu":
        sys.exit("there is no GPU that JAX can use")
    print(
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; microseconds of a step unless it says otherwise"
    )
    results = {}
    for name in names or PARTS:
        print(f"\n## {name}\n", flush=True)
        results[name] = PARTS[name]()
        print(markdown(results[name]), flush=True)
    out = Path(__file__).resolve().parent / "results"
    out.mkdir(exist_ok=True)
    about = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    (out / "gpu.json").write_text(json.dumps({"about": about, "results": results}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])

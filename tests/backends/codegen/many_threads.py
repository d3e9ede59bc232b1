"""Kernels with one, two, three and four threads, whatever their size; run by ``test_threads.py`` in a process of its own.

The process has four threads (``NPROC``) on two devices, also where the machine has fewer processors.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import stategraph as sg
from stategraph import event
from stategraph.backends.codegen import machine, pieces
from stategraph.backends.codegen.kernel import generate
from stategraph.backends.events.compact_primitive import compact
from stategraph.backends.events.primitives import csr_product
from stategraph.backends.native.frame import frame
from tests.backends.codegen.running import kernel_of, without_kernels

STEPS = 6
KINDS = (("sorted", 0.7), ("mixed", 0.5), ("equal", 0.0), ("mixed", 0.9), ("sorted", 2.0))
"""How synapses lie, and the threshold: all spike at 0, nobody does at 2."""
RANDOM = np.random.default_rng(5)


def matrix(pre: int, post: int, kind: str) -> tuple[Any, Any, np.ndarray]:
    """(indptr, indices, dense) of some synapses: in order, in none, or several of the same two neurons."""
    counts = RANDOM.integers(0, 40, pre)
    rows = [RANDOM.integers(0, max(post // (4 if kind == "equal" else 1), 1), n) for n in counts]
    if kind != "mixed":
        rows = [np.sort(row) for row in rows]
    indices = np.concatenate(rows).astype(np.int32)
    dense = np.zeros((pre, post))
    np.add.at(dense, (np.repeat(np.arange(pre), counts), indices), 1.0)
    return jnp.asarray(np.cumsum([0, *counts]), jnp.int32), jnp.asarray(indices), dense


def network(
    size: int, kind: str, threshold: float, weighted: bool, listed: bool = False
) -> tuple[Any, list[Any], Any]:
    """A loop over a network of two populations, its operands, and the same in NumPy for the first step."""
    half = max(size // 3, 1)
    one, two = matrix(half, size, kind), matrix(size - half, size, kind)
    weights = [jnp.asarray(RANDOM.random(m[1].size) if weighted else 0.25, jnp.float32) for m in (one, two)]
    v = jnp.asarray(RANDOM.random(size), jnp.float32)

    def run(v: Any, g: Any, a: Any, b: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            v, g = carry
            spikes = v > threshold
            g = g * 0.9
            g = g + csr_product(spikes[:half], a, one[0], one[1], (half, size))
            g = g + csr_product(spikes[half:], b, two[0], two[1], (size - half, size))
            x = -0.1 * (1 + g)
            v = jnp.where(spikes, 0.0, v + 0.1 * (jnp.expm1(x) / x) * (g * 0.01 + 1.0 - v))
            return (v, g), (spikes, v > threshold)

        (v, g), (recorded, after) = lax.scan(step, (v, g), None, length=STEPS)
        return (v, g, compact(after)) if listed else (v, g, recorded)

    return run, [v, jnp.zeros(size, jnp.float32), *weights], (half, one, two, threshold)


def kernel_is_shared(steps: int) -> bool:
    """Whether threads share a loop of so many steps over 100 neurons."""

    def run(v: Any) -> Any:
        return lax.scan(lambda v, _: (v * 0.9 + 0.1, None), v, None, length=steps)[0]

    return generate(without_kernels(run, jnp.zeros(100)).body, layout=frame()).shared


def compare() -> None:
    """Sizes around the ends of pieces, of vectors and of blocks; all, some and no neurons active."""
    most = machine.threads_ready()
    sizes = (2, 63, 129, 530, 1600)
    for number, size in enumerate(sizes):
        for kind, threshold in KINDS[number % 2 :: 2]:
            run, operands, facts = network(size, kind, threshold, weighted=number % 2 == 1)
            program = without_kernels(run, *operands)
            code = generate(program.body, layout=frame(), salt=machine.description())
            assert code.shared
            assert code.text.count("call i64 @stategraph_split") == 4, "products are not shared"
            kernel, found = kernel_of(program), {}
            given = [*operands, *program.captured.values()]
            for threads in (1, 2, 3, 4):
                most.value = threads
                for _ in range(3):
                    found[threads] = [np.asarray(x) for x in kernel(*given)]
                    for a, b in zip(found[threads], found[1], strict=True):
                        np.testing.assert_array_equal(a, b, err_msg=f"{size} {kind} {threads}")
            if number % 2 == 0:
                check(found[4], operands[0], facts)


def check_lists() -> None:
    """Lists of what every step records, which are those of what the next step sends."""
    most = machine.threads_ready()
    for size in (63, 1600):
        for kind, threshold in KINDS[::2]:
            RANDOM.bit_generator.state = np.random.default_rng(size).bit_generator.state
            dense, operands, _ = network(size, kind, threshold, weighted=False)
            RANDOM.bit_generator.state = np.random.default_rng(size).bit_generator.state
            lists, _, _ = network(size, kind, threshold, weighted=False, listed=True)
            kernels = []
            for run in (dense, lists):
                program = without_kernels(run, *operands)
                kernels.append((kernel_of(program), [*operands, *program.captured.values()]))
            for threads in (1, 2, 4):
                most.value = threads
                (v, _, spikes), (last, _, places) = (list(map(np.asarray, k(*given))) for k, given in kernels)
                wanted = np.flatnonzero([*spikes[1:], v > np.float32(threshold)])
                np.testing.assert_array_equal(v, last)
                np.testing.assert_array_equal(places[: 1 + len(wanted)], [len(wanted), *wanted])


def check(found: list[np.ndarray], v: Any, facts: Any) -> None:
    """What the recorded spikes send is what arrived."""
    half, one, two, threshold = facts
    recorded, g = found[2], np.zeros(v.size)
    np.testing.assert_array_equal(recorded[0], np.asarray(v) > threshold)
    for spikes in recorded:
        g = g * 0.9 + 0.25 * (spikes[:half] @ one[2] + spikes[half:] @ two[2])
    np.testing.assert_allclose(found[1], g, rtol=1e-4, atol=1e-5)


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neurons = sg.nn.LIF(700, tau=20.0, spk_reset="hard")
        self.synapses = sg.nn.DeltaProj(comm=event.FixedProb(700, 700, 0.05, 0.05, seed=0), post=self.neurons)

    def update(self, current: Any) -> Any:
        self.synapses(self.neurons.get_spike())
        return self.neurons(current)


def recorded() -> None:
    """Lists of spikes that a run records, from a module."""
    most = machine.threads_ready()
    found = []
    for threads in (1, 4):
        most.value = threads
        sg.random.seed(0)
        net = sg.nn.init_all_states(Net())
        spikes = sg.nn.run(net, 30.0, inputs=2.0, monitor={"s": net.neurons.spike}, dt=0.1)["s"]
        found.append((np.asarray(spikes.times), np.asarray(spikes.ids), np.asarray(net.neurons.V.value)))
    assert found[0][0].size > 100
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def stress() -> None:
    """Several threads of Python run kernels at once, on both devices."""
    machine.threads_ready().value = 4
    run, operands, _ = network(1600, "sorted", 0.6, weighted=True)
    program = without_kernels(run, *operands)
    kernel = kernel_of(program)
    given = [*operands, *program.captured.values()]
    wanted = [np.asarray(x) for x in kernel(*given)]
    wrong: list[str] = []

    def call(device: Any) -> None:
        own = jax.device_put(given, device)
        for _ in range(40):
            results = kernel(*own)
            if not all(np.array_equal(a, b) for a, b in zip(results, wanted, strict=True)):
                wrong.append(str(device))

    devices = jax.devices("cpu")
    workers = [threading.Thread(target=call, args=(devices[i % len(devices)],)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong, wrong


if __name__ == "__main__":
    assert not kernel_is_shared(pieces.STEPS), "few neurons"
    pieces.ENOUGH = 1
    assert kernel_is_shared(pieces.STEPS) and not kernel_is_shared(pieces.STEPS - 1), "few steps"
    pieces.STEPS = 1
    if "alone" not in sys.argv:
        assert len(jax.devices("cpu")) == 2
        compare()
        check_lists()
        recorded()
    stress()
    print("equal")

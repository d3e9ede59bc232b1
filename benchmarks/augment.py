"""Gradient steps and ``vmap`` over 1,000 lanes: per call in one process, first call in fresh ones.

    python benchmarks/augment.py                  # both, against plain JAX and the peers
    python benchmarks/augment.py vmap ours        # seconds of one first call (what the parent process runs)

The gradient step is a perceptron of two layers with plain gradient descent, which hands out the loss; the lanes are leaky
neurons that each integrate their own input for ten steps, which hand out their mean. Everybody computes the same, and the weights
or voltages stay where they are: plain JAX passes them on, without donation (what ratios refer to) and with it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import interleaved, peer, ratios, table

ROOT = Path(__file__).resolve().parent.parent
LANES, STEPS = 1000, 10
TARGETS = {"call": 1.05, "first": 1.3}
Call = Callable[[], Any]


def weights() -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "a": jax.random.normal(keys[0], (64, 128)) * 0.1,
        "b": jax.random.normal(keys[1], (128, 10)) * 0.1,
    }


def loss_of(p: Any, x: Any) -> Any:
    return -jax.nn.log_softmax(jnp.tanh(x @ p["a"]) @ p["b"])[:, 0].mean()


def neuron(v: Any, current: Any) -> Any:
    for _ in range(STEPS):
        v = v + 0.1 * (current - v)
        v = jnp.where(v > 1.0, 0.0, v)
    return v


def passed_on(step: Callable[..., Any], state: Any, argument: Any, donated: bool) -> Call:
    """Plain JAX: a pure step whose new state is that of the next call."""
    jitted = jax.jit(step, donate_argnums=0 if donated else ())
    box = [jax.tree.map(jnp.copy, state)]

    def call() -> Any:
        box[0], result = jitted(box[0], argument)
        return result

    return call


def gradient(implementation: str) -> Call | None:
    """One training step, as a function of nothing."""
    x = jnp.ones((32, 64))
    if implementation.startswith("jax"):

        def step(p: Any, x: Any) -> Any:
            loss, grads = jax.value_and_grad(loss_of)(p, x)
            return jax.tree.map(lambda w, g: w - 0.1 * g, p, grads), loss

        return passed_on(step, weights(), x, implementation == "jax donated")
    if implementation == "nnx":
        return _nnx_gradient(x)
    if implementation == "ours":
        import stategraph as sg

        params: Any = {k: sg.ParamState(v) for k, v in weights().items()}
        jit, differentiate = sg.compile.jit, sg.augment.grad
    else:
        bst = peer("brainstate")
        if bst is None:
            return None
        params = {k: bst.ParamState(v) for k, v in weights().items()}
        jit, differentiate = bst.transform.jit, bst.transform.grad

    @jit
    def train(x: Any) -> Any:
        def loss() -> Any:
            return loss_of({k: p.value for k, p in params.items()}, x)

        grads, value = differentiate(loss, params, return_value=True)()
        for name, grad in grads.items():
            params[name].value = params[name].value - 0.1 * grad
        return value

    return lambda: train(x)


def _nnx_gradient(x: Any) -> Call | None:
    nnx = peer("flax.nnx")
    if nnx is None:
        return None

    class Net(nnx.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            for name, value in weights().items():
                setattr(self, name, nnx.Param(value))

    net = Net()

    @nnx.jit
    def train(net: Any, x: Any) -> Any:
        loss, grads = nnx.value_and_grad(lambda net: loss_of({"a": net.a[...], "b": net.b[...]}, x))(net)
        for name in ("a", "b"):
            getattr(net, name)[...] = getattr(net, name)[...] - 0.1 * getattr(grads, name)[...]
        return loss

    return lambda: train(net, x)


def lanes(implementation: str) -> Call | None:
    """One step of all lanes, as a function of nothing."""
    currents = jnp.linspace(0.0, 3.0, LANES)
    if implementation.startswith("jax"):

        def step(v: Any, currents: Any) -> Any:
            v = jax.vmap(neuron)(v, currents)
            return v, v.mean()

        return passed_on(step, jnp.zeros(LANES), currents, implementation == "jax donated")
    if implementation == "nnx":
        return _nnx_lanes(currents)
    if implementation == "ours":
        import stategraph as sg

        v: Any = sg.State(jnp.zeros(LANES))
        jit, batched = sg.compile.jit, sg.augment.vmap
    else:
        bst = peer("brainstate")
        if bst is None:
            return None
        v = bst.ShortTermState(jnp.zeros(LANES))
        jit, batched = bst.transform.jit, bst.transform.vmap

    def one(current: Any) -> None:
        v.value = neuron(v.value, current)

    step_all = batched(one, in_states={0: v}, out_states={0: v})

    @jit
    def run(currents: Any) -> Any:
        step_all(currents)
        return v.value.mean()

    return lambda: run(currents)


def _nnx_lanes(currents: Any) -> Call | None:
    nnx = peer("flax.nnx")
    if nnx is None:
        return None

    class Neuron(nnx.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self.v = nnx.Variable(jnp.zeros(LANES))

    net = Neuron()

    @nnx.vmap
    def step_all(net: Any, current: Any) -> None:
        net.v[...] = neuron(net.v[...], current)

    @nnx.jit
    def run(net: Any, currents: Any) -> Any:
        step_all(net, currents)
        return net.v[...].mean()

    return lambda: run(net, currents)


TASKS = {"gradient": gradient, "vmap": lanes}
IMPLEMENTATIONS = ("jax", "jax donated", "ours", "brainstate", "nnx")


def first(task: str, implementation: str) -> float | None:
    """Seconds of the first call in this process."""
    jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(3)))
    call = TASKS[task](implementation)
    if call is None:
        return None
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(repeats: int = 5) -> list[dict[str, Any]]:
    """Per task: medians of calls and of first calls, and their ratios to plain JAX."""
    records = []
    for task, make in TASKS.items():
        made = {name: make(name) for name in IMPLEMENTATIONS}
        calls = {name: call for name, call in made.items() if call is not None}
        results = [call() for call in calls.values()]
        for result in results[1:]:
            if not jnp.allclose(result, results[0], rtol=1e-5, atol=1e-6):
                raise ValueError(f"{task}: {', '.join(calls)} do not compute the same")
        times = interleaved(calls, inner=50, rounds=25)
        firsts: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats):
            for name in calls:
                command = [sys.executable, "-m", "benchmarks.augment", task, name]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
                firsts[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
        starts = {name: statistics.median(found) for name, found in firsts.items()}
        records.append(
            {
                "task": task,
                "call": {"seconds": times, "ratio": ratios(times, "jax")},
                "first": {"seconds": starts, "ratio": ratios(starts, "jax")},
            }
        )
    return records


def markdown(records: list[dict[str, Any]]) -> str:
    names = list(records[0]["call"]["ratio"])[1:]
    rows = []
    for record in records:
        for kind, title in (("call", "per call"), ("first", "first call")):
            found = record[kind]
            rows.append(
                [
                    f"{record['task']}, {title}",
                    f"{found['seconds']['jax'] * 1e3:.3g} ms",
                    *(f"{found['ratio'][name]:.2f}" for name in names),
                    str(TARGETS[kind]),
                ]
            )
    return table(rows, ["", "jax.jit", *names, "target"])


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(first(sys.argv[1], sys.argv[2])))
    else:
        print(markdown(measure()))

"""First call, in fresh processes: tracing, passes, lowering and XLA, against plain JAX and the peers.

    python -m benchmarks.first_call            # all models, all implementations
    python -m benchmarks.first_call mlp        # one model
    python -m benchmarks.first_call mlp ours   # one measurement, as JSON (what the parent process runs)

*Python side* is everything until XLA begins to compile (trace, passes, emission, lowering to StableHLO), as JAX's own
events tell; *whole* includes compiling and the first run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("mlp", "gru", "lstm")
IMPLEMENTATIONS = ("jax", "ours", "brainstate", "nnx")

# Every model is one training step on pytrees of parameters: ``loss(params, batch)`` is shared, so that all
# trace the same mathematics.


def parameters(model: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape).astype(np.float32) * 0.05)

    if model == "mlp":
        return {f"layer{i:03d}": {"w": normal(32, 32), "b": normal(32)} for i in range(100)}
    if model == "gru":
        return {"x": normal(16, 96), "h": normal(32, 96), "b": normal(96), "out": normal(32, 10)}
    return {"x": normal(16, 128), "h": normal(32, 128), "b": normal(128), "out": normal(32, 10)}


def batch(model: str) -> Any:
    rng = np.random.default_rng(1)
    shape = {"mlp": (8, 32), "gru": (50, 8, 16), "lstm": (50, 8, 16)}[model]
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))


def gru_cell(p: Any, h: Any, x: Any) -> Any:
    gates = x @ p["x"] + p["b"]
    recurrent = h @ p["h"]
    r = jax.nn.sigmoid(gates[:, :32] + recurrent[:, :32])
    z = jax.nn.sigmoid(gates[:, 32:64] + recurrent[:, 32:64])
    n = jnp.tanh(gates[:, 64:] + r * recurrent[:, 64:])
    return (1 - z) * n + z * h


def lstm_cell(p: Any, c: Any, h: Any, x: Any) -> Any:
    i, f, g, o = jnp.split(x @ p["x"] + h @ p["h"] + p["b"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def head(p: Any, h: Any) -> Any:
    return -jax.nn.log_softmax(h @ p["out"])[:, 0].mean()


def adam(params: Any, grads: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any, Any]:
    t = t + 1
    m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
    v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, grads)

    def update(p: Any, a: Any, b: Any) -> Any:
        return p - 1e-3 * (a / (1 - 0.9**t)) / (jnp.sqrt(b / (1 - 0.999**t)) + 1e-8)

    return jax.tree.map(update, params, m, v), m, v, t


def plain_loss(model: str) -> Callable[[Any, Any], Any]:
    def mlp(p: Any, x: Any) -> Any:
        for layer in p.values():
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        return (x**2).mean()

    def gru(p: Any, xs: Any) -> Any:
        h = jnp.zeros((xs.shape[1], 32))
        for t in range(xs.shape[0]):
            h = gru_cell(p, h, xs[t])
        return head(p, h)

    def lstm(p: Any, xs: Any) -> Any:
        start = jnp.zeros((xs.shape[1], 32)), jnp.zeros((xs.shape[1], 32))

        def step(carry: Any, x: Any) -> Any:
            return lstm_cell(p, *carry, x), None

        (_, h), _ = jax.lax.scan(step, start, xs)
        return head(p, h)

    return {"mlp": mlp, "gru": gru, "lstm": lstm}[model]


def jax_step(model: str) -> Callable[..., Any]:
    loss = plain_loss(model)

    def step(params: Any, m: Any, v: Any, t: Any, x: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x)
        return value, *adam(params, grads, m, v, t)

    return step


def jax_arguments(model: str) -> tuple[Any, ...]:
    params = parameters(model)
    zeros = jax.tree.map(jnp.zeros_like, params)
    return params, zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros(()), batch(model)


def run_jax(model: str) -> Callable[[], Any]:
    jitted = jax.jit(jax_step(model), donate_argnums=(0, 1, 2, 3))
    args = jax_arguments(model)
    return lambda: jitted(*args)


def stateful(model: str, state: Callable[[Any], Any]) -> tuple[dict[str, Any], Callable[[Any], Any], Any]:
    """(parameter States, loss over States, hidden States) with a State class of ours or a peer's."""
    params = {k: state(v) for k, v in parameters(model).items()}

    def mlp(x: Any) -> Any:
        for layer in params.values():
            x = jnp.tanh(x @ layer.value["w"] + layer.value["b"])
        return (x**2).mean()

    def gru(xs: Any) -> Any:
        h = state(jnp.zeros((xs.shape[1], 32)))
        for t in range(xs.shape[0]):
            h.value = gru_cell({k: p.value for k, p in params.items()}, h.value, xs[t])
        return head({k: p.value for k, p in params.items()}, h.value)

    return params, {"mlp": mlp, "gru": gru}.get(model), None  # type: ignore[return-value]


def ours_step(model: str) -> Any:
    import stategraph as sg

    params, loss, _ = stateful(model, sg.ParamState)
    c, h = sg.HiddenState(jnp.zeros((8, 32))), sg.HiddenState(jnp.zeros((8, 32)))

    def lstm(xs: Any) -> Any:
        c.value, h.value = jnp.zeros((8, 32)), jnp.zeros((8, 32))

        def step(x: Any) -> None:
            c.value, h.value = lstm_cell({k: p.value for k, p in params.items()}, c.value, h.value, x)

        sg.compile.for_loop(step, xs)
        return head({k: p.value for k, p in params.items()}, h.value)

    chosen = lstm if model == "lstm" else loss
    moments = sg.State(
        tuple(jax.tree.map(jnp.zeros_like, {k: p.value for k, p in params.items()}) for _ in range(2))
    )
    count = sg.State(jnp.zeros(()))

    @sg.compile.jit
    def step(x: Any) -> Any:
        value, grads = sg.augment.value_and_grad(chosen, params)(x)
        new, *mv, count.value = adam(
            {k: p.value for k, p in params.items()}, grads, *moments.value, count.value
        )
        moments.value = tuple(mv)
        for k, p in params.items():
            p.value = new[k]
        return value

    return step


def run_ours(model: str) -> Callable[[], Any]:
    step = ours_step(model)
    x = batch(model)
    return lambda: step(x)


def run_brainstate(model: str) -> Callable[[], Any] | None:
    from benchmarks.common import peer

    bst = peer("brainstate")
    if bst is None:
        return None
    params, loss, _ = stateful(model, bst.ParamState)
    x = batch(model)
    c, h = bst.HiddenState(jnp.zeros((8, 32))), bst.HiddenState(jnp.zeros((8, 32)))

    def lstm(xs: Any) -> Any:
        c.value, h.value = jnp.zeros((8, 32)), jnp.zeros((8, 32))

        def step(x: Any) -> None:
            c.value, h.value = lstm_cell({k: p.value for k, p in params.items()}, c.value, h.value, x)

        bst.transform.for_loop(step, xs)
        return head({k: p.value for k, p in params.items()}, h.value)

    chosen = lstm if model == "lstm" else loss
    moments = bst.ShortTermState(
        tuple(jax.tree.map(jnp.zeros_like, {k: p.value for k, p in params.items()}) for _ in range(2))
    )
    count = bst.ShortTermState(jnp.zeros(()))

    @bst.transform.jit
    def step(x: Any) -> Any:
        grads, value = bst.transform.grad(lambda: chosen(x), params, return_value=True)()
        new, *mv, count.value = adam(
            {k: p.value for k, p in params.items()}, grads, *moments.value, count.value
        )
        moments.value = tuple(mv)
        for k, p in params.items():
            p.value = new[k]
        return value

    return lambda: step(x)


def run_nnx(model: str) -> Callable[[], Any] | None:
    from benchmarks.common import peer

    nnx = peer("flax.nnx")
    if nnx is None:
        return None
    loss = plain_loss(model)
    x = batch(model)

    class Model(nnx.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            for name, value in parameters(model).items():
                setattr(
                    self,
                    name,
                    nnx.data(jax.tree.map(nnx.Param, value)) if isinstance(value, dict) else nnx.Param(value),
                )

    net = Model()
    zeros = jax.tree.map(jnp.zeros_like, parameters(model))
    moments = [zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros(())]

    @nnx.jit
    def step(net: Any, m: Any, v: Any, t: Any, x: Any) -> Any:
        def value_of(net: Any) -> Any:
            return loss(
                {
                    k: jax.tree.map(
                        lambda p: p.value, getattr(net, k), is_leaf=lambda p: isinstance(p, nnx.Variable)
                    )
                    for k in names
                },
                x,
            )

        names = list(parameters_names)
        value, grads = nnx.value_and_grad(value_of)(net)
        state = nnx.state(net)
        pure, flat = nnx.to_pure_dict(state), nnx.to_pure_dict(grads)
        new, m, v, t = adam(pure, flat, m, v, t)
        nnx.replace_by_pure_dict(state, new)
        nnx.update(net, state)
        return value, m, v, t

    parameters_names = list(parameters(model))
    pure = nnx.to_pure_dict(nnx.state(net))
    moments = [jax.tree.map(jnp.zeros_like, pure), jax.tree.map(jnp.zeros_like, pure), jnp.zeros(())]
    return lambda: step(net, *moments, x)


def one(model: str, implementation: str) -> dict[str, float] | None:
    """Seconds of the Python side and of the whole first call, in this process."""
    compiles: list[tuple[float, float]] = []

    def note(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiles.append((seconds, time.perf_counter()))

    jax.monitoring.register_event_duration_secs_listener(note)
    jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(3)))
    make = {"jax": run_jax, "ours": run_ours, "brainstate": run_brainstate, "nnx": run_nnx}[implementation]
    call = make(model)
    if call is None:
        return None
    compiles.clear()
    start = time.perf_counter()
    jax.block_until_ready(call())
    whole = time.perf_counter() - start
    seconds, end = max(compiles)
    return {"python": end - seconds - start, "xla": seconds, "whole": whole}


def measure(models: Sequence[str] = MODELS, repeats: int = 5) -> list[dict[str, Any]]:
    """Medians over fresh processes, in which the implementations take turns, and ratios to plain JAX."""
    records = []
    for model in models:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in IMPLEMENTATIONS}
        for _ in range(repeats):
            for name, found in runs.items():
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.first_call", model, name],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                )
                if done.returncode != 0:
                    print(f"{model} {name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                elif done.stdout.strip() != "null":
                    found.append(json.loads(done.stdout.strip().splitlines()[-1]))
        medians = {
            name: {key: statistics.median(run[key] for run in found) for key in found[0]}
            for name, found in runs.items()
            if found
        }
        base = medians["jax"]
        records.append(
            {
                "model": model,
                "seconds": medians,
                "ratio": {n: {k: m[k] / base[k] for k in m} for n, m in medians.items()},
            }
        )
    return records


def markdown(records: list[dict[str, Any]]) -> str:
    from benchmarks.common import table

    rows = []
    for r in records:
        ratio = r["ratio"]
        rows.append(
            [
                r["model"],
                f"{r['seconds']['jax']['python'] * 1e3:.0f} ms",
                f"{ratio['ours']['python']:.2f}",
                f"{r['seconds']['jax']['whole'] * 1e3:.0f} ms",
                *(f"{ratio[n]['whole']:.2f}" if n in ratio else "-" for n in ("ours", "brainstate", "nnx")),
            ]
        )
    return table(rows, ["model", "JAX, Python side", "ours", "JAX, whole", "ours", "brainstate", "flax nnx"])


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(one(sys.argv[1], sys.argv[2])))
    else:
        print(markdown(measure(sys.argv[1:] or MODELS)))

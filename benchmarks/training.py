"""Training a recurrent network of spiking neurons: one step of back-propagation through time with a surrogate gradient,
against the same mathematics written as a JAX scan, and against BrainState.

100 inputs, 256 or 1,024 leaky integrate-and-fire neurons, 10 readouts, 100 steps, a batch of 128, plain gradient descent.
The scan is written twice: *transcription* is the obvious one, with all products in the loop; *by hand* has the products
that need no carry taken out of it.

    python benchmarks/training.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stategraph as sg
from benchmarks.common import interleaved, peer, ratios, table

INPUTS, OUTPUTS, STEPS, BATCH = 100, 10, 100, 128
SIZES = (256, 1024)
LEAK, SLOPE, RATE = 0.95, 10.0, 1e-3
Parameters = dict[str, Any]


def parameters(size: int) -> Parameters:
    rng = np.random.default_rng(0)

    def normal(scale: float, *shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape).astype(np.float32) * scale)

    return {
        "in": normal(3.0 / INPUTS**0.5, INPUTS, size),
        "rec": normal(0.5 / size**0.5, size, size),
        "out": normal(1.0 / size**0.5, size, OUTPUTS),
    }


def data() -> tuple[Any, Any]:
    """Spikes f32[steps, batch, inputs] and labels i32[batch]."""
    rng = np.random.default_rng(1)
    spikes = (rng.random((STEPS, BATCH, INPUTS)) < 0.05).astype(np.float32)
    return jnp.asarray(spikes), jnp.asarray(rng.integers(0, OUTPUTS, BATCH).astype(np.int32))


@jax.custom_vjp
def spike(v: Any) -> Any:
    return (v >= 0).astype(v.dtype)


def _spike_forward(v: Any) -> Any:
    return spike(v), v


def _spike_backward(v: Any, g: Any) -> Any:
    return (g / (SLOPE * jnp.abs(v) + 1.0) ** 2,)


spike.defvjp(_spike_forward, _spike_backward)


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def descended(params: Parameters, grads: Parameters) -> Parameters:
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


def transcription(size: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The training step as a function of (parameters, spikes, labels), all products in the loop."""

    def loss(params: Parameters, xs: Any, labels: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            v, z, out = carry
            current = x @ params["in"] + z @ params["rec"]
            v = LEAK * v + current - z
            z = spike(v - 1.0)
            out = LEAK * out + z @ params["out"]
            return (v, z, out), out

        zero = jnp.zeros((BATCH, size))
        _, outs = jax.lax.scan(step, (zero, zero, jnp.zeros((BATCH, OUTPUTS))), xs)
        return cross_entropy(outs.mean(0), labels)

    return _descent(loss), (parameters(size), *data())


def by_hand(size: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The same, with the products of inputs and readouts outside of the loop."""

    def loss(params: Parameters, xs: Any, labels: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            v, z = carry
            v = LEAK * v + x + z @ params["rec"] - z
            z = spike(v - 1.0)
            return (v, z), z

        def read(out: Any, z: Any) -> Any:
            out = LEAK * out + z
            return out, out

        zero = jnp.zeros((BATCH, size))
        _, zs = jax.lax.scan(step, (zero, zero), xs @ params["in"])
        _, outs = jax.lax.scan(read, jnp.zeros((BATCH, OUTPUTS)), zs @ params["out"])
        return cross_entropy(outs.mean(0), labels)

    return _descent(loss), (parameters(size), *data())


def _descent(loss: Callable[..., Any]) -> Callable[..., Any]:
    def step(params: Parameters, xs: Any, labels: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, xs, labels)
        return value, descended(params, grads)

    return step


def stateful(package: Any, size: int) -> tuple[dict[str, Any], Callable[[Any, Any], Any]]:
    """(parameter States, loss) with the States and loops of ours or a peer's."""
    loops = package.compile if package is sg else package.transform
    params = {name: package.ParamState(value) for name, value in parameters(size).items()}
    v, z = (package.HiddenState(jnp.zeros((BATCH, size))) for _ in range(2))
    out = package.HiddenState(jnp.zeros((BATCH, OUTPUTS)))

    def step(x: Any) -> Any:
        current = x @ params["in"].value + z.value @ params["rec"].value
        v.value = LEAK * v.value + current - z.value
        z.value = spike(v.value - 1.0)
        out.value = LEAK * out.value + z.value @ params["out"].value
        return out.value

    def loss(xs: Any, labels: Any) -> Any:
        v.value, z.value = jnp.zeros((BATCH, size)), jnp.zeros((BATCH, size))
        out.value = jnp.zeros((BATCH, OUTPUTS))
        return cross_entropy(loops.for_loop(step, xs).mean(0), labels)

    return params, loss


def ours_step(size: int, passes: Any = "default") -> Any:
    """Our compiled training step, a function of (spikes, labels)."""
    params, loss = stateful(sg, size)

    def step(xs: Any, labels: Any) -> Any:
        value, grads = sg.augment.value_and_grad(loss, params)(xs, labels)
        for name, new in descended({k: p.value for k, p in params.items()}, grads).items():
            params[name].value = new
        return value

    return sg.compile.jit(step, passes=passes)


def brainstate_step(package: Any, size: int) -> Any:
    """BrainState's."""
    params, loss = stateful(package, size)

    @package.transform.jit
    def step(xs: Any, labels: Any) -> Any:
        grads, value = package.transform.grad(loss, params, return_value=True)(xs, labels)
        for name, new in descended({k: p.value for k, p in params.items()}, grads).items():
            params[name].value = new
        return value

    return step


def jax_call(step: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[], Any]:
    """A call that goes on with the parameters of the last one, whose buffers it takes."""
    jitted = jax.jit(step, donate_argnums=0)
    kept, *batch = arguments

    def call() -> Any:
        nonlocal kept
        value, kept = jitted(kept, *batch)
        return value

    return call


def calls(size: int) -> dict[str, Callable[[], Any]]:
    """One training step by each; all compute the same."""
    batch = data()
    ours = ours_step(size)
    found = {
        "jax": jax_call(*transcription(size)),
        "jax, by hand": jax_call(*by_hand(size)),
        "stategraph": lambda: ours(*batch),
    }
    bst = peer("brainstate")
    if bst is not None:
        theirs = brainstate_step(bst, size)
        found["brainstate"] = lambda: theirs(*batch)
    return found


def measure(rounds: int = 11) -> list[dict[str, Any]]:
    """One record per size: medians in milliseconds, and ratios to the transcription."""
    records = []
    for size in SIZES:
        times = interleaved(calls(size), inner=1, rounds=rounds)
        records.append(
            {
                "neurons": size,
                "milliseconds": {name: value * 1e3 for name, value in times.items()},
                "ratio": ratios(times, "jax"),
            }
        )
    return records


def markdown(records: list[dict[str, Any]]) -> str:
    names = ("jax, by hand", "stategraph", "brainstate")
    rows = [
        [
            f"{r['neurons']:,}",
            f"{r['milliseconds']['jax']:.1f} ms",
            *(f"{r['ratio'][name]:.2f}" if name in r["ratio"] else "-" for name in names),
        ]
        for r in records
    ]
    return table(rows, ["neurons", "JAX transcription", *(f"{name} / it" for name in names)])


if __name__ == "__main__":
    print(markdown(measure()))

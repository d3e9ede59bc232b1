"""What programs carry: loops with State written before it is read, conditional writes of a large State, and a
scanned LSTM training step.

python benchmarks/carried.py
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import stategraph as sg
from benchmarks.common import interleaved, peer, ratios, table

WIDTH, TRIPS, COUNT = 256, 500, 8


def write_first() -> dict[str, float]:
    """A loop whose body keeps eight intermediate values as State, against the loop with local variables."""

    def chain(x: Any, keep: Any) -> Any:
        for i in range(COUNT):
            x = jnp.tanh(x * 1.01 + i)
            keep(i, x)
        return x

    states = [sg.State(jnp.zeros(WIDTH)) for _ in range(COUNT)]
    total = sg.State(jnp.zeros(WIDTH))

    @sg.compile.jit
    def ours(xs: Any) -> None:
        def step(x: Any) -> None:
            def keep(i: int, value: Any) -> None:
                states[i].value = value

            total.value = total.value + chain(x, keep)

        sg.compile.for_loop(step, xs)

    @jax.jit
    def local(acc: Any, xs: Any) -> Any:
        return jax.lax.scan(lambda a, x: (a + chain(x, lambda i, v: None), None), acc, xs)[0]

    @jax.jit
    def carried(acc: Any, kept: Any, xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            a, k = carry
            k = list(k)
            return (a + chain(x, lambda i, v: k.__setitem__(i, v)), tuple(k)), None

        return jax.lax.scan(step, (acc, kept), xs)[0]

    xs = jnp.linspace(-1, 1, TRIPS)[:, None] * jnp.ones(WIDTH)
    zero = jnp.zeros(WIDTH)
    calls: dict[str, Any] = {
        "local variables": lambda: local(zero, xs),
        "stategraph": lambda: (ours(xs), total._cells[0].v)[1],
        "carried by hand": lambda: carried(zero, tuple([zero] * COUNT), xs)[0],
    }
    bst = peer("brainstate")
    if bst is not None:
        kept = [bst.ShortTermState(jnp.zeros(WIDTH)) for _ in range(COUNT)]
        acc = bst.ShortTermState(jnp.zeros(WIDTH))

        @bst.transform.jit
        def theirs(xs: Any) -> None:
            def step(x: Any) -> None:
                acc.value = acc.value + chain(x, lambda i, v: setattr(kept[i], "value", v))

            bst.transform.for_loop(step, xs)

        calls["brainstate"] = lambda: (theirs(xs), acc.value)[1]
    return ratios(interleaved(calls, inner=5, rounds=25), "local variables")


def narrow_branch(size: int = 1_000_000) -> dict[str, float]:
    """A State of 4 MB that only the branch not taken writes: the call against one that does not mention it."""
    big, small = sg.State(jnp.zeros(size)), sg.State(jnp.zeros(8))

    @sg.compile.jit
    def ours(flag: Any) -> None:
        def rare() -> None:
            big.value = big.value + 1.0

        sg.compile.cond(flag, rare, lambda: None)
        small.value = small.value + 1.0

    @jax.jit
    def without(flag: Any, x: Any) -> Any:
        return jax.lax.cond(flag, lambda v: v + 1.0, lambda v: v, x) + 1.0

    plain = jax.jit(
        lambda flag, b, s: (jax.lax.cond(flag, lambda v: v + 1.0, lambda v: v, b), s + 1.0),
        donate_argnums=(1, 2),
    )
    box = [jnp.zeros(size), jnp.zeros(8)]
    x = jnp.zeros(8)
    off = jnp.asarray(False)

    def by_hand() -> Any:
        box[:] = plain(off, *box)
        return box[1]

    calls: dict[str, Any] = {
        "without the State": lambda: without(off, x),
        "stategraph": lambda: (ours(off), small._cells[0].v)[1],
        "jax.lax.cond, donated": by_hand,
    }
    bst = peer("brainstate")
    if bst is not None:
        large, little = bst.ShortTermState(jnp.zeros(size)), bst.ShortTermState(jnp.zeros(8))

        @bst.transform.jit
        def theirs(flag: Any) -> None:
            def rare() -> None:
                large.value = large.value + 1.0

            bst.transform.cond(flag, rare, lambda: None)
            little.value = little.value + 1.0

        calls["brainstate"] = lambda: (theirs(off), little.value)[1]
    return ratios(interleaved(calls, inner=20, rounds=25), "without the State")


def lstm_carries() -> dict[str, int]:
    """Values carried by the loops of the scanned LSTM training step: ours, and JAX's for the step written by
    hand.
    """
    from benchmarks import first_call as fc
    from stategraph import _jax

    jitted = fc.ours_step("lstm")
    program = jitted.lower(fc.batch("lstm")).program
    ours = sum(op.attributes["carry"] for op in program.walk("flow.scan"))
    jaxpr = jax.make_jaxpr(fc.jax_step("lstm"))(*fc.jax_arguments("lstm"))
    by_hand = sum(_jax.scan_counts(eqn.params)[1] for eqn in _jax.equations_of(jaxpr, ("scan",)))
    return {"stategraph": ours, "by hand": by_hand}


def in_place(megabytes: int = 256) -> dict[str, float]:
    """Peak memory of updating one large State in place, in units of its size, from XLA's own figures."""
    state = sg.State(jnp.zeros(megabytes * 1024 * 256))

    @sg.compile.jit
    def step() -> None:
        state.value = state.value * 0.5 + 1.0

    memory = step.compile().memory_analysis()
    size = state.nbytes
    total = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return {"peak": total / size}


def measure() -> dict[str, Any]:
    return {
        "write-first State in a loop": write_first(),
        "conditional write of 4 MB, not taken": narrow_branch(),
        "LSTM training step, carried values": lstm_carries(),
        "in-place update, peak memory / size": in_place(),
    }


def markdown(records: dict[str, Any]) -> str:
    rows = [
        [what, "; ".join(f"{name} {value:.2f}" for name, value in found.items())]
        for what, found in records.items()
    ]
    return table(rows, ["what", "ratios"])


if __name__ == "__main__":
    print(markdown(measure()))

"""The modelling layer in plain Python: States, eager random draws, and graphs of 300 and 3,000 layers, against BrainState,
Flax and, for draws, ``jax.random`` with a key that is there.

python benchmarks/modelling.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import stategraph as sg
from benchmarks.common import interleaved, peer, ratios, table

SIZES = (300, 3000)
Calls = dict[str, Callable[[], Any]]


def states() -> dict[str, Calls]:
    """What is done to one State, by whom."""
    x = jnp.zeros(8)
    found: dict[str, Calls] = {"create a State": {}, "read a State": {}, "write a State": {}}
    bst = peer("brainstate")
    for name, kind in (
        ("brainstate", bst.ShortTermState if bst else None),
        ("stategraph", sg.ShortTermState),
    ):
        if kind is None:
            continue
        state = kind(x)

        def write(state: Any = state) -> None:
            state.value = x

        found["create a State"][name] = lambda kind=kind: kind(x)
        found["read a State"][name] = lambda state=state: state.value
        found["write a State"][name] = write
    return found


def draws() -> dict[str, Calls]:
    """Three numbers each: from the global random State, and from ``jax.random``."""
    key = jax.random.key(0)
    bst = peer("brainstate")
    found: dict[str, Calls] = {
        "draw uniform numbers": {
            "jax": lambda: jax.random.uniform(key, (3,)),
            "stategraph": lambda: sg.random.uniform(size=(3,)),
        },
        "draw normal numbers": {
            "jax": lambda: jax.random.normal(key, (3,)),
            "stategraph": lambda: sg.random.normal(size=(3,)),
        },
        "draw whole numbers": {
            "jax": lambda: jax.random.randint(key, (3,), 0, 10),
            "stategraph": lambda: sg.random.randint(0, 10, size=(3,)),
        },
        "draw from a gamma distribution": {
            "jax": lambda: jax.random.gamma(key, 2.0, (3,)),
            "stategraph": lambda: sg.random.gamma(2.0, size=(3,)),
        },
    }
    if bst is not None:
        found["draw uniform numbers"]["brainstate"] = lambda: bst.random.uniform(size=(3,))
        found["draw normal numbers"]["brainstate"] = lambda: bst.random.normal(size=(3,))
    return found


def graphs(layers: int) -> dict[str, Calls]:
    """What is done to a graph of ``layers`` layers, by whom. Flax has no list of States: its state is the split."""
    found: dict[str, Calls] = {"states()": {}, "treefy_split": {}, "clone": {}}
    bst, nnx = peer("brainstate"), peer("flax.nnx")
    for name, package in (("brainstate", bst), ("stategraph", sg)):
        if package is None:
            continue
        net = _chain(package.graph.Node, package.ParamState, layers)
        graph = package.graph
        found["states()"][name] = lambda graph=graph, net=net: graph.states(net)
        found["treefy_split"][name] = lambda graph=graph, net=net: graph.treefy_split(net)
        found["clone"][name] = lambda graph=graph, net=net: graph.clone(net)
    if nnx is not None:

        class Layer(nnx.Module):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                self.w, self.b = nnx.Param(jnp.zeros(4)), nnx.Param(jnp.zeros(4))

        class Chain(nnx.Module):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                self.layers = nnx.List([Layer() for _ in range(layers)])

        flax = Chain()
        found["states()"]["flax nnx"] = lambda: nnx.state(flax)
        found["treefy_split"]["flax nnx"] = lambda: nnx.split(flax)
        found["clone"]["flax nnx"] = lambda: nnx.clone(flax)
    return found


def _chain(node: Any, param: Any, layers: int) -> Any:
    class Layer(node):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = param(jnp.zeros(4)), param(jnp.zeros(4))

    class Chain(node):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = [Layer() for _ in range(layers)]

    return Chain()


def measure(rounds: int = 9) -> list[dict[str, Any]]:
    """One record per operation: medians in microseconds, and ratios to StateGraph."""
    tasks = [(what, calls, 2000) for what, calls in states().items()]
    tasks += [(what, calls, 50) for what, calls in draws().items()]
    for layers in SIZES:
        tasks += [(f"{what}, {layers} layers", calls, 2) for what, calls in graphs(layers).items()]
    records = []
    for what, calls, inner in tasks:
        times = interleaved(calls, inner=inner, rounds=rounds)
        records.append(
            {
                "what": what,
                "microseconds": {k: v * 1e6 for k, v in times.items()},
                "ratio": ratios(times, "stategraph"),
            }
        )
    return records


def markdown(records: list[dict[str, Any]]) -> str:
    names = ("jax", "brainstate", "flax nnx")
    rows = [
        [
            r["what"],
            f"{r['microseconds']['stategraph']:.3g} µs",
            *(f"{r['ratio'][name]:.2f}" if name in r["ratio"] else "-" for name in names),
        ]
        for r in records
    ]
    return table(rows, ["", "stategraph", *(f"{name} / ours" for name in names)])


if __name__ == "__main__":
    print(markdown(measure()))

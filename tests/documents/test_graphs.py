"""Graphs of Nodes and functions of JAX on them, written for BrainState: only the import is another.

Shortened forms of what its documents show, with the values that they print; where those are wrong, the right ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as brainstate


class Small(brainstate.graph.Node):
    def __init__(self) -> None:
        super().__init__()
        self.w = brainstate.random.rand(2, 3)
        self.b = brainstate.ShortTermState(brainstate.random.rand(3))


class Layers(brainstate.graph.Node):
    def __init__(self) -> None:
        super().__init__()
        self.l1 = brainstate.nn.Linear(2, 3)
        self.l2 = brainstate.nn.Linear(3, 4)
        self.l3 = brainstate.nn.Linear(4, 5)
        self.st = brainstate.ShortTermState(brainstate.random.rand(5))


class Affine(brainstate.nn.Module):
    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(size, out) * 0.1)
        self.b = brainstate.ParamState(jnp.zeros((out,)))

    def __call__(self, x: Any) -> Any:
        return x @ self.w.value + self.b.value


class Calls(brainstate.State[Any]):
    pass


class Counting(brainstate.graph.Node):
    def __init__(self, size: int, hidden: int, out: int) -> None:
        super().__init__()
        self.count = Calls(jnp.array(0))
        self.first, self.second = Affine(size, hidden), Affine(hidden, out)

    def __call__(self, x: Any) -> Any:
        self.count.value += 1
        return self.second(jax.nn.relu(self.first(x)))


@pytest.fixture(scope="module")
def nodes() -> tuple[Small, Layers]:
    """The two models, with the numbers that the document has; the default random State is left as it is there then."""
    brainstate.random.seed(42)
    return Small(), Layers()


def test_a_node_may_refer_to_itself(nodes: tuple[Small, Layers]) -> None:
    a, _ = nodes
    assert a.w.shape == (2, 3) and type(a.b).__name__ == "ShortTermState"
    np.testing.assert_array_equal(
        a.w,
        np.array([[0.72766423, 0.78786755, 0.18169427], [0.26263022, 0.11072934, 0.20263076]], np.float32),
    )
    a.self = a
    definition = brainstate.graph.graphdef(a)
    assert a.self is a and hash(definition) == hash(brainstate.graph.graphdef(a))
    lines = [line.strip() for line in repr(definition).splitlines()]
    assert lines[:7] == [
        "NodeDef(", "type=Small,", "index=0,", "attributes=('b', 'self', 'w'),", "subgraphs={", "'self': NodeRef(", "type=Small,",
    ]  # fmt: skip
    del a.self


def test_what_a_graph_consists_of(nodes: tuple[Small, Layers]) -> None:
    _, mlp = nodes
    graph = brainstate.graph
    leaves = [
        (path, type(leaf).__name__ if isinstance(leaf, brainstate.State) else leaf)
        for path, leaf in graph.iter_leaf(mlp)
    ]
    assert leaves[:3] == [
        (("l1", "_in_size", 0), 2),
        (("l1", "_out_size", 0), 3),
        (("l1", "weight"), "ParamState"),
    ]
    assert leaves[-1] == (("st",), "ShortTermState") and len(leaves) == 10
    assert [path for path, _ in graph.iter_node(mlp)] == [("l1",), ("l2",), ("l3",), ()]
    params, others = graph.states(mlp, brainstate.ParamState, ...)
    assert list(params) == [("l1", "weight"), ("l2", "weight"), ("l3", "weight")] and list(others) == [
        ("st",)
    ]
    assert list(graph.states(mlp, brainstate.ShortTermState)) == [("st",)]
    assert "in_size=(2,)" in str(mlp) and "w_mask=None" in str(mlp) and "_name" not in str(mlp)


def test_a_graph_is_taken_apart_and_put_together(nodes: tuple[Small, Layers]) -> None:
    _, mlp = nodes
    definition, trees = brainstate.graph.treefy_split(mlp)
    assert len(trees) == 4 and "index=7" in repr(definition)
    weight = [[-0.42749512, -0.46094188, -1.1391693], [-1.5929017, 2.1525893, 0.7923302]]
    np.testing.assert_allclose(trees["l1"]["weight"].value["weight"], weight, rtol=1e-6)
    state = [0.7928349, 0.14884543, 0.46262634, 0.9012923, 0.20398748]
    np.testing.assert_array_equal(trees["st"].value, np.array(state, np.float32))
    merged = brainstate.graph.treefy_merge(definition, trees)
    assert repr(merged) == repr(mlp) and len(brainstate.graph.states(merged)) == 4


def test_functions_of_jax_train_a_model(nodes: tuple[Small, Layers]) -> None:
    brainstate.random.seed(42)
    Small(), Layers()  # the numbers that were drawn before
    graph = brainstate.graph
    model = Counting(1, 32, 1)
    definition, params, counts = graph.treefy_split(model, brainstate.ParamState, Calls)
    xs = jnp.linspace(0, 1, 100)[:, None]
    ys = 0.8 * xs**2 + 0.1 + brainstate.random.normal(0, 0.1, size=xs.shape)

    def batches(size: int) -> Iterator[tuple[Any, Any]]:
        while True:
            chosen = brainstate.random.choice(len(xs), size=size)
            yield xs[chosen], ys[chosen]

    @jax.jit
    def train(params: Any, counts: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            model = graph.treefy_merge(definition, params, counts)
            error = jnp.mean((batch[1] - model(batch[0])) ** 2)
            return error, graph.treefy_states(model, Calls)

        gradient, counts_after = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient), counts_after

    @jax.jit
    def test(params: Any, counts: Any) -> Any:
        return jnp.mean((ys - graph.treefy_merge(definition, params, counts)(xs)) ** 2)

    losses = {}
    for step, batch in zip(range(3), batches(32), strict=False):
        params, counts = train(params, counts, batch)
        if step == 0:
            losses[step] = float(test(params, counts))
    assert train._cache_size() == 1, "one structure, before and after the State is written"
    # the other steps in two loops that are compiled: the numbers drawn are the same, and states are a carry of JAX
    drawn = brainstate.compile.for_loop(lambda _: brainstate.random.choice(len(xs), size=32), jnp.arange(998))
    step_of = lambda carry, batch: (train(*carry, batch), None)
    (params, counts), _ = jax.lax.scan(step_of, (params, counts), (xs[drawn], ys[drawn]))
    losses[1000] = float(test(params, counts))
    assert losses == pytest.approx({0: 0.168351, 1000: 0.011733}, abs=1.5e-6)
    assert graph.treefy_merge(definition, params, counts).count.value == 1001


class Residual(brainstate.graph.Node):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = brainstate.nn.Linear(n, n), brainstate.nn.Linear(n, n)

    def __call__(self, x: Any) -> Any:
        return jax.nn.relu(x + self.linear2(jax.nn.relu(self.linear1(x))))


class Residuals(brainstate.graph.Node):
    def __init__(self, n: int, count: int) -> None:
        super().__init__()
        self.blocks = [Residual(n) for _ in range(count)]
        for i, block in enumerate(self.blocks):
            setattr(self, f"block_{i}", block)

    def __call__(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


class Paths(brainstate.graph.Node):
    def __init__(self, n: int, out: int) -> None:
        super().__init__()
        part = out // 4
        self.a, self.d = brainstate.nn.Linear(n, part), brainstate.nn.Linear(n, part)
        self.b = [brainstate.nn.Linear(n, part), brainstate.nn.Linear(part, part)]
        self.c = (brainstate.nn.Linear(n, part), brainstate.nn.Linear(part, part))

    def __call__(self, x: Any) -> Any:
        ends = [x, x, x, x]
        for i, path in enumerate(([self.a], self.b, self.c, [self.d])):
            for layer in path:
                ends[i] = jax.nn.relu(layer(ends[i]))
        return jnp.concatenate(ends, axis=-1)


def test_parameters_and_nodes_are_counted_once() -> None:
    def found(model: Any) -> tuple[int, int, int]:
        summary = brainstate.nn.summary(model)
        return summary.nodes, len(brainstate.graph.states(model, brainstate.ParamState)), summary.parameters

    residuals, paths = Residuals(10, 3), Paths(16, 32)
    assert residuals(jnp.ones((5, 10))).shape == (5, 10)
    assert paths(jnp.ones((4, 16))).shape == (4, 32)
    assert found(Layers()) == (4, 3, 50)
    assert found(residuals) == (10, 6, 660)
    assert found(paths) == (7, 6, 688)
    assert brainstate.nn.count_parameters(residuals) == 660
    assert sum(state.size for state in brainstate.graph.states(paths, brainstate.ParamState).values()) == 688

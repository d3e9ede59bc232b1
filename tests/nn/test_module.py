"""Module: calling, names, and what it finds in itself, in every form that the documents show."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.graph.models import MLP, Inception, Linear, ResNet


class Net(sg.nn.Module):
    """Modules in attributes and lists, a shared one, Params, States and a plain Node."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.first = Linear(2, 3)
        self.layers = [Linear(3, 3), {"k": self.first}]
        self.gain = sg.nn.Param(jnp.ones(3))
        self.offset = sg.nn.Const(jnp.zeros(3))
        self.own = sg.ParamState(jnp.ones(2))
        self.v = sg.HiddenState(jnp.zeros(3))
        self.node = sg.graph.Node()

    def update(self, x: Any) -> Any:
        return (x >> self.first) * self.gain.value() + self.offset()


@pytest.mark.core
def test_calling_and_piping() -> None:
    net = Net()
    for x in (np.ones((1, 2), np.float32), jnp.ones((1, 2)), [[1.0, 1.0]]):
        x = x if not isinstance(x, list) else np.asarray(x, np.float32)
        piped = x >> net
        assert isinstance(piped, jax.Array) and piped.shape == (1, 3) and jnp.array_equal(piped, net(x))

    class Doubles(sg.nn.Module):
        def update(self, x: Any) -> Any:
            return jax.tree.map(lambda leaf: 2 * leaf, x)

    assert 3.0 >> Doubles() == 6.0 and [1, 2] >> Doubles() == [2, 4] and np.float32(1) >> Doubles() == 2
    with pytest.raises(NotImplementedError, match="Module has no update method"):
        sg.nn.Module()(1)


@pytest.mark.core
def test_the_name_is_read_only() -> None:
    assert Net().name == "net" and Linear(1, 1).name is None
    with pytest.raises(AttributeError):
        Net().name = "other"  # type: ignore[misc]

    class Bare(sg.nn.Module):
        def __init__(self) -> None:
            pass

    assert Bare().name is None and Bare().in_size is None


def test_sizes_are_shapes() -> None:
    module = sg.nn.Module()
    module.in_size, module.out_size = 3, (4, 5)
    assert module.in_size == (3,) and module.out_size == (4, 5) and "in_size=(3,)" in repr(module)


@pytest.mark.core
@pytest.mark.parametrize("size", [3.5, (3, 2.5), -1, "3", None])
def test_sizes_are_whole_numbers(size: Any) -> None:
    for make in (nn.LIF, lambda size: nn.Linear(size, 2), lambda size: sg.event.FixedProb(2, size, 0.5, 1.0)):
        with pytest.raises(ValueError, match="whole number"):
            make(size)
    assert nn.LIF(0.8 * 40).in_size == nn.LIF(np.int64(32)).in_size == (32,)


def test_a_state_that_init_state_makes_is_named_when_it_is_missing() -> None:
    neurons, cell = nn.LIF(3), nn.GRUCell(2, 3)
    for read in (lambda: neurons.V, neurons.get_spike, lambda: cell.h):
        with pytest.raises(AttributeError, match=r"(?s)has no State '(V|h)' yet.*init_all_states"):
            read()
    assert not hasattr(neurons, "V") and hasattr(nn.init_all_states(neurons), "V")
    with pytest.raises(AttributeError, match="'LIF' object has no attribute 'W'"):
        neurons.W

    class Broken(nn.Module):
        @property
        def size(self) -> Any:
            return self.nothing

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        Broken().size


def test_children_and_modules_iterate_and_map() -> None:
    net = Net()
    assert list(net.children()) == [net.first, net.gain, net.layers[0], net.offset]
    assert [name for name, _ in net.named_children()] == ["first", "gain", "layers.0", "offset"]
    assert list(net.modules()) == [*net.children(), net] == list(net.modules().values())
    assert list(net.modules(include_self=False)) == list(net.children())
    assert [name for name, _ in net.named_modules()] == ["first", "gain", "layers.0", "offset", ""]
    assert [name for name, _ in net.named_modules(prefix="a", include_self=False)][2] == "a.layers.0"
    assert [name for name, _ in net.named_modules("a")][-1] == "a" and dict(net.named_modules())[
        "first"
    ] is net.first
    modules = net.modules()
    assert modules["layers.0"] is modules["layers", 0] is net.layers[0] and modules[0] is net.first
    assert "first" in modules and net in modules and "x" not in modules and len(modules) == 5
    assert next(modules) is net.first and next(modules) is net.gain
    assert "layers.0: Linear" in repr(modules) and repr(sg.nn.Module().children()) == "nothing"
    for module in net.modules().values():
        assert isinstance(module, sg.nn.Module)


@pytest.mark.core
def test_parameters_are_params_and_bare_param_states() -> None:
    net = Net()
    assert list(net.parameters()) == [net.first.weight, net.gain, net.layers[0].weight, net.own]
    assert [name for name, _ in net.named_parameters()] == ["first.weight", "gain", "layers.0.weight", "own"]
    assert [name for name, _ in net.named_parameters("net", recurse=False)] == ["net.gain", "net.own"]
    assert list(net.parameters(recurse=False).values()) == [net.gain, net.own]
    assert net.gain.value.shape == (3,) == net.gain.value().shape and net.own.value.shape == (2,)
    assert (net.gain.value.dtype, net.gain.value.size, net.gain.value.ndim) == (jnp.float32, 3, 1)
    assert "call it" in repr(net.gain.value)
    net.gain.set_value(jnp.zeros(3))
    assert net.gain.value().sum() == 0 and net.gain().shape == (3,)


@pytest.mark.core
def test_param_modules_by_filter_and_level() -> None:
    net = Net()
    assert list(net.param_modules()) == [net.gain, net.offset] == list(net.param_modules().values())
    assert list(net.param_modules(lambda path, p: p.fit)) == [net.gain]
    assert list(net.param_modules(lambda p: not p.fit)) == [net.offset]
    assert len(net.param_modules(sg.nn.Const, allowed_hierarchy=(1, 1))) == 1
    assert len(net.param_modules((1, 1))) == 2 and len(net.param_modules((2, 9))) == 0
    assert len(net.param_modules(allowed_hierarchy=(0, 0))) == 0
    assert [(name, p.value().shape) for name, p in net.named_param_modules()] == [
        ("gain", (3,)),
        ("offset", (3,)),
    ]


def test_states_nodes_and_state_trees() -> None:
    net = Net()
    params, others = net.states(sg.ParamState, ...)
    assert len(params) == 4 and list(others) == [("offset", "val"), ("v",)]
    assert list(net.states(allowed_hierarchy=(0, 0))) == [("own",), ("v",)]
    trees = net.state_trees(sg.HiddenState)
    assert isinstance(trees, sg.util.NestedDict) and trees["v"].value.shape == (3,)
    assert len(net.state_trees(sg.ParamState, ...)) == 2 and net.nodes()[()] is net
    assert next(iter(net.nodes(allowed_hierarchy=(1, 1)))) == ("first",)


@pytest.mark.core
def test_gradients_go_to_params_and_not_to_constants() -> None:
    net = Net()
    grads = sg.augment.grad(lambda: net(jnp.ones((1, 2))).sum(), net.states(sg.ParamState))
    with pytest.raises(sg.errors.TraceError, match="never reads"):
        grads()
    found = sg.augment.grad(
        lambda: net(jnp.ones((1, 2))).sum(),
        net.states(sg.ParamState).filter(lambda path, state: path[0] in ("first", "gain")),
    )()
    assert set(found) == {("first", "weight"), ("gain", "val")} and found["gain", "val"].shape == (3,)
    weights = net.states(sg.ParamState).filter(lambda path, state: path in found)
    updated = jax.tree.map(lambda w, g: w - 0.1 * g, weights.to_dict_values(), dict(found))
    weights.assign_dict_values(updated)
    assert jnp.array_equal(net.gain.value(), updated["gain", "val"])


@pytest.mark.core
@pytest.mark.parametrize(
    ("model", "parameters", "nodes", "states", "depth"),
    [
        (lambda: MLP(), 50, 4, 4, 1),
        (lambda: ResNet(10, 3), 660, 10, 6, 2),
        (lambda: Inception(16, 32), 688, 7, 6, 1),
    ],
)
def test_true_totals(model: Any, parameters: int, nodes: int, states: int, depth: int) -> None:
    found = sg.nn.summary(model())
    assert (found.parameters, found.nodes, found.states, found.depth) == (parameters, nodes, states, depth)
    assert sg.nn.count_parameters(model()) == parameters == sum(row.parameters for row in found.rows)
    assert sum(p.size for p in sg.graph.states(model(), sg.ParamState).values()) == parameters


def test_the_summary_is_a_table() -> None:
    text = str(sg.nn.summary(MLP()))
    assert text.splitlines()[0].split() == ["node", "state", "kind", "value", "parameters"]
    assert "  l1 (Linear)  weight  ParamState" in text and "{bias: float32[3], weight: float32[2,3]}" in text
    assert text.splitlines()[-1] == "4 nodes, 4 states, 50 parameters, 55 values in 220 bytes"
    assert sg.nn.count_parameters(MLP(), sg.ShortTermState) == 5
    big = sg.nn.Module()
    big.s = sg.State(jnp.zeros((1024, 1024)))  # type: ignore[attr-defined]
    assert str(sg.nn.summary(big)).endswith("1 node, 1 state, 0 parameters, 1,048,576 values in 4.0 MiB")


def test_the_number_comes_with_the_table_when_asked() -> None:
    number, table = sg.nn.count_parameters(MLP(), return_table=True, precision=3)
    assert number == table.parameters == 50 and str(table).endswith("55 values in 220 bytes")
    big = sg.nn.Module()
    big.s = sg.ParamState(jnp.zeros(1100))  # type: ignore[attr-defined]
    assert str(sg.nn.count_parameters(big, return_table=True, precision=3)[1]).endswith("in 4.297 KiB")
    assert sg.nn.count_parameters(big, precision=2, return_table=False) == 1100


def test_the_summary_of_a_deep_model() -> None:
    class Link(sg.graph.Node):
        def __init__(self, next_: Any) -> None:
            self.next = next_
            self.w = sg.ParamState(jnp.zeros(2))

    model: Any = None
    for _ in range(1000):
        model = Link(model)
    found = sg.nn.summary(model)  # looking for the level of every Node took seconds when it was cubic
    assert (found.depth, found.nodes, found.parameters) == (999, 1000, 2000)
    assert [row.level for row in found.rows] == list(range(1000))
    assert [len(row.states) for row in found.rows] == [1] * 1000

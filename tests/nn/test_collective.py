"""Collective operations: order, exclusion, arguments, batch axes, and restoring values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from tests.graph.models import Linear, ResNet


class Cell(sg.nn.Module):
    """A recurrent cell as the documents have it."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = size
        self.calls = 0

    def shape(self, batch_size: int | None) -> tuple[int, ...]:
        return (self.size,) if batch_size is None else (batch_size, self.size)

    def init_state(self, batch_size: int | None = None) -> None:
        self.h = sg.HiddenState(jnp.zeros(self.shape(batch_size)))

    def reset_state(self, batch_size: int | None = None) -> None:
        self.h.value = jnp.zeros(self.shape(batch_size))

    def custom_operation(self, scale: float = 1.0) -> None:
        self.calls += 1
        self.h.value = self.h.value * scale


class Unbatched(Cell):
    """Takes no batch size."""

    def init_state(self) -> None:  # type: ignore[override]
        self.h = sg.HiddenState(jnp.ones(self.size))

    def reset_state(self) -> None:  # type: ignore[override]
        self.h.value = jnp.ones(self.size)


class Stack(sg.nn.Module):
    """Each cell by two paths."""

    def __init__(self, *cells: Cell) -> None:
        super().__init__()
        self.layers = list(cells)
        for i, cell in enumerate(cells):
            setattr(self, f"cell_{i}", cell)


# -------------------------------------------------------------------------------------------------- calling


@pytest.mark.core
def test_order_unmarked_first_then_by_level_and_children_before_parents() -> None:
    log: list[str] = []

    def module(name: str, level: int | None) -> sg.nn.Module:
        def go(self: Any) -> None:
            log.append(name)

        method = go if level is None else sg.nn.call_order(level)(go)
        made: sg.nn.Module = type(name, (sg.nn.Module,), {"go": method})()
        return made

    root = module("root", None)
    root.a = module("late", 5)  # type: ignore[attr-defined]
    root.b = module("early", 0)  # type: ignore[attr-defined]
    root.c = module("plain", None)  # type: ignore[attr-defined]
    assert sg.nn.call_all_fns(root, "go") is root
    assert log == ["plain", "root", "early", "late"]


def test_levels_have_bounds() -> None:
    for level in (-1, 10):
        with pytest.raises(ValueError, match="between 0 and 9"):
            sg.nn.call_order(level)
    late = sg.nn.call_order(12, check_order_boundary=False)(lambda: None)
    assert late.call_order == 12  # type: ignore[attr-defined]


@pytest.mark.core
def test_each_module_is_called_once_with_the_arguments_it_accepts() -> None:
    stack = Stack(Cell(5), Cell(10))
    sg.nn.init_all_states(stack, batch_size=4)
    sg.nn.call_all_fns(stack, "custom_operation", kwargs={"scale": 2.0}, fn_if_not_exist="pass")
    sg.nn.call_all_fns(stack, "custom_operation", args=(0.5,), fn_if_not_exist="none")
    sg.nn.call_all_fns(stack, "custom_operation", 0.5, fn_if_not_exist="none")
    assert [cell.calls for cell in stack.layers] == [3, 3]


@pytest.mark.core
def test_a_missing_method_is_an_error_that_names_the_node_before_anything_is_called() -> None:
    stack = Stack(Cell())
    sg.nn.init_all_states(stack)
    with pytest.raises(AttributeError, match="the Stack itself has no method 'custom_operation'"):
        sg.nn.call_all_fns(stack, "custom_operation")
    with pytest.raises(AttributeError, match="Cell at 'cell_0'"):
        sg.nn.call_all_fns(stack, "other", node_to_exclude=Stack)
    assert stack.layers[0].calls == 0
    with pytest.warns(UserWarning, match="the Stack itself"):
        sg.nn.call_all_fns(stack, "custom_operation", fn_if_not_exist="warn")
    assert stack.layers[0].calls == 1
    with pytest.raises(ValueError, match="raise, warn, pass, none"):
        sg.nn.call_all_fns(stack, "custom_operation", fn_if_not_exist="skip")
    with pytest.raises(TypeError, match="a int, not a method"):
        sg.nn.call_all_fns(stack, "calls", fn_if_not_exist="pass")
    with pytest.raises(TypeError, match="needs a Node"):
        sg.nn.call_all_fns(3, "calls")


def test_an_argument_that_no_method_accepts_is_an_error() -> None:
    cell = sg.nn.init_all_states(Cell())
    with pytest.raises(TypeError, match="accepts the argument 'scal'"):
        sg.nn.call_all_fns(cell, "custom_operation", kwargs={"scal": 2.0})
    with pytest.raises(TypeError, match="they accept batch_size"):
        sg.nn.init_all_states(cell, batchsize=2)


# ------------------------------------------------------------------------------------------- init and reset


@pytest.mark.core
def test_init_passes_a_keyword_to_those_that_accept_it() -> None:
    stack = Stack(Cell(), Unbatched())
    assert sg.nn.init_all_states(stack, batch_size=8) is stack
    assert [cell.h.value.shape for cell in stack.layers] == [(8, 3), (3,)]
    assert stack.init_all_states(batch_size=2).layers[0].h.shape == (2, 3)  # type: ignore[attr-defined]
    assert sg.nn.init_all_states(Cell(), 6).h.shape == (6, 3)


def test_plain_nodes_without_hooks_are_skipped_unless_told_otherwise() -> None:
    resnet = ResNet(2, 1)
    sg.nn.init_all_states(resnet, batch_size=8, fn_if_not_exist="pass")
    sg.nn.init_all_states(resnet)
    with pytest.raises(AttributeError, match="Block at 'block_0'"):
        sg.nn.init_all_states(resnet, fn_if_not_exist="raise")


@pytest.mark.core
@pytest.mark.parametrize(
    "exclude",
    [
        lambda cell: lambda node: node is cell,
        lambda cell: lambda path, node: path == ("cell_1",),
        lambda cell: Unbatched,
        lambda cell: (Unbatched, None),
        lambda cell: sg.util.PathContains("cell_1"),
    ],
)
def test_excluded_nodes_keep_their_values(exclude: Any) -> None:
    stack = sg.nn.init_all_states(Stack(Cell(), Unbatched()), batch_size=2)
    for cell in stack.layers:
        cell.h.value = cell.h.value + 7
    sg.nn.reset_all_states(stack, batch_size=2, node_to_exclude=exclude(stack.layers[1]))
    assert stack.layers[0].h.value.sum() == 0 and stack.layers[1].h.value.tolist() == [8.0] * 3


@pytest.mark.core
def test_reset_keeps_the_batch_axis() -> None:
    cell = sg.nn.init_all_states(Cell(), batch_size=2)
    sg.nn.reset_all_states(cell)
    assert cell.h.shape == (2, 3)
    sg.nn.reset_all_states(cell, batch_size=5)
    assert cell.h.shape == (5, 3)
    twin = sg.graph.clone(cell)
    twin.h.value += 1
    twin.reset_all_states()
    assert twin.h.shape == (5, 3) and twin.h.value.sum() == 0
    sg.nn.reset_all_states(cell, batch_size=None)
    assert cell.h.shape == (3,)


def test_reset_gets_the_arguments_of_init_again() -> None:
    class Noisy(Cell):
        def reset_state(self, batch_size: int | None = None) -> None:
            self.h.value = jnp.arange(batch_size * self.size, dtype=jnp.float32).reshape(
                self.shape(batch_size)
            )  # type: ignore[operator]

    cell = sg.nn.init_all_states(Noisy(), batch_size=2)
    sg.nn.reset_all_states(cell)
    assert cell.h.value.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.mark.core
def test_init_and_reset_inside_of_jit() -> None:
    cell = Cell()

    @sg.compile.jit
    def start(x: Any) -> Any:
        sg.nn.init_all_states(cell, batch_size=2)
        cell.h.value += x
        return cell.h.value.sum()

    assert start(1.0) == 6.0 and cell.h.value.tolist() == [[1.0] * 3] * 2

    @sg.compile.jit
    def restart() -> None:
        sg.nn.reset_all_states(cell)

    restart()
    assert cell.h.value.tolist() == [[0.0] * 3] * 2


# ------------------------------------------------------------------------------------------------ restoring


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [Linear(2, 3), Linear(3, 1)]
        self.alias = self.layers[0]
        self.v = sg.HiddenState(jnp.zeros(3))
        self.n = sg.State(0)


def snapshot(model: sg.nn.Module) -> dict[Any, Any]:
    """As the documents make it: dict-valued States by leaf."""
    found: dict[Any, Any] = {}
    for path, state in model.states().items():
        if isinstance(state.value, dict):
            for key, value in state.value.items():
                found[(*path, key)] = value
        else:
            found[path] = state.value
    return found


def values(model: sg.nn.Module) -> list[Any]:
    return [leaf.tolist() for state in model.states().values() for leaf in jax.tree.leaves(state.value)]


@pytest.mark.core
@pytest.mark.parametrize(
    "form",
    [
        snapshot,
        lambda net: net.states().to_dict_values(),
        lambda net: net.states(),
        lambda net: {".".join(map(str, path)): value for path, value in snapshot(net).items()},
        lambda net: {".".join(map(str, path)): np.asarray(value) for path, value in snapshot(net).items()},
        lambda net: net.states().treefy_state(),
        lambda net: {
            ("layers", 0, *path[1:]) if path[0] == "alias" else path: x for path, x in snapshot(net).items()
        },
        lambda net: {
            ".".join(map(str, ("layers", 0, *path[1:]) if path[0] == "alias" else path)): x
            for path, x in snapshot(net).items()
        },
        lambda net: {
            "alias.weight": net.alias.weight.value,
            "layers[1].weight": net.layers[1].weight.value,
            "v": net.v.value,
            "n": 3,
        },
    ],
)
def test_every_form_of_snapshot_restores_the_model(form: Any) -> None:
    source, target = Net(), Net()
    for state in source.states().values():
        state.value = jax.tree.map(lambda x: x + 3, state.value)
    assert sg.nn.assign_state_values(target, form(source)) == ([], [])
    assert values(target) == values(source)


@pytest.mark.core
def test_only_true_mismatches_are_reported() -> None:
    net = Net()
    given = {
        ("alias", "weight", "bias"): jnp.ones(3),
        ("q",): 1.0,
        "layers.7.weight": 2.0,
        ("v", "deep"): 3.0,
    }
    unexpected, missing = sg.nn.assign_state_values(net, given)
    assert unexpected == [("q",), "layers.7.weight", ("v", "deep")]
    assert missing == [("alias", "weight", "weight"), ("layers", 1, "weight"), ("n",), ("v",)]
    assert net.alias.weight.value["bias"].tolist() == [1.0] * 3


@pytest.mark.core
def test_later_mappings_count() -> None:
    net = Net()
    sg.nn.assign_state_values(net, {"n": 1, "v": jnp.ones(3)}, {("n",): 2})
    assert net.n.value == 2 and net.n.value.dtype == jnp.int32 and net.v.value.sum() == 3


@pytest.mark.core
@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("v", jnp.ones(1), r"float32\[3\], and the value is float32\[1\]"),
        ("v", jnp.ones(3, jnp.int32), r"float32\[3\], and the value is int32\[3\]"),
        ("v", 1.0, r"float32\[3\]"),
        ("v", "text", "the value is a str"),
        ("v", {"a": jnp.ones(3)}, "the value is a dict"),
        ("alias.weight", jnp.ones(3), "PyTreeDef"),
        ("alias.weight", {"weight": jnp.ones((2, 3))}, "PyTreeDef"),
        ("alias.weight.bias", jnp.ones(2), r"float32\[3\], and the value is float32\[2\]"),
    ],
)
def test_a_value_of_the_wrong_type_changes_nothing(key: str, value: Any, what: str) -> None:
    net = Net()
    before = values(net)
    with pytest.raises(sg.errors.StateTypeError, match=what):
        sg.nn.assign_state_values(net, {"n": 5}, {key: value})
    assert values(net) == before


def test_strict_refuses_what_does_not_fit() -> None:
    net = Net()
    before = values(net)
    for given in ({"n": 5}, {**snapshot(net), "n": 5, "q": 1}):
        with pytest.raises(KeyError, match="do not fit the model"):
            sg.nn.assign_state_values(net, given, strict=True)
    assert values(net) == before
    assert sg.nn.assign_state_values(net, snapshot(net), strict=True) == ([], [])


def test_values_are_assigned_inside_of_jit() -> None:
    net = Net()

    @sg.compile.jit
    def restore(v: Any) -> None:
        sg.nn.assign_state_values(net, {"v": v, "alias.weight.bias": 2 * v})

    restore(jnp.ones(3))
    assert net.v.value.sum() == 3 and net.alias.weight.value["bias"].sum() == 6

"""The reference of ``nn.Module``, written for BrainState: every form that its examples have runs, and gives what they say.

Shortened; only the import is another.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as brainstate
from stategraph.nn import IdentityT, L1Reg


class Scale(brainstate.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def update(self, x: Any) -> Any:
        return x * self.scale


class Layer(brainstate.nn.Module):
    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.weight = brainstate.nn.Param(jnp.ones((size, out)), reg=L1Reg(0.5))
        self.bias = brainstate.nn.Param(jnp.full(out, 2.0), t=brainstate.nn.SoftplusT())

    def update(self, x: Any) -> Any:
        return x @ self.weight.value() + self.bias.value()


class Model(brainstate.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = Layer(10, 20), Layer(20, 5)

    def update(self, x: Any) -> Any:
        return self.layer2(self.layer1(x))


def test_calls_names_and_pipes() -> None:
    layer = Scale(2.0)
    assert layer(3.0) == 6.0 and 3.0 >> layer == 6.0 and jnp.float32(3) >> layer == 6.0
    np.testing.assert_array_equal(np.ones((1, 2)) >> layer, np.full((1, 2), 2.0))
    assert brainstate.nn.Module(name="net").name == "net" and layer.name is None
    with pytest.raises(AttributeError):
        layer.name = "other"  # type: ignore[misc]
    assert layer.init_state() is layer.reset_state(batch_size=3) is None


def test_modules_are_listed_and_mapped() -> None:
    model = Model()
    layers = [model.layer1, model.layer2]
    assert list(model.children()) == layers and dict(model.named_children()) == {
        "layer1": layers[0],
        "layer2": layers[1],
    }
    kinds = {Model, Layer, brainstate.nn.Param, L1Reg}
    assert (
        {type(module) for module in model.modules().values()}
        == {type(module) for module in model.modules()}
        == kinds
    )
    assert len(list(model.modules())) == len(list(model.modules(include_self=False))) + 1 == 9
    names = [name for name, _ in model.named_modules()]
    held = ["", ".bias", ".weight", ".weight.reg"]
    assert sorted(names) == sorted(
        ["", *("layer1" + name for name in held), *("layer2" + name for name in held)]
    )
    assert {name for name, _ in model.named_modules(prefix="net")} == {
        f"net.{name}".rstrip(".") for name in names
    }
    assert set(model.nodes(Layer)) == {("layer1",), ("layer2",)}
    assert set(model.nodes(allowed_hierarchy=(1, 1))) == {("layer1",), ("layer2",)}


def test_parameters_in_every_form() -> None:
    model = Model()
    shapes = {name: param.value().shape for name, param in model.named_param_modules()}
    assert shapes == {
        "layer1.weight": (10, 20),
        "layer1.bias": (20,),
        "layer2.weight": (20, 5),
        "layer2.bias": (5,),
    }
    assert {name: param.value().shape for name, param in model.named_parameters()} == shapes
    assert sorted(param.value.shape for param in model.parameters()) == sorted(shapes.values())
    assert (
        not list(model.parameters(recurse=False)) and len(list(model.layer1.parameters(recurse=False))) == 2
    )
    assert len(list(model.param_modules())) == 4
    transformed = list(model.param_modules(lambda path, p: not isinstance(p.t, IdentityT)))
    assert transformed == [model.layer1.bias, model.layer2.bias]
    regularised = list(model.param_modules(lambda path, p: p.reg is not None))
    assert regularised == [model.layer1.weight, model.layer2.weight]
    for same in (model.par_modules, model.para_modules):
        assert len(list(same())) == 4
    assert dict(model.named_para_modules()).keys() == shapes.keys()


def test_states_as_mappings_and_trees() -> None:
    model = Model()
    params, others = model.state_trees(brainstate.ParamState, ...)
    assert len(params.to_flat()) == 4 and not others.to_flat()
    assert len(model.states()) == len(model.states(brainstate.ParamState)) == 4
    assert isinstance(model.state_trees()["layer1"]["weight"]["val"], brainstate.TreefyState)


def test_values_are_computed_once_in_a_block() -> None:
    model, x = Model(), jnp.ones((1, 10))
    expected = model(x)
    with model.param_precompute():
        assert model.layer1.bias.value() is model.layer1.bias.value()
        np.testing.assert_array_equal(model(x), expected)
    assert model.layer1.bias.value() is not model.layer1.bias.value()
    with model.layer1.param_precompute(allowed_hierarchy=(1, 1)):
        assert model.layer1.bias.value() is model.layer1.bias.value()
    with pytest.raises(ValueError, match="wrong"), model.param_precompute():
        raise ValueError("something went wrong")
    assert model.layer1.bias.value() is not model.layer1.bias.value()


def test_values_that_are_kept_have_gradients_and_compile() -> None:
    model, x = Model(), jnp.ones((1, 10))
    weights = model.states(brainstate.ParamState)

    def loss() -> Any:
        return model(x).sum()

    def kept() -> Any:
        with model.param_precompute():
            return loss()

    expected = brainstate.augment.grad(loss, weights)()
    with model.param_precompute():
        inside = brainstate.augment.grad(loss, weights)()
    compiled = brainstate.compile.jit(brainstate.augment.grad(kept, weights))()
    for found in (inside, compiled):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), dict(found), dict(expected))
    assert all(np.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(dict(expected)))


def test_what_parameters_cost() -> None:
    model = Model()
    assert float(model.reg_loss()) == 0.5 * (200 + 100)
    assert model.reg_loss(lambda path, p: isinstance(p.reg, L1Reg)) == model.reg_loss()
    assert float(model.reg_loss(lambda path, p: path[0] == "layer2")) == 50.0
    assert float(Scale(1.0).reg_loss()) == 0.0

"""Dropout: rates, means, and when it is on; the mode that decides that."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.oracle import agree

ONES = jnp.ones((50, 40))


@pytest.mark.parametrize("keep", [0.2, 0.9])
def test_elements_are_kept_with_the_probability_and_scaled(keep: float) -> None:
    sg.random.seed(0)
    y = nn.Dropout(prob=keep).train()(ONES)
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / keep, rtol=1e-6)
    assert abs(kept.mean() - keep) < 0.05
    assert nn.Dropout(keep).eval()(ONES) is ONES
    assert nn.Dropout(keep).train()(ONES.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_ends_of_the_range() -> None:
    assert (nn.Dropout(0.0).train()(ONES) == 0).all() and nn.Dropout(1.0).train()(ONES) is ONES
    assert (nn.AlphaDropout(0.0).train()(ONES) == 0).all() and nn.AlphaDropout(1.0).train()(ONES) is ONES
    slope = sg.augment.grad(lambda x: nn.Dropout(0.0).train()(x).sum())(ONES)
    assert (slope == 0).all()
    for make in (nn.Dropout, nn.AlphaDropout, nn.Dropout2d):
        with pytest.raises(ValueError, match="between 0 and 1"):
            make(1.5)


def test_one_decision_along_axes() -> None:
    y = nn.Dropout(0.5, broadcast_dims=(0,)).train()(ONES)
    assert (y == y[:1]).all() and 0 < (y[0] == 0).mean() < 1


@pytest.mark.core
@pytest.mark.parametrize(("layer", "spatial"), [(nn.Dropout1d, 1), (nn.Dropout2d, 2), (nn.Dropout3d, 3)])
@pytest.mark.parametrize("channel_axis", [-1, 0])
def test_whole_channels(layer: Any, spatial: int, channel_axis: int) -> None:
    shape = [3] * spatial
    shape.insert(spatial if channel_axis == -1 else 0, 40)
    for batch in ((), (20,)):
        y = np.asarray(layer(0.5, channel_axis).train()(jnp.ones((*batch, *shape))))
        channels = np.moveaxis(y, channel_axis if channel_axis == -1 else len(batch), len(batch))
        flat = channels.reshape(*batch, 40, -1)
        assert (flat == flat[..., :1]).all() and 0.2 < (flat == 0).mean() < 0.8
        if batch:
            assert (flat[0] != flat[1]).any()
    with pytest.raises(ValueError, match=f"{spatial} spatial"):
        layer().train()(jnp.ones(3))


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    sg.random.seed(0)
    x = sg.random.randn(200, 200)
    y = nn.AlphaDropout(0.8).train()(x)
    assert abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02 and nn.AlphaDropout().eval()(x) is x


@pytest.mark.core
def test_compiled_dropout_drops_what_eager_dropout_drops() -> None:
    def make() -> Any:
        sg.random.seed(3)
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.AlphaDropout(0.5)).train()
        return net, list(sg.graph.states(net).values())

    agree(make, (jnp.ones((5, 4)),), (jnp.ones((5, 4)),), reference=False)


@pytest.mark.core
def test_lanes_drop_independently() -> None:
    layer = nn.Dropout(0.5).train()
    y = sg.augment.vmap(layer)(jnp.ones((4, 100)))
    assert all((y[0] != y[i]).any() for i in range(1, 4))


# --------------------------------------------------------------------------------------------------- the mode


def dropped(y: Any) -> bool:
    return bool((y == 0).any())


def test_environ_overrides_the_mode_of_the_module() -> None:
    layer = nn.Dropout(0.5)
    assert not dropped(layer(ONES)), "with neither set, layers evaluate"
    with sg.environ.context(fit=True):
        assert dropped(layer(ONES)) and dropped(layer.eval()(ONES))
    with sg.environ.context(fit=False):
        assert not dropped(layer.train()(ONES))
    assert dropped(layer(ONES)) and layer.training is True
    assert not dropped(layer.train(False)(ONES))


def test_the_mode_reaches_all_modules_below_and_follows_the_model() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))
    assert net.train() is net and all(module.training for module in net.modules())
    assert "training=True" in repr(net) and "training" not in repr(nn.Dropout())
    assert sg.graph.clone(net).layers[1].layers[1].training
    graphdef, states = sg.graph.treefy_split(net)
    assert dropped(sg.graph.treefy_merge(graphdef, states)(jnp.ones((50, 3))))
    assert sg.graph.graphdef(net) != sg.graph.graphdef(net.eval())


@pytest.mark.core
def test_compiled_code_notices_the_mode() -> None:
    layer = nn.Dropout(0.5)
    traces = []

    @sg.compile.jit
    def run(x: Any) -> Any:
        traces.append(1)
        return layer(x)

    assert not dropped(run(ONES))
    layer.train()
    assert dropped(run(ONES)) and len(traces) == 2
    layer.eval()
    assert not dropped(run(ONES))
    with sg.environ.context(fit=True):
        assert dropped(run(ONES))
    layer.train()
    assert dropped(run(ONES))


@pytest.mark.core
def test_a_gradient_without_a_mode_warns_once() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Dropout(0.5))
    x = jnp.ones((5, 4))

    def loss() -> Any:
        return net(x).sum()

    with pytest.warns(
        UserWarning, match=r"(?s)Dropout evaluates while a gradient.*model.train\(\)"
    ) as caught:
        sg.augment.grad(loss, net.states(sg.ParamState))()
    assert len(caught) == 1
    with pytest.warns(UserWarning) as caught:
        sg.compile.jit(lambda: sg.augment.grad(loss, net.states(sg.ParamState))())()
    assert len(caught) == 1
    with pytest.warns(UserWarning):
        jax.grad(lambda x: net(x).sum())(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sg.compile.jit(loss)()
        for mode in (True, False):
            net.train(mode)
            sg.augment.grad(loss, net.states(sg.ParamState))()
        with sg.environ.context(fit=True):
            sg.augment.grad(loss, net.states(sg.ParamState))()


def test_environ_context() -> None:
    inner = nn.Dropout(0.5)
    layer = nn.EnvironContext(inner, fit=True)
    assert dropped(layer(ONES)) and not dropped(layer(ONES, context={"fit": False}))
    assert dropped(sg.compile.jit(layer)(ONES))
    layer.add_context(fit=False)
    assert not dropped(layer(ONES)) and nn.EnvironContext(nn.Linear(2, 3)).out_size == (3,)
    with pytest.raises(TypeError, match="needs a module"):
        nn.EnvironContext(jnp.sin)  # type: ignore[arg-type]

"""Sequential: calling, sizes, and editing."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import check_layer, numbers


@pytest.mark.core
def test_layers_follow_one_another() -> None:
    def make() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 8), jnp.tanh, nn.ReLU(), nn.Linear(8, 2))

    def formula(x: np.ndarray, layers_0_weight: dict, layers_3_weight: dict) -> np.ndarray:
        h = np.maximum(np.tanh(x @ layers_0_weight["weight"] + layers_0_weight["bias"]), 0)
        return h @ layers_3_weight["weight"] + layers_3_weight["bias"]

    net = check_layer(make, numbers(5, 4), formula)
    assert net.in_size == (4,) and net.out_size == (2,)
    assert list(net.states()) == [("layers", 0, "weight"), ("layers", 3, "weight")]


def test_a_sequential_is_a_list_of_layers() -> None:
    first, act, last = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)
    net = nn.Sequential(first, act, last)
    assert len(net) == 3 and list(net) == [first, act, last] and net[1] is act and net[-1] is last
    assert net[:2].out_size == (8,) and net[:2].layers == [first, act] and net[[0, 2]].layers == [first, last]
    net.append(nn.Tanh())
    net.insert(0, nn.Linear(3, 4))
    net.extend([nn.Linear(2, 7)])
    assert net.in_size == (3,) and net.out_size == (7,) and net(jnp.ones(3)).shape == (7,)
    assert nn.Sequential(nn.ReLU()).in_size is None and nn.Sequential(nn.ReLU(), first).in_size == (4,)


@pytest.mark.core
def test_compiled_code_notices_a_new_layer() -> None:
    net = nn.Sequential(nn.Linear(4, 4))
    run = sg.compile.jit(net)
    before = run(jnp.ones(4))
    net.append(lambda x: 2 * x)
    np.testing.assert_allclose(run(jnp.ones(4)), 2 * before, rtol=1e-6)


def test_described_layers_are_made_for_the_size_before_them() -> None:
    net = nn.Sequential(
        nn.Conv2d.desc(4, 3)((8, 8, 1)),
        nn.ReLU(),
        nn.MaxPool2d.desc(2),
        nn.Flatten.desc(),
        nn.Linear.desc(out_size=10),
        jnp.tanh,
        nn.Linear.desc(3, b_init=None),
    )
    assert net.out_size == (3,) and net(numbers(5, 8, 8, 1)).shape == (5, 3)
    assert net.layers[4].in_size == (64,) and list(net.layers[6].weight.value) == ["weight"]
    with pytest.raises(ValueError, match=r"(?s)Linear.desc\(3\) cannot be made.*out_size"):
        nn.Sequential(nn.Flatten(), nn.Linear.desc(3))


def test_what_is_no_layer() -> None:
    with pytest.raises(TypeError, match="first layer"):
        nn.Sequential(jnp.tanh)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="module or a function"):
        nn.Sequential(nn.ReLU(), 3)  # type: ignore[arg-type]

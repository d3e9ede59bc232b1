"""Pooling, against windows in NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import check_layer, numbers


def pooled(x: Any, operation: Any, window: Any, stride: Any, pads: Any = None) -> Any:
    """(n, *spatial, c): an operation on each window, one output position after the other; padding is NaN."""
    n = x.ndim - 2
    window, stride = (np.broadcast_to(value, n) for value in (window, stride))
    x = np.pad(x, [(0, 0), *(pads or [(0, 0)] * n), (0, 0)], constant_values=np.nan)
    shape = [(s - k) // t + 1 for s, k, t in zip(x.shape[1:-1], window, stride, strict=True)]
    y = np.zeros((len(x), *shape, x.shape[-1]), np.float32)
    for at in itertools.product(*map(range, shape)):
        spot = tuple(slice(i * t, i * t + k) for i, t, k in zip(at, stride, window, strict=True))
        y[(slice(None), *at)] = operation(x[(slice(None), *spot)], tuple(range(1, n + 1)))
    return y


CASES = [
    (1, (9, 4), {"kernel_size": 3, "stride": 2}, {"window": 3, "stride": 2}),
    (1, (9, 4), {"kernel_size": 4, "stride": 3, "padding": (1, 2)}, {"window": 4, "stride": 3, "pads": [(1, 2)]}),
    (2, (6, 5, 3), {"kernel_size": (3, 2), "stride": 1}, {"window": (3, 2), "stride": 1}),
    (2, (6, 5, 3), {"kernel_size": 3, "stride": 2, "padding": "SAME"}, {"window": 3, "stride": 2, "pads": [(0, 1), (1, 1)]}),
    (2, (6, 5, 3), {"kernel_size": 2, "stride": None, "padding": 1}, {"window": 2, "stride": 2, "pads": [(1, 1), (1, 1)]}),
    (3, (4, 3, 4, 2), {"kernel_size": 2, "stride": (2, 1, 2)}, {"window": 2, "stride": (2, 1, 2)}),
]  # fmt: skip


@pytest.mark.parametrize(("spatial", "in_size", "options", "formula"), CASES)
@pytest.mark.parametrize(("name", "operation"), [("MaxPool", np.nanmax), ("AvgPool", np.nanmean)])
def test_pooling(spatial: int, in_size: Any, options: Any, formula: Any, name: str, operation: Any) -> None:
    kind = getattr(nn, f"{name}{spatial}d")
    x = numbers(2, *in_size)
    layer = check_layer(
        lambda: kind(in_size=in_size, **options),
        x,
        lambda x: pooled(x, operation, **formula),
        gradients="padding" in options and spatial == 2,
    )
    assert layer.out_size == layer(x).shape[1:]
    plain = kind(**options)
    assert plain.out_size is None and (plain(x[0]) == layer(x)[0]).all()
    first = kind(channel_axis=1, **options)
    np.testing.assert_allclose(np.moveaxis(first(np.moveaxis(x, -1, 1)), 1, -1), layer(x), rtol=1e-6)
    lone = kind(channel_axis=None, **options)
    np.testing.assert_allclose(lone(x[..., 0]), layer(x)[..., 0], rtol=1e-6)


@pytest.mark.core
@pytest.mark.parametrize(("spatial", "in_size", "options", "formula"), CASES)
def test_positions_of_the_largest(spatial: int, in_size: Any, options: Any, formula: Any) -> None:
    layer = getattr(nn, f"MaxPool{spatial}d")(return_indices=True, in_size=in_size, **options)
    x = jnp.asarray(numbers(2, *in_size))
    for run in (layer, sg.compile.jit(layer)):
        y, indices = run(x)
        assert (x.ravel()[indices] == y).all() and indices.dtype == jnp.int32
    assert layer.out_size == y.shape[1:]
    grads = jax.grad(lambda x: layer(x)[0].sum())(x)
    assert grads.sum() == y.size


@pytest.mark.core
def test_ties_go_to_the_first() -> None:
    _, indices = nn.MaxPool1d(2, return_indices=True, channel_axis=None)(jnp.zeros(4))
    assert indices.tolist() == [0, 2]


@pytest.mark.core
def test_integers() -> None:
    x = np.arange(8).reshape(8, 1)
    assert nn.MaxPool1d(2)(x).ravel().tolist() == [1, 3, 5, 7]
    assert nn.AvgPool1d(2, 2)(x).ravel().tolist() == [0.5, 2.5, 4.5, 6.5]
    assert nn.MaxPool1d(2, padding=1)(x > 5).ravel().tolist() == [False, False, False, True, True]
    assert nn.AdaptiveAvgPool1d(2)(x).ravel().tolist() == [1.5, 5.5] and nn.AdaptiveMaxPool1d(1)(
        x
    ).ravel().tolist() == [7]


@pytest.mark.parametrize(("name", "operation"), [("AdaptiveMaxPool", np.max), ("AdaptiveAvgPool", np.mean)])
@pytest.mark.parametrize(
    ("spatial", "in_size", "target"),
    [(1, (9, 4), 4), (2, (6, 7, 3), (3, 5)), (2, (6, 7, 3), (None, 1)), (3, (4, 3, 5, 2), 2)],
)
def test_adaptive_pooling_splits_as_numpy_does(
    name: str, operation: Any, spatial: int, in_size: Any, target: Any
) -> None:
    targets = (target,) * spatial if isinstance(target, int) else target

    def formula(x: Any) -> Any:
        for axis, parts in enumerate(targets, 1):
            if parts is not None:
                pieces = [operation(p, axis, keepdims=True) for p in np.array_split(x, parts, axis)]
                x = np.concatenate(pieces, axis)
        return x

    def make() -> Any:
        return getattr(nn, f"{name}{spatial}d")(target, in_size=in_size)

    check_layer(make, numbers(2, *in_size), formula, gradients=spatial == 1)


@pytest.mark.core
def test_flatten_and_unflatten() -> None:
    x = numbers(2, 3, 4, 5)
    assert (
        nn.Flatten()(x).shape == (120,)
        and nn.Flatten(1)(x).shape == (2, 60)
        and nn.Flatten(1, 2)(x).shape == (2, 12, 5)
    )
    layer = check_layer(lambda: nn.Flatten(in_size=(3, 4, 5)), x, lambda x: x.reshape(2, 60))
    assert layer.out_size == (60,) and nn.Flatten(1, -1, in_size=(3, 4, 5))(x).shape == (2, 3, 20)
    back = check_layer(lambda: nn.Unflatten(0, (3, -1, 5), in_size=60), layer(x), lambda y: x)
    assert back.out_size == (3, 4, 5) and nn.Unflatten(-1, (5, 1))(x).shape == (2, 3, 4, 5, 1)
    net = nn.Sequential(
        nn.Conv2d((8, 8, 1), 4, 3, stride=2), nn.ReLU(), nn.Flatten(in_size=(4, 4, 4)), nn.Linear(64, 3)
    )
    assert net(numbers(5, 8, 8, 1)).shape == (5, 3) and net.out_size == (3,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MaxPool2d((2, 2, 2)), "kernel_size"),
        (lambda: nn.MaxPool2d(2, padding="FULL"), "'SAME'"),
        (lambda: nn.AvgPool2d(2)(numbers(4, 4)), "2 spatial axes and one of channels"),
        (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), "target_size"),
        (lambda: nn.AdaptiveAvgPool1d(0), "target_size"),
        (lambda: nn.AdaptiveAvgPool1d(5)(numbers(4, 1)), "5 parts"),
        (lambda: nn.Flatten(in_size=(2, 3))(numbers(5, 3, 2)), "in_size"),
        (lambda: nn.Flatten(2, 1)(numbers(5, 3, 2)), "comes after"),
    ],
)
def test_what_does_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

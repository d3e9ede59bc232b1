"""Normalisation, against means and variances in NumPy."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import check_layer, numbers
from tests.oracle import agree

RANDOM = nn.init.Normal(1.0, 0.5)


def normalized(x: Any, axes: Any, epsilon: float, weight: Any = None, mean: bool = True) -> Any:
    centre = x.mean(axes, keepdims=True) if mean else 0
    y = (x - centre) / np.sqrt(((x - centre) ** 2).mean(axes, keepdims=True) + epsilon)
    weight = weight or {}
    return y * weight.get("scale", 1) + weight.get("bias", 0)


BATCH_NORMS = [
    (nn.BatchNorm0d, (4,)),
    (nn.BatchNorm1d, (3, 4)),
    (nn.BatchNorm2d, (3, 2, 4)),
    (nn.BatchNorm3d, (3, 2, 2, 4)),
]


@pytest.mark.parametrize(("layer", "in_size"), BATCH_NORMS)
@pytest.mark.parametrize("fast", [True, False])
def test_batch_norm(layer: Any, in_size: Any, fast: bool) -> None:
    def make() -> Any:
        return layer(
            in_size, bias_initializer=RANDOM, scale_initializer=RANDOM, momentum=0.9, use_fast_variance=fast
        ).train()

    axes = tuple(range(len(in_size)))
    x = numbers(8, *in_size) * 2 + 1

    def training(x: Any, weight: Any, **running: Any) -> Any:
        return normalized(x, axes, 1e-5, weight)

    found = check_layer(make, x, training, tolerance=1e-4, gradients=len(in_size) == 3)
    model = make()
    model(x)
    np.testing.assert_allclose(model.running_mean.value.ravel(), 0.1 * x.mean(axes), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.running_var.value.ravel(), 0.9 + 0.1 * x.var(axes), rtol=1e-4)
    assert isinstance(found.running_mean, sg.BatchState)

    def evaluating(x: Any, weight: Any, running_mean: Any, running_var: Any) -> Any:
        y = (x - running_mean) / np.sqrt(running_var + 1e-5)
        return y * weight["scale"] + weight["bias"]

    check_layer(lambda: make().eval(), x, evaluating, gradients=False)
    model.eval()
    before = model.running_mean.value
    model(x)
    assert (model.running_mean.value == before).all()
    one = model(x[0])
    np.testing.assert_allclose(one, model(x)[0], rtol=1e-5)


@pytest.mark.core
def test_running_statistics_follow_in_compiled_loops() -> None:
    def make() -> Any:
        model = nn.BatchNorm0d(4, momentum=0.8).train()
        return lambda xs: sg.compile.for_loop(model, xs), list(model.states().values())

    agree(make, (jnp.asarray(numbers(5, 8, 4)),), reference=False)
    model = nn.BatchNorm0d(4, momentum=0.0).train()
    x = numbers(100, 4) + 3
    sg.compile.jit(model)(x)
    np.testing.assert_allclose(model.running_mean.value, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.eval()(x), normalized(x, 0, 1e-5), rtol=1e-3, atol=1e-4)


def test_batch_norm_without_running_statistics_or_parameters() -> None:
    x = numbers(8, 4)
    layer = check_layer(
        lambda: nn.BatchNorm0d(4, track_running_stats=False, affine=False),
        x,
        lambda x: normalized(x, 0, 1e-5),
    )
    assert not layer.states()


def test_batch_norm_of_other_features() -> None:
    x = numbers(8, 3, 5)
    layer = nn.BatchNorm1d((3, 5), feature_axis=0).train()
    np.testing.assert_allclose(layer(x), normalized(x, (0, 2), 1e-5), rtol=1e-4, atol=1e-5)
    assert layer.running_mean.shape == (3, 1)
    both = nn.BatchNorm1d((3, 5), feature_axis=(0, 1)).train()
    np.testing.assert_allclose(both(x), normalized(x, 0, 1e-5), rtol=1e-4, atol=1e-5)


def test_a_mask_leaves_elements_out_of_the_statistics() -> None:
    x = numbers(8, 4)
    mask = np.arange(8)[:, None] < 5
    expected = (x - x[:5].mean(0)) / np.sqrt(x[:5].var(0) + 1e-5)
    np.testing.assert_allclose(nn.BatchNorm0d(4).train()(x, mask=mask), expected, rtol=1e-4, atol=1e-5)
    y = nn.LayerNorm(8)(x.T, mask=mask.T)
    expected = (x.T - x.T[:, :5].mean(1, keepdims=True)) / np.sqrt(x.T[:, :5].var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    grouped = nn.GroupNorm(4, num_groups=2)(x, mask=np.array([True, True, True, False]))
    np.testing.assert_allclose(grouped[:, 2:], (x[:, 2:] - x[:, 2:3]) / np.sqrt(1e-6), rtol=1e-3, atol=1e-3)


@pytest.mark.core
def test_statistics_over_the_lanes_of_a_vmap() -> None:
    x = numbers(8, 4)
    layer = nn.BatchNorm0d(4, axis_name="lanes", track_running_stats=False)
    y = sg.augment.vmap(layer, axis_name="lanes")(jnp.asarray(x))
    np.testing.assert_allclose(y, normalized(x, 0, 1e-5), rtol=1e-4, atol=1e-5)


def test_layer_norm() -> None:
    def make(in_size: Any = 4, **options: Any) -> Any:
        return lambda: nn.LayerNorm(in_size, bias_init=RANDOM, scale_init=RANDOM, **options)

    check_layer(make(), numbers(5, 4), lambda x, weight: normalized(x, -1, 1e-6, weight))
    check_layer(
        make(use_fast_variance=False), numbers(5, 2, 4), lambda x, weight: normalized(x, -1, 1e-6, weight)
    )
    both = make((3, 4), reduction_axes=(-2, -1), feature_axes=(-2, -1))
    layer = check_layer(
        both, numbers(5, 3, 4), lambda x, weight: normalized(x, (-2, -1), 1e-6, weight), gradients=False
    )
    assert layer.weight.value["scale"].shape == (3, 4)
    plain = nn.LayerNorm(4, use_bias=False, use_scale=False)
    np.testing.assert_allclose(
        plain(numbers(5, 4)), normalized(numbers(5, 4), -1, 1e-6), rtol=1e-4, atol=1e-5
    )
    assert not plain.states() and list(nn.LayerNorm(4, use_bias=False).weight.value) == ["scale"]


@pytest.mark.core
def test_rms_norm() -> None:
    check_layer(
        lambda: nn.RMSNorm(4, scale_init=RANDOM),
        numbers(5, 4),
        lambda x, weight: normalized(x, -1, 1e-6, weight, mean=False),
    )
    assert nn.RMSNorm(4, use_scale=False).weight is None
    x = numbers(5, 4)
    np.testing.assert_array_equal(nn.RMSNorm(4, use_fast_variance=False)(x), nn.RMSNorm(4)(x))


@pytest.mark.parametrize("options", [{"num_groups": 2}, {"num_groups": None, "group_size": 3}])
def test_group_norm(options: Any) -> None:
    def formula(x: Any, weight: Any) -> Any:
        grouped = x.reshape(*x.shape[:-1], 2, 3)
        axes = (*range(1, x.ndim - 1), x.ndim)
        y = normalized(grouped, axes, 1e-6).reshape(x.shape)
        return y * weight["scale"] + weight["bias"]

    def make(in_size: Any) -> Any:
        return lambda: nn.GroupNorm(in_size, bias_init=RANDOM, scale_init=RANDOM, **options)

    for shape in ((5, 6), (5, 3, 2, 6)):
        layer = make(6)()
        np.testing.assert_allclose(
            layer(numbers(*shape)), formula(numbers(*shape), layer.weight.value), rtol=1e-4, atol=1e-5
        )
    layer = check_layer(
        make((3, 2, 6)), numbers(5, 3, 2, 6), formula, tolerance=1e-4, gradients="group_size" in options
    )
    np.testing.assert_allclose(
        layer(numbers(5, 3, 2, 6))[1], layer(numbers(5, 3, 2, 6)[1]), rtol=1e-4, atol=1e-5
    )
    first = nn.GroupNorm((6, 3, 2), 0, **options)
    x = numbers(5, 3, 2, 6)
    plain = nn.GroupNorm((3, 2, 6), **options)
    np.testing.assert_allclose(
        np.moveaxis(first(np.moveaxis(x, -1, 1)), 1, -1), plain(x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("axes", [-1, (-1,), (-2, -1), (1, 3), (-4, -3, -2, -1)])
def test_group_norm_takes_statistics_over_the_axes_that_are_named(axes: Any) -> None:
    x = numbers(2, 3, 5, 6) * 2 + 1
    layer = nn.GroupNorm((3, 5, 6), num_groups=2, reduction_axes=axes, use_fast_variance=False)
    over = tuple(axis % 4 for axis in (axes if isinstance(axes, tuple) else (axes,)))
    expected = np.concatenate([normalized(part, over, 1e-6) for part in (x[..., :3], x[..., 3:])], -1)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    moved = tuple(1 if a == 3 else a + (a > 0) for a in over)
    turned = nn.GroupNorm((6, 3, 5), 0, 2, reduction_axes=moved, use_fast_variance=False)
    np.testing.assert_allclose(
        np.moveaxis(turned(np.moveaxis(x, 3, 1)), 1, 3), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.core
def test_dtypes() -> None:
    x = jnp.asarray(numbers(5, 4), jnp.bfloat16)
    assert (
        nn.LayerNorm(4)(x).dtype == jnp.float32
        and nn.LayerNorm(4, dtype=jnp.bfloat16)(x).dtype == jnp.bfloat16
    )
    y = nn.LayerNorm(4, use_bias=False, use_scale=False)(x)
    assert y.dtype == jnp.bfloat16
    large = jnp.full((5, 4), 300.0, jnp.float16).at[:, 0].set(0)
    assert np.isfinite(nn.LayerNorm(4, dtype=jnp.float16)(large)).all(), (
        "squares are taken in single precision"
    )


@pytest.mark.core
def test_weight_standardization() -> None:
    w = numbers(3, 4, 5)
    y = nn.weight_standardization(w, gain=2.0)
    flat = np.asarray(y).reshape(-1, 5)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(flat.var(0), 4 / 12, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.BatchNorm1d(4), "1 spatial axes"),
        (lambda: nn.BatchNorm0d(4).train()(numbers(1, 4)), "has no variance"),
        (lambda: nn.LayerNorm(4)(numbers(4, 5)), r"shape \(4, 5\)"),
        (lambda: nn.LayerNorm(4, feature_axes=1), "no axis 1"),
        (
            lambda: nn.GroupNorm((3, 6), num_groups=2, reduction_axes=-2)(np.ones((2, 3, 6))),
            "axes=\\(-2, -1\\)",
        ),
        (lambda: nn.GroupNorm(6, num_groups=4), "6 features cannot be split into 4 groups"),
        (lambda: nn.GroupNorm(6, num_groups=None, group_size=4), "groups of 4"),
        (lambda: nn.GroupNorm(6, group_size=4), "num_groups=None"),
        (lambda: nn.GroupNorm(6, num_groups=None), "num_groups or group_size"),
    ],
)
def test_what_does_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

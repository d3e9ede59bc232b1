"""Convolutions, against sums over windows in NumPy, and their transposes, against the derivative of the convolution."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph import nn
from tests.nn.checking import check_layer, numbers


def convolved(
    x: Any, kernel: Any, stride: Any = 1, pads: Any = None, dilation: Any = 1, groups: int = 1, lhs: Any = 1
) -> Any:
    """The definition: (n, *spatial, c) and (*window, c / groups, out), one output position after the other."""
    n = kernel.ndim - 2
    stride, dilation, lhs = (np.broadcast_to(value, n) for value in (stride, dilation, lhs))
    spread = np.zeros(
        (len(x), *[(s - 1) * d + 1 for s, d in zip(x.shape[1:-1], lhs, strict=True)], x.shape[-1]), x.dtype
    )
    spread[(slice(None), *[slice(None, None, d) for d in lhs])] = x
    x = np.pad(spread, [(0, 0), *(pads or [(0, 0)] * n), (0, 0)])
    reach = [(k - 1) * d for k, d in zip(kernel.shape[:n], dilation, strict=True)]
    shape = [(s - r - 1) // t + 1 for s, r, t in zip(x.shape[1:-1], reach, stride, strict=True)]
    inputs, outputs = x.shape[-1] // groups, kernel.shape[-1] // groups
    y = np.zeros((len(x), *shape, kernel.shape[-1]), np.float32)
    for at in itertools.product(*map(range, shape)):
        window = x[
            (
                slice(None),
                *[
                    slice(i * t, i * t + r + 1, d)
                    for i, t, r, d in zip(at, stride, reach, dilation, strict=True)
                ],
            )
        ]
        for g in range(groups):
            part = kernel[..., g * outputs : (g + 1) * outputs]
            axes = list(range(1, n + 1))
            y[(slice(None), *at, slice(g * outputs, (g + 1) * outputs))] = np.tensordot(
                window[..., g * inputs : (g + 1) * inputs], part, ([*axes, n + 1], [*range(n), n])
            )
    return y


def same(size: Any, window: Any, stride: Any, dilation: Any = 1) -> Any:
    n = len(size)
    pads = []
    for s, k, t, d in zip(size, *(np.broadcast_to(v, n) for v in (window, stride, dilation)), strict=True):
        total = max((-(-s // t) - 1) * t + (k - 1) * d + 1 - s, 0)
        pads.append((total // 2, total - total // 2))
    return pads


@pytest.mark.core
@pytest.mark.parametrize(
    ("layer", "in_size", "options", "formula"),
    [
        (nn.Conv1d, (9, 4), {"kernel_size": 3}, {"pads": same((9,), 3, 1)}),
        (nn.Conv1d, (9, 4), {"kernel_size": 4, "stride": 2, "padding": (1, 3), "rhs_dilation": 2},
         {"stride": 2, "pads": [(1, 3)], "dilation": 2}),
        (nn.Conv1d, (9, 4), {"kernel_size": 3, "lhs_dilation": 2, "padding": 2}, {"pads": [(2, 2)], "lhs": 2}),
        (nn.Conv2d, (7, 6, 4), {"kernel_size": (3, 2), "stride": (2, 1), "padding": "VALID"}, {"stride": (2, 1)}),
        (nn.Conv2d, (7, 6, 4), {"kernel_size": 3, "stride": 2, "groups": 2}, {"stride": 2, "groups": 2, "pads": same((7, 6), 3, 2)}),
        (nn.Conv2d, (7, 6, 4), {"kernel_size": 2, "padding": (1, 0)}, {"pads": [(1, 1), (0, 0)]}),
        (nn.Conv2d, (7, 6, 4), {"kernel_size": 2, "padding": [(1, 0)]}, {"pads": [(1, 0), (1, 0)]}),
        (nn.Conv3d, (4, 5, 3, 2), {"kernel_size": 2, "stride": (1, 2, 1)}, {"stride": (1, 2, 1), "pads": same((4, 5, 3), 2, (1, 2, 1))}),
    ],
)  # fmt: skip
def test_convolution(layer: Any, in_size: Any, options: Any, formula: Any) -> None:
    def expected(x: Any, weight: Any) -> Any:
        return convolved(x, weight["weight"], **formula) + weight["bias"]

    def make() -> Any:
        return layer(in_size, 6, b_init=nn.init.Normal(), **options)

    gradients = "groups" in options or "lhs_dilation" in options  # the others differ in numbers alone
    found = check_layer(make, numbers(2, *in_size), expected, tolerance=1e-4, gradients=gradients)
    x = numbers(3, 2, *in_size)
    np.testing.assert_allclose(found(x)[1], found(x[1]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found(x)[1, 1], found(x[1, 1]), rtol=1e-4, atol=1e-5)
    moved = layer((in_size[-1], *in_size[:-1]), 6, b_init=found.weight.value["bias"],
                  w_init=found.weight.value["weight"], channel_first=True, **options)  # fmt: skip
    np.testing.assert_allclose(
        np.moveaxis(moved(np.moveaxis(x[0], -1, 1)), 1, -1), found(x[0]), rtol=1e-4, atol=1e-5
    )
    assert moved.out_size == (6, *found.out_size[:-1])


def test_a_mask_of_the_kernel() -> None:
    mask = np.zeros((3, 1, 1), np.float32)
    mask[1] = 1
    layer = nn.Conv1d((9, 4), 5, 3, w_mask=mask)
    np.testing.assert_allclose(
        layer(numbers(9, 4)), numbers(9, 4) @ layer.weight.value["weight"][1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.core
@pytest.mark.parametrize(
    ("layer", "conv", "in_size", "options"),
    [
        (nn.ConvTranspose1d, nn.Conv1d, (5, 4), {"kernel_size": 3, "stride": 2, "padding": "VALID"}),
        (nn.ConvTranspose1d, nn.Conv1d, (5, 4), {"kernel_size": 3, "stride": 2, "padding": "SAME"}),
        (
            nn.ConvTranspose2d,
            nn.Conv2d,
            (5, 4, 4),
            {"kernel_size": (3, 2), "stride": (1, 2), "padding": "VALID"},
        ),
        (
            nn.ConvTranspose2d,
            nn.Conv2d,
            (5, 4, 4),
            {"kernel_size": 4, "stride": 2, "padding": "SAME", "groups": 2},
        ),
        (nn.ConvTranspose3d, nn.Conv3d, (3, 2, 4, 2), {"kernel_size": 2, "stride": 2, "padding": "SAME"}),
    ],
)
def test_the_transpose_is_the_derivative_of_the_convolution(
    layer: Any, conv: Any, in_size: Any, options: Any
) -> None:
    found = check_layer(
        lambda: layer(in_size, 6, **options), numbers(2, *in_size), gradients="groups" in options
    )
    kernel, groups = found.weight.value["weight"], found.groups
    split = kernel.reshape(*kernel.shape[:-2], groups, 6 // groups, in_size[-1] // groups)
    kernel = jnp.swapaxes(split, -3, -2).reshape(*kernel.shape[:-2], 6 // groups, in_size[-1])
    forward = conv(found.out_size, in_size[-1], w_init=kernel, **options)
    assert forward.out_size == found.in_size
    x = numbers(2, *in_size)
    (pulled,) = jax.linear_transpose(forward, jnp.zeros((2, *found.out_size)))(jnp.asarray(x))
    np.testing.assert_allclose(found(x), pulled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(2, 1), (0, 3)]])
@pytest.mark.parametrize("options", [{"stride": 2}, {"stride": 3, "rhs_dilation": 2}, {"stride": 1}])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_transpose_is_that_of_jax(padding: Any, options: Any, size: int) -> None:
    layer = nn.ConvTranspose2d((5, 4, 3), 6, size, padding=padding, **options)
    x = numbers(2, 5, 4, 3)
    expected = jax.lax.conv_transpose(
        x,
        layer.weight.value["weight"],
        layer.stride,
        padding,
        layer.rhs_dilation,
        ("NHWC", "HWIO", "NHWC"),
        transpose_kernel=True,
        use_consistent_padding=False,
    )
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    biased = nn.ConvTranspose2d((3, 5, 4), 6, size, padding=padding, b_init=nn.init.Normal(), channel_first=True,
                                w_init=layer.weight.value["weight"], **options)  # fmt: skip
    y = np.moveaxis(biased(np.moveaxis(x, -1, 1)), 1, -1) - biased.weight.value["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d((5, 4), 3, 3), "2 spatial axes"),
        (lambda: nn.Conv1d((5, 4), 3, 3, groups=2), "out_channels=3"),
        (lambda: nn.Conv1d((5, 3), 4, 3, groups=2), "in_channels=3"),
        (lambda: nn.Conv1d((5, 3), 4, (3, 3)), "kernel_size"),
        (lambda: nn.Conv1d((5, 3), 4, 3, padding="FULL"), "'SAME'"),
        (lambda: nn.Conv2d((5, 5, 3), 4, 3, padding=(1, 2, 3)), "padding"),
        (lambda: nn.Conv1d((5, 3), 4, 3)(numbers(2, 6, 3)), r"shape \(2, 6, 3\)"),
    ],
)
def test_what_does_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

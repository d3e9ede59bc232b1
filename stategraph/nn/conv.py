"""Convolution and transposed convolution over one, two or three spatial axes: ``jax.lax.conv_general_dilated``.

An input is an image, ``(*spatial, channels)``, or with ``channel_first`` ``(channels, *spatial)``, with any number of
batch axes before it. The kernel is in ``weight.value['weight']``, the bias, if any, in ``weight.value['bias']``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategraph.errors import describe
from stategraph.init import Initial, XavierNormal, param
from stategraph.nn.linear import ParamType
from stategraph.nn.module import Module
from stategraph.nn.windows import Padding, Pads, each_axis, each_padding
from stategraph.state import ParamState, State


class _Convolution(Module):
    """What convolution and its transpose share."""

    spatial = 0
    weight: State[Any]
    _in_size: tuple[int, ...]

    def _set_up(
        self,
        in_size: Sequence[int],
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        padding: Padding,
        rhs_dilation: int | Sequence[int],
        groups: int,
        channel_first: bool,
    ) -> None:
        self.in_size = in_size
        if len(self._in_size) != self.spatial + 1:
            raise ValueError(
                describe(
                    f"{type(self).__name__} is made for in_size={self._in_size}.",
                    why=f"an image has {self.spatial} spatial axes and one of channels",
                )
            )
        self.channel_first = channel_first
        self.in_channels = self._in_size[0 if channel_first else -1]
        self.out_channels = out_channels
        for name, channels in (("in_channels", self.in_channels), ("out_channels", out_channels)):
            if groups < 1 or channels % groups:
                raise ValueError(f"{name}={channels} cannot be split into {groups} groups")
        self.groups = groups
        self.kernel_size = each_axis(kernel_size, self.spatial, "kernel_size")
        self.stride = each_axis(stride, self.spatial, "stride")
        self.padding = each_padding(padding, self.spatial)
        self.rhs_dilation = each_axis(rhs_dilation, self.spatial, "rhs_dilation")

    def _set_parameters(
        self,
        kernel_shape: tuple[int, ...],
        w_init: Initial,
        b_init: Initial,
        w_mask: Initial,
        param_type: ParamType,
    ) -> None:
        self.w_mask = param(w_mask, kernel_shape)
        parameters = {"weight": param(w_init, kernel_shape, allow_none=False, allow_scalar=False)}
        if b_init is not None:
            parameters["bias"] = param(b_init, self.out_channels, allow_scalar=False)
        self.weight = param_type(parameters)
        image = jax.ShapeDtypeStruct((1, *self._in_size), parameters["weight"].dtype)
        self.out_size = jax.eval_shape(self._convolve, image, parameters["weight"]).shape[1:]

    def _numbers(self, kernel: str) -> tuple[str, str, str]:
        """The axes of image, kernel and result, as JAX spells them."""
        letters = "DHW"[3 - self.spatial :]
        image = f"NC{letters}" if self.channel_first else f"N{letters}C"
        return image, letters + kernel, image

    def _convolve(self, images: jax.Array, kernel: jax.Array) -> jax.Array:
        raise NotImplementedError

    def update(self, x: Any) -> jax.Array:
        given: jax.Array = jnp.asarray(x)
        rank = self.spatial + 1
        if given.shape[max(0, given.ndim - rank) :] != self._in_size:
            raise ValueError(
                describe(
                    f"{type(self).__name__} is given an input of the shape {given.shape}.",
                    why=f"its last axes have to be those of in_size={self._in_size}",
                )
            )
        parameters = self.weight.value
        kernel = parameters["weight"] if self.w_mask is None else parameters["weight"] * self.w_mask
        batch = given.shape[: given.ndim - rank]
        images = given.reshape(math.prod(batch), *self._in_size)
        y = self._convolve(images, kernel)
        if "bias" in parameters:
            bias = parameters["bias"]
            y = y + (bias.reshape(-1, *[1] * self.spatial) if self.channel_first else bias)
        return y.reshape(*batch, *y.shape[1:])


class _Conv(_Convolution):
    """A convolution. The kernel has the shape ``(*kernel_size, in_channels // groups, out_channels)``.

    Args:
      in_size: the shape of an image.
      out_channels: the number of channels of the result.
      kernel_size: the size of the window, like the following for each spatial axis or one number for all.
      stride: how far the window moves.
      padding: ``'SAME'`` or ``'VALID'``, a number, or ``(before, after)`` for each spatial axis.
      lhs_dilation: the dilation of the image: how far its elements are moved apart.
      rhs_dilation: the dilation of the kernel.
      groups: into how many groups of channels image and result are split, each convolved by itself.
      w_init: the kernel at first.
      b_init: the bias at first, ``(out_channels,)``; None for no bias.
      w_mask: what the kernel is multiplied with in every call; it is not trained.
      channel_first: whether the channels are the first axis of an image instead of the last.
      name: a name for messages and listings.
      param_type: the kind of State that holds the parameters.
    """

    def __init__(
        self,
        in_size: Sequence[int],
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        lhs_dilation: int | Sequence[int] = 1,
        rhs_dilation: int | Sequence[int] = 1,
        groups: int = 1,
        w_init: Initial = XavierNormal(),
        b_init: Initial = None,
        w_mask: Initial = None,
        channel_first: bool = False,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(name)
        self._set_up(in_size, out_channels, kernel_size, stride, padding, rhs_dilation, groups, channel_first)
        self.lhs_dilation = each_axis(lhs_dilation, self.spatial, "lhs_dilation")
        shape = (*self.kernel_size, self.in_channels // groups, out_channels)
        self._set_parameters(shape, w_init, b_init, w_mask, param_type)

    def _convolve(self, images: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            self.stride,
            self.padding,
            self.lhs_dilation,
            self.rhs_dilation,
            self._numbers("IO"),
            self.groups,
        )


class Conv1d(_Conv):
    __doc__ = _Conv.__doc__
    spatial = 1


class Conv2d(_Conv):
    __doc__ = _Conv.__doc__
    spatial = 2


class Conv3d(_Conv):
    __doc__ = _Conv.__doc__
    spatial = 3


class _ConvTranspose(_Convolution):
    """The transpose of a convolution from ``out_channels`` to the channels of ``in_size``, which enlarges an image by the
    stride. The kernel has the shape ``(*kernel_size, out_channels, in_channels // groups)``; with one group it is that of
    the convolution.

    Args:
      in_size: the shape of an image.
      out_channels: the number of channels of the result.
      kernel_size: the size of the window, like the following for each spatial axis or one number for all.
      stride: how far the window of the convolution moves.
      padding: ``'SAME'`` (the result is ``stride`` times as large) or ``'VALID'`` (everything the window touches), or
        numbers as for ``jax.lax.conv_transpose``.
      rhs_dilation: the dilation of the kernel.
      groups: into how many groups of channels image and result are split.
      w_init: the kernel at first.
      b_init: the bias at first, ``(out_channels,)``; None for no bias.
      w_mask: what the kernel is multiplied with in every call; it is not trained.
      channel_first: whether the channels are the first axis of an image instead of the last.
      name: a name for messages and listings.
      param_type: the kind of State that holds the parameters.
    """

    def __init__(
        self,
        in_size: Sequence[int],
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        rhs_dilation: int | Sequence[int] = 1,
        groups: int = 1,
        w_init: Initial = XavierNormal(),
        b_init: Initial = None,
        w_mask: Initial = None,
        channel_first: bool = False,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(name)
        self._set_up(in_size, out_channels, kernel_size, stride, padding, rhs_dilation, groups, channel_first)
        shape = (*self.kernel_size, out_channels, self.in_channels // groups)
        self._set_parameters(shape, w_init, b_init, w_mask, param_type)

    def _convolve(self, images: jax.Array, kernel: jax.Array) -> jax.Array:
        spatial = tuple(range(self.spatial))
        return jax.lax.conv_general_dilated(
            images,
            jnp.flip(kernel, spatial),
            (1,) * self.spatial,
            self._pads(),
            self.stride,
            self.rhs_dilation,
            self._numbers("OI"),
            self.groups,
        )

    def _pads(self) -> Pads:
        """The padding of the dilated image that makes the result as large as the padding of the convolution says."""
        if not isinstance(self.padding, str):
            return self.padding
        pads = []
        for size, stride, dilation in zip(self.kernel_size, self.stride, self.rhs_dilation, strict=True):
            reach = (size - 1) * dilation
            if self.padding == "SAME":
                total = reach + stride - 1
                before = reach if stride > reach else -(-total // 2)
            else:
                total = 2 * reach + max(stride - reach - 1, 0)
                before = reach
            pads.append((before, total - before))
        return tuple(pads)


class ConvTranspose1d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    spatial = 1


class ConvTranspose2d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    spatial = 2


class ConvTranspose3d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    spatial = 3

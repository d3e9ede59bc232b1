"""Pooling: the largest or the mean element of windows over spatial axes; and flattening.

The spatial axes are the last axes of an input but for the one of channels, ``channel_axis``, which counts the batch axes
too (None when there is none). With ``in_size``, the shape of an input without its batch axis, a layer knows its
``out_size``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import environ
from stategraph.errors import describe
from stategraph.nn.module import Module
from stategraph.nn.windows import Padding, each_axis, each_padding, spatial_axes
from stategraph.typing import Size


class _Pooling(Module):
    """What the layers of this file share."""

    spatial = 0
    channel_axis: int | None

    def _set_sizes(self, in_size: Size | None) -> None:
        if in_size is None:
            return
        self.in_size = in_size
        example = jax.ShapeDtypeStruct((1, *(self.in_size or ())), environ.dftype())
        self.out_size = jax.tree.leaves(jax.eval_shape(self.update, example))[0].shape[1:]

    def _axes(self, x: jax.Array) -> list[int]:
        """The spatial axes of an input."""
        if x.ndim < self.spatial + (self.channel_axis is not None):
            channels = "" if self.channel_axis is None else " and one of channels"
            raise ValueError(
                describe(
                    f"{type(self).__name__} is given an input of the shape {x.shape}.",
                    why=f"it takes {self.spatial} spatial axes{channels}",
                )
            )
        return spatial_axes(x.ndim, self.spatial, self.channel_axis)


class _WindowPool(_Pooling):
    """Pooling by windows that move over the input."""

    def _set_up(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None,
        padding: Padding,
        channel_axis: int | None,
    ) -> None:
        self.kernel_size = each_axis(kernel_size, self.spatial, "kernel_size")
        self.stride = self.kernel_size if stride is None else each_axis(stride, self.spatial, "stride")
        self.padding = each_padding(padding, self.spatial)
        self.channel_axis = channel_axis

    def _geometry(
        self, shape: tuple[int, ...], axes: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
        """(window, strides, padding) along all axes of an input."""
        window, strides, pads = [1] * len(shape), [1] * len(shape), [(0, 0)] * len(shape)
        for axis, size, stride in zip(axes, self.kernel_size, self.stride, strict=True):
            window[axis], strides[axis] = size, stride
        if isinstance(self.padding, str):
            pads = jax.lax.padtype_to_pads(shape, window, strides, self.padding)
        else:
            for axis, pad in zip(axes, self.padding, strict=True):
                pads[axis] = pad
        return tuple(window), tuple(strides), tuple((int(a), int(b)) for a, b in pads)


class _MaxPool(_WindowPool):
    """The largest element of each window.

    Args:
      kernel_size: the size of the window, like the following for each spatial axis or one number for all.
      stride: how far the window moves; None for its size.
      padding: ``'SAME'`` or ``'VALID'``, a number, or ``(before, after)`` for each spatial axis.
      channel_axis: the axis of the channels, None for none.
      return_indices: whether to return ``(y, indices)``, with the position of each element of ``y`` in the flattened
        input: ``x.ravel()[indices] == y``.
      name: a name for messages and listings.
      in_size: the shape of an input without its batch axis.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: Padding = "VALID",
        channel_axis: int | None = -1,
        return_indices: bool = False,
        name: str | None = None,
        in_size: Size | None = None,
    ) -> None:
        super().__init__(name)
        self._set_up(kernel_size, stride, padding, channel_axis)
        self.return_indices = return_indices
        self._set_sizes(in_size)

    def update(self, x: Any) -> Any:
        given: jax.Array = jnp.asarray(x)
        axes = self._axes(given)
        window, strides, pads = self._geometry(given.shape, axes)
        least = _least(given.dtype)
        y = jax.lax.reduce_window(given, least, jax.lax.max, window, strides, pads)
        return (y, self._positions(given, axes, pads, least)) if self.return_indices else y

    def _positions(
        self, x: jax.Array, axes: Sequence[int], pads: Sequence[tuple[int, int]], least: Any
    ) -> jax.Array:
        values = jnp.pad(jax.lax.stop_gradient(x), pads, constant_values=least)
        places = jnp.pad(jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape), pads)
        for count, (axis, size, stride) in enumerate(zip(axes, self.kernel_size, self.stride, strict=True)):
            starts = np.arange((values.shape[axis] - size) // stride + 1) * stride
            elements = starts[:, None] + np.arange(size)
            values, places = (
                jnp.moveaxis(jnp.take(a, elements, axis), axis + 1, x.ndim + count) for a in (values, places)
            )
        flat = (*values.shape[: x.ndim], -1)
        largest = jnp.argmax(values.reshape(flat), -1, keepdims=True)
        return jnp.take_along_axis(places.reshape(flat), largest, -1)[..., 0]


def _least(dtype: Any) -> Any:
    """The least number of a type."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(-np.inf, dtype)
    return np.zeros((), bool) if np.dtype(dtype).kind == "b" else np.asarray(np.iinfo(dtype).min, dtype)


class _AvgPool(_WindowPool):
    """The mean of each window. Padding does not count.

    Args:
      kernel_size: the size of the window, like the following for each spatial axis or one number for all.
      stride: how far the window moves; None for its size.
      padding: ``'SAME'`` or ``'VALID'``, a number, or ``(before, after)`` for each spatial axis.
      channel_axis: the axis of the channels, None for none.
      name: a name for messages and listings.
      in_size: the shape of an input without its batch axis.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = 1,
        padding: Padding = "VALID",
        channel_axis: int | None = -1,
        name: str | None = None,
        in_size: Size | None = None,
    ) -> None:
        super().__init__(name)
        self._set_up(kernel_size, stride, padding, channel_axis)
        self._set_sizes(in_size)

    def update(self, x: Any) -> jax.Array:
        given: jax.Array = _as_float(x)
        axes = self._axes(given)
        geometry = self._geometry(given.shape, axes)
        zero = np.zeros((), given.dtype)
        sums: jax.Array = jax.lax.reduce_window(given, zero, jax.lax.add, *geometry)
        if not any(map(any, geometry[2])):
            return sums / math.prod(self.kernel_size)
        ones = jnp.ones([n if axis in axes else 1 for axis, n in enumerate(given.shape)], given.dtype)
        counts: jax.Array = jax.lax.reduce_window(ones, zero, jax.lax.add, *geometry)
        return sums / counts


def _as_float(x: Any) -> jax.Array:
    given: jax.Array = jnp.asarray(x)
    return given if jnp.issubdtype(given.dtype, jnp.inexact) else given.astype(environ.dftype())


class MaxPool1d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    spatial = 1


class MaxPool2d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    spatial = 2


class MaxPool3d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    spatial = 3


class AvgPool1d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    spatial = 1


class AvgPool2d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    spatial = 2


class AvgPool3d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    spatial = 3


# --------------------------------------------------------------------------------------------- adaptive pooling


class _AdaptivePool(_Pooling):
    """Pooling to a given size: each spatial axis is split into as many parts as the result has elements, as equal as
    possible and the longer ones first (as ``numpy.array_split`` does), and each part gives one element.

    Args:
      target_size: the size of the result: a number for all spatial axes, or one for each; None leaves an axis as it is.
      channel_axis: the axis of the channels, None for none.
      name: a name for messages and listings.
      in_size: the shape of an input without its batch axis.
    """

    def __init__(
        self,
        target_size: int | Sequence[int | None],
        channel_axis: int | None = -1,
        name: str | None = None,
        in_size: Size | None = None,
    ) -> None:
        super().__init__(name)
        targets = (target_size,) * self.spatial if isinstance(target_size, int) else tuple(target_size)
        if len(targets) != self.spatial or any(n is not None and n < 1 for n in targets):
            raise ValueError(
                f"target_size is a positive number or {self.spatial} of them (or None), not {target_size!r}"
            )
        self.target_size = targets
        self.channel_axis = channel_axis
        self._set_sizes(in_size)

    def _reduce(self, x: jax.Array, axis: int) -> jax.Array:
        raise NotImplementedError

    def _prepared(self, x: Any) -> jax.Array:
        return jnp.asarray(x)

    def update(self, x: Any) -> jax.Array:
        given = self._prepared(x)
        for axis, parts in zip(self._axes(given), self.target_size, strict=True):
            if parts is not None:
                given = self._pooled(given, axis, parts)
        return given

    def _pooled(self, x: jax.Array, axis: int, parts: int) -> jax.Array:
        size, longer = divmod(x.shape[axis], parts)
        if size == 0:
            raise ValueError(f"an axis of the length {x.shape[axis]} cannot be split into {parts} parts")
        head = jax.lax.slice_in_dim(x, 0, longer * (size + 1), axis=axis)
        tail = jax.lax.slice_in_dim(x, longer * (size + 1), None, axis=axis)
        found = []
        for piece, length in ((head, size + 1), (tail, size)):
            if piece.shape[axis]:
                split = (*x.shape[:axis], piece.shape[axis] // length, length, *x.shape[axis + 1 :])
                found.append(self._reduce(piece.reshape(split), axis + 1))
        return jnp.concatenate(found, axis)


class _AdaptiveAvgPool(_AdaptivePool):
    def _prepared(self, x: Any) -> jax.Array:
        return _as_float(x)

    def _reduce(self, x: jax.Array, axis: int) -> jax.Array:
        return jnp.mean(x, axis)


class _AdaptiveMaxPool(_AdaptivePool):
    def _reduce(self, x: jax.Array, axis: int) -> jax.Array:
        return jnp.max(x, axis)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    __doc__ = _AdaptivePool.__doc__
    spatial = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    __doc__ = _AdaptivePool.__doc__
    spatial = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    __doc__ = _AdaptivePool.__doc__
    spatial = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    __doc__ = _AdaptivePool.__doc__
    spatial = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    __doc__ = _AdaptivePool.__doc__
    spatial = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    __doc__ = _AdaptivePool.__doc__
    spatial = 3


# ---------------------------------------------------------------------------------------------------- flattening


class Flatten(Module):
    """One axis from several that follow one another.

    Args:
      start_axis: the first of them.
      end_axis: the last of them.
      in_size: the shape of an input without batch axes. With it the axes are counted in ``in_size``, and batch axes stay
        as they are; without it they are counted in the whole input.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> sg.nn.Flatten(in_size=(3, 4))(jnp.ones((5, 3, 4))).shape, sg.nn.Flatten()(jnp.ones((5, 3, 4))).shape
    ((5, 12), (60,))
    """

    def __init__(self, start_axis: int = 0, end_axis: int = -1, in_size: Size | None = None) -> None:
        super().__init__()
        self.start_axis = start_axis
        self.end_axis = end_axis
        if in_size is not None:
            self.in_size = in_size
            shape = self.in_size or ()
            self.out_size = jax.eval_shape(self.update, jax.ShapeDtypeStruct(shape, environ.dftype())).shape

    def update(self, x: Any) -> jax.Array:
        given: jax.Array = jnp.asarray(x)
        shape = given.shape
        batch = 0
        if self.in_size is not None:
            batch = given.ndim - len(self.in_size)
            if batch < 0 or shape[batch:] != self.in_size:
                raise ValueError(
                    describe(
                        f"Flatten is given an input of the shape {shape}.",
                        why=f"its last axes have to be in_size={self.in_size}",
                    )
                )
        axes = range(batch, given.ndim)
        start, end = axes[self.start_axis], axes[self.end_axis]
        if start > end:
            raise ValueError(
                f"start_axis={self.start_axis} comes after end_axis={self.end_axis} in the shape {shape}"
            )
        return given.reshape(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


class Unflatten(Module):
    """Several axes from one.

    Args:
      axis: the axis.
      sizes: what it becomes; one of them may be -1.
      name: a name for messages and listings.
      in_size: the shape of an input without batch axes. With it the axis is counted in ``in_size``, without it in the whole
        input.
    """

    def __init__(
        self, axis: int, sizes: Sequence[int], name: str | None = None, in_size: Size | None = None
    ) -> None:
        super().__init__(name)
        self.axis = axis
        self.sizes = tuple(sizes)
        if in_size is not None:
            self.in_size = in_size
            shape = self.in_size or ()
            self.out_size = jax.eval_shape(self.update, jax.ShapeDtypeStruct(shape, environ.dftype())).shape

    def update(self, x: Any) -> jax.Array:
        given: jax.Array = jnp.asarray(x)
        batch = 0 if self.in_size is None else given.ndim - len(self.in_size)
        axis = range(batch, given.ndim)[self.axis]
        return given.reshape(*given.shape[:axis], *self.sizes, *given.shape[axis + 1 :])

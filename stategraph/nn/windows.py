"""Windows that move over the spatial axes of an image: what convolution and pooling share.

An *image* has spatial axes and one of channels, which is the last, or the first with ``channel_first``. Settings of
windows (sizes, strides, dilations) are one number for all spatial axes, or one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]
"""``'SAME'``, ``'VALID'``, one number for all sides, one for each axis, or ``(before, after)`` for each axis."""

Pads = str | tuple[tuple[int, int], ...]
"""``'SAME'``, ``'VALID'``, or ``(before, after)`` for each spatial axis."""


def each_axis(value: int | Sequence[int], count: int, name: str) -> tuple[int, ...]:
    """A setting for each of ``count`` spatial axes."""
    if isinstance(value, int):
        return (value,) * count
    found = tuple(value)
    if len(found) == 1:
        found *= count
    if len(found) != count or not all(isinstance(n, int) for n in found):
        raise ValueError(f"{name} is a number or {count} numbers, one for each spatial axis, not {value!r}")
    return found


def each_padding(padding: Padding, count: int) -> Pads:
    """The padding of each of ``count`` spatial axes."""
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise ValueError(f"padding is 'SAME', 'VALID' or numbers, not {padding!r}")
        return padding.upper()
    if isinstance(padding, int):
        return ((padding, padding),) * count
    found: list[Any] = list(padding)
    if count == 1 and len(found) == 2 and all(isinstance(n, int) for n in found):
        return ((found[0], found[1]),)
    if len(found) == 1:
        found *= count
    pairs = tuple([(n, n) if isinstance(n, int) else tuple(n) for n in found])
    if len(pairs) != count or not all(len(pair) == 2 for pair in pairs):
        raise ValueError(
            f"padding is a number or (before, after) for each of {count} spatial axes, not {padding!r}"
        )
    return pairs


def spatial_axes(ndim: int, count: int, channel_axis: int | None) -> list[int]:
    """The last ``count`` of ``ndim`` axes that are not the one of channels."""
    channel = None if channel_axis is None else range(ndim)[channel_axis]
    return [axis for axis in range(ndim) if axis != channel][-count:]

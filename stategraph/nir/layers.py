"""The layers of NIR as modules: linear maps, convolutions, pooling, delays. Images have their channels first.

Weights are ``ParamState``, so that gradients find them. A convolution is what deep learning calls one: the kernel is not
mirrored.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import environ
from stategraph.errors import NIRError, describe
from stategraph.nir.choices import Choices
from stategraph.nir.neurons import NIRModule
from stategraph.state import DelayState, ParamState, ShortTermState


def parameter(value: np.ndarray) -> ParamState[Any]:
    """An array that is trained."""
    return ParamState(jnp.asarray(value, environ.dftype()))


class Linear(NIRModule):
    """``y = weight x``, on the last axis. The weight is ``(..., out, in)``."""

    KIND = "Linear"

    def __init__(self, node: str, weight: np.ndarray) -> None:
        batch = weight.shape[:-2]
        super().__init__(node, (*batch, weight.shape[-1]), (*batch, weight.shape[-2]))
        self.weight = parameter(weight)

    def update(self, x: Any) -> jax.Array:
        """The product."""
        weight, given = self.weight.value, self.checked(x)
        product: jax.Array = (
            given @ weight.T if weight.ndim == 2 else jnp.einsum("...oi,...i->...o", weight, given)
        )
        return product


class Affine(Linear):
    """``y = weight x + bias``."""

    KIND = "Affine"

    def __init__(self, node: str, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__(node, weight)
        if np.broadcast_shapes(bias.shape, self.shape_out) != self.shape_out:
            raise NIRError(
                f"bias of the node {node!r} has the shape {bias.shape}, and its output {self.shape_out}"
            )
        self.bias = parameter(bias)

    def update(self, x: Any) -> jax.Array:
        """The product and the bias."""
        moved: jax.Array = super().update(x) + self.bias.value
        return moved


class Scale(NIRModule):
    """``y = scale x``, element by element."""

    KIND = "Scale"

    def __init__(self, node: str, scale: np.ndarray) -> None:
        super().__init__(node, scale.shape, scale.shape)
        self.scale = parameter(scale)

    def update(self, x: Any) -> jax.Array:
        """The product."""
        scaled: jax.Array = self.checked(x) * self.scale.value
        return scaled


def _convolved(size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> int:
    return (size + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1


class Convolution(NIRModule):
    """``Conv1d`` and ``Conv2d``: images ``(channels, *spatial)``, the kernel ``(out, in // groups, *window)``."""

    def __init__(
        self,
        node: str,
        spatial: tuple[int, ...],
        weight: np.ndarray,
        stride: tuple[int, ...],
        padding: tuple[int, ...] | str,
        dilation: tuple[int, ...],
        groups: int,
        bias: np.ndarray | None,
    ) -> None:
        window = weight.shape[2:]
        self.stride, self.dilation, self.groups, self.given_padding = stride, dilation, groups, padding
        if padding == "same" and any(step != 1 for step in stride):
            raise NIRError(
                describe(
                    f"The node {node!r} has padding='same' and stride={stride}.",
                    why="how much of that padding comes before the image is left open by NIR",
                    fix="write the padding as numbers",
                )
            )
        if weight.shape[0] % groups:
            raise NIRError(
                f"the {weight.shape[0]} output channels of the node {node!r} cannot be split into {groups} groups"
            )
        self.padding = tuple(
            (d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) if padding == "same" else (p, p)
            for k, d, p in zip(
                window, dilation, (0,) * len(window) if isinstance(padding, str) else padding, strict=True
            )
        )
        geometry = zip(spatial, window, stride, self.padding, dilation, strict=True)
        out = (weight.shape[0], *(_convolved(*axis) for axis in geometry))
        super().__init__(node, (weight.shape[1] * groups, *spatial), out)
        self.weight = parameter(weight)
        self.bias = None if bias is None else parameter(np.broadcast_to(bias, weight.shape[:1]))

    @property
    def KIND(self) -> str:  # type: ignore[override]
        """The class of the node in NIR."""
        return f"Conv{len(self.stride)}d"

    def update(self, x: Any) -> jax.Array:
        """The convolved images."""
        given, rank = self.checked(x), len(self.shape_in)
        letters = "HW"[2 - (rank - 1) :]
        batch = given.shape[: given.ndim - rank]
        y = jax.lax.conv_general_dilated(
            given.reshape(math.prod(batch), *self.shape_in), self.weight.value, self.stride, self.padding,
            rhs_dilation=self.dilation, feature_group_count=self.groups,
            dimension_numbers=(f"NC{letters}", f"OI{letters}", f"NC{letters}"),
        )  # fmt: skip
        if self.bias is not None:
            y = y + self.bias.value.reshape(-1, *[1] * (rank - 1))
        return y.reshape(*batch, *self.shape_out)


class Pool(NIRModule):
    """``SumPool2d`` and ``AvgPool2d``: sums or means of windows; padding counts as zeros in both."""

    def __init__(
        self,
        kind: str,
        node: str,
        shape: tuple[int, ...],
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> None:
        self.kind, self.kernel_size, self.stride, self.padding = kind, kernel_size, stride, padding
        axes = zip(shape[1:], kernel_size, stride, padding, strict=True)
        super().__init__(node, shape, (shape[0], *(_convolved(n, k, s, (p, p), 1) for n, k, s, p in axes)))

    @property
    def KIND(self) -> str:  # type: ignore[override]
        """The class of the node in NIR."""
        return self.kind

    def update(self, x: Any) -> jax.Array:
        """The pooled images."""
        given = self.checked(x)
        lead = given.ndim - 2
        sums: jax.Array = jax.lax.reduce_window(
            given, np.zeros((), given.dtype), jax.lax.add, (1,) * lead + self.kernel_size, (1,) * lead + self.stride,
            [(0, 0)] * lead + [(p, p) for p in self.padding],
        )  # fmt: skip
        return sums if self.kind == "SumPool2d" else sums / math.prod(self.kernel_size)


class Flatten(NIRModule):
    """One axis from those between ``start_dim`` and ``end_dim``, counted without a batch."""

    KIND = "Flatten"

    def __init__(self, node: str, shape: tuple[int, ...], start_dim: int, end_dim: int) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim
        start, end = range(len(shape))[start_dim], range(len(shape))[end_dim]
        middle = math.prod(shape[start : end + 1])
        super().__init__(node, shape, (*shape[:start], middle, *shape[end + 1 :]))

    def update(self, x: Any) -> jax.Array:
        """The same elements in another shape."""
        given = self.checked(x)
        return given.reshape(*given.shape[: given.ndim - len(self.shape_in)], *self.shape_out)


class Delay(NIRModule):
    """``y(t) = x(t - delay)``, each element with a delay of its own: a ring buffer.

    Args:
      node: the name of the node.
      delay: the delays, in the unit of ``dt``.
      choices: the time step.
    """

    KIND = "Delay"
    RESTS = True

    history: DelayState[Any]
    place: ShortTermState[jax.Array]

    def __init__(self, node: str, delay: np.ndarray, choices: Choices) -> None:
        super().__init__(node, delay.shape, delay.shape)
        self.delay, self.dt = np.asarray(delay, np.float64), choices.step(node)
        ratio = self.delay / self.dt
        self.steps = np.rint(ratio).astype(np.int32)
        if np.any(self.steps < 0) or not np.allclose(ratio, self.steps, rtol=1e-6, atol=1e-6):
            wrong = self.delay[~np.isclose(ratio, np.abs(self.steps), rtol=1e-6, atol=1e-6)].flat[0]
            raise NIRError(
                describe(
                    f"A delay of the node {node!r} is {wrong}, with a time step of {self.dt}.",
                    why="a delay is a whole number of steps, and not negative",
                    fix="choose a dt that divides the delays, or round the delays in the graph",
                )
            )
        self.slots = int(self.steps.max(initial=0)) + 1
        self.uniform = bool(np.all(self.steps == self.steps.max(initial=0)))

    @property
    def is_late(self) -> bool:
        """Whether no element of the output depends on the input of the same step."""
        return bool(np.all(self.steps >= 1))

    def init_state(self, batch_size: int | None = None) -> None:
        """Make the buffer, with a batch axis of the length ``batch_size`` if that is not None."""
        batch = () if batch_size is None else (batch_size,)
        shape = (self.slots, *batch, *self.shape_in)
        attributes = {"nir": self.KIND, "dt": self.dt, "longest": self.slots - 1}
        self.history = DelayState(jnp.zeros(shape, environ.dftype()), attributes=attributes)
        self.place = ShortTermState(jnp.zeros((), jnp.int32))

    def reset_state(self, batch_size: int | None = None) -> None:
        """Empty the buffer."""
        kept = self.history.shape[1 : len(self.history.shape) - len(self.shape_in)]
        batch = kept if batch_size is None else (batch_size,)
        self.history.value = jnp.zeros((self.slots, *batch, *self.shape_in), self.history.dtype)
        self.place.value = jnp.zeros((), jnp.int32)

    def read(self) -> jax.Array:
        """What comes out in this step; with delays of 0 after ``push``."""
        history = self.history.value
        if self.uniform:
            return self._slot(history, int(self.steps.max(initial=0)))
        slots = (self.place.value - self.steps) % self.slots
        found: jax.Array = jnp.take_along_axis(
            history, jnp.broadcast_to(slots, (1, *history.shape[1:])), axis=0
        )[0]
        return found

    def _slot(self, history: Any, ago: int) -> jax.Array:
        found: jax.Array = history[(self.place.value - ago) % self.slots]
        return found

    def push(self, x: Any) -> None:
        """Take the input of this step."""
        given = jnp.broadcast_to(self.checked(x), self.history.shape[1:])
        self.history.value = self.history.value.at[self.place.value].set(given.astype(self.history.dtype))

    def move(self) -> None:
        """End the step."""
        self.place.value = (self.place.value + 1) % self.slots

    def update(self, x: Any) -> jax.Array:
        """One step."""
        self.push(x)
        found = self.read()
        self.move()
        return found

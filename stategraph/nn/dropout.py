"""Dropout: noise while training. Srivastava et al., "Dropout: a simple way to prevent neural networks from
overfitting" (JMLR 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategraph import random
from stategraph.errors import describe
from stategraph.nn.activations import ElementWiseBlock

SELU_LIMIT = -1.7580993408473766
"""What SELU tends to for very negative inputs."""


class Dropout(ElementWiseBlock):
    """While training, sets elements to zero at random and scales the others up, so that the mean stays; the input
    otherwise (see ``Module.train``).

    Args:
      prob: the probability to KEEP an element.
      broadcast_dims: axes along which one decision holds for all elements.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> layer = sg.nn.Dropout(0.5)
    >>> with sg.environ.context(fit=True):
    ...     sorted(set(layer(jnp.ones(100)).tolist()))
    [0.0, 2.0]
    """

    def __init__(
        self, prob: float = 0.5, broadcast_dims: Sequence[int] = (), name: str | None = None
    ) -> None:
        super().__init__(name)
        self.prob = _probability(prob)
        self.broadcast_dims = tuple(broadcast_dims)

    def _kept(self, x: jax.Array) -> jax.Array:
        """What is kept, in the shape of ``x`` or one that broadcasts to it."""
        shape = list(x.shape)
        for axis in self.broadcast_dims:
            shape[axis] = 1
        return random.bernoulli(self.prob, tuple(shape))

    def update(self, x: Any) -> jax.Array:
        given: jax.Array = jnp.asarray(x)
        if self.prob == 1.0 or not self.is_fitting():
            return given
        if self.prob == 0.0:
            return jnp.zeros_like(given)
        return jnp.where(
            self._kept(given), given / jnp.asarray(self.prob, given.dtype), jnp.zeros_like(given)
        )


def _probability(prob: float) -> float:
    if not 0.0 <= prob <= 1.0:
        raise ValueError(f"prob is the probability to keep an element, between 0 and 1, not {prob!r}")
    return prob


class _ChannelDropout(Dropout):
    """Dropout of whole channels: one decision for all positions. Tompson et al., "Efficient object localization using
    convolutional networks" (CVPR 2015).

    Args:
      prob: the probability to KEEP a channel.
      channel_axis: the axis of the channels, of an input without batch.
      name: a name for messages and listings.
    """

    spatial = 0

    def __init__(self, prob: float = 0.5, channel_axis: int = -1, name: str | None = None) -> None:
        super().__init__(prob, (), name)
        self.channel_axis = channel_axis

    def _kept(self, x: jax.Array) -> jax.Array:
        own = self.spatial + 1
        if x.ndim not in (own, own + 1):
            raise ValueError(
                describe(
                    f"{type(self).__name__} is given an input of the shape {x.shape}.",
                    why=f"it takes {self.spatial} spatial axes, one of channels, and possibly a batch axis before them",
                )
            )
        batch = x.ndim - own
        channel = batch + self.channel_axis % own
        shape = tuple([n if i == channel or i < batch else 1 for i, n in enumerate(x.shape)])
        return random.bernoulli(self.prob, shape)


class Dropout1d(_ChannelDropout):
    __doc__ = _ChannelDropout.__doc__
    spatial = 1


class Dropout2d(_ChannelDropout):
    __doc__ = _ChannelDropout.__doc__
    spatial = 2


class Dropout3d(_ChannelDropout):
    __doc__ = _ChannelDropout.__doc__
    spatial = 3


class AlphaDropout(ElementWiseBlock):
    """Dropout for SELU: while training, elements take SELU's limit at random, and all are scaled so that mean 0 and
    variance 1 stay. Klambauer et al., "Self-normalizing neural networks" (NeurIPS 2017).

    Args:
      prob: the probability to KEEP an element.
      name: a name for messages and listings.
    """

    def __init__(self, prob: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.prob = _probability(prob)

    def update(self, x: Any) -> jax.Array:
        given: jax.Array = jnp.asarray(x)
        if self.prob == 1.0 or not self.is_fitting():
            return given
        if self.prob == 0.0:
            return jnp.zeros_like(given)
        scale = (self.prob * (1 + (1 - self.prob) * SELU_LIMIT**2)) ** -0.5
        shift = -scale * (1 - self.prob) * SELU_LIMIT
        kept = random.bernoulli(self.prob, given.shape)
        limited: jax.Array = jnp.where(kept, given, jnp.asarray(SELU_LIMIT, given.dtype))
        y: jax.Array = limited * scale + shift
        return y

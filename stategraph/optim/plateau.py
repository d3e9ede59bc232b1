"""A learning rate that falls when a metric stops getting better."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from stategraph.graph.node import Node
from stategraph.optim.named import Named
from stategraph.optim.optimizer import OptimState


class ReduceLROnPlateau(Node):
    """Lowers the learning rate of an optimiser when a metric has not improved for a while.

    What it remembers is State: ``step`` may be called in compiled code, and ``save`` takes it along.

    Args:
      optimizer: an optimiser with a name whose ``lr`` is a number, not a schedule.
      factor: what the learning rate is multiplied with, between 0 and 1.
      patience: how many steps without improvement are borne.
      threshold: an improvement is one by more than this part of the best metric, or by more than this with
        ``relative=False``.
      maximize: whether a larger metric is better.
      relative: what ``threshold`` means.
      cooldown: how many steps after a reduction do not count.
      min_lr: the learning rate does not get lower than this.

    Example:

    >>> import stategraph as sg
    >>> optimizer = sg.optim.SGD(lr=1.0).register_trainable_weights(sg.ParamState(0.0))
    >>> plateau = sg.optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (1.0, 0.9, 0.9, 0.9):
    ...     plateau.step(loss)
    >>> float(optimizer.lr)
    0.5
    """

    _refers_to_states = True

    def __init__(
        self,
        optimizer: Named,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        maximize: bool = False,
        relative: bool = True,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        if getattr(optimizer, "lr_state", None) is None:
            raise TypeError(
                "ReduceLROnPlateau needs an optimiser whose lr is a number, such as optim.Adam(lr=1e-3)"
            )
        if not 0 < factor < 1:
            raise ValueError(f"factor is between 0 and 1, not {factor}")
        if patience < 0 or cooldown < 0:
            raise ValueError(f"patience and cooldown are not negative, unlike {patience} and {cooldown}")
        self.optimizer = optimizer
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.maximize, self.relative = maximize, relative
        self.cooldown, self.min_lr = cooldown, min_lr
        self.best = OptimState(jnp.asarray(-jnp.inf if maximize else jnp.inf, jnp.result_type(float)))
        self.bad_steps = OptimState(0)
        self.resting = OptimState(0)

    def step(self, metric: Any) -> None:
        """Look at a metric, a scalar: once for each evaluation. A NaN is no improvement."""
        metric = jnp.asarray(metric, self.best.dtype)
        best = self.best.value
        sign = 1 if self.maximize else -1
        # an infinite best has no margin: the first metric is an improvement
        margin = jnp.where(jnp.isfinite(best), jnp.abs(best) if self.relative else 1.0, 0.0) * self.threshold
        better = sign * metric > sign * best + margin
        resting = self.resting.value > 0
        bad = jnp.where(better | resting, 0, self.bad_steps.value + 1)
        reduce = bad > self.patience
        lowered = jnp.maximum(self.optimizer.lr * self.factor, self.min_lr)
        self.optimizer.lr = jnp.where(reduce, jnp.minimum(lowered, self.optimizer.lr), self.optimizer.lr)
        self.best.value = jnp.where(better, metric, best)
        rest = jnp.maximum(self.resting.value - 1, 0)
        self.resting.value = jnp.where(reduce, self.cooldown, rest)
        self.bad_steps.value = jnp.where(reduce, 0, bad)

"""Learning rates that change: functions of the number of updates so far.

A schedule goes where a learning rate does, ``optim.Adam(lr=optim.StepLR(0.1, 1000))``; so does any function
of the step, such as optax's schedules. It has no State: the optimiser's ``step`` is what moves it, and what
is saved. With ``every=n`` one step of the schedule takes ``n`` updates, for example the batches of an epoch.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import jax.numpy as jnp
import numpy as np


def _steps(of: Any, field: Any, value: Any) -> None:
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(
            f"{field.name} of {type(of).__name__} is a number of steps, at least 1, not {value!r}"
        )


def _ascending(of: Any, field: Any, value: tuple[int, ...]) -> None:
    if list(value) != sorted(set(value)):
        raise ValueError(f"{field.name} of {type(of).__name__} ascend, unlike {value}")


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(map(int, values))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values))


def _every() -> Any:
    """How many updates one step of a schedule takes."""
    return attrs.field(default=1, kw_only=True, validator=_steps)


class Schedule:
    """Base of schedules. Write ``rate(n)``, the learning rate at step ``n``, an i32[]."""

    every: int

    def rate(self, n: Any) -> Any:
        """The learning rate at step ``n`` of the schedule."""
        raise NotImplementedError(f"{type(self).__name__} has no rate method")

    def __call__(self, updates: Any) -> Any:
        """The learning rate after a number of updates, a scalar of the default float type."""
        return jnp.asarray(self.rate(jnp.asarray(updates) // self.every), jnp.result_type(float))


@attrs.frozen
class ConstantLR(Schedule):
    """Always ``lr``."""

    lr: float
    every: int = _every()

    def rate(self, n: Any) -> Any:
        return self.lr


@attrs.frozen
class StepLR(Schedule):
    """``lr * gamma ** (n // step_size)``.

    Example:

    >>> import stategraph as sg
    >>> rate = sg.optim.StepLR(0.1, step_size=30, gamma=0.5, every=100)  # 100 updates are an epoch
    >>> [round(float(rate(100 * epoch)), 4) for epoch in (0, 29, 30, 60)]
    [0.1, 0.1, 0.05, 0.025]
    """

    lr: float
    step_size: int = attrs.field(validator=_steps)
    gamma: float = 0.1
    every: int = _every()

    def rate(self, n: Any) -> Any:
        return self.lr * jnp.power(self.gamma, (n // self.step_size).astype(jnp.result_type(float)))


@attrs.frozen
class MultiStepLR(Schedule):
    """``lr * gamma ** (number of milestones reached)``."""

    lr: float
    milestones: tuple[int, ...] = attrs.field(converter=_ints, validator=_ascending)
    gamma: float = 0.1
    every: int = _every()

    def rate(self, n: Any) -> Any:
        reached = jnp.searchsorted(jnp.asarray(self.milestones, n.dtype), n, side="right")
        return self.lr * jnp.power(self.gamma, reached.astype(jnp.result_type(float)))


@attrs.frozen
class PiecewiseConstantLR(Schedule):
    """``values[i]`` from step ``boundaries[i-1]`` on, before ``boundaries[i]``: one value more than
    boundaries.
    """

    boundaries: tuple[int, ...] = attrs.field(converter=_ints, validator=_ascending)
    values: tuple[float, ...] = attrs.field(converter=_floats)
    every: int = _every()

    def __attrs_post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"{len(self.boundaries)} boundaries need {len(self.boundaries) + 1} values, not {len(self.values)}"
            )

    def rate(self, n: Any) -> Any:
        reached = jnp.searchsorted(jnp.asarray(self.boundaries, n.dtype), n, side="right")
        return jnp.asarray(self.values)[reached]


@attrs.frozen
class ExponentialLR(Schedule):
    """``lr * gamma ** n``."""

    lr: float
    gamma: float
    every: int = _every()

    def rate(self, n: Any) -> Any:
        return self.lr * jnp.power(self.gamma, n.astype(jnp.result_type(float)))


@attrs.frozen
class ExponentialDecayLR(Schedule):
    """``lr * decay_rate ** (n / decay_steps)``."""

    lr: float
    decay_steps: int = attrs.field(validator=_steps)
    decay_rate: float
    every: int = _every()

    def rate(self, n: Any) -> Any:
        return self.lr * jnp.power(self.decay_rate, n / self.decay_steps)


@attrs.frozen
class InverseTimeDecayLR(Schedule):
    """``lr / (1 + decay_rate * n / decay_steps)``; ``n // decay_steps`` with ``staircase``."""

    lr: float
    decay_steps: int = attrs.field(validator=_steps)
    decay_rate: float
    staircase: bool = False
    every: int = _every()

    def rate(self, n: Any) -> Any:
        passed = n // self.decay_steps if self.staircase else n / self.decay_steps
        return self.lr / (1 + self.decay_rate * passed)


@attrs.frozen
class PolynomialLR(Schedule):
    """From ``lr`` to ``final_lr`` in ``total_iters`` steps: ``final_lr + (lr - final_lr) * (1 - n / total_iters)
    ** power``.
    """

    lr: float
    total_iters: int = attrs.field(validator=_steps)
    power: float = 1.0
    final_lr: float = 0.0
    every: int = _every()

    def rate(self, n: Any) -> Any:
        left = 1 - jnp.minimum(n, self.total_iters) / self.total_iters
        return self.final_lr + (self.lr - self.final_lr) * left**self.power


@attrs.frozen
class LinearLR(Schedule):
    """``lr`` times a factor that goes from ``start_factor`` to ``end_factor`` in ``total_iters`` steps."""

    lr: float
    start_factor: float = 1 / 3
    end_factor: float = 1.0
    total_iters: int = attrs.field(default=5, validator=_steps)
    every: int = _every()

    def rate(self, n: Any) -> Any:
        passed = jnp.minimum(n, self.total_iters) / self.total_iters
        return self.lr * (self.start_factor + (self.end_factor - self.start_factor) * passed)


def _cosine(start: float, end: float, part: Any) -> Any:
    """From ``start`` to ``end`` along half a cosine, for a ``part`` from 0 to 1."""
    return end + (start - end) * (1 + jnp.cos(math.pi * part)) / 2


@attrs.frozen
class CosineAnnealingLR(Schedule):
    """From ``lr`` to ``eta_min`` along half a cosine in ``T_max`` steps, and back up in the next ``T_max``
    (I. Loshchilov and F. Hutter, SGDR, 2017, without restarts).
    """

    lr: float
    T_max: int = attrs.field(validator=_steps)
    eta_min: float = 0.0
    every: int = _every()

    def rate(self, n: Any) -> Any:
        return _cosine(self.lr, self.eta_min, n / self.T_max)


@attrs.frozen
class CosineAnnealingWarmRestarts(Schedule):
    """``CosineAnnealingLR`` that starts again after ``T_0`` steps, then ``T_0 * T_mult``, ``T_0 * T_mult**2``
    … (I. Loshchilov and F. Hutter, SGDR, 2017).
    """

    lr: float
    T_0: int = attrs.field(validator=_steps)
    T_mult: int = attrs.field(default=1, validator=_steps)
    eta_min: float = 0.0
    every: int = _every()

    def rate(self, n: Any) -> Any:
        if self.T_mult == 1:
            return _cosine(self.lr, self.eta_min, (n % self.T_0) / self.T_0)
        starts, lengths = [0], [self.T_0]
        while starts[-1] + lengths[-1] < np.iinfo(n.dtype).max:
            starts.append(starts[-1] + lengths[-1])
            lengths.append(lengths[-1] * self.T_mult)
        cycle = jnp.searchsorted(jnp.asarray(starts, n.dtype), n, side="right") - 1
        passed = n - jnp.asarray(starts, n.dtype)[cycle]
        return _cosine(self.lr, self.eta_min, passed / jnp.asarray(lengths, jnp.result_type(float))[cycle])


@attrs.frozen
class WarmupCosineSchedule(Schedule):
    """Linear from ``init_lr`` to ``lr`` in ``warmup_steps``, then half a cosine to ``final_lr`` at
    ``total_steps``, and that for ever.
    """

    lr: float
    warmup_steps: int = attrs.field(validator=_steps)
    total_steps: int = attrs.field(validator=_steps)
    final_lr: float = 0.0
    init_lr: float = 0.0
    every: int = _every()

    def __attrs_post_init__(self) -> None:
        if self.total_steps <= self.warmup_steps:
            raise ValueError(
                f"total_steps is more than the {self.warmup_steps} warmup_steps, not {self.total_steps}"
            )

    def rate(self, n: Any) -> Any:
        rising = self.init_lr + (self.lr - self.init_lr) * (n / self.warmup_steps)
        part = (n - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return jnp.where(
            n < self.warmup_steps, rising, _cosine(self.lr, self.final_lr, jnp.clip(part, 0.0, 1.0))
        )


def _schedules(values: Any) -> tuple[Any, ...]:
    return tuple(value if callable(value) else ConstantLR(float(value)) for value in values)


@attrs.frozen
class SequentialLR(Schedule):
    """One schedule after another: each from its milestone on, as if it began there.

    Args:
      schedules: schedules, functions of the step, or numbers.
      milestones: where the second, third, … begin: one less than there are schedules.

    Example:

    >>> from stategraph import optim
    >>> rate = optim.SequentialLR([optim.LinearLR(0.1, 0.0, 1.0, 10), optim.ExponentialLR(0.1, 0.5)], [10])
    >>> [round(float(rate(n)), 4) for n in (0, 5, 10, 11)]
    [0.0, 0.05, 0.1, 0.05]
    """

    schedules: tuple[Any, ...] = attrs.field(converter=_schedules)
    milestones: tuple[int, ...] = attrs.field(converter=_ints, validator=_ascending)
    every: int = _every()

    def __attrs_post_init__(self) -> None:
        if len(self.schedules) != len(self.milestones) + 1:
            raise ValueError(
                f"{len(self.schedules)} schedules need {len(self.schedules) - 1} milestones, not {len(self.milestones)}"
            )

    def rate(self, n: Any) -> Any:
        found = self.schedules[0](n)
        for begin, following in zip(self.milestones, self.schedules[1:], strict=True):
            found = jnp.where(n < begin, found, following(jnp.maximum(n - begin, 0)))
        return found


@attrs.frozen
class OneCycleLR(Schedule):
    """Up from ``lr / div_factor`` to ``lr`` in the first ``pct_start`` of ``total_steps``, then down to
    ``lr / div_factor / final_div_factor``, both along half a cosine (L. Smith and N. Topin, Super-convergence,
    2018).
    """

    lr: float
    total_steps: int = attrs.field(validator=_steps)
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    every: int = _every()

    def __attrs_post_init__(self) -> None:
        if not 0 < self.pct_start < 1:
            raise ValueError(f"pct_start is between 0 and 1, not {self.pct_start}")

    def rate(self, n: Any) -> Any:
        peak = self.pct_start * self.total_steps
        low = self.lr / self.div_factor
        part = jnp.clip((n - peak) / (self.total_steps - peak), 0.0, 1.0)
        down = _cosine(self.lr, low / self.final_div_factor, part)
        return jnp.where(n < peak, _cosine(low, self.lr, n / peak), down)

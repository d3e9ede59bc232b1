"""The usual optimisers by name. Each one is a recipe for an optax transformation:

    gradients -> clipping -> weight decay (as part of the gradient) -> the rule -> parameters

The learning rate is State, or a function of the optimiser's ``step``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax.numpy as jnp

from stategraph import _jax
from stategraph.errors import StateGraphError, describe
from stategraph.optim.optimizer import Optimizer, OptimState, load_optax
from stategraph.state import ParamState

Rate = float | Callable[[Any], Any]
"""A learning rate, or a function of the number of updates that gives it."""


class Common(TypedDict, total=False):
    """What every optimiser takes besides."""

    weight_decay: float
    grad_clip_norm: float | None
    grad_clip_value: float | None


class Named(Optimizer):
    """Base of the optimisers with a name. Write ``rule(optax, rate)``.

    Args:
      lr: the learning rate, or a function of the number of updates: a schedule of this module or of optax.
      weight_decay: adds ``weight_decay * parameter`` to each gradient; where a rule has a decay of its own
        (``AdamW``, ``Lamb``, ``Lars``, ``Lion``, ``Adafactor``) it is that.
      grad_clip_norm: scales the gradients down so that all together have at most this Euclidean norm.
      grad_clip_value: clips each element of the gradients to ``[-grad_clip_value, grad_clip_value]``; before
        the norm, when both are given.
    """

    decays_itself = False
    """Whether the rule takes care of ``weight_decay``."""

    def __init__(
        self,
        lr: Rate,
        weight_decay: float = 0.0,
        grad_clip_norm: float | None = None,
        grad_clip_value: float | None = None,
    ) -> None:
        load_optax()
        for name, value in (("grad_clip_norm", grad_clip_norm), ("grad_clip_value", grad_clip_value)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} is positive, not {value}")
        self.weight_decay = weight_decay
        self.grad_clip_norm = grad_clip_norm
        self.grad_clip_value = grad_clip_value
        self.schedule = lr if callable(lr) else None
        self.lr_state = None if callable(lr) else OptimState(jnp.asarray(lr, jnp.result_type(float)))
        self._prepare(None, ParamState)

    def rule(self, optax: Any, rate: Any) -> Any:
        """The optax transformation of the rule, for a learning rate."""
        raise NotImplementedError(f"{type(self).__name__} has no rule method")

    def transformation(self, rate: Any) -> Any:
        optax = load_optax()
        parts = []
        if self.grad_clip_value is not None:
            parts.append(optax.clip(self.grad_clip_value))
        if self.grad_clip_norm is not None:
            parts.append(optax.clip_by_global_norm(self.grad_clip_norm))
        if self.weight_decay and not self.decays_itself:
            parts.append(optax.add_decayed_weights(self.weight_decay))
        return optax.chain(*parts, self.rule(optax, rate))

    def rate(self) -> Any:
        return self.lr

    @property
    def lr(self) -> Any:
        """The learning rate of the next update, a scalar. Assign to change it, unless a schedule says it."""
        if self.lr_state is not None:
            return self.lr_state.value
        assert self.schedule is not None
        return self.schedule(self.step.value)

    @lr.setter
    def lr(self, value: Any) -> None:
        if self.lr_state is None:
            raise StateGraphError(
                describe(
                    f"The learning rate of {type(self).__name__} follows a schedule and cannot be assigned.",
                    at=_jax.here(),
                    why=f"it is {self.schedule!r} of the step",
                    fix="make the optimiser with a number, or set `optimizer.step.value`",
                )
            )
        self.lr_state.value = jnp.asarray(value, self.lr_state.dtype)


class SGD(Named):
    """Gradient descent, with momentum if wanted.

    Args:
      lr: the learning rate or a schedule.
      momentum: what remains of the last step; 0 for none.
      nesterov: whether to look ahead (Y. Nesterov, 1983).

    Example:

    >>> import stategraph as sg
    >>> w = sg.ParamState(3.0)
    >>> optimizer = sg.optim.SGD(lr=0.1).register_trainable_weights({"w": w})
    >>> optimizer.update({"w": 6.0})
    >>> optimizer.lr = 0.01
    >>> round(float(w.value), 3), round(float(optimizer.lr), 3)
    (2.4, 0.01)
    """

    def __init__(
        self, lr: Rate = 1e-3, momentum: float = 0.0, nesterov: bool = False, **common: Unpack[Common]
    ) -> None:
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        return optax.sgd(rate, momentum=self.momentum or None, nesterov=self.nesterov)


class Momentum(SGD):
    """``SGD`` with momentum (B. Polyak, 1964)."""

    def __init__(self, lr: Rate = 1e-3, momentum: float = 0.9, **common: Unpack[Common]) -> None:
        super().__init__(lr, momentum, **common)


class MomentumNesterov(SGD):
    """``SGD`` with Nesterov's momentum."""

    def __init__(self, lr: Rate = 1e-3, momentum: float = 0.9, **common: Unpack[Common]) -> None:
        super().__init__(lr, momentum, nesterov=True, **common)


class _Moments(Named):
    """Rules with a first and a second moment."""

    optax_name: str

    def __init__(
        self,
        lr: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        **common: Unpack[Common],
    ) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        decay = {"weight_decay": self.weight_decay} if self.decays_itself else {}
        make = getattr(optax, self.optax_name)
        return make(rate, b1=self.beta1, b2=self.beta2, eps=self.eps, **decay)


class Adam(_Moments):
    """Adam (D. Kingma and J. Ba, 2015).

    Args:
      lr: the learning rate or a schedule.
      beta1: how long gradients are remembered.
      beta2: how long their squares are.
      eps: added to the root of the squares.

    Example:

    >>> import stategraph as sg
    >>> w = sg.ParamState(3.0)
    >>> optimizer = sg.optim.Adam(lr=0.1)
    >>> optimizer.register_trainable_weights({"w": w})
    Adam(...)
    >>> step = sg.compile.jit(lambda: optimizer.update(sg.augment.grad(lambda: w.value**2, {"w": w})()))
    >>> for _ in range(100):
    ...     step()
    >>> abs(float(w.value)) < 0.1
    True
    """

    optax_name = "adam"


class AdamW(_Moments):
    """Adam with weight decay beside the gradient (I. Loshchilov and F. Hutter, 2019); see ``Adam``."""

    optax_name, decays_itself = "adamw", True

    def __init__(
        self,
        lr: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        grad_clip_norm: float | None = None,
        grad_clip_value: float | None = None,
    ) -> None:
        super().__init__(
            lr,
            beta1,
            beta2,
            eps,
            weight_decay=weight_decay,
            grad_clip_norm=grad_clip_norm,
            grad_clip_value=grad_clip_value,
        )


class Adamax(_Moments):
    """Adam with the largest gradient instead of the squares (D. Kingma and J. Ba, 2015); see ``Adam``."""

    optax_name = "adamax"


class Nadam(_Moments):
    """Adam with Nesterov's momentum (T. Dozat, 2016); see ``Adam``."""

    optax_name = "nadam"


class RAdam(_Moments):
    """Adam that corrects the variance of its first steps (L. Liu and others, 2020); see ``Adam``."""

    optax_name = "radam"


class AdaBelief(_Moments):
    """Adam with the variance of the gradients instead of their squares (J. Zhuang and others, 2020); see
    ``Adam``.
    """

    optax_name = "adabelief"

    def __init__(
        self,
        lr: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-16,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, **common)


class Lamb(_Moments):
    """Adam with a step in proportion to each parameter's norm (Y. You and others, 2020); see ``Adam``."""

    optax_name, decays_itself = "lamb", True

    def __init__(
        self,
        lr: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-6,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, **common)


class Lion(Named):
    """The sign of a momentum (X. Chen and others, Symbolic discovery of optimization algorithms, 2023).

    Args:
      lr: the learning rate or a schedule.
      beta1: the share of the momentum in the step.
      beta2: how long gradients are remembered.
    """

    decays_itself = True

    def __init__(
        self, lr: Rate = 1e-4, beta1: float = 0.9, beta2: float = 0.99, **common: Unpack[Common]
    ) -> None:
        self.beta1, self.beta2 = beta1, beta2
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        return optax.lion(rate, b1=self.beta1, b2=self.beta2, weight_decay=self.weight_decay)


class Lars(Named):
    """Momentum with a step in proportion to each parameter's norm (Y. You and others, 2017).

    Args:
      lr: the learning rate or a schedule.
      momentum: what remains of the last step.
      trust_coefficient: the step as a part of the parameter's norm.
      eps: added to the norm of the gradient.
    """

    decays_itself = True

    def __init__(
        self,
        lr: Rate = 1.0,
        momentum: float = 0.9,
        trust_coefficient: float = 1e-3,
        eps: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        self.momentum, self.trust_coefficient, self.eps = momentum, trust_coefficient, eps
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        return optax.lars(
            rate,
            weight_decay=self.weight_decay,
            trust_coefficient=self.trust_coefficient,
            eps=self.eps,
            momentum=self.momentum,
        )


class Adagrad(Named):
    """The gradient over the root of the sum of its squares (J. Duchi and others, 2011).

    Args:
      lr: the learning rate or a schedule.
      initial_accumulator: where the sum begins.
      eps: keeps the root from being zero.
    """

    def __init__(
        self,
        lr: Rate = 1e-2,
        initial_accumulator: float = 0.1,
        eps: float = 1e-7,
        **common: Unpack[Common],
    ) -> None:
        self.initial_accumulator, self.eps = initial_accumulator, eps
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        return optax.adagrad(rate, initial_accumulator_value=self.initial_accumulator, eps=self.eps)


class Adadelta(Named):
    """Steps in the units of the parameters (M. Zeiler, 2012).

    Args:
      lr: the learning rate or a schedule.
      rho: how long squares are remembered.
      eps: added to them.
    """

    def __init__(self, lr: Rate = 1.0, rho: float = 0.9, eps: float = 1e-6, **common: Unpack[Common]) -> None:
        self.rho, self.eps = rho, eps
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        return optax.adadelta(rate, rho=self.rho, eps=self.eps)


class RMSProp(Named):
    """The gradient over the root of a running mean of its squares (T. Tieleman and G. Hinton, 2012).

    Args:
      lr: the learning rate or a schedule.
      rho: how long squares are remembered.
      eps: added to them.
      momentum: what remains of the last step; 0 for none.
      centered: whether the variance takes the place of the squares.
    """

    def __init__(
        self,
        lr: Rate = 1e-2,
        rho: float = 0.9,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        **common: Unpack[Common],
    ) -> None:
        self.rho, self.eps, self.momentum, self.centered = rho, eps, momentum, centered
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        return optax.rmsprop(
            rate, decay=self.rho, eps=self.eps, centered=self.centered, momentum=self.momentum or None
        )


class Adafactor(Named):
    """Second moments of matrices as products of vectors (N. Shazeer and M. Stern, 2018).

    Args:
      lr: the learning rate or a schedule, in proportion to the size of each parameter.
      decay_rate: how the memory of the squares grows.
      clipping_threshold: the largest size of an update; None for no limit.
      momentum: what remains of the last step; 0 for none.
      min_dim_size_to_factor: smaller matrices are not factored.
    """

    decays_itself = True

    def __init__(
        self,
        lr: Rate = 1e-2,
        decay_rate: float = 0.8,
        clipping_threshold: float | None = 1.0,
        momentum: float = 0.0,
        min_dim_size_to_factor: int = 128,
        **common: Unpack[Common],
    ) -> None:
        self.decay_rate, self.clipping_threshold = decay_rate, clipping_threshold
        self.momentum, self.min_dim_size_to_factor = momentum, min_dim_size_to_factor
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        return optax.adafactor(
            rate,
            decay_rate=self.decay_rate,
            clipping_threshold=self.clipping_threshold,
            momentum=self.momentum or None,
            min_dim_size_to_factor=self.min_dim_size_to_factor,
            weight_decay_rate=self.weight_decay or None,
        )


class Rprop(Named):
    """Steps that grow while the sign of the gradient stays, and shrink when it changes (M. Riedmiller and H.
    Braun, 1993). For whole batches.

    Args:
      lr: the size of the first step; no schedule.
      etas: by how much steps shrink and grow.
      step_sizes: the smallest and largest step.
    """

    def __init__(
        self,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        **common: Unpack[Common],
    ) -> None:
        if callable(lr):
            raise TypeError("Rprop adapts its steps itself; its lr is a number, not a schedule")
        self.etas, self.step_sizes = etas, step_sizes
        super().__init__(lr, **common)

    def rule(self, optax: Any, rate: Any) -> Any:
        return optax.rprop(rate, *self.etas, *self.step_sizes)

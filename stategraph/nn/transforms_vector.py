"""Transforms of whole vectors (along the last axis), and transforms one after another."""

from __future__ import annotations

from typing import Any

import attrs
import jax
import jax.numpy as jnp

from stategraph.nn.transforms import Transform


@attrs.frozen(eq=False, slots=False)
class OrderedT(Transform):
    """Increasing vectors: ``y[0] = x[0]``, ``y[i] = y[i-1] + exp(x[i])``, along the last axis.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> sg.nn.OrderedT().forward(jnp.array([1.0, 0.0, 0.0]))
    Array([1., 2., 3.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:
        return jnp.cumsum(jnp.concatenate([x[..., :1], jnp.exp(x[..., 1:])], -1), -1)

    def inverse(self, y: Any) -> Any:
        return jnp.concatenate([y[..., :1], jnp.log(jnp.diff(y, axis=-1))], -1)

    def contains(self, y: Any) -> Any:
        return jnp.all(jnp.diff(y, axis=-1) > 0)

    def log_abs_det_jacobian(self, x: Any, y: Any = None) -> Any:
        return jnp.sum(x[..., 1:])


@attrs.frozen(eq=False, slots=False)
class SimplexT(Transform):
    """Positive vectors that sum to 1, along the last axis, by breaking a stick: ``n - 1`` numbers give ``n``.

    Piece ``i`` is the part ``sigmoid(x[i] - log(n - 1 - i))`` of what is left, so that zeros give equal
    pieces. The determinant is that of the map to the first ``n - 1`` pieces (M. Betancourt, Cruising the
    simplex, 2012).

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> sg.nn.SimplexT().forward(jnp.zeros(3))
    Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """

    def forward(self, x: Any) -> Any:
        z = self._shifted(x)
        left = jnp.cumsum(jax.nn.log_sigmoid(-z), -1)  # log of what is left after each break
        pieces = jax.nn.log_sigmoid(z).at[..., 1:].add(left[..., :-1])
        return jnp.exp(jnp.concatenate([pieces, left[..., -1:]], -1))

    def inverse(self, y: Any) -> Any:
        rest = jnp.flip(jnp.cumsum(jnp.flip(y, -1), -1), -1)[..., 1:]  # what is left after each break
        return jnp.log(y[..., :-1]) - jnp.log(rest) + self._offsets(y.shape[-1] - 1, y.dtype)

    def contains(self, y: Any) -> Any:
        near = jnp.abs(jnp.sum(y, -1) - 1) <= _tolerance(y)
        return jnp.all(y > 0) & jnp.all(near) & (y.shape[-1] > 1)

    def log_abs_det_jacobian(self, x: Any, y: Any = None) -> Any:
        y = self.forward(x) if y is None else y
        return jnp.sum(jnp.log(y[..., :-1])) + jnp.sum(jax.nn.log_sigmoid(-self._shifted(x)))

    def _shifted(self, x: Any) -> Any:
        return x - self._offsets(x.shape[-1], x.dtype)

    @staticmethod
    def _offsets(n: int, dtype: Any) -> Any:
        return jnp.log(jnp.arange(n, 0, -1, dtype=dtype))


@attrs.frozen(eq=False, slots=False)
class UnitVectorT(Transform):
    """Vectors of length 1, along the last axis: ``y = x / |x|``. No bijection: the length of ``x`` is free."""

    def forward(self, x: Any) -> Any:
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def inverse(self, y: Any) -> Any:
        return y

    def contains(self, y: Any) -> Any:
        near = jnp.abs(jnp.linalg.norm(y, axis=-1) - 1) <= _tolerance(y)
        return jnp.all(near)


def _tolerance(y: Any) -> float:
    """How far a sum along the last axis may be off by rounding."""
    return 100 * int(y.shape[-1]) * float(jnp.finfo(y.dtype).eps)  # type: ignore[no-untyped-call]


class ChainT(Transform):
    """Transforms one after another: the first is applied to ``x`` first.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> chain = sg.nn.ChainT(sg.nn.AffineT(2.0), sg.nn.ExpT(1.0))
    >>> float(chain.forward(jnp.zeros(())))
    2.0
    """

    def __init__(self, *transforms: Transform) -> None:
        for one in transforms:
            if not isinstance(one, Transform):
                raise TypeError(f"ChainT takes transforms, not a {type(one).__name__}")
        self.transforms = transforms

    def forward(self, x: Any) -> Any:
        for one in self.transforms:
            x = one.forward(x)
        return x

    def inverse(self, y: Any) -> Any:
        for one in reversed(self.transforms):
            y = one.inverse(y)
        return y

    def contains(self, y: Any) -> Any:
        inside: Any = True
        for one in reversed(self.transforms):
            inside = inside & jnp.all(one.contains(y))
            y = one.inverse(y)
        return inside

    def log_abs_det_jacobian(self, x: Any, y: Any = None) -> Any:
        total: Any = 0.0
        for one in self.transforms:
            after = one.forward(x)
            total, x = total + one.log_abs_det_jacobian(x, after), after
        return total

    def __repr__(self) -> str:
        return f"ChainT({', '.join(map(repr, self.transforms))})"

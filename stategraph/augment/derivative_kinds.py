"""Kinds of derivatives: each is a way to choose seeds for one run of a function, and to arrange what they become.

A run is a ``Product`` (see ``products``): it takes tangents of the inputs to tangents of the outputs, or cotangents back.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.augment.products import Product, active, arranged, basis
from stategraph.augment.wanted import Wanted, check_loss


@attrs.frozen
class Derivative:
    """A kind of derivative, and its options."""

    sums: ClassVar[bool] = False
    """Whether it is that of one number: a scalar, or the sum of all outputs."""

    def mode(self) -> str:
        """``jvp`` for forward mode, ``vjp`` for reverse mode."""
        raise NotImplementedError

    def check(self, value: Any, wanted: Wanted) -> None:
        """Raise ``TypeError`` for a value that has no such derivative."""
        for leaf in jax.tree.leaves(value):
            aval = _jax.typeof(leaf) if isinstance(leaf, (jax.Array, float, int, complex)) else None
            if aval is None or not jnp.issubdtype(aval.dtype, jnp.inexact):
                found = type(leaf).__name__ if aval is None else str(_jax.type_of(aval))
                raise TypeError(
                    f"the differentiated function must return floats, not {found}"
                    " (use has_aux=True for other results)"
                )
            is_complex = jnp.issubdtype(aval.dtype, jnp.complexfloating)
            if is_complex and not wanted.holomorphic and self.mode() == "vjp":
                raise TypeError(
                    "the differentiated function returns complex numbers;"
                    " pass holomorphic=True if it is holomorphic"
                )

    def of(self, product: Product, wanted: Wanted, extra: Any) -> Any:
        """The derivative, arranged. ``extra`` is what the call brought besides the function's arguments."""
        raise NotImplementedError


@attrs.frozen
class VectorGradient(Derivative):
    sums = True

    def mode(self) -> str:
        return "vjp"

    def of(self, product: Product, wanted: Wanted, extra: Any) -> Any:
        return arranged(
            product,
            wanted,
            product.linear([jnp.ones(aval.shape, aval.dtype) for aval in active(product.outputs)]),
        )


@attrs.frozen
class ReverseJacobian(Derivative):
    def mode(self) -> str:
        return "vjp"

    def of(self, product: Product, wanted: Wanted, extra: Any) -> Any:
        seeds, lanes, starts = basis(product.outputs)
        columns = product.linear(seeds, lanes)
        inputs = active(product.inputs)
        rows = []
        for start, out in zip(starts, product.outputs, strict=True):
            stop = start + math.prod(out.shape)
            parts = [
                c[start:stop].reshape(*out.shape, *aval.shape)
                for c, aval in zip(columns, inputs, strict=True)
            ]
            rows.append(arranged(product, wanted, parts, out.shape))
        return jax.tree.unflatten(product.value_tree, rows)


@attrs.frozen
class ForwardJacobian(Derivative):
    def mode(self) -> str:
        return "jvp"

    def of(self, product: Product, wanted: Wanted, extra: Any) -> Any:
        inputs = active(product.inputs)
        seeds, lanes, starts = basis(inputs)
        columns = product.linear(seeds, lanes)
        rows = []
        for column, out in zip(columns, product.outputs, strict=True):
            last = jnp.moveaxis(column, 0, -1)
            parts = []
            for start, aval in zip(starts, inputs, strict=True):
                stop = start + math.prod(aval.shape)
                parts.append(last[..., start:stop].reshape(*out.shape, *aval.shape))
            rows.append(arranged(product, wanted, parts, out.shape))
        return jax.tree.unflatten(product.value_tree, rows)


@attrs.frozen
class ForwardGradient(Derivative):
    """Baydin et al., Gradients without Backpropagation, 2022: the derivative along a random direction, times
    that direction.
    """

    sums = True

    directions: int | None
    clip: float | None

    def mode(self) -> str:
        return "jvp"

    def check(self, value: Any, wanted: Wanted) -> None:
        check_loss(value, wanted)

    def of(self, product: Product, wanted: Wanted, extra: Any) -> Any:
        inputs = active(product.inputs)
        shape = () if self.directions is None else (self.directions,)
        keys = jax.random.split(extra, len(inputs))
        seeds = [
            jax.random.normal(key, (*shape, *aval.shape), aval.dtype)
            for key, aval in zip(keys, inputs, strict=True)
        ]
        (along,) = product.linear(seeds, self.directions)
        if self.clip is not None:
            along = jnp.clip(along, -self.clip, self.clip)
        estimates = []
        for seed in seeds:
            weighted = seed * along.astype(seed.dtype).reshape(*shape, *(1,) * (seed.ndim - len(shape)))
            estimates.append(weighted if self.directions is None else weighted.mean(0))
        return arranged(product, wanted, estimates)

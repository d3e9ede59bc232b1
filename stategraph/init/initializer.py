"""What all initialisers have in common: they are called with a shape, print as their call, and know a unit and a seed."""

from __future__ import annotations

from typing import Any

import attrs
import jax
import numpy as np

from stategraph import environ, units
from stategraph.errors import describe
from stategraph.random import RandomState, default_rng
from stategraph.random.checks import as_shape
from stategraph.typing import Size


def _unit_text(unit: Any) -> str | None:
    return None if unit is None else units.text_of(unit)


def _check_unit(made: Any, _: Any, unit: Any) -> None:
    if unit is not None and not units.is_unit(unit):
        raise TypeError(
            describe(
                f"unit={unit!r} of {type(made).__name__} is no unit.",
                fix="a unit of saiunit: unit=saiunit.mV",
            )
        )


def unit_field() -> Any:
    """The field ``unit``, once more in a subclass to give it its place among the arguments there."""
    return attrs.field(default=None, eq=_unit_text, validator=_check_unit)


def _seed(seed: Any) -> Any:
    return seed if seed is None or isinstance(seed, int) else id(seed)


def seed_field() -> Any:
    """The field ``seed``, likewise."""
    return attrs.field(default=None, eq=_seed)


@attrs.frozen(repr=False)
class Initializer:
    """A recipe for an array of a given shape. Subclasses write ``make``.

    Two initialisers with the same settings are equal. They print as the call that makes them. All take ``unit``: the unit
    (of saiunit, the extra ``units``) that the numbers are in; the array is a quantity then.
    """

    unit: Any = attrs.field(default=None, kw_only=True, eq=_unit_text, validator=_check_unit)

    def __call__(self, shape: Size, dtype: Any = None) -> Any:
        """An array; a quantity with ``unit``.

        Args:
          shape: its shape.
          dtype: its type; ``environ.dftype()`` when None.
        """
        made = self.make(as_shape(shape), np.dtype(environ.dftype() if dtype is None else dtype))
        if self.unit is None or self.unit.is_unitless:
            return made
        if units.is_quantity(made):
            raise ValueError(
                describe(
                    f"{self!r} has quantities among its settings, and a unit.",
                    why="unit= says what plain numbers are in",
                    fix="give the settings as plain numbers, or leave unit= out",
                )
            )
        return units.quantity(made, self.unit)

    def make(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """The array; subclasses write it."""
        raise NotImplementedError(f"{type(self).__name__} has no method make(shape, dtype)")

    def __repr__(self) -> str:
        said = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in attrs.fields(type(self))
            if field.init and not _is_default(getattr(self, field.name), field.default)
        ]
        return f"{type(self).__name__}({', '.join(said)})"


def _is_default(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


@attrs.frozen(repr=False)
class RandomInitializer(Initializer):
    """An initialiser that draws random numbers."""

    seed: Any = attrs.field(default=None, kw_only=True, eq=_seed)
    """A seed, key or ``RandomState`` to draw from; None for the stream of ``stategraph.random``."""
    rng: RandomState = attrs.field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        rng = self.seed if isinstance(self.seed, RandomState) else default_rng(self.seed)
        object.__setattr__(self, "rng", rng)

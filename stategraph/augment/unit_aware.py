"""Derivatives with units: the unit of the value over the unit of what it is differentiated with respect to.

The function is differentiated as one of plain numbers: the units of its value are noted and taken off while it runs, and the
derivatives, which come with the units of the States and arguments they belong to, get theirs afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from stategraph import _jax, units
from stategraph.augment.wanted import Wanted, split_aux
from stategraph.errors import UnitError, describe


class UnitsOf:
    """The units of a differentiated function's value, known once it ran. Without ``unit_aware=True`` it does nothing."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._units: list[Any] = []
        self._tree: Any = None

    def taken_off(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with plain numbers for the quantities in its value."""
        if not self.wanted.unit_aware:
            return function

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            value, aux = split_aux(function(*args, **kwargs), self.wanted.has_aux)
            leaves, self._tree = jax.tree.flatten(value, is_leaf=units.is_quantity)
            self._units = [leaf.unit if units.is_quantity(leaf) else None for leaf in leaves]
            value = jax.tree.unflatten(
                self._tree, [x.mantissa if units.is_quantity(x) else x for x in leaves]
            )
            return (value, aux) if self.wanted.has_aux else value

        return plain

    def put_on(self, value: Any) -> Any:
        """The value with its units."""
        if not any(unit is not None for unit in self._units):
            return value
        leaves = self._tree.flatten_up_to(value)
        return self._tree.unflatten(map(units.quantity, leaves, self._units))

    def of_gradient(self, gradient: Any) -> Any:
        """The derivative of one number, or of the sum of all. Raises ``UnitError`` for a sum of different units."""
        if not self.wanted.unit_aware:
            return gradient
        for other in self._units[1:]:
            if other != self._units[0]:
                raise UnitError(
                    describe(
                        "The gradient is that of a sum of different units.",
                        at=_jax.line_in_charge(),
                        why=f"the function returns values in {_text(self._units[0])} and {_text(other)}",
                        fix="return them in one unit, or take the Jacobian: jacrev(..., unit_aware=True)",
                    )
                )
        return _over(gradient, self._units[0] if self._units else None)

    def of_rows(self, jacobian: Any) -> Any:
        """A Jacobian: for each leaf of the value, the derivatives of that."""
        if not self.wanted.unit_aware:
            return jacobian
        rows = self._tree.flatten_up_to(jacobian)
        return self._tree.unflatten(map(_over, rows, self._units))


def _text(unit: Any) -> str:
    return "no unit" if unit is None else units.text_of(unit)


def _over(derivative: Any, unit: Any) -> Any:
    """Derivatives of a number in that unit. None has the unit 1; a quotient without a unit is a plain number."""
    package = units.loaded()
    if package is None:
        return derivative

    def one(leaf: Any) -> Any:
        own = leaf.unit if units.is_quantity(leaf) else None
        if unit is None and own is None:
            return leaf
        quotient = (package.UNITLESS if unit is None else unit) / (package.UNITLESS if own is None else own)
        number = leaf.mantissa if units.is_quantity(leaf) else leaf
        return package.maybe_decimal(package.Quantity(number, unit=quotient))

    return jax.tree.map(one, derivative, is_leaf=units.is_quantity)

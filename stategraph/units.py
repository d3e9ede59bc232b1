"""Units: quantities of saiunit in State, and plain numbers everywhere else.

A *quantity* is an array and a unit; JAX sees it as a node of a pytree. A State that is given one keeps the array, and the
unit is part of its structure: reading gives a quantity again, a quantity in another unit of the same dimension is converted
when it is written, and anything else is an error. A State may also *declare* a unit, ``State(3.0, unit=saiunit.mV)``: then
it is read as a plain number of that unit. Programs compute with plain tensors either way; the unit is an attribute of the
State's symbol.

saiunit is optional (the extra ``units``) and never imported here: without it there are no quantities. So ``loaded`` is asked
first wherever quantities could be, and programs without units pay for nothing else.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import jax

from stategraph import _jax
from stategraph.errors import UnitError, describe
from stategraph.ir.location import Location

DECLARED = "unit"
"""The metadata of a State that declares its unit, and the attribute of its symbol."""


def loaded() -> Any:
    """The package saiunit, if somebody imported it; else None."""
    found = sys.modules.get("saiunit")
    if found is None or not hasattr(found, "Quantity"):
        return None
    if not _HIDDEN:
        _HIDDEN.append(found)
        _jax.register_exclusion(str(found.__file__).rpartition("/")[0])
    return found


_HIDDEN: list[Any] = []
"""The package, once its frames are skipped where the user's line is looked for."""


def is_quantity(value: Any) -> bool:
    """Whether a value is a quantity."""
    package = loaded()
    return package is not None and isinstance(value, package.Quantity)


def holds_quantity(value: Any) -> bool:
    """Whether a pytree is or contains a quantity."""
    return loaded() is not None and any(map(is_quantity, jax.tree.leaves(value, is_leaf=is_quantity)))


def is_unit(value: Any) -> bool:
    """Whether a value is a unit."""
    package = loaded()
    return package is not None and isinstance(value, package.Unit)


def named_unit(text: str) -> Any:
    """The unit that a text such as ``mS / cm^2`` names."""
    package = loaded()
    return package.parse_unit(text) if package is not None else None


def quantity(value: Any, unit: Any) -> Any:
    """A value with a unit; the value itself for no unit."""
    return value if unit is None else loaded().Quantity(value, unit=unit)


def in_unit(value: Any, unit: Any) -> Any:
    """The number of units that a quantity of the same dimension is, as a plain array."""
    if value.unit == unit:
        return value.mantissa
    return value.to_decimal(unit)


def without_units(value: Any) -> Any:
    """A pytree with the plain arrays of its quantities, each in its own unit."""
    if loaded() is None:
        return value
    return jax.tree.map(lambda leaf: leaf.mantissa if is_quantity(leaf) else leaf, value, is_leaf=is_quantity)


# ------------------------------------------------------------------------------------------------- structures


@functools.lru_cache(maxsize=4096)
def _taken_apart(tree: Any) -> tuple[tuple[Any, ...], Any]:
    whole = jax.tree.unflatten(tree, [0] * tree.num_leaves)
    leaves, plain = jax.tree.flatten(whole, is_leaf=is_quantity)
    units = tuple(leaf.unit if is_quantity(leaf) else None for leaf in leaves)
    return units, (None if _jax.same_tree(plain, _LEAF) else plain)


_LEAF = jax.tree.structure(0)


def taken_apart(tree: Any) -> tuple[tuple[Any, ...], Any]:
    """(the unit of each leaf or None, the structure without units) of the structure of a State."""
    if tree is None or loaded() is None or "Quantity[" not in str(tree):
        return (None,) * (1 if tree is None else tree.num_leaves), tree
    return _taken_apart(tree)


def plain_structure(tree: Any) -> Any:
    """The structure of a State without the units in it."""
    return taken_apart(tree)[1]


def unit_of(state: Any) -> Any:
    """The unit of a State: what it declares, or that of the quantity it holds; a pytree of units where it holds several,
    None for none.
    """
    declared = state.metadata.get(DECLARED)
    if is_unit(declared):
        return declared
    units, plain = taken_apart(state._tree)
    if not any(unit is not None for unit in units):
        return None
    return units[0] if plain is None else jax.tree.unflatten(plain, units)


def attribute_of(state: Any, tree: Any) -> Any:
    """The unit of a State as an attribute of its symbol: text, or a tuple with one for each leaf; None for none."""
    if loaded() is None:
        return None
    declared = state.metadata.get(DECLARED)
    if is_unit(declared):
        return text_of(declared)
    units, plain = taken_apart(tree)
    if not any(unit is not None for unit in units):
        return None
    return (
        text_of(units[0]) if plain is None else tuple("" if unit is None else text_of(unit) for unit in units)
    )


def texts_of(state: Any) -> list[str]:
    """The unit of each leaf of a State as text, empty for none."""
    found = attribute_of(state, state._tree)
    count = len(state._cells)
    return [found or ""] * count if found is None or isinstance(found, str) else list(found)


def text_of(unit: Any) -> str:
    """A unit as text: ``mV``, ``mS / cm^2``."""
    return str(unit)


# ---------------------------------------------------------------------------------------------------- writing


def fitted(state: Any, leaves: list[Any], tree: Any, held: Any, at: Location) -> tuple[list[Any], Any]:
    """What is written to a State, in the units of the State.

    Args:
      state: the State.
      leaves: the leaves of the value.
      tree: its structure.
      held: the structure that the State has now.
      at: where this happens.

    Returns:
      Leaves and structure to write.

    Raises:
      UnitError: for a unit of another dimension, for a plain number where the State holds a quantity, and for a quantity
        where it holds plain numbers.
    """
    declared = state.metadata.get(DECLARED)
    given, plain = taken_apart(tree)
    if is_unit(declared):
        units = zip(leaves, given, strict=True)
        return [leaf if u is None else _converted(state, leaf, u, declared, at) for leaf, u in units], plain
    wanted, structure = taken_apart(held)
    if given == wanted or not _jax.same_tree(structure, plain):
        return leaves, tree
    found = [
        _converted(state, leaf, unit, expected, at)
        for leaf, unit, expected in zip(leaves, given, wanted, strict=True)
    ]
    return found, held


def _converted(state: Any, leaf: Any, unit: Any, wanted: Any, at: Location) -> Any:
    package = loaded()
    here = package.UNITLESS if unit is None else unit
    there = package.UNITLESS if wanted is None else wanted
    if here == there:
        return leaf
    if here.has_same_dim(there):
        return in_unit(package.Quantity(leaf, unit=here), there)
    holds = "plain numbers" if wanted is None else f"a quantity in {text_of(wanted)}"
    comes = "a plain number" if unit is None else f"a quantity in {text_of(unit)}"
    if wanted is None or unit is None:
        fix = (
            f"state.value = value.to_decimal(...); or make it with a quantity, State(3.0 * saiunit.{_word(unit)})"
            if wanted is None
            else f"state.value = value * saiunit.{_word(wanted)}"
        )
        raise UnitError(
            describe(
                f"{state._describe()} holds {holds}, and is given {comes}.",
                state=state._describe(),
                created=state.source_location,
                at=at,
                why="a plain number does not say its unit, so the two do not mix",
                fix=fix,
            )
        )
    raise UnitError(
        describe(
            f"{state._describe()} is in {text_of(wanted)}, and is given {comes}.",
            state=state._describe(),
            created=state.source_location,
            at=at,
            why=f"{text_of(unit)} cannot be converted to {text_of(wanted)}",
            fix="assign a quantity of the same dimension, or make another State",
        )
    )


def _word(unit: Any) -> str:
    text = text_of(unit)
    return text if text.isidentifier() else "mV"


def begun(state: Any, leaves: list[Any], tree: Any, at: Location) -> tuple[list[Any], Any]:
    """What a State that declares a unit holds at first: a plain number as it is, a quantity in that unit."""
    given, _ = taken_apart(tree)
    if not any(unit is not None for unit in given):
        return leaves, tree
    return fitted(state, leaves, tree, None, at)

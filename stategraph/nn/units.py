"""Units of neurons and synapses: they compute with plain numbers in ms, mV, nA, nS and MOhm.

A class names the units of its parameters, States and inputs in ``UNITS``. A quantity (of saiunit) that is given for one of
them becomes a plain number of that unit; the States then declare their units. A constructor is given quantities or plain
numbers, not both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import jax

from stategraph import _jax, environ, units
from stategraph.errors import UnitError, describe
from stategraph.graph.construction import construction_of
from stategraph.init import Initializer
from stategraph.state import State

TIME = "ms"
INPUT = "input"
"""The key in ``UNITS`` of what ``update`` is called with."""
CURRENT = "current"
"""The key in ``UNITS`` of current inputs."""
DELTA = "delta"
"""The key in ``UNITS`` of delta inputs."""


def units_of(owner: Any) -> Mapping[str, str]:
    """The units of a module, by the name of a parameter, State or input: ``UNITS``, or what it says instead."""
    found: Mapping[str, str] = getattr(owner, "UNITS_HERE", None) or getattr(owner, "UNITS", {})
    return found


def number(value: Any, unit: str, what: str) -> Any:
    """A plain number for what may be a quantity.

    Args:
      value: a quantity, a unit, which is 1 of it, or anything else, which is returned as it is.
      unit: the unit of plain numbers here.
      what: what is converted, for the message.

    Raises:
      UnitError: for a quantity of another dimension.
    """
    if units.is_unit(value):
        value = units.quantity(1.0, value)
    if not units.is_quantity(value):
        return value
    wanted = units.named_unit(unit)
    if not value.unit.has_same_dim(wanted):
        raise UnitError(
            describe(
                f"{what} is given a quantity in {units.text_of(value.unit)}.",
                at=_jax.line_in_charge(),
                why=f"it is in {unit}" if unit != "1" else "it has no unit",
                fix=f"give a quantity that can be converted to {unit}, or a plain number of {unit}"
                if unit != "1"
                else "give a plain number",
            )
        )
    return units.in_unit(value, wanted)


def parameter(owner: Any, name: str, value: Any) -> Any:
    """A parameter of a module as plain numbers; see the module."""
    if units.loaded() is None:
        return value
    _check_mixture(owner)
    return _plain(owner, name, value)


def _plain(owner: Any, name: str, value: Any) -> Any:
    unit, what = units_of(owner).get(_stem(name), "1"), f"{type(owner).__name__}({name}=...)"
    state = _stored(value)
    if state is not None:
        _check_state(state, unit, what)
        return value
    return _initializer(value, unit, what) if isinstance(value, Initializer) else number(value, unit, what)


def _given(owner: Any) -> dict[str, Any]:
    """The arguments that a module was made with, by name."""
    construction = construction_of(owner)
    if construction is None:
        return {}
    try:
        args, kwargs = construction.arguments()
        bound = inspect.signature(type(owner).__init__).bind_partial(owner, *args, **kwargs)
    except (ReferenceError, TypeError):
        return {}
    return dict(list(bound.arguments.items())[1:])


_ONE = {"Mohm": "Mohm", "nS": "nsiemens", "nA": "nA"}
"""Units of parameters that say how much a current does, as saiunit writes them."""


def is_assumed(owner: Any, name: str) -> bool:
    """Whether a parameter that says how much a current does is being left to its default, in a program that has units."""
    if units.loaded() is None or units_of(owner).get(name) not in _ONE or construction_of(owner) is None:
        return False
    declared = inspect.signature(type(owner).__init__).parameters
    return name in declared and name not in _given(owner) and declared[name].default != 0


def refuse_current(owner: Any, current: str, assumed: Iterable[str]) -> None:
    """Refuse a current of a model with units if parameters that say how much it does were left to their defaults: who writes
    plain numbers has nA and MOhm, and who comes from brainpy.state mA and ohm.
    """
    kind, names = type(owner).__name__, list(assumed)
    raise UnitError(
        describe(
            f"{kind} is given {current}, and was made without {' and '.join(names)}.",
            at=_jax.line_in_charge(),
            why="models with units say what a current does: R is 1 Mohm where numbers are plain, and 1 ohm in brainpy.state",
            fix=f"{kind}(..., {', '.join(f'{name}=... * saiunit.{_ONE[units_of(owner)[name]]}' for name in names)})",
        )
    )


def _stored(value: Any) -> State[Any] | None:
    """The State of a parameter that can be trained: itself, or that of an ``nn.Param``."""
    found = value if isinstance(value, State) else getattr(value, "val", None)
    return found if isinstance(found, State) else None


def given_unit(value: Any) -> Any:
    """The unit that a parameter is given with, or None."""
    state = _stored(value)
    if state is not None:
        return state.unit
    if isinstance(value, Initializer):
        items = (item.unit for item in _fields(value).values() if units.is_quantity(item))
        return next(items, None) if value.unit is None else value.unit
    if units.is_unit(value):
        return value
    return value.unit if units.is_quantity(value) else None


def has_unit(value: Any) -> bool:
    """Whether a parameter is given with a unit."""
    return given_unit(value) is not None


def _check_mixture(owner: Any) -> None:
    """Refuse a constructor that is given quantities and plain numbers for what has a unit, or a unit that does not fit."""
    table = units_of(owner)
    given = {name: value for name, value in _given(owner).items() if table.get(_stem(name), "1") != "1"}
    measured = [name for name, value in given.items() if has_unit(value)]
    numbers = getattr(owner, "NUMBERS", ())
    plain = [
        name
        for name, value in given.items()
        if value is not None and name not in numbers and not has_unit(value)
    ]
    for name in measured:
        _plain(owner, name, given[name])
    if measured and plain:
        name = plain[0]
        unit = table[_stem(name)]
        raise UnitError(
            describe(
                f"{type(owner).__name__}({name}=...) is given a plain number, and {measured[0]} a quantity.",
                at=_jax.line_in_charge(),
                why="parameters with and without units do not mix in one constructor",
                fix=f"give {name} as a quantity in {unit}, or all parameters as plain numbers",
            )
        )


def _stem(name: str) -> str:
    """The State that an initialiser is for: ``V`` for ``V_initializer``; other names as they are."""
    return name.removesuffix("_initializer")


def _check_state(state: State[Any], unit: str, what: str) -> None:
    """A State is read in every step: it has to hold numbers of the unit that the equations are in."""
    found = state.unit
    if found is None:
        return
    wanted = units.named_unit(unit)
    if not units.is_unit(found) or found != wanted:
        raise UnitError(
            describe(
                f"{what} is given a State in {found}.",
                state=state._describe(),
                created=state.source_location,
                at=_jax.line_in_charge(),
                why=f"the equations are in {unit}",
                fix=f"make the State with a quantity in {unit}",
            )
        )


def initial_value(owner: Any, name: str, value: Any) -> Any:
    """What a State holds at first, as plain numbers or an initialiser of plain numbers."""
    if units.loaded() is None:
        return value
    return _plain(owner, f"{name}_initializer", value)


def _fields(value: Initializer) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in attrs.fields(type(value)) if field.init}


def _initializer(value: Initializer, unit: str, what: str) -> Initializer:
    """An initialiser whose settings are plain numbers."""
    if value.unit is not None:
        number(units.quantity(1.0, value.unit), unit, what)  # refuses another dimension
        return _InUnit(value, units.named_unit(unit))
    changed = {
        name: number(item, unit, what) for name, item in _fields(value).items() if units.is_quantity(item)
    }
    return attrs.evolve(value, **changed) if changed else value


@attrs.frozen(repr=False)
class _InUnit(Initializer):
    """The numbers of another initialiser, which has a unit, in some unit of the same dimension."""

    inner: Initializer
    wanted: Any = attrs.field(eq=str)

    def make(self, shape: tuple[int, ...], dtype: Any) -> Any:
        made = self.inner(shape, dtype)
        return units.in_unit(made, self.wanted) if units.is_quantity(made) else made


def separated(weight: Any) -> tuple[Any, Any]:
    """(a weight as plain numbers, their unit or None) of a quantity, or an initialiser of quantities."""
    if units.is_quantity(weight):
        return weight.mantissa, weight.unit
    if isinstance(weight, Initializer):
        if weight.unit is not None:
            return attrs.evolve(weight, unit=None), weight.unit
        found = [item.unit for item in _fields(weight).values() if units.is_quantity(item)]
        if found:
            return _initializer(weight, units.text_of(found[0]), f"{type(weight).__name__}(...)"), found[0]
    return weight, None


def refuse_quantity(state: State[Any], what: str) -> None:
    """Refuse a State that holds a quantity where a plain array is needed; it may declare its unit."""
    if units.is_unit(state.metadata.get(units.DECLARED)) or state.unit is None:
        return
    raise UnitError(
        describe(
            f"{what} is a State that holds a quantity in {state.unit}.",
            state=state._describe(),
            created=state.source_location,
            at=_jax.line_in_charge(),
            why="the product is computed with plain numbers",
            fix="declare the unit: ParamState(3.0, unit=saiunit.nS)",
        )
    )


def in_units_of(state: State[Any], value: Any, what: str, plain: str = "1") -> Any:
    """A plain number in the unit of a State, for a quantity that is added to it; ``plain`` is that of one without."""
    if not units.is_quantity(value):
        return value
    return number(value, plain if state.unit is None else units.text_of(state.unit), what)


def like(old: Any, new: Any) -> Any:
    """A plain array with the unit that another value has, if it has one."""
    return units.quantity(new, old.unit) if units.is_quantity(old) else new


# ------------------------------------------------------------------------------------------------ the equations


def in_plain_numbers(
    derivative: Callable[..., Any], x: Any
) -> tuple[Callable[..., Any], Any, Callable[[Any], Any]]:
    """A differential equation of quantities as one of plain numbers.

    Args:
      derivative: a function of ``x``, whose values are quantities per time.
      x: a quantity, or a pytree with quantities.

    Returns:
      The function of plain numbers, with its values per ms; ``x`` in plain numbers; and what makes quantities of them.
    """
    if not units.holds_quantity(x):
        return derivative, x, lambda plain: plain
    per_time = units.named_unit(TIME)
    leaves, tree = jax.tree.flatten(x, is_leaf=units.is_quantity)
    found = [leaf.unit if units.is_quantity(leaf) else None for leaf in leaves]

    def measured(plain: Any) -> Any:
        return jax.tree.unflatten(tree, list(map(units.quantity, jax.tree.leaves(plain), found)))

    def plain_derivative(plain: Any, *rest: Any, **kwargs: Any) -> Any:
        slopes = jax.tree.leaves(derivative(measured(plain), *rest, **kwargs), is_leaf=units.is_quantity)
        return jax.tree.unflatten(
            tree,
            [
                _slope(slope, per_time**-1 if unit is None else unit / per_time)
                for slope, unit in zip(slopes, found, strict=True)
            ],
        )

    return plain_derivative, units.without_units(x), measured


def _slope(slope: Any, wanted: Any) -> Any:
    if not units.is_quantity(slope) or not slope.unit.has_same_dim(wanted):
        given = f"in {units.text_of(slope.unit)}" if units.is_quantity(slope) else "without a unit"
        raise UnitError(
            describe(
                f"The derivative of a quantity is {given}.",
                at=_jax.line_in_charge(),
                why=f"what is integrated needs one in {units.text_of(wanted)}",
            )
        )
    return units.in_unit(slope, wanted)


# ----------------------------------------------------------------------------------------------------- the time


def step() -> Any:
    """The time step ``dt`` in ms."""
    return number(environ.get_dt(), TIME, "The setting 'dt'")


def now() -> Any:
    """The time ``t`` in ms."""
    return number(environ.get(environ.T, desc="the current time"), TIME, "The setting 't'")

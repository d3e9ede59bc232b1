"""``unit_aware=True``: units of derivatives, against saiunit's own derivatives of functions without State."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import UnitError

u = pytest.importorskip("saiunit")
augment = sg.augment
X = jnp.array([1.0, 2.0])


def same(ours: Any, theirs: Any) -> bool:
    """Equal numbers, in units that mean the same."""
    a, tree = jax.tree.flatten(ours, is_leaf=lambda x: isinstance(x, u.Quantity))
    b, other = jax.tree.flatten(theirs, is_leaf=lambda x: isinstance(x, u.Quantity))
    return tree == other and all(
        u.get_unit(x) == u.get_unit(y) and np.allclose(u.get_mantissa(x), u.get_mantissa(y))
        for x, y in zip(a, b, strict=True)
    )


CASES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a loss in a unit": ("grad", lambda x: (x**2).sum()),
    "a plain loss": ("grad", lambda x: jnp.sum(x.mantissa**2)),
    "several values by reverse mode": ("jacrev", lambda x: {"a": x**2, "b": x * (2 * u.ms)}),
    "by forward mode": ("jacfwd", lambda x: x**3),
    "second derivatives": ("hessian", lambda x: (x**3).sum()),
    "element by element": ("vector_grad", lambda x: x**2),
}


@pytest.mark.parametrize("name, function", CASES.values(), ids=CASES.keys())
def test_units_are_those_that_saiunit_gives(name: str, function: Callable[[Any], Any]) -> None:
    theirs = getattr(u.autograd, name)(function)(X * u.mV)
    if name == "grad" and not isinstance(theirs, u.Quantity):
        theirs = u.Quantity(theirs.mantissa, unit=u.UNITLESS / u.mV)
    ours = getattr(augment, name)(function, unit_aware=True)
    assert same(ours(X * u.mV), theirs)
    state = sg.ParamState(X * u.mV)
    of_state = getattr(augment, name)(lambda: function(state.value), state, unit_aware=True)
    with jax.disable_jit():
        assert same(of_state(), theirs)
    assert same(sg.compile.jit(of_state)(), theirs)


def test_a_quotient_without_a_unit_is_a_plain_number_and_the_value_keeps_its_unit() -> None:
    gradient, value = augment.grad(lambda x: 2 * x, unit_aware=True, return_value=True)(3.0 * u.volt)
    assert float(gradient) == 2 and not isinstance(gradient, u.Quantity)
    assert value == 6.0 * u.volt
    (value, aux), _ = augment.value_and_grad(lambda x: (x, x), unit_aware=True, has_aux=True)(3.0 * u.volt)
    assert value == aux == 3.0 * u.volt


def test_a_scale_that_is_no_unit_is_part_of_the_number() -> None:
    gradient = augment.grad(lambda x: x.in_unit(u.mV), unit_aware=True)(3.0 * u.volt)
    assert np.allclose(gradient, 1.0)


def test_a_plain_parameter_gets_the_unit_of_the_loss() -> None:
    gain = sg.ParamState(2.0)
    assert augment.grad(lambda: gain.value * (3.0 * u.mV), gain, unit_aware=True)() == 3.0 * u.mV


def test_a_quantity_as_loss_says_what_to_write() -> None:
    with pytest.raises(TypeError, match="unit_aware=True"):
        augment.grad(lambda x: x)(3.0 * u.mV)


def test_a_sum_of_different_units_has_no_gradient() -> None:
    with pytest.raises(UnitError, match=r"values in mV and no unit(.|\n)*jacrev"):
        augment.vector_grad(lambda x: (x, x.mantissa), unit_aware=True)(3.0 * u.mV)

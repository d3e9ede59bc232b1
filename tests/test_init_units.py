"""Initialisers with a unit give quantities, and modules take them as they take quantities."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import init, nn
from stategraph.errors import UnitError

u: Any = pytest.importorskip("saiunit")


@pytest.mark.parametrize(
    "cls",
    [
        init.ZeroInit, init.Constant, init.Identity, init.Normal, init.TruncatedNormal, init.Uniform, init.Exponential,
        init.KaimingUniform, init.KaimingNormal, init.XavierUniform, init.XavierNormal, init.LecunUniform,
        init.LecunNormal, init.Orthogonal,
    ],
)  # fmt: skip
def test_the_numbers_are_the_same_in_the_unit(cls: Any) -> None:
    settings = {} if cls in (init.ZeroInit, init.Constant, init.Identity) else {"seed": 3}
    found = cls(unit=u.mS, **settings)((4, 3))
    assert u.get_unit(found) == u.mS
    np.testing.assert_array_equal(found.mantissa, cls(**settings)((4, 3)))
    assert isinstance(cls(unit=u.UNITLESS, **settings)((4, 3)), type(jnp.ones(1)))


def test_the_unit_is_a_setting() -> None:
    assert init.Normal(unit=u.mV) == init.Normal(unit=u.mV) != init.Normal()
    assert len({init.Normal(unit=u.mV), init.Normal(unit=u.mV), init.Normal(unit=u.mS)}) == 2
    assert "mV" in repr(init.Normal(unit=u.mV)) and repr(init.Normal()) == "Normal()"
    assert u.get_unit(init.Constant(2.0 * u.mV)(3)) == u.mV
    assert init.param(init.Uniform(unit=u.mV), (3,), batch_size=2).shape == (2, 3)
    with pytest.raises(TypeError, match="is no unit"):
        init.Normal(unit="mV")
    with pytest.raises(ValueError, match="has quantities among its settings, and a unit"):
        init.Constant(2.0 * u.mV, unit=u.mV)(3)


def test_the_unit_has_a_place_among_the_arguments() -> None:
    assert init.Normal(0.5, 0.1, u.mV, 3) == init.Normal(mean=0.5, scale=0.1, unit=u.mV, seed=3)
    assert init.TruncatedNormal(0.0, 1.0, u.mV, -1.0, 1.5, 3) == init.TruncatedNormal(
        unit=u.mV, lower=-1.0, upper=1.5, seed=3
    )
    assert init.Uniform(0.0, 2.0, 3, u.mV) == init.Uniform(max_val=2.0, seed=3, unit=u.mV)
    assert init.KaimingNormal(2.0, "fan_in", "normal", -2, -1, 3, u.mS) == init.KaimingNormal(
        distribution="normal", seed=3, unit=u.mS
    )
    assert init.Orthogonal(1.0, 0, 3, u.mS) == init.Orthogonal(axis=0, seed=3, unit=u.mS)
    assert init.ZeroInit(u.mV) == init.ZeroInit(unit=u.mV)
    assert init.Identity(2.0, u.mV) == init.Identity(value=2.0, unit=u.mV)


def test_modules_take_initialisers_with_units() -> None:
    layer = nn.Linear(2, 3, w_init=init.Normal(unit=u.mS), b_init=None)
    assert u.get_unit(layer(jnp.ones(2))) == u.mS
    assert (
        u.get_unit(jnp.array([True, False]) @ sg.event.FixedProb(2, 3, 1.0, init.Normal(unit=u.mS))) == u.mS
    )

    def neurons(v_init: Any) -> nn.LIF:
        volts = {name: -60.0 * u.mV for name in ("V_rest", "V_reset")}
        return nn.LIF(3, **volts, V_th=-50.0 * u.mV, tau=10.0 * u.ms, R=1.0 * u.Mohm, V_initializer=v_init)

    made = nn.init_all_states(neurons(init.Constant(-0.055, unit=u.volt)))
    np.testing.assert_allclose(u.get_mantissa(made.V.value), -55.0, rtol=1e-5)
    with pytest.raises(UnitError, match="V_initializer"):
        nn.init_all_states(neurons(init.Constant(1.0, unit=u.second)))

"""States that hold quantities, or declare a unit: converted when written, plain tensors in programs."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import ir
from stategraph.errors import CheckpointError, UnitError

u = pytest.importorskip("saiunit")

pytestmark = pytest.mark.core


class Cell(sg.nn.Module):
    def __init__(self, unit=u.mV):
        super().__init__()
        self.V = sg.HiddenState(jnp.arange(3.0) * unit)
        self.g = sg.ParamState(jnp.ones(3), unit=u.nS)

    def update(self, x):
        self.V.value = self.V.value + x * u.mV
        return self.V.value.to_decimal(u.mV)


def test_a_quantity_is_read_as_it_was_given():
    state = sg.State(3.0 * u.mV)
    assert u.get_unit(state.value) == u.mV and float(state.value.mantissa) == 3.0
    assert (state.shape, state.dtype, state.unit) == ((), jnp.float32, u.mV)
    tree = sg.State({"V": jnp.ones(2) * u.mV, "n": 1.0})
    assert tree.shape == {"V": (2,), "n": ()} and tree.unit == {"V": u.mV, "n": None}


def test_a_declared_unit_is_read_in_plain_numbers():
    state = sg.State(0.5 * u.volt, unit=u.mV)
    assert isinstance(state.value, jax.Array) and float(state.value) == 500.0
    state.value = 2.0
    assert float(state.value) == 2.0
    state.value = 3.0 * u.volt
    assert float(state.value) == 3000.0


@pytest.mark.parametrize("how", [lambda f: f, sg.compile.jit], ids=["eager", "traced"])
def test_a_compatible_unit_is_converted(how):
    held, declared = sg.State(3.0 * u.mV), sg.State(3.0, unit=u.mV)

    def write(x):
        held.value = x
        declared.value = 2 * held.value

    how(write)(0.5 * u.volt)
    assert held.value.unit == u.mV and float(held.value.mantissa) == 500.0
    assert float(declared.value) == 1000.0 and held.dtype == jnp.float32


@pytest.mark.parametrize("how", [lambda f: f, sg.compile.jit], ids=["eager", "traced"])
@pytest.mark.parametrize(
    "first, new, message",
    [
        (3.0 * u.mV, 1.0 * u.ms, "is in mV, and is given a quantity in ms"),
        (3.0 * u.mV, 1.0, "holds a quantity in mV, and is given a plain number"),
        (3.0, 1.0 * u.ms, "holds plain numbers, and is given a quantity in ms"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_name_and_both_units(how, first, new, message):
    membrane = sg.State(first)
    named = sg.State(first, name="membrane")

    def write():
        (named if how is not sg.compile.jit else membrane).value = new

    with pytest.raises(UnitError, match=f"State 'membrane' {message}"):
        how(write)()
    assert jax.tree.leaves(membrane.value) == jax.tree.leaves(first)


def test_a_declared_unit_refuses_another_dimension():
    with pytest.raises(UnitError, match="is in mV, and is given a quantity in ms"):
        sg.State(3.0 * u.ms, unit=u.mV)


def test_a_program_holds_plain_tensors_and_the_unit_is_an_attribute_of_the_symbol():
    cell = Cell()
    program = sg.trace(cell, 1.0).program
    assert 'state @V : HiddenState<f32[3]> {unit = "mV"}' in str(program)
    assert ir.parse(str(program)) == program
    assert __file__.rsplit("/", 1)[1] in str(program) and "saiunit" not in str(program)
    assert "f32[3] mV" in str(sg.trace(cell, 1.0).signature)


def test_a_parsed_program_runs_on_states_in_its_units_only():
    cell = Cell()
    text = str(sg.trace(cell, 1.0).lower().program)
    sg.lower(ir.parse(text), states=cell).compile()(2.0)
    np.testing.assert_allclose(cell.V.value.mantissa, [2, 3, 4])
    with pytest.raises(sg.errors.CallError, match="@V is in V, and the program was made for mV"):
        sg.lower(ir.parse(text), states=Cell(u.volt))


def test_loops_gradients_and_lanes_see_the_same_numbers():
    plain, cell = sg.HiddenState(jnp.arange(3.0)), Cell()

    def step(i):
        plain.value = plain.value * 0.9 + i
        cell.V.value = cell.V.value * 0.9 + i * 0.001 * u.volt
        return plain.value, cell.V.value.to_decimal(u.mV)

    a, b = sg.compile.for_loop(step, jnp.arange(5.0))
    np.testing.assert_allclose(a, b, rtol=1e-5)

    def loss():
        return ((cell.V.value - 1 * u.mV) ** 2).sum().to_decimal(u.mV**2)

    gradient = sg.augment.grad(loss, cell.V)()
    np.testing.assert_allclose(gradient.mantissa, 2 * (np.asarray(plain.value) - 1), rtol=1e-5)
    lanes = sg.augment.vmap(lambda x: (cell.V.value * x).to_decimal(u.mV))(jnp.arange(2.0))
    np.testing.assert_allclose(lanes[1], cell.V.value.mantissa)


def test_the_unit_travels():
    cell = Cell()
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert (other.V.unit, other.g.unit) == (u.mV, u.nS)
    assert 'Quantity(ShapedArray(float32[3]), "mV")' in repr(cell)
    assert "float32[3] mV" in str(sg.nn.summary(cell))
    assert cell.V.copy().unit == u.mV


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_saved_units_are_checked(tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path, cell = tmp_path / f"cell{suffix}", Cell()
    cell(1.0)
    sg.save(path, cell)
    fresh = Cell()
    sg.load(path, fresh)
    np.testing.assert_array_equal(fresh.V.value.mantissa, cell.V.value.mantissa)
    with pytest.raises(CheckpointError, match=r"V: float32\[3\] in mV in the file, float32\[3\] in V here"):
        sg.load(path, Cell(u.volt))


def test_an_exported_program_names_the_units():
    exported = sg.export(Cell(), 1.0)
    assert "@V : HiddenState<f32[3]> in mV" in repr(exported.states)
    np.testing.assert_allclose(exported(1.0), [1, 2, 3])


def test_nothing_imports_saiunit_for_models_without_units():
    code = "import stategraph as sg, sys; n = sg.nn.init_all_states(sg.nn.LIF(1)); print('saiunit' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_plain_state_may_hold_another_structure_once_units_are_in_use():
    state = sg.State(jnp.zeros(3))
    state.value = {"a": jnp.ones(2), "b": jnp.ones(2)}
    state.value = jnp.zeros(3)
    assert state.value.shape == (3,)

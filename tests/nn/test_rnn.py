"""Recurrent cells, against their equations in NumPy."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import numbers
from tests.oracle import agree


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def linear(weights: Any, *parts: Any) -> Any:
    return np.concatenate(parts, -1) @ weights["weight"] + weights["bias"]


def vanilla(cell: Any, x: Any, h: Any) -> Any:
    return {"h": np.maximum(linear(cell.W.weight.value, x, h), 0)}


def gru(cell: Any, x: Any, h: Any) -> Any:
    r, z = np.split(sigmoid(linear(cell.Wrz.weight.value, x, h)), 2, -1)
    return {"h": (1 - z) * h + z * np.tanh(linear(cell.Wh.weight.value, x, r * h))}


def mgu(cell: Any, x: Any, h: Any) -> Any:
    f = sigmoid(linear(cell.Wf.weight.value, x, h))
    return {"h": (1 - f) * h + f * np.tanh(linear(cell.Wh.weight.value, x, f * h))}


def lstm(cell: Any, x: Any, h: Any, c: Any) -> Any:
    i, g, f, o = np.split(linear(cell.W.weight.value, x, h), 4, -1)
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
    return {"h": sigmoid(o) * np.tanh(c), "c": c}


CELLS = [(nn.VanillaRNNCell, vanilla), (nn.GRUCell, gru), (nn.MGUCell, mgu), (nn.LSTMCell, lstm)]


@pytest.mark.parametrize(("cell", "equations"), CELLS)
@pytest.mark.parametrize("batch", [None, 5])
def test_a_cell_is_its_equations(cell: Any, equations: Any, batch: int | None) -> None:
    model = cell(3, 4, b_init=nn.init.Normal(), state_init=nn.init.Normal())
    assert nn.init_all_states(model, batch_size=batch) is model
    shape = (4,) if batch is None else (batch, 4)
    values = {name: np.asarray(getattr(model, name).value) for name in model.hidden}
    assert all(value.shape == shape and value.std() > 0 for value in values.values())
    for x in numbers(6, *shape[:-1], 3):
        y = model(x)
        values = equations(model, x, **values)
        np.testing.assert_allclose(y, values["h"], rtol=2e-5, atol=2e-6)
        for name, value in values.items():
            np.testing.assert_allclose(getattr(model, name).value, value, rtol=2e-5, atol=2e-6)
            assert isinstance(getattr(model, name), sg.HiddenState)


@pytest.mark.core
@pytest.mark.parametrize(("cell", "equations"), CELLS)
def test_compiled_loops_and_gradients_are_those_of_python(cell: Any, equations: Any) -> None:
    def make() -> Any:
        sg.random.seed(0)
        model = nn.init_all_states(cell(3, 4), batch_size=2)

        def loss(xs: Any) -> Any:
            return sum(jnp.sum(model(x) ** 2) for x in xs)

        def looped(xs: Any) -> Any:
            ys = sg.compile.for_loop(model, xs)
            return ys, sg.augment.value_and_grad(loss, dict(model.states(sg.ParamState)))(xs)

        return looped, list(model.states().values())

    agree(make, (jnp.asarray(numbers(3, 2, 3)),), tolerance=1e-4, reference=False)


@pytest.mark.core
def test_both_namings_and_the_documents_calls() -> None:
    gru = nn.GRUCell(input_size=10, hidden_size=20)
    nn.init_all_states(gru, batch_size=5)
    assert gru.h.value.shape == (5, 20) and (gru.h.value == 0).all()
    assert gru.in_size == (10,) and gru.out_size == (20,) and gru.num_in == 10 and gru.num_out == 20
    assert nn.GRUCell(10, 20).Wrz.weight.value["weight"].shape == (30, 40)
    assert nn.VanillaRNNCell is nn.ValinaRNNCell and issubclass(nn.LSTMCell, nn.RNNCell)
    with pytest.raises(TypeError, match=r"num_in or input_size .*both"):
        nn.GRUCell(1, 2, input_size=1)
    with pytest.raises(TypeError, match=r"num_out or hidden_size .*neither"):
        nn.LSTMCell(1)


def test_a_cell_prints_as_in_the_documents() -> None:
    rnn = nn.ValinaRNNCell(num_in=8, num_out=16)
    nn.init_all_states(rnn, batch_size=2)
    text = repr(nn.reset_all_states(rnn))
    assert text.startswith(
        "ValinaRNNCell(\n  in_size=(8,),\n  out_size=(16,),\n  num_out=16,\n  num_in=8,\n"
        "  state_initializer=ZeroInit(),\n  activation=relu,\n  W=Linear(\n    in_size=(24,),\n    out_size=(16,),\n"
    )
    assert text.endswith("  h=HiddenState(\n    value=ShapedArray(float32[2,16])\n  )\n)")


def test_reset_keeps_the_axes_of_the_state() -> None:
    cell = nn.LSTMCell(3, 4, state_init=nn.init.Constant(2.0))
    cell.init_state(5)
    h = cell.h
    cell(numbers(5, 3))
    cell.reset_state()
    assert cell.h is h and h.shape == (5, 4) and (h.value == 2).all() and (cell.c.value == 2).all()
    cell.reset_state(batch_size=2)
    assert cell.c.shape == (2, 4)
    cell = nn.GRUCell(3, 4, state_init=jnp.arange(4.0))
    cell.init_state(2)
    assert (cell.h.value == jnp.arange(4.0)).all() and cell.h.shape == (2, 4)
    cell = nn.GRUCell(3, 4, state_init=0.5)
    cell.init_state()
    assert cell.h.value.tolist() == [0.5] * 4


def test_activations_by_name() -> None:
    cell = nn.VanillaRNNCell(3, 4, activation="softplus")
    cell.init_state()
    assert (cell(numbers(3)) > 0).all()
    assert nn.VanillaRNNCell(3, 4, activation=jnp.sin).activation is jnp.sin
    with pytest.raises(ValueError, match="'sine'"):
        nn.GRUCell(3, 4, activation="sine")


def test_what_is_wrong_is_said() -> None:
    cell = nn.GRUCell(3, 4)
    with pytest.raises(sg.errors.StateAccessError, match=r"(?s)no hidden state yet.*init_all_states"):
        cell(numbers(3))
    cell.init_state()
    with pytest.raises(ValueError, match=r"(?s)shape \(5, 3\).*shape \(4,\).*batch_size=5"):
        cell(numbers(5, 3))

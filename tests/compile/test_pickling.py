"""Compiled functions, and models that hold them, through ``pickle``, ``cloudpickle`` and ``copy``."""

from __future__ import annotations

import copy
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph.errors import PickleError
from tests.support import run_contraction_free

if find_spec("cloudpickle"):
    import cloudpickle

    BY_VALUE = [cloudpickle]
else:
    BY_VALUE = []

TOTAL = sg.State(jnp.zeros(2))


@sg.compile.jit
def add(x: Any) -> Any:
    TOTAL.value = TOTAL.value + x
    return TOTAL.value


def double(x: Any, times: int) -> Any:
    return x * 2**times


class Model(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.ones(2))
        self.compiled = sg.compile.jit(self.update)
        self.double = sg.compile.jit(double, static_argnames="times", exactness="exact")

    def update(self, x: Any) -> Any:
        self.w.value = self.w.value + x
        return self.w.value

    @sg.compile.jit
    def step(self, x: Any) -> Any:
        self.w.value = self.w.value * x
        return self.w.value


def check(model: Model, step: Any, compiled: Any, by_name: Any, double: Any) -> None:
    """What belongs together still does, and compiles here."""
    assert by_name is add
    before = TOTAL.value
    assert jnp.all(add(1.0) == before + 1)
    assert double(3.0, times=2) == 12 and double._options["exactness"] == "exact"
    start = model.w.value
    assert jnp.all(step(3.0) == start * 3) and jnp.all(model.w.value == start * 3)
    assert jnp.all(compiled(1.0) == start * 3 + 1) and jnp.all(model.w.value == start * 3 + 1)
    assert model.step == step and model.compiled is compiled


def test_another_process_compiles_what_it_is_sent(tmp_path: Path) -> None:
    model = Model()
    model.step(5.0), model.compiled(1.0), model.double(1.0, times=3)
    sent = (model, model.step, model.compiled, add, model.double)
    for pickler in (pickle, *BY_VALUE):
        (tmp_path / pickler.__name__).write_bytes(pickler.dumps(sent))
    code = (
        "import pickle, sys; from pathlib import Path; from tests.compile import test_pickling as here; "
        "[here.check(*pickle.loads(Path(file).read_bytes())) for file in sys.argv[1:]]"
    )
    found = run_contraction_free("-c", code, *map(str, tmp_path.iterdir()))
    assert found.returncode == 0, found.stderr


def test_copies_of_compiled_functions() -> None:
    assert copy.copy(add) is not add and float(copy.copy(add)(0.0)[0]) == float(TOTAL.value[0])
    model = Model()
    model.step(2.0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (
            float(other.step(3.0)[0]) == 6 and float(other.w.value[0]) == 6 and float(model.w.value[0]) == 2
        )
    both = copy.deepcopy([model, model.step])
    assert both[1] == both[0].step and both[0] is not model


def test_functions_that_no_other_process_can_import() -> None:
    local = sg.compile.jit(lambda x: x + 1)
    with pytest.raises(PickleError, match=r"(?s)lambda.*fix:.*top of a module"):
        pickle.dumps(local)
    for pickler in BY_VALUE:
        assert float(pickle.loads(pickler.dumps(local))(1.0)) == 2
    assert float(copy.deepcopy(local)(1.0)) == 2


class Renamed(sg.nn.Module):
    other = Model.step


def test_a_method_that_goes_by_another_name() -> None:
    with pytest.raises(PickleError, match="it is not the attribute 'step' of its model"):
        pickle.dumps(Renamed().other)


@pytest.mark.parametrize("copies", [pickle.dumps, copy.deepcopy, copy.copy])
def test_executables_say_what_to_keep_instead(copies: Any) -> None:
    lowered = sg.trace(double, 1.0, 2).lower()
    for stage in (lowered, lowered.compile()):
        with pytest.raises(PickleError, match=r"(?s)cannot be pickled.*fix:.*export"):
            copies(stage)


def test_traced_and_exported_programs_are_pickled() -> None:
    s = sg.State(2.0)
    traced = pickle.loads(
        pickle.dumps(sg.trace(lambda x: (setattr(s, "value", s.value * x), s.value)[1], 3.0))
    )
    compiled = traced.lower().compile()
    assert float(compiled(3.0)) == 6 and float(compiled(2.0)) == 12 and float(s.value) == 2
    exported = traced.lower().export()
    exported(2.0)
    again = pickle.loads(pickle.dumps(exported))
    assert float(again(1.0)) == float(exported(1.0)) and again.states is not exported.states


class Scaled(sg.nn.Module):
    def update(self, x: Any) -> Any:
        return x * sg.environ.get_dt() + (1.0 if "gain" in sg.environ.all() else 0.0)


def test_settings_that_a_program_depends_on_go_with_it() -> None:
    model = Scaled()
    with sg.environ.context(dt=0.5):
        traced = pickle.loads(pickle.dumps(sg.trace(model, 3.0)))
        compiled = traced.lower().compile()
        assert float(compiled(3.0)) == 1.5
    with sg.environ.context(dt=0.25), pytest.raises(sg.errors.CallError, match="or setting"):
        compiled(3.0)
    with pytest.raises(PickleError, match="EnvironmentState"):
        pickle.dumps(sg.environ.EnvironmentState())


def test_compiled_models() -> None:
    for again in (
        pickle.loads(pickle.dumps(sg.compile.jit(Scaled()))),
        copy.deepcopy(sg.compile.jit(Scaled())),
    ):
        with sg.environ.context(dt=2.0):
            assert float(again(3.0)) == 6

"""State: a mutable box outside of traces."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import StateTypeError

KINDS = [
    sg.State,
    sg.ParamState,
    sg.ShortTermState,
    sg.LongTermState,
    sg.HiddenState,
    sg.BatchState,
    sg.DelayState,
    sg.FakeState,
]


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_holds_a_value_and_says_what_it_is(kind: Any) -> None:
    s = kind(jnp.ones(2), name="x")
    assert isinstance(s, sg.State) and s.name == "x"
    assert repr(s) == f"{kind.__name__}(\n  value=Array([1., 1.], dtype=float32),\n  name='x'\n)"
    s.value += 1
    assert np.allclose(s.value, 2)
    program = sg.trace(lambda: s.value).program
    assert program.states["s"].kind == kind.__name__


@pytest.mark.core
def test_values_become_strong_jax_arrays() -> None:
    for value, dtype in [
        (1, "int32"),
        (1.0, "float32"),
        (True, "bool"),
        (1j, "complex64"),
        (np.float64(2), "float32"),
        (np.ones(2), "float32"),
    ]:
        s = sg.State(value)
        assert isinstance(s.value, jax.Array) and str(s.value.dtype) == dtype and not s.value.weak_type
    assert sg.State(sg.State(3.0)).value == 3


def test_numpy_arrays_are_copied() -> None:
    given = np.zeros(3, np.float32)
    s = sg.State(given)
    given[0] = 5
    assert float(s.value[0]) == 0
    s.value = given
    given[1] = 7
    assert float(s.value[1]) == 0


def test_pytree_values_keep_their_structure() -> None:
    s = sg.State({"a": [1.0, (2, None)], "b": jnp.ones(3)})
    assert s.value["a"][1][1] is None and s.shape == {"a": [(), ((), None)], "b": (3,)}
    assert s.dtype["b"] == jnp.float32 and s.size == 5 and s.nbytes == 20
    s.value = None
    assert s.value is None and s.size == 0
    s.value = []
    assert s.value == []


@pytest.mark.core
def test_writes_of_another_type_are_legal_outside_of_loops() -> None:
    s = sg.State(jnp.zeros(3))
    s.value = {"a": 1.0}
    s.value = [s.value["a"], jnp.zeros((2, 2), jnp.int8)]
    assert s.value[1].dtype == jnp.int8


def test_typed_keys_are_values() -> None:
    s = sg.State(jax.random.key(0))
    key = jax.random.key_data(s.value)
    assert "key" in repr(s)
    again = pickle.loads(pickle.dumps(s))
    assert np.array_equal(jax.random.key_data(again.value), key)

    @sg.compile.jit
    def draw() -> Any:
        s.value, sub = jax.random.split(s.value)
        return jax.random.uniform(sub)

    first, second = draw(), draw()
    _, sub1 = jax.random.split(jax.random.key(0))
    assert float(first) == float(jax.random.uniform(sub1)) and float(first) != float(second)


def test_tags_and_metadata() -> None:
    s = sg.State(1.0, "n", tag="a", unit="mV", trained=True)
    assert s.name == "n" and s.tag == {"a"} and s.metadata == {"unit": "mV", "trained": True}
    s.add_tag("b")
    assert s.tag == {"a", "b"}
    t = sg.State(1.0, tag=["x", "y"])
    assert t.tag == {"x", "y"} and "tag=['x', 'y']" in repr(t)
    assert "unit='mV'" in repr(s)
    t = sg.State(1.0)
    t.add_tag("z")
    assert t.tag == {"z"}


def test_a_state_is_made_from_what_stands_for_its_first_value() -> None:
    made = sg.HiddenState.init(sg.nn.init.Constant(2.0), (3,), batch_size=4, tag="h")
    assert type(made) is sg.HiddenState and made.tag == {"h"}
    np.testing.assert_array_equal(made.value, np.full((4, 3), 2.0))
    np.testing.assert_array_equal(sg.State.init(np.arange(3.0), 3).value, np.arange(3.0))


def test_whether_a_state_can_be_written_can_be_asked() -> None:
    s = sg.State(1.0)

    def ask(x: Any) -> Any:
        s.check_valid_trace(lambda: "not here")
        return x + s.value

    assert ask(1.0) == sg.compile.jit(ask)(1.0) == 2.0
    with pytest.raises(sg.TraceContextError, match="not here"):
        jax.jit(ask)(1.0)
    with pytest.raises(sg.TraceContextError, match="not here"):
        jax.grad(lambda x: ask(x))(1.0)
    lost: list[Any] = []
    sg.compile.jit(lambda: lost.append(sg.State(jnp.zeros(2))))()
    with pytest.raises(sg.TraceContextError, match="lost it"):
        lost[0].check_valid_trace(lambda: "lost it")
    with sg.check_state_jax_tracer(), pytest.raises(sg.TraceContextError):
        jax.jit(lambda x: setattr(s, "value", x))(1.0)


def test_what_only_another_library_has_is_named_with_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"(?s)no stack level.*stategraph\.trace"):
        sg.State(1.0).stack_level
    with pytest.raises(AttributeError, match=r"(?s)no StateTraceStack.*stategraph\.trace"):
        sg.StateTraceStack
    with pytest.raises(AttributeError, match="no attribute 'StateTraceStak'"):
        sg.StateTraceStak


def test_repr_is_stable_and_free_of_addresses() -> None:
    s = sg.State({"w": jnp.zeros((2, 3)), "b": [jnp.ones(1)]})
    assert "0x" not in repr(s) and repr(s).startswith("State(\n  value={'b': [Array([1.]")
    assert repr(sg.State(jnp.zeros((100, 100)))) == "State(\n  value=ShapedArray(float32[100,100])\n)"
    assert repr(s) == repr(copy.deepcopy(s))
    seen: list[str] = []
    sg.trace(lambda: seen.append(repr(s)))
    sg.trace(lambda: (s.value, seen.append(repr(s))))
    sg.trace(lambda: seen.append(repr(sg.State(1.0))))
    assert all("0x" not in text for text in seen) and seen[2] == "State(\n  value=ShapedArray(float32[])\n)"
    assert "<pre>" in s._repr_html_()


@pytest.mark.core
def test_a_subclass_with_its_own_constructor_and_attributes() -> None:
    class Delay(sg.DelayState[Any]):
        def __init__(self, value: Any, steps: int) -> None:
            super().__init__(value)
            self.steps = steps

        def push(self, x: Any) -> None:
            self.value = jnp.concatenate([self.value[1:], jnp.asarray([x])])

    d = Delay(jnp.zeros(3), 3)
    step = sg.compile.jit(lambda x: d.push(x))
    for k in range(5):
        step(float(k))
    assert np.allclose(d.value, [2, 3, 4])
    again = copy.deepcopy(d)
    assert type(again) is Delay and again.steps == 3 and np.allclose(again.value, [2, 3, 4])
    assert sg.trace(lambda: d.value).program.states["d"].kind == "Delay"


def test_pickling_a_subclass_from_a_module() -> None:
    s = Tagged(jnp.ones(2), "t")
    s.extra = [1, 2]
    again = pickle.loads(pickle.dumps(s))
    assert type(again) is Tagged and again.extra == [1, 2] and np.allclose(again.value, 1)


class Tagged(sg.State[Any]):
    extra: list[int]


def test_states_compare_and_hash_by_identity() -> None:
    a, b = sg.State(1.0), sg.State(1.0)
    assert a != b and len({a, b, a}) == 2 and {a: 1}[a] == 1


def test_a_state_says_where_it_was_created() -> None:
    s = sg.State(1.0)
    assert str(s.source_location.file).endswith("test_state.py") and s.source_location.line > 0


def test_objects_are_values_outside_of_programs() -> None:
    s = sg.State("text")
    assert s.value == "text" and "text" in repr(s)
    s.value = object
    with pytest.raises(StateTypeError):
        sg.compile.jit(lambda: s.value)()


def test_setting_a_state_to_its_own_value_changes_nothing() -> None:
    s = sg.State(jnp.ones(3))
    step = sg.compile.jit(lambda: setattr(s, "value", s.value * 2))
    step()
    s.value = s.value
    step()
    s.value = s.value
    step()
    assert np.allclose(s.value, 8) and step.trace_count == 1


def test_numpy_functions_take_values_and_refuse_states() -> None:
    s = sg.State(jnp.ones(3))
    assert np.sum(s.value) == 3
    with pytest.raises(TypeError):
        np.ones(3) + s

"""``compile.jit``: when it traces, what it notices, how arguments are treated."""

from __future__ import annotations

import copy
import functools
import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import TraceError
from tests.compile.models import Net

XS = jnp.arange(4, dtype=jnp.float32) + 1


# -------------------------------------------------------------------------------------------------- retracing


@pytest.mark.core
def test_calls_with_the_same_types_trace_once() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x))
    for k in range(5):
        step(float(k))
    assert step.trace_count == 1 and int(net.count.value) == 5


@pytest.mark.core
def test_alternating_shapes_do_not_retrace() -> None:
    s = sg.State(jnp.zeros(3))
    step = sg.compile.jit(lambda x: (setattr(s, "value", s.value + x.sum()), x * 2)[1])
    for _ in range(4):
        for n in (1, 2, 3):
            assert step(jnp.ones(n)).shape == (n,)
    assert step.trace_count == 3
    assert np.allclose(s.value, 4 * 6)


def test_alternating_state_types_do_not_retrace() -> None:
    s = sg.State(jnp.zeros(2))
    step = sg.compile.jit(lambda: s.value.sum())
    for _ in range(3):
        for n in (2, 5):
            s.value = jnp.ones(n)
            assert float(step()) == n
        s.value = {"a": jnp.ones(3)}
        with pytest.raises(AttributeError):
            step()
    assert step.trace_count == 2 + 3


def test_alternating_structures_of_arguments_and_states_do_not_retrace() -> None:
    s = sg.State({"a": jnp.ones(2)})
    step = sg.compile.jit(lambda t: sum(jax.tree.leaves(t)) + sum(x.sum() for x in jax.tree.leaves(s.value)))
    for _ in range(3):
        s.value = {"a": jnp.ones(2)}
        assert float(step({"p": 1.0})) == 3 and float(step([1.0, 2.0])) == 5
        s.value = [jnp.ones(2), jnp.ones(2)]
        assert float(step({"p": 1.0})) == 5 and float(step([1.0, 2.0])) == 7
    assert step.trace_count == 4


def test_weak_and_strong_arguments_are_different_programs_as_in_jax() -> None:
    step = sg.compile.jit(lambda x: x * jnp.bfloat16(2))
    reference = jax.jit(lambda x: x * jnp.bfloat16(2))
    for x in (1.0, jnp.float32(1), 1, np.float32(1), True):
        assert step(x).dtype == reference(x).dtype


@pytest.mark.core
def test_an_attribute_set_every_step_does_not_retrace() -> None:
    net = Net()

    @sg.compile.jit
    def step(x: Any) -> Any:
        net.unused_inside = 1
        return net(x)

    for k in range(6):
        net.steps = k
        net.note = [k]
        other = Net()
        other.w = sg.State(1.0)
        step(1.0)
    assert step.trace_count == 1


@pytest.mark.core
def test_setting_an_attribute_that_was_read_is_noticed_and_its_old_value_found_again() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x).sum())
    seen = []
    for rate in (0.5, 1.0, 0.5, 1.0):
        net.rate = rate
        seen.append(float(step(2.0)))
    assert seen == [21, 24, 21, 24]
    assert step.trace_count == 2


@pytest.mark.core
def test_a_replaced_state_is_noticed() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x))
    step(1.0)
    old = net.count
    net.count = sg.State(100)
    step(1.0)
    assert int(net.count.value) == 101 and int(old.value) == 1
    net.w = sg.ParamState(jnp.full(3, 5.0))
    assert np.allclose(step(1.0), 2.5 + 6)


@pytest.mark.core
@pytest.mark.parametrize("change", ["append", "item", "dict item", "dict new", "delete", "tuple", "nested"])
def test_changes_of_lists_dicts_and_tuples_of_nodes_are_noticed(change: str) -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x).sum())
    assert float(step(2.0)) == 3 + 18
    if change == "append":
        net.layers.append(sg.State(10.0))
    elif change == "item":
        net.layers[0] = sg.State(11.0)
    elif change == "dict item":
        net.table["a"] = sg.State(13.0)
    elif change == "dict new":
        net.table = {"a": sg.State(13.0)}
    elif change == "delete":
        del net.layers[0]
    elif change == "tuple":
        net.sizes = (5, 2)
    else:
        net.layers = [*net.layers, sg.State(10.0)]
    expected = {
        "append": 16,
        "item": 16,
        "dict item": 16,
        "dict new": 16,
        "delete": 5,
        "tuple": 30,
        "nested": 16,
    }[change]
    assert float(step(2.0)) == 3 + 3 * expected


def test_a_deleted_attribute_falls_back_to_the_class_and_is_noticed() -> None:
    class Model(sg.Node):
        rate = 7.0

    model = Model()
    step = sg.compile.jit(lambda: jnp.float32(model.rate))
    assert float(step()) == 7
    model.rate = 8.0
    assert float(step()) == 8
    del model.rate
    assert float(step()) == 7


def test_equal_tuples_assigned_every_step_do_not_retrace() -> None:
    net = Net()
    step = sg.compile.jit(lambda x: net(x))
    for _ in range(3):
        net.sizes = tuple([1, 2])
        net.rate = float("0.5")
        step(1.0)
    assert step.trace_count == 1


def test_one_and_true_and_zero_and_minus_zero_are_different_settings() -> None:
    net = Net()
    net.rate = 0.0
    step = sg.compile.jit(
        lambda: jnp.copysign(1.0, jnp.float32(net.rate)) if isinstance(net.rate, float) else net.rate
    )
    assert float(step()) == 1
    net.rate = -0.0
    assert float(step()) == -1
    net.rate = 1
    assert step().dtype == jnp.int32
    net.rate = True
    assert step().dtype == jnp.bool_
    net.layers = [1]
    listed = sg.compile.jit(lambda: jnp.asarray(net.layers[0]).dtype.itemsize)
    assert int(listed()) == 4
    net.layers[0] = True
    assert int(listed()) == 1


def test_arrays_in_lists_of_nodes_may_be_replaced() -> None:
    class Model(sg.Node):
        def __init__(self) -> None:
            self.arrays = [np.ones(3), jnp.ones(2)]

    model = Model()
    step = sg.compile.jit(lambda: model.arrays[0].sum() + model.arrays[1].sum())
    assert float(step()) == 5
    model.arrays[0] = np.full(3, 2.0)
    assert float(step()) == 8
    model.arrays[1] = jnp.full(2, 3.0)
    assert float(step()) == 12


@pytest.mark.core
def test_states_found_by_walking_the_model_are_noticed() -> None:
    """``model.states()`` in the traced code looks at every attribute without reading one by name."""

    class Model(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = sg.ParamState(1.0)
            self.sub = Net()

    model = Model()
    step = sg.compile.jit(lambda: sum(s.value.sum() for s in model.states(sg.ParamState).values()))
    assert float(step()) == 4
    model.b = sg.ParamState(10.0)
    assert float(step()) == 14
    model.sub.extra = [sg.ParamState(100.0)]
    assert float(step()) == 114
    model.sub.extra.append(sg.ParamState(1000.0))
    assert float(step()) == 1114
    count = step.trace_count
    for k in range(3):
        model.steps = k
        model.sub.note = str(k)
        step()
    assert step.trace_count == count


def test_a_model_given_as_argument_is_static_by_identity() -> None:
    @sg.compile.jit
    def step(net: Any, x: Any) -> Any:
        return net(x)

    one, two = Net(), Net()
    for _ in range(3):
        step(one, 1.0)
        step(two, x=1.0)
    assert step.trace_count == 2
    assert int(one.count.value) == int(two.count.value) == 3
    program = step.trace(one, 1.0).program
    assert "net.w" in program.states


@pytest.mark.core
def test_a_jitted_method_is_compiled_per_object() -> None:
    class Model(Net):
        @sg.compile.jit
        def step(self, x: Any) -> Any:
            return self.update(x)

        @sg.compile.jit(static_argnames="twice", donate_argnums=1)
        def scaled(self, x: Any, twice: bool) -> Any:
            return self.w.value * x * (2 if twice else 1)

    one, two = Model(), Model()
    assert "layers[0]" in one.step.trace(1.0).program.states
    for _ in range(3):
        one.step(1.0)
    two.step(1.0)
    assert int(one.count.value) == 3 and int(two.count.value) == 1
    assert one.step.trace_count == 2  # .trace() above is one
    assert np.allclose(one.scaled(jnp.ones(3), True), 2) and np.allclose(
        one.scaled(jnp.ones(3), twice=False), 1
    )


def test_a_compiled_method_keeps_its_object_as_bound_methods_do() -> None:
    traced = []

    class Model(Net):
        @sg.compile.jit
        def step(self, x: Any) -> Any:
            traced.append(x)
            return self.update(x)

    model = Model()
    seen = weakref.ref(model)
    step = model.step
    assert step == model.step and hash(step) == hash(model.step) and step != Model().step
    step(1.0)
    del model
    gc.collect()
    assert step.__self__ is seen() and np.allclose(copy.copy(step)(1.0), step(1.0)) and len(traced) == 2
    del step
    gc.collect()
    assert seen() is None
    assert Model().step(1.0).shape == (3,) and len(traced) == 3

    model = Model()
    for _ in range(3):
        sg.compile.for_loop(model.step, jnp.ones(4))
    assert len(traced) == 4, "the loop knows the method again"


# -------------------------------------------------------------------------------------------------- arguments


@pytest.mark.core
@pytest.mark.parametrize(
    "declared", [{"static_argnums": 1}, {"static_argnames": "mode"}, {"static_argnums": -2}]
)
def test_static_arguments_by_position_and_name_follow_jax(declared: dict[str, Any]) -> None:
    def f(x: Any, mode: str, scale: float = 1.0) -> Any:
        assert isinstance(mode, str)
        return x * scale if mode == "scale" else x + scale

    ours, theirs = sg.compile.jit(f, **declared), jax.jit(f, **declared)
    for args, kwargs in [
        ((2.0, "scale"), {}),
        ((2.0, "add"), {}),
        ((2.0,), {"mode": "scale", "scale": 3.0}),
        ((2.0, "add", 3.0), {}),
    ]:
        if declared == {"static_argnums": -2} and len(args) < 3:
            continue  # counted from the end of the arguments that are given
        assert float(ours(*args, **kwargs)) == float(theirs(*args, **kwargs))
    count = ours.trace_count
    ours(5.0, "add", 1.0)
    assert ours.trace_count == count


def test_static_arguments_must_be_hashable_and_exist() -> None:
    f = sg.compile.jit(lambda x, sizes: x * len(sizes), static_argnames="sizes")
    with pytest.raises(TraceError, match="not hashable"):
        f(1.0, [1, 2])
    assert float(f(2.0, (1, 2))) == 4
    with pytest.raises(ValueError, match="does not exist"):
        sg.compile.jit(lambda x: x, static_argnames="y")
    with pytest.raises(ValueError, match="does not exist"):
        sg.compile.jit(lambda x: x, static_argnums=3)
    with pytest.raises(ValueError, match="static and donated"):
        sg.compile.jit(lambda x: x, static_argnums=0, donate_argnames="x")


def test_static_values_of_different_types_are_different_programs() -> None:
    f = sg.compile.jit(lambda n: jnp.asarray(n).dtype.name == "bool", static_argnums=0)
    assert not bool(f(1)) and bool(f(True)) and not bool(f(1.0))


@pytest.mark.core
@pytest.mark.parametrize("declared", [{"donate_argnums": 0}, {"donate_argnames": "x"}])
def test_donated_arguments_are_taken_over_and_others_are_not(declared: dict[str, Any]) -> None:
    s = sg.State(jnp.zeros(4))

    def f(x: Any, y: Any) -> Any:
        s.value = s.value + y
        return x * 2 + y

    step = sg.compile.jit(f, **declared)
    y = jnp.ones(4)
    for call in (lambda x: step(x, y), lambda x: step(x=x, y=y), lambda x: step(x, y=y)):
        x = jnp.full(4, 3.0)
        assert np.allclose(call(x), 7)
        assert x.is_deleted() and not y.is_deleted()
    assert np.allclose(s.value, 3)


def test_keyword_arguments_defaults_and_varargs() -> None:
    def f(x: Any, *rest: Any, scale: Any = 2.0, **named: Any) -> Any:
        return (x + sum(rest)) * scale + sum(named.values())

    ours, theirs = sg.compile.jit(f), jax.jit(f)
    assert float(ours(1.0)) == float(theirs(1.0))
    assert float(ours(1.0, 2.0, 3.0, scale=4.0, a=5.0)) == float(theirs(1.0, 2.0, 3.0, scale=4.0, a=5.0))
    assert float(ours(1.0, b=1.0, a=2.0)) == 5.0
    assert ours.trace(1.0, 2.0, scale=3.0, a=4.0).program.argument_names == ["x", "rest[0]", "a", "scale"]


def test_arguments_keep_their_names_beside_static_and_donated_ones() -> None:
    @functools.partial(sg.compile.jit, static_argnums=(1,), donate_argnums=(2,))
    def f(x: Any, n: int, y: Any, *rest: Any, k: Any = 2.0) -> Any:
        return x * n + y + sum(rest) * k

    assert f.trace(1.0, 3, 1.0, 2.0, k=4.0).program.argument_names == ["x", "y", "rest[0]", "k"]


def test_an_argument_that_is_no_array_is_an_error_with_the_fix() -> None:
    f = sg.compile.jit(lambda x: x)
    with pytest.raises(TraceError, match="static_argnums"):
        f("text")
    with pytest.raises(TraceError, match="static_argnums"):
        f(object())
    assert f(None) is None


def test_pytree_arguments_and_results_keep_their_structure() -> None:
    from collections import namedtuple

    Point = namedtuple("Point", "x y")
    s = sg.State(Point(jnp.zeros(2), {"k": [jnp.ones(1)]}))

    @sg.compile.jit
    def f(p: Any) -> Any:
        s.value = Point(s.value.x + p.x, s.value.y)
        return {"p": p, "s": s.value, "none": None, "t": (p.y,)}

    out = f(Point(jnp.ones(2), 3.0))
    assert isinstance(out["p"], Point) and out["none"] is None and isinstance(out["t"], tuple)
    assert isinstance(s.value, Point) and np.allclose(s.value.x, 1)
    f(Point(jnp.ones(2), 3.0))
    assert np.allclose(s.value.x, 2) and f.trace_count == 1

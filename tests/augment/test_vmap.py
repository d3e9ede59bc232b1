"""``augment.vmap`` and ``map``: against the loop over lanes in Python, and ``jax.vmap`` of pure functions."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import BatchAxisError, StateAccessError, StateGraphError, StateTypeError
from stategraph.passes.manager import PassManager
from tests.oracle import Made, agree
from tests.support import roundtrip

vmap, grad = sg.augment.vmap, sg.augment.grad
XS = jnp.arange(3, dtype=jnp.float32) + 1
GRID = jnp.arange(6, dtype=jnp.float32).reshape(3, 2)


def close(a: Any, b: Any) -> bool:
    la, lb = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(la) == len(lb) and all(
        np.shape(x) == np.shape(y) and np.allclose(x, y, rtol=1e-5) for x, y in zip(la, lb, strict=True)
    )


def test_names_of_mesh_axes_are_names() -> None:
    for wrong in (0, (), ["i", 1]):
        with pytest.raises(TypeError, match=r"spmd_axis_name is .*; give the name of a mesh axis"):
            vmap(lambda x: x, spmd_axis_name=wrong)
        with pytest.raises(TypeError, match="spmd_axis_name"):
            sg.augment.vmap_new_states(lambda x: x, spmd_axis_name=wrong)
        with pytest.raises(TypeError, match="spmd_axis_name"):
            sg.nn.Map(sg.nn.Linear(2, 3), 4, spmd_axis_name=wrong)


WAYS = ("eager", "jit", "disable_jit", "foreign")


def run(way: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Eagerly (compiled and cached), inside jit, as a Python loop over lanes, or inside a JAX trace."""
    if way == "eager":
        return call(*args, **kwargs)
    if way == "jit":
        return sg.compile.jit(lambda *a, **k: call(*a, **k))(*args, **kwargs)
    if way == "foreign":
        return jax.jit(lambda *a, **k: call(*a, **k))(*args, **kwargs)
    with jax.disable_jit():
        return call(*args, **kwargs)


# ------------------------------------------------------------------------------------------------------- axes


@pytest.mark.core
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("in_axes", "out_axes"),
    [
        (0, 0),
        ((0, None), 0),
        ((1, 0), 1),
        ((-1, 0), -1),
        ([0, 0], (0, 1)),
        ((None, 0), (0, -1)),
        ((0, {"a": 0, "b": None}), 0),
        ((0, {"a": 0, "b": None}), (-2, {"s": 0})),
    ],
)
def test_axes_are_those_of_jax(way: str, in_axes: Any, out_axes: Any) -> None:
    shared = sg.State(2.0)
    tree = isinstance(in_axes, tuple) and isinstance(in_axes[1], dict)

    def pure(x: Any, y: Any, k: Any) -> Any:
        z = y["a"] * y["b"].sum() if tree else y
        return x * k + jnp.sum(z), {"s": jnp.outer(x, x) + jnp.sum(z)}

    def stateful(x: Any, y: Any) -> Any:
        return pure(x, y, shared.value)

    n = 3
    x = jnp.arange(6.0).reshape((2, n) if in_axes in ((1, 0), (-1, 0)) else (n, 2))
    y: Any = {"a": XS, "b": GRID} if tree else XS
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    assert close(
        run(way, vmap(stateful, in_axes, out_axes), x, y),
        jax.vmap(lambda a, b: pure(a, b, 2.0), in_axes, out_axes)(x, y),
    )


@pytest.mark.parametrize("way", WAYS)
def test_keyword_arguments_are_mapped_along_their_first_axis(way: str) -> None:
    gain = sg.State(3.0)
    assert close(
        run(way, vmap(lambda x, *, y: gain.value * x + y.sum(), in_axes=(None,)), 2.0, y=GRID),
        6 + GRID.sum(1),
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_result_that_is_the_same_in_every_lane_comes_once(way: str) -> None:
    gain = sg.State(3.0)
    one, many = run(way, vmap(lambda x: (gain.value * 2, x), out_axes=(None, 0)), XS)
    assert close(one, jnp.float32(6)) and close(many, XS)


@pytest.mark.parametrize("way", WAYS)
def test_a_result_that_differs_cannot_come_once(way: str) -> None:
    with pytest.raises((StateGraphError, ValueError), match="out_axes"):
        run(way, vmap(lambda x: x, out_axes=None), XS)


@pytest.mark.parametrize("way", WAYS)
def test_axis_size_makes_lanes_without_arguments(way: str) -> None:
    gain = sg.State(3.0)
    assert close(run(way, vmap(lambda: gain.value, axis_size=4)), jnp.full(4, 3.0))


def test_no_lanes() -> None:
    s = sg.State(jnp.zeros((0, 2)))
    assert vmap(lambda x: x + s.value, in_states=s)(jnp.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize(
    ("make", "args", "error", "text"),
    [
        (lambda f: vmap(f, axis_size=2), (XS,), ValueError, "different numbers of lanes"),
        (lambda f: vmap(f, in_axes=None), (XS,), ValueError, "axis_size"),
        (lambda f: vmap(f, in_axes=(0, 0)), (XS,), TypeError, "in_axes has 2 entries"),
        (lambda f: vmap(f, in_axes=1), (XS,), ValueError, "axis 1"),
        (lambda f: vmap(f), (2.0,), ValueError, "give None"),
        (lambda f: vmap(f, out_axes=2), (XS,), ValueError, "out_axes says axis 2"),
        (lambda f: vmap(f, in_axes=("a",)), (XS,), TypeError, "an axis is an int"),
        (lambda f: vmap(f, isolated=True, out_states=sg.State(0.0)), (XS,), ValueError, "isolated"),
        (lambda f: vmap(f, axis_name=3), (XS,), TypeError, "axis_name"),
        (lambda f: vmap(3), (XS,), TypeError, "needs a function"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said(make: Any, args: Any, error: Any, text: str) -> None:
    for context in (jax.disable_jit(False), jax.disable_jit()):
        with context, pytest.raises(error, match=text):
            make(lambda x: x * 1.0)(*args)


# ------------------------------------------------------------------------------------------------------ State


class Cell(sg.nn.Module):
    """A neuron: shared weight, its own potential, a counter."""

    def __init__(self, lanes: int = 3) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.array([0.5, -1.0]))
        self.v = sg.ShortTermState(jnp.zeros((lanes, 2)))
        self.trace = sg.ShortTermState({"a": jnp.ones((lanes,)), "b": jnp.zeros((lanes, 4))})
        self.count = sg.State(0)

    def update(self, x: Any) -> Any:
        self.v.value = self.v.value * 0.9 + self.w.value * x
        held = self.trace.value
        self.trace.value = {"a": held["a"] + x, "b": held["b"] + self.v.value.sum()}
        self.count.value += 1
        return self.v.value.sum() + held["a"]


def states_of(cell: Cell) -> list[Any]:
    return [cell.w, cell.v, cell.trace, cell.count]


SELECTIONS = {
    "list": lambda cell: [cell.v, cell.trace],
    "filter": lambda cell: sg.ShortTermState,
    "axes": lambda cell: {0: [cell.v, cell.trace]},
    "mapping": lambda cell: {"v": cell.v, "t": cell.trace},
    "predicate": lambda cell: lambda path, state: path[-1] in ("v", "trace"),
}


@pytest.mark.core
@pytest.mark.parametrize("how", SELECTIONS)
def test_mapped_states_behave_as_in_a_loop_over_lanes(how: str) -> None:
    def make() -> Made:
        cell = Cell()
        return vmap(cell.update, in_states=SELECTIONS[how](cell)), states_of(cell)

    agree(make, (XS,), (XS * 2,))


def test_mapped_states_equal_jax_on_pure_functions() -> None:
    cell = Cell()
    out = vmap(cell.update, in_states=sg.ShortTermState)(XS)

    def pure(v: Any, t: Any, x: Any) -> Any:
        v = v * 0.9 + jnp.array([0.5, -1.0]) * x
        return v.sum() + t["a"], v, {"a": t["a"] + x, "b": t["b"] + v.sum()}

    expected = jax.vmap(pure)(jnp.zeros((3, 2)), {"a": jnp.ones(3), "b": jnp.zeros((3, 4))}, XS)
    assert close((out, cell.v.value, cell.trace.value), expected) and int(cell.count.value) == 1


@pytest.mark.parametrize(("start", "end"), list(itertools.product((0, 1, -1), (None, 0, 1, -1))))
def test_axes_of_states(start: int, end: int | None) -> None:
    def make() -> Made:
        s = sg.State(jnp.arange(6.0).reshape((3, 2) if start == 0 else (2, 3)))

        def f(x: Any) -> Any:
            s.value = s.value * x
            return s.value.sum()

        return vmap(f, in_states={start: s}, out_states=None if end is None else {end: s}), [s]

    agree(make, (XS,))


def test_a_kept_state_gains_an_axis() -> None:
    def make() -> Made:
        s, t = sg.State(0.0), sg.State(jnp.zeros(2))

        def f(x: Any) -> Any:
            s.value = s.value + x
            t.value = t.value + x
            return s.value

        return vmap(f, out_states={0: s, -1: [t]}), [s, t]

    agree(make, (XS,))
    f, (s, t) = make()
    f(XS)
    assert s.value.shape == (3,) and t.value.shape == (2, 3)


def test_a_kept_state_that_every_lane_overwrites_can_be_written_again_and_again() -> None:
    def make() -> Made:
        s = sg.State(jnp.zeros(3))

        def lane(x: Any) -> None:
            s.value = x * 2

        f = vmap(lane, out_states=s)

        def many(xs: Any) -> Any:
            sg.compile.for_loop(f, jnp.stack([xs, xs + 1]))
            f(xs)
            return s.value

        return many, [s]

    agree(make, (XS,))


def test_a_lane_that_writes_back_what_it_read_is_kept_too() -> None:
    def make() -> Made:
        s = sg.State(1.0)

        def lane(x: Any) -> Any:
            s.value = s.value
            return x

        return vmap(lane, out_states=s), [s]

    agree(make, (XS,))


def test_a_shared_state_is_written_once() -> None:
    def make() -> Made:
        s = sg.State(1.0)

        def lane(x: Any) -> Any:
            s.value = s.value * 2
            return s.value + x

        return vmap(lane), [s]

    agree(make, (XS,), (XS,))


def test_a_shared_state_may_change_its_type() -> None:
    def make() -> Made:
        s = sg.State(1.0)

        def lane(x: Any) -> Any:
            s.value = jnp.ones(4)
            return x

        return vmap(lane), [s]

    agree(make, (XS,))


@pytest.mark.parametrize("way", ["eager", "jit", "disable_jit"])
def test_undeclared_states_that_differ_are_one_error_with_the_line_to_paste(way: str) -> None:
    cell = Cell()
    a, b = sg.State(0.0), sg.State(0.0)

    def lane(x: Any) -> Any:
        a.value, b.value = x, x * 2
        cell.count.value += 1
        return x

    with pytest.raises(StateAccessError) as caught:
        run(way, vmap(lane), XS)
    text = str(caught.value)
    assert "a and b are written" in text and "out_states={0: [a, b]}" in text and "test_vmap.py" in text
    assert "count" not in text and float(a.value) == 0 and int(cell.count.value) == 0


class Adder(sg.nn.Module):
    def __init__(self) -> None:
        self.h = sg.State(0.0)

    def update(self, x: Any) -> Any:
        self.h.value = self.h.value + x
        return x


class Owner(sg.nn.Module):
    def __init__(self) -> None:
        self.net = Adder()

    def lanes(self) -> Any:
        return vmap(self.net.update)


def undeclared(way: str, call: Callable[..., Any]) -> str:
    """The message of the error; ``jitted`` compiles the mapped function itself."""
    with pytest.raises(BatchAxisError) as caught:
        if way == "jitted":
            sg.compile.jit(call)(XS)
        else:
            run(way, call, XS)
    return str(caught.value)


@pytest.mark.core
@pytest.mark.parametrize("way", [*WAYS, "jitted"])
def test_undeclared_states_have_the_name_under_which_the_caller_knows_the_model(way: str) -> None:
    net = Adder()
    bound = functools.partial(net.update)
    for lanes in (vmap(net), vmap(net.update), vmap(bound), vmap(lambda x: net.update(x))):
        text = undeclared(way, lanes)
        assert text.startswith("net.h is written") and "out_states={0: [net.h]};" in text
    assert float(net.h.value) == 0
    line = text.split("out_states=")[1].split(";")[0]
    vmap(net, out_states=eval(line))(XS)
    assert close(net.h.value, XS)


def test_undeclared_states_of_a_model_that_no_variable_holds_say_what_the_name_stands_for() -> None:
    for way in ("eager", "jitted", "disable_jit"):
        assert "out_states={0: [self.net.h]};" in undeclared(way, Owner().lanes())
        text = undeclared(way, vmap(Adder()))
        assert "out_states={0: [model.h]} (where model is the Adder that is mapped);" in text


def test_an_undeclared_state_that_has_no_name_is_told_by_its_line() -> None:
    class Plain:
        def __init__(self) -> None:
            self.v = sg.State(0.0)

    plain = Plain()

    def lane(x: Any) -> Any:
        plain.v.value = x
        return x

    text = undeclared("eager", vmap(lane))
    assert "out_states={0: [v]} (where v is the State created at" in text and "test_vmap.py" in text


@pytest.mark.parametrize("outer", ["loop", "lanes", "grad"])
def test_undeclared_states_have_that_name_in_what_stands_around_the_lanes(outer: str) -> None:
    net = Adder()
    call = {
        "loop": lambda xs: sg.compile.for_loop(vmap(net), xs[None]),
        "lanes": lambda xs: vmap(vmap(net))(xs[None]),
        "grad": grad(lambda xs: vmap(net)(xs).sum()),
    }[outer]
    assert "out_states={0: [net.h]};" in undeclared("jitted", call)


@pytest.mark.parametrize("way", ["eager", "jit", "disable_jit"])
def test_slices_of_a_batch_that_leave_different_values_are_told_what_map_can_do(way: str) -> None:
    net = Adder()
    for call in (
        lambda xs: sg.augment.map(net, xs, batch_size=3),
        lambda xs: sg.augment.map(lambda x: net.update(x), xs, batch_size=3),
    ):
        text = undeclared(way, call)
        assert text.startswith("net.h is written inside augment.map(..., batch_size=)")
        assert (
            "leave out batch_size" in text
            and "augment.vmap over all of them: out_states={0: [net.h]}" in text
        )
        assert "isolated" not in text


def test_the_names_of_callers_are_not_those_of_programs() -> None:
    net = Adder()
    program = sg.trace(vmap(net.update, out_states=net.h), XS).program
    assert list(program.states) == ["h"]


def test_writing_a_shared_state_through_a_condition_on_the_lane_is_that_error_too() -> None:
    s = sg.State(0.0)

    def store() -> None:
        s.value = 1.0

    with pytest.raises(StateAccessError, match="out_states"):
        vmap(lambda x: sg.compile.cond(x > 1, store, lambda: None))(XS)


def test_a_mapped_state_of_another_size_is_an_error() -> None:
    s = sg.State(jnp.zeros(4))
    for plain in (False, True):
        with jax.disable_jit(plain), pytest.raises((StateTypeError, ValueError), match="lanes"):
            vmap(lambda x: x + s.value, in_states=s)(XS)
        with jax.disable_jit(plain), pytest.raises(StateTypeError, match="no axis 0 of size 3"):
            vmap(lambda x: x + s.value, in_states=sg.State)(XS)


def test_a_filter_ignores_states_that_are_not_touched() -> None:
    cell, scalar = Cell(), sg.ShortTermState(1.0)
    holder = [cell, scalar]
    out = vmap(lambda x: holder[0].v.value.sum() + x, in_states=sg.ShortTermState)(XS)
    assert close(out, XS)


def test_states_alone_give_the_number_of_lanes() -> None:
    s = sg.State(XS)
    for context in (jax.disable_jit(False), jax.disable_jit()):
        with context:
            assert close(vmap(lambda: s.value * 2, in_states=s)(), XS * 2)


def test_isolated_lanes_leave_the_model_as_it_was() -> None:
    def make() -> Made:
        cell = Cell(1)
        current = sg.State(0.0)

        def simulate(amplitude: Any) -> Any:
            current.value = amplitude
            return sg.compile.for_loop(lambda i: cell.update(current.value * i).sum(), jnp.arange(4.0))

        return vmap(simulate, isolated=True), [*states_of(cell), current]

    agree(make, (XS,), (XS,))
    f, states = make()
    before = [jax.tree.map(np.asarray, s.value) for s in states]
    assert f(XS).shape == (3, 4)
    assert close([s.value for s in states], before)


def test_isolated_lanes_that_change_types() -> None:
    def make() -> Made:
        s = sg.State(0.0)

        def lane(x: Any) -> Any:
            s.value = jnp.ones(2) * x
            return s.value.sum()

        f = vmap(lane, isolated=True)
        return lambda xs: f(xs) + s.value, [s]

    agree(make, (XS,), (XS,))


def test_local_states_belong_to_the_lane() -> None:
    def make() -> Made:
        total = sg.State(jnp.zeros(3))

        def lane(x: Any) -> Any:
            local = sg.State(x)
            for _ in range(2):
                local.value = local.value * 2
            total.value += local.value
            return local.value

        return vmap(lane, in_states=total), [total]

    agree(make, (XS,))


@pytest.mark.parametrize("way", ["eager", "jit", "disable_jit"])
def test_a_state_that_lanes_create_and_the_model_keeps_gains_the_axis(way: str) -> None:
    class Lazy(sg.nn.Module):
        def init(self, x: Any) -> None:
            self.h = sg.State({"h": x * jnp.ones(2)})

    model = Lazy()
    for scale in (1.0, 2.0):
        run(way, vmap(model.init), XS * scale)
        assert close(model.h.value["h"], XS[:, None] * scale * jnp.ones(2))
    if way != "disable_jit":
        out = run(way, vmap(lambda x: model.h.value["h"].sum() + x, in_states=model.h), XS)
        assert close(out, XS * 5)


def test_a_state_created_by_lanes_is_used_in_the_same_trace() -> None:
    class Lazy(sg.nn.Module):
        def init(self, x: Any) -> None:
            self.h = sg.State(x)

        def step(self, y: Any) -> Any:
            self.h.value += y
            return self.h.value

    model = Lazy()

    @sg.compile.jit
    def both(x: Any) -> Any:
        vmap(model.init)(x)
        return vmap(model.step, in_states=model.h)(x)

    for _ in range(2):
        assert close(both(XS), XS * 2)
        assert close(model.h.value, XS * 2)


# ---------------------------------------------------------------------------------------------------- nesting


def nested_vmap() -> Made:
    s, t, n = sg.State(GRID), sg.State(XS), sg.State(0)

    def inner(x: Any) -> Any:
        s.value = s.value + x * t.value
        return s.value

    def outer(row: Any) -> Any:
        n.value += 1
        t.value = t.value * 2
        return vmap(inner, in_states=s)(row)

    return vmap(outer, in_states=[s, t]), [s, t, n]


def vmap_of_grad() -> Made:
    w, seen = sg.ParamState(jnp.array([1.0, 2.0])), sg.State(XS)

    def loss(x: Any) -> Any:
        seen.value = seen.value + x
        return jnp.tanh(w.value * x).sum() + jax.nn.relu(x - 2) ** 2

    return vmap(lambda x: grad(loss, w, 0)(x), in_states=seen), [w, seen]


def grad_of_vmap() -> Made:
    w, seen = sg.ParamState(jnp.array([1.0, 2.0])), sg.State(XS)

    def lane(x: Any) -> Any:
        seen.value = seen.value * 2 + x
        return (jnp.tanh(w.value * x) * seen.value).sum() + jax.nn.relu(x - 2)

    return grad(lambda xs: vmap(lane, in_states=seen)(xs).sum(), w, 0), [w, seen]


def grad_of_mapped_state() -> Made:
    w = sg.ParamState(XS)
    return grad(lambda xs: vmap(lambda x: jnp.sin(w.value * x), in_states=w)(xs).sum(), w), [w]


def second_derivative_over_lanes() -> Made:
    w = sg.ParamState(2.0)
    return vmap(grad(grad(lambda x: jnp.sin(x * w.value), 0), 0)), [w]


def vmap_in_scan() -> Made:
    v, n = sg.State(jnp.zeros(3)), sg.State(0)

    def lane(x: Any, k: Any) -> Any:
        v.value = v.value * 0.5 + x * k
        n.value += 1
        return v.value

    f = vmap(lane, in_axes=(0, None), in_states=v)
    return lambda xs: sg.compile.for_loop(lambda k: f(xs, k), jnp.arange(4.0)), [v, n]


def scan_in_vmap() -> Made:
    v, w = sg.State(jnp.zeros(3)), sg.State(jnp.array([1.0, 2.0]))

    def lane(x: Any) -> Any:
        def step(k: Any) -> Any:
            v.value = v.value * 0.5 + x * k * w.value.sum()
            return v.value

        return sg.compile.for_loop(step, jnp.arange(4.0))

    return vmap(lane, in_states=v), [v, w]


def while_in_vmap() -> Made:
    v = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        def more(i: Any) -> Any:
            v.value = v.value + x
            return i + 1

        return sg.compile.while_loop(lambda i: (v.value < 5) & (i < 9), more, 0)

    return vmap(lane, in_states=v), [v]


def cond_in_vmap() -> Made:
    v, n = sg.State(jnp.zeros(3)), sg.State(0)

    def lane(x: Any) -> Any:
        def spike() -> Any:
            v.value = -1.0
            return x * 10

        n.value += 1
        v.value = v.value + x
        return sg.compile.cond(v.value > 1.5, spike, lambda: x)

    return vmap(lane, in_states=v), [v, n]


def cond_around_vmap() -> Made:
    v = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        v.value = v.value + x
        return x

    f = vmap(lane, in_states=v)
    return lambda xs: sg.compile.cond(xs.sum() > 7, lambda: f(xs), lambda: xs), [v]


def checkpoint_in_grad_of_vmap() -> Made:
    from tests.oracle import checkpoint

    w = sg.ParamState(2.0)
    return grad(lambda xs: vmap(lambda x: checkpoint(lambda y: jnp.sin(y * w.value))(x))(xs).sum(), w, 0), [w]


def inner_jit_in_vmap() -> Made:
    v = sg.State(jnp.zeros(3))

    @jax.jit
    def add(x: Any) -> Any:
        v.value = v.value + x
        return v.value

    return vmap(lambda x: add(x) + add(x * 2), in_states=v), [v]


def custom_rules_in_vmap() -> Made:
    w = sg.ParamState(2.0)

    @jax.custom_vjp
    def spike(x: Any) -> Any:
        return (x > 0).astype(x.dtype)

    spike.defvjp(lambda x: (spike(x), x), lambda x, g: (g / (1 + x * x),))
    return grad(lambda xs: vmap(lambda x: spike(x * w.value - 3) * x)(xs).sum(), w, 0), [w]


NESTED = [
    nested_vmap,
    vmap_of_grad,
    grad_of_vmap,
    grad_of_mapped_state,
    second_derivative_over_lanes,
    vmap_in_scan,
    scan_in_vmap,
    while_in_vmap,
    cond_in_vmap,
    cond_around_vmap,
    checkpoint_in_grad_of_vmap,
    inner_jit_in_vmap,
    custom_rules_in_vmap,
]


@pytest.mark.parametrize("make", NESTED, ids=lambda make: make.__name__)
def test_nesting_agrees_with_the_loop_over_lanes(make: Callable[[], Made]) -> None:
    xs = GRID if make is nested_vmap else XS
    agree(make, (xs,), (xs + 1,))


@pytest.mark.parametrize("make", NESTED, ids=lambda make: make.__name__)
def test_nesting_called_eagerly_agrees_too(make: Callable[[], Made]) -> None:
    xs = GRID if make is nested_vmap else XS
    f, states = make()
    g, same = make()
    compiled = sg.compile.jit(g)
    for x in (xs, xs + 1):
        assert close(f(x), compiled(x)) and close([s.value for s in states], [s.value for s in same])


# -------------------------------------------------------------------------------- collectives, prints, random


@pytest.mark.parametrize("way", WAYS)
def test_lanes_talk_over_a_named_axis(way: str) -> None:
    k = sg.State(2.0)

    def lane(x: Any) -> Any:
        return (
            x / jax.lax.psum(x * k.value, "lanes")
            + jax.lax.axis_index("lanes")
            + jax.lax.all_gather(x, "lanes").max()
        )

    assert close(
        run(way, vmap(lane, axis_name="lanes"), XS),
        jax.vmap(lambda x: x / 12 + jax.lax.axis_index("i") + 3, axis_name="i")(XS),
    )


def test_what_all_lanes_agreed_on_is_written_once() -> None:
    mean, v = sg.State(0.0), sg.State(jnp.zeros(3))

    def lane(x: Any) -> None:
        v.value += x
        mean.value = jax.lax.pmean(v.value, "lanes")

    for call in (
        vmap(lane, axis_name="lanes", in_states=v),
        sg.compile.jit(vmap(lane, axis_name="lanes", in_states=v)),
    ):
        call(XS)
    assert float(mean.value) == 4 and mean.value.shape == ()


def test_named_axes_reach_through_lanes_loops_and_gradients() -> None:
    w = sg.ParamState(2.0)

    def inner(x: Any) -> Any:
        total = jax.lax.psum(x * w.value, "rows") + jax.lax.psum(x, "columns")
        return sg.compile.for_loop(
            lambda k: jax.lax.psum(k * x, ("rows", "columns")) + total, jnp.arange(2.0)
        ).sum()

    def outer(row: Any) -> Any:
        return vmap(grad(inner, 0), axis_name="columns")(row), vmap(inner, axis_name="columns")(row)

    def pure(x: Any) -> Any:
        total = jax.lax.psum(x * 2.0, "rows") + jax.lax.psum(x, "columns")
        return sum(jax.lax.psum(k * x, ("rows", "columns")) + total for k in (0.0, 1.0))

    found = sg.compile.jit(vmap(outer, axis_name="rows"))(GRID)
    expected = jax.vmap(
        lambda row: (
            jax.vmap(jax.grad(pure), axis_name="columns")(row),
            jax.vmap(pure, axis_name="columns")(row),
        ),
        axis_name="rows",
    )(GRID)
    assert close(found, expected)


def test_the_reference_interpreter_runs_collectives() -> None:
    from tests.support import build, interpret

    v = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        v.value += jax.lax.psum(x, "lanes")
        return v.value

    trace = build(vmap(lane, axis_name="lanes", in_states=v), XS)
    result, _ = interpret(trace, XS)
    assert close(result, jnp.full(3, 6.0))


def test_lanes_that_talk_behave_the_same_in_plain_python() -> None:
    def make() -> Made:
        v, mean, rng = sg.State(jnp.zeros(3)), sg.State(0.0), sg.random.RandomState(1)

        def lane(x: Any) -> Any:
            v.value += x + rng.uniform()
            mean.value = jax.lax.pmean(v.value, "lanes")
            return sg.compile.for_loop(lambda k: k * jax.lax.psum(v.value, "lanes"), jnp.arange(2.0))

        return vmap(lane, axis_name="lanes", in_states=v), [v, mean]

    agree(make, (XS,), (XS + 1,), reference=False)


def test_prints_come_once_per_lane(capsys: pytest.CaptureFixture[str]) -> None:
    s = sg.State(2.0)

    def lane(x: Any) -> Any:
        jax.debug.print("x = {}", x * s.value)
        return x

    sg.compile.jit(vmap(lane))(XS)
    jax.effects_barrier()
    assert sorted(capsys.readouterr().out.split("\n")) == ["", "x = 2.0", "x = 4.0", "x = 6.0"]


def random_lanes() -> Made:
    rng = sg.random.RandomState(7)
    total = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        a = rng.normal(size=2)
        b = sg.compile.for_loop(lambda _: rng.uniform(), jnp.arange(2))
        total.value += a.sum()
        return a, b, x

    return vmap(lane, in_states=total), [rng, total]


def nested_random_lanes() -> Made:
    rng = sg.random.RandomState(7)

    def outer(row: Any) -> Any:
        return rng.uniform(), vmap(lambda x: x + rng.uniform())(row), rng.uniform()

    return vmap(outer), [rng]


def isolated_random_lanes() -> Made:
    rng, s = sg.random.RandomState(7), sg.State(0.0)

    def lane(x: Any) -> Any:
        s.value += x
        return s.value + rng.uniform()

    return vmap(lane, isolated=True), [rng, s]


def random_lanes_in_a_loop() -> Made:
    rng = sg.random.RandomState(3)
    f = vmap(lambda x: x * rng.uniform())
    return lambda xs: sg.compile.for_loop(lambda k: f(xs + k), jnp.arange(3.0)), [rng]


def keys(states: Sequence[Any]) -> list[Any]:
    return [
        jax.random.key_data(s.value) if jax.dtypes.issubdtype(s.value.dtype, jax.dtypes.prng_key) else s.value
        for s in states
    ]


@pytest.mark.parametrize(
    "make",
    [random_lanes, nested_random_lanes, isolated_random_lanes, random_lanes_in_a_loop],
    ids=lambda make: make.__name__,
)
def test_every_lane_draws_from_a_key_of_its_own(make: Callable[[], Made]) -> None:
    xs = GRID if make is nested_random_lanes else XS
    f, states = make()
    with jax.disable_jit():
        first, second = f(xs), f(xs)
    expected, after = (first, second), keys(states)
    assert not close(first, second)
    for wrap in (lambda f: f, sg.compile.jit):
        f, states = make()
        call = wrap(f)
        assert close((call(xs), call(xs)), expected) and close(keys(states), after)


def test_lanes_differ() -> None:
    rng = sg.random.RandomState(0)
    drawn = np.asarray(vmap(lambda: rng.normal(), axis_size=100)())
    assert len(np.unique(drawn)) == 100


# ------------------------------------------------------------------------------------------------------- text


def test_one_op_in_either_form() -> None:
    cell = Cell()
    traced = sg.trace(vmap(cell.update, in_states=sg.ShortTermState, axis_name="i"), XS).program
    text = str(traced)
    assert 'xform.vmap [axis_name = "i"' in text and "in_states = ((@" in text
    hoisted = PassManager("hoist-state").run(traced).program
    text = str(hoisted)
    assert "xform.vmap" in text and "in_states" not in text and "shared = ((" in text
    for program in (traced, hoisted):
        roundtrip(program)
    assert "xform" not in str(sg.trace(vmap(cell.update, in_states=sg.ShortTermState), XS).lower().program)


def test_a_program_read_from_text_runs() -> None:
    cell = Cell()
    traced = sg.trace(vmap(cell.update, in_states=sg.ShortTermState), XS)
    again = sg.ir.parse(str(traced.program))
    assert again == traced.program and sg.ir.from_json(sg.ir.to_json(traced.program)) == traced.program
    other = Cell()
    assert close(
        sg.lower(again, states=other).compile()(XS), vmap(cell.update, in_states=sg.ShortTermState)(XS)
    )


@pytest.mark.no_program_checks
@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("size = 3", "size = 4", "no axis 0 of size 4"),
        ("in_states = ((@v, 0),)", "in_states = ((@v, 1),)", "no axis 1 of size 3"),
        ("out_states = ((@v, 0),)", "private = ()", "add it to out_states"),
        ("out_axes = (0,)", "out_axes = (0, 0)", "out_axes are 2, for 1 values"),
        ("in_axes = (0,)", "in_axes = (none,)", "a lane of the operands"),
        ("in_states = ((@v, 0),)", "in_states = (@v,)", "no tuple of"),
    ],
)
def test_the_verifier_knows_lanes(old: str, new: str, text: str) -> None:
    v = sg.State(jnp.zeros(3))

    def lane(x: Any) -> Any:
        v.value += x
        return x

    source = str(sg.trace(vmap(lane, in_states=v), XS).program)
    assert old in source
    with pytest.raises(StateGraphError, match=text):
        sg.ir.verify(sg.ir.parse(source.replace(old, new)))


# ------------------------------------------------------------------------------------------- raw JAX, caching


def test_raw_jax_around_it_in_a_trace_is_refused() -> None:
    s = sg.State(1.0)
    f = vmap(lambda x: x * s.value)
    with pytest.raises(StateGraphError, match="augment"):
        sg.compile.jit(jax.vmap(f))(GRID)


def test_eager_calls_are_compiled_once() -> None:
    runs: Counter[str] = Counter()
    s = sg.State(XS)

    def lane(x: Any) -> Any:
        runs["lane"] += 1
        s.value = s.value + x
        return s.value

    for _ in range(3):
        vmap(lane, in_states=s)(XS)
    assert runs.total() == 1
    vmap(lane, in_states=s, out_states={0: s})(XS)
    assert runs.total() == 2


def test_a_failed_trace_leaves_everything_as_it_was() -> None:
    s = sg.State(XS)

    def lane(x: Any) -> Any:
        s.value = s.value + x
        raise RuntimeError("no")

    @sg.compile.jit
    def both(xs: Any) -> Any:
        try:
            vmap(lane, in_states=s)(xs)
        except RuntimeError:
            pass
        return s.value.sum() + vmap(lambda x: s.value * x, in_states=s)(xs)

    for context in (jax.disable_jit(False), jax.disable_jit()):
        with context, pytest.raises(RuntimeError, match="no"):
            vmap(lane, in_states=s)(XS)
    assert close(s.value, XS)


def test_decorator_and_repr() -> None:
    @vmap
    def doubled(x: Any) -> Any:
        """Doubles."""
        return x * 2

    @vmap(in_axes=None, axis_size=2)
    def same(x: Any) -> Any:
        return x

    assert close(doubled(XS), XS * 2) and doubled.__doc__ == "Doubles." and "over lanes" in repr(doubled)
    assert close(same(1.0), jnp.ones(2))


# -------------------------------------------------------------------------------------------------------- map


def test_map_goes_one_after_another() -> None:
    def make() -> Made:
        s = sg.State(0.0)

        def f(x: Any, y: Any) -> Any:
            s.value = s.value * 2 + x
            return s.value + y["y"]

        return lambda xs: sg.augment.map(f, xs, {"y": xs}), [s]

    agree(make, (XS,))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7])
def test_map_in_batches(batch: int) -> None:
    n, k = sg.State(0), sg.State(2.0)

    def f(x: Any) -> Any:
        n.value += 1
        return k.value * x, {"s": x.sum()}

    xs = jnp.arange(10.0).reshape(5, 2)
    assert close(sg.augment.map(f, xs, batch_size=batch), (xs * 2, {"s": xs.sum(1)}))
    assert int(n.value) == -(-5 // batch)


def test_map_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        sg.augment.map(lambda x: x, XS, batch_size=0)
    with pytest.raises(ValueError, match="arrays"):
        sg.augment.map(lambda x: x, 1.0, batch_size=2)
    for sizes in ((3, 4), (4, 6), (6, 4)):
        for batch in (None, 2):
            with pytest.raises(sg.errors.TraceError, match="different lengths"):
                sg.augment.map(lambda x, y: x + y, *map(jnp.ones, sizes), batch_size=batch)


def test_errors_of_eager_calls_name_the_line_of_the_call() -> None:
    s = sg.State(jnp.zeros(4), name="held")
    with pytest.raises(
        StateTypeError, match=r"test_vmap\.py:\d+\n +vmap\(lambda x: x \+ s\.value, in_states=sg"
    ):
        vmap(lambda x: x + s.value, in_states=sg.State)(XS)

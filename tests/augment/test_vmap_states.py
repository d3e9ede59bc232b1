"""What becomes of State in ``augment.vmap``, against the loop over lanes in Python."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import BatchAxisError, StateAccessError, StateTypeError
from tests.augment.lanes import WAYS, XS, Cell, close, run, states_of
from tests.oracle import Made, agree

vmap, grad = sg.augment.vmap, sg.augment.grad


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
    assert (
        "a and b are written" in text and "out_states={0: [a, b]}" in text and "test_vmap_states.py" in text
    )
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
    assert "out_states={0: [v]} (where v is the State created at" in text and "test_vmap_states.py" in text


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

"""``augment.vmap``: against the loop over lanes in Python, and ``jax.vmap`` of pure functions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import stategraph as sg
from stategraph.errors import StateGraphError, StateTypeError
from stategraph.passes.manager import PassManager
from tests.augment.lanes import GRID, WAYS, XS, Cell, close, run
from tests.support import roundtrip

vmap, grad = sg.augment.vmap, sg.augment.grad


def test_names_of_mesh_axes_are_names() -> None:
    for wrong in (0, (), ["i", 1]):
        with pytest.raises(TypeError, match=r"spmd_axis_name is .*; give the name of a mesh axis"):
            vmap(lambda x: x, spmd_axis_name=wrong)
        with pytest.raises(TypeError, match="spmd_axis_name"):
            sg.augment.vmap_new_states(lambda x: x, spmd_axis_name=wrong)
        with pytest.raises(TypeError, match="spmd_axis_name"):
            sg.nn.Map(sg.nn.Linear(2, 3), 4, spmd_axis_name=wrong)


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


def test_errors_of_eager_calls_name_the_line_of_the_call() -> None:
    s = sg.State(jnp.zeros(4), name="held")
    with pytest.raises(
        StateTypeError, match=r"test_vmap\.py:\d+\n +vmap\(lambda x: x \+ s\.value, in_states=sg"
    ):
        vmap(lambda x: x + s.value, in_states=sg.State)(XS)

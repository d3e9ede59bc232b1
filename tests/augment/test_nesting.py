"""The nesting matrix: every transformation inside every other, and inside and around all control flow.

The oracle is eager Python under ``jax.disable_jit()``: loops over lanes, and JAX's own derivatives of the
function as a pure one, which central differences confirm. Every pair runs once through the default passes and the
reference interpreter, which evaluates what they made, in one of the spellings of its forms; one in ten runs through XLA.
With ``STATEGRAPH_NESTING=all`` all spellings of all pairs do both.
"""

from __future__ import annotations

import functools
import os
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import LoweringError, StateAccessError, StateGraphError, TraceError
from stategraph.passes import run_passes
from tests.augment.nesting import (
    CONTROL,
    FORMS,
    REVERSE,
    TRANSFORMATIONS,
    TWINS,
    WHILE,
    Cell,
    X,
    nest,
    states_of,
    step,
)
from tests.support import assert_same, build, interpret

PAIRS = [(a, b) for a in FORMS for b in FORMS if a in TRANSFORMATIONS or b in TRANSFORMATIONS]


def draw(names: tuple[str, ...], count: int) -> int:
    """A number below ``count`` that is always the same for these names."""
    return zlib.crc32(" ".join(names).encode()) % count


def spelled(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, one of two spellings of a form chosen for each."""
    return tuple(
        TWINS[name] if name in TWINS and draw((*names, str(i)), 2) else name for i, name in enumerate(names)
    )


def legal(names: tuple[str, ...]) -> bool:
    """Whether no loop without reverse mode stands inside something that goes backwards."""
    backwards = False
    for name in names:
        if name in WHILE and backwards:
            return False
        backwards = backwards or name in REVERSE
    return True


@functools.cache
def expected(names: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """What eager Python gives, and the States afterwards."""
    with jax.disable_jit():
        cell, function = nest(*names)
        result = function(X)
    return np.asarray(result), jax.tree.map(np.asarray, states_of(cell))


def same(found: Any, names: tuple[str, ...]) -> None:
    assert_same(found, expected(names), exact=False, tolerance=1e-4)


def through_passes(names: tuple[str, ...]) -> None:
    """Trace, rewrite with the default passes, and interpret."""
    cell, function = nest(*names)
    trace = build(function, X)
    program = run_passes(trace.program, "default").program
    result, leaves = interpret(trace, X, program=program)
    for path, state in trace.states.items():
        state.value = jax.tree.unflatten(jax.tree.structure(state.value), leaves[path])
    same((result, states_of(cell)), names)


def through_xla(names: tuple[str, ...]) -> None:
    cell, function = nest(*names)
    result = sg.compile.jit(function)(X)
    same((result, states_of(cell)), names)


@pytest.mark.core
@pytest.mark.parametrize("name", FORMS)
def test_each_alone(name: str) -> None:
    through_xla((name,))
    _, function = nest(name)
    result, _ = interpret(build(function, X), X)  # the region ops themselves
    assert_same(result, expected((name,))[0], exact=False, tolerance=1e-4)


def inside(outer: str) -> list[tuple[str, ...]]:
    """``outer`` around all forms, each in one of its spellings."""
    if outer in TWINS.values():
        return []
    return [spelled((outer, b)) for a, b in PAIRS if a == outer and b not in TWINS.values() and legal((a, b))]


def quick(outer: str) -> list[tuple[str, ...]]:
    """``outer`` around all transformations and half of the control flow."""
    return [pair for pair in inside(outer) if not (any(name in CONTROL for name in pair) and draw(pair, 2))]


@pytest.mark.parametrize("outer", [name for name in FORMS if name not in TWINS.values()])
def test_pairs(outer: str) -> None:
    for pair in quick(outer):
        try:
            through_passes(pair)
        except Exception as error:
            error.add_note(f"in the pair {pair}")
            raise


@pytest.mark.core
@pytest.mark.parametrize("outer", [name for name in FORMS if "." not in name])
def test_called_eagerly(outer: str) -> None:
    """A pair whose outer form is compiled and kept by itself, without ``jit`` around it."""
    inner = [b for a, b in PAIRS if a == outer and legal((a, b)) and not (a == "remat" and "." in b)]
    names = (outer, inner[draw((outer,), len(inner))])
    cell, function = nest(*names)
    same((function(X), states_of(cell)), names)


@pytest.mark.parametrize("inner", [name for name in FORMS if name not in WHILE])
def test_gradients_agree_with_central_differences(inner: str) -> None:
    direction = np.array([0.5, -0.3, 0.8], np.float32)

    def loss(shift: float) -> float:
        with jax.disable_jit():
            cell, function = nest(inner)
            cell.w.value = cell.w.value + shift * direction
            return float(function(X + shift * direction).astype(jnp.float32).sum())

    slope = (loss(2e-2) - loss(-2e-2)) / 4e-2
    gradient = expected(("grad", inner))[0]  # with respect to w and to x, added
    assert np.isclose(gradient @ direction, slope, rtol=2e-2, atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("outer", FORMS)
def test_the_other_pairs_and_some_of_all_through_xla(outer: str) -> None:
    every = os.environ.get("STATEGRAPH_NESTING") == "all"
    done = {pair for name in FORMS for pair in quick(name)}
    wanted = {pair for name in FORMS for pair in inside(name)}
    for names in PAIRS:
        if names[0] == outer and legal(names):
            if names not in done and (every or names in wanted):
                through_passes(names)
            if every or draw(names, 10) == 0:
                through_xla(names)


@pytest.mark.slow
def test_three_deep() -> None:
    rng, forms = np.random.default_rng(0), list(FORMS)
    for _ in range(80):
        names = tuple(forms[i] for i in rng.integers(len(forms), size=3))
        if legal(names) and sum(name in ("hessian", "jacrev", "jacfwd") for name in names) < 2:
            through_passes(names)


# ------------------------------------------------------------------------------- States that outlive the call


def keeping(cell: Cell) -> Any:
    """``step``, which also creates a State and keeps it on the model."""
    inner = step(cell)

    def run(x: Any) -> Any:
        cell.made = sg.State({"m": x * 2 + cell.w.value})  # type: ignore[attr-defined]
        cell.made.value = {"m": cell.made.value["m"] + 1}  # type: ignore[attr-defined]
        return inner(x) + cell.made.value["m"]  # type: ignore[attr-defined]

    return run


ONCE = [name for name in TRANSFORMATIONS if name not in ("vjp", "map", "isolated_vmap")]
"""The forms that run their function once per call, or once per lane."""


@pytest.mark.parametrize("name", ONCE)
def test_a_state_that_is_kept_outlives_the_form(name: str) -> None:
    def kept(compiled: bool) -> Any:
        cell = Cell(int(name == "vmap"))
        function = FORMS[name](cell, keeping(cell))
        result = (sg.compile.jit(function) if compiled else function)(X)
        return result, cell.made.value  # type: ignore[attr-defined]

    with jax.disable_jit():
        plain = kept(False)
    assert_same(kept(True), plain, exact=False)


# --------------------------------------------------------------------------------------------- what is illegal


def refused(error: type[Exception], text: str, function: Any, *args: Any) -> None:
    """The project's own error, with this text; nothing of JAX's comes through."""
    with pytest.raises(error, match=text) as caught:
        function(*args)
    assert isinstance(caught.value, StateGraphError)


@pytest.mark.parametrize("way", [sg.compile.jit, lambda f: f], ids=["jit", "eager"])
@pytest.mark.parametrize("loop", WHILE)
@pytest.mark.parametrize("outer", REVERSE)
def test_while_loops_have_no_reverse_mode(outer: str, loop: str, way: Any) -> None:
    cell, function = nest(outer, loop)
    refused(LoweringError, "bounded_while_loop", way(function), X)
    assert (
        int(cell.n.value) == 0 or outer == "vjp"
    )  # eager vjp has run the function before the pullback fails


@pytest.mark.parametrize("name", [name for name in FORMS if name not in (*ONCE, "vjp")])
def test_a_state_kept_by_what_runs_several_times_is_refused(name: str) -> None:
    cell = Cell()
    refused(StateAccessError, "is kept on the model", sg.compile.jit(FORMS[name](cell, keeping(cell))), X)
    assert not hasattr(cell, "made") and int(cell.n.value) == 0


@pytest.mark.parametrize("name", CONTROL)
def test_a_state_that_outlives_its_body_is_refused(name: str) -> None:
    cell, made = Cell(), []

    def body(x: Any) -> Any:
        made.append(sg.State(x))
        return x

    inner = FORMS[name](cell, body)
    refused(StateAccessError, "used outside of it", sg.compile.jit(lambda x: inner(x) + made[0].value), X)


@pytest.mark.parametrize("name", CONTROL)
def test_a_type_change_in_a_body_is_refused(name: str) -> None:
    cell = Cell()

    def body(x: Any) -> Any:
        cell.v.value = jnp.zeros(5)
        return x

    refused(StateGraphError, "cell.v.*changes its type", sg.compile.jit(FORMS[name](cell, body)), X)
    assert cell.v.shape == (3,)


RAW = {
    "grad": lambda g: jax.grad(lambda x: g(x).sum()),
    "value_and_grad": lambda g: jax.value_and_grad(lambda x: g(x).sum()),
    "vmap": lambda g: jax.vmap(lambda s: g(X * s)),
    "jvp": lambda g: lambda x: jax.jvp(g, (x,), (x,)),
    "vjp": lambda g: lambda x: jax.vjp(g, x)[0],
    "linearize": lambda g: lambda x: jax.linearize(g, x)[0],
    "jacrev": jax.jacrev,
    "jacfwd": jax.jacfwd,
    "hessian": lambda g: jax.hessian(lambda x: g(x).sum()),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_transformations_of_what_writes_state_are_refused(name: str) -> None:
    for way in (sg.compile.jit, lambda f: f):
        cell = Cell()
        text = r"stategraph\.augment"
        refused((StateAccessError, TraceError), text, way(RAW[name](step(cell))), X)  # type: ignore[arg-type]
        assert int(cell.n.value) == 0


@pytest.mark.parametrize("inner", [name for name in TRANSFORMATIONS if name not in ("jit", "map")])
@pytest.mark.parametrize("name", ["grad", "vmap"])
def test_raw_transformations_around_ours_are_refused(name: str, inner: str) -> None:
    cell = Cell(int(inner == "vmap"))
    refused(
        StateGraphError, r"stategraph\.augment", sg.compile.jit(RAW[name](FORMS[inner](cell, step(cell)))), X
    )
    assert not np.any(cell.n.value)


@pytest.mark.parametrize("name", [name for name in FORMS if "." in name])
def test_raw_jax_that_writes_state_is_refused_outside_of_a_trace(name: str) -> None:
    cell, function = nest(name)
    refused(StateAccessError, "stategraph.compile", function, X)
    assert int(cell.n.value) == 0


@pytest.mark.parametrize("inner", [None, "for_loop", "scan", "cond", "remat", "jit", "jvp", "vector_grad"])
def test_lanes_that_leave_different_values_undeclared_are_refused(inner: str | None) -> None:
    cell = Cell()
    function = step(cell) if inner is None else FORMS[inner](cell, step(cell))
    lanes = sg.augment.vmap(lambda s: function(X * s))
    for way in (sg.compile.jit, lambda f: f):
        refused(StateAccessError, r"out_states=\{0: \[.*cell\.v", way(lanes), jnp.arange(2.0))
    assert int(cell.n.value) == 0

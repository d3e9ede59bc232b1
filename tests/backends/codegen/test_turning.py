"""Loops whose last and first loop over the elements are one: right at both ends, and only where that is right and fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategraph.backends.codegen import blocks
from tests.backends.codegen.running import natively

pytest.importorskip("llvmlite")

SIZE = 70
PLACES = np.random.default_rng(0).integers(0, SIZE, 12)
V, G = (jnp.asarray(np.random.default_rng(seed).uniform(0, 1, SIZE), jnp.float32) for seed in (1, 2))
Step = Callable[[Any, Any], tuple[Any, Any]]


def turns(
    monkeypatch: pytest.MonkeyPatch, step: Step, carry: Any, lengths: tuple[int, ...] = (1, 2, 5)
) -> list[bool]:
    """Compare loops with those of XLA; whether each was made of the three functions."""
    found: list[bool] = []

    def observed(block: blocks.Block) -> Any:
        turn = whether(block)
        found.append(turn is not None)
        return turn

    whether = blocks.turn_of
    monkeypatch.setattr(blocks, "turn_of", observed)
    for length in lengths:
        for reverse in (False, True)[: max(1, length - 1)]:

            def run(carry: Any, xs: Any, reverse: bool = reverse) -> Any:
                return lax.scan(step, carry, xs, reverse=reverse)

            xs = jnp.arange(length, dtype=jnp.float32)
            for a, b in zip(natively(run, carry, xs), jax.tree.leaves(jax.jit(run)(carry, xs)), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)
    monkeypatch.undo()
    return found


def network(v: Any, g: Any, drive: Any = 0.0) -> tuple[Any, Any, Any]:
    """(State, spikes before, spikes after) of neurons after one step."""
    before = v >= 0.9
    decayed = g * 0.9 + drive
    g = decayed.at[PLACES].add(jnp.where(before[0], 0.3, 0.1))
    v = jnp.where(before, 0.0, v + 0.3 * (g - v * 0.2))
    return (v, g), before, v >= 0.9


def test_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(carry: Any, x: Any) -> Any:
        state, _, after = network(*carry)
        return state, after

    assert turns(monkeypatch, step, (V, G)) == [True] * 3


def test_sums_and_single_elements_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(carry: Any, x: Any) -> Any:
        (v, g), n = carry
        (v, g), _, after = network(v, g)
        return ((v, g), n + after.sum()), (v.sum() + x, v.max(), after, v * 2, n)

    assert turns(monkeypatch, step, ((V, G), jnp.int32(0))) == [True] * 3


def test_state_that_is_a_product_is_rounded_before_it_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(carry: Any, x: Any) -> Any:
        v, total = carry
        total = (total - (-v)).at[PLACES].add(0.1)
        return (v * 1.0000077 * total, total), None

    def run(carry: Any, steps: int) -> Any:
        return lax.scan(step, carry, None, length=steps)[0]

    assert turns(monkeypatch, step, (V, G)) == [True] * 3
    once = carry = (V, G)
    for _ in range(4):
        once = natively(lambda carry: run(carry, 1), tuple(once))
    for a, b in zip(natively(lambda carry: run(carry, 4), carry), once, strict=True):
        np.testing.assert_array_equal(a, b)


def _put(rows: Any, x: Any, value: Any) -> Any:
    """Rows with that of every other step."""
    number = x.astype(jnp.int32)
    return rows.at[jnp.where(number % 2 == 0, number // 2, len(rows))].set(value, mode="drop")


@pytest.mark.parametrize("index", [slice(None), slice(3, 9), PLACES])
def test_state_that_is_recorded_every_few_steps(monkeypatch: pytest.MonkeyPatch, index: Any) -> None:
    def step(carry: Any, x: Any) -> Any:
        state, rows, currents = carry
        (v, g), _, after = network(*state)
        return ((v, g), _put(rows, x, v[index]), _put(currents, x, g[index])), after

    rows = jnp.zeros((3, *V[index].shape), V.dtype)
    assert turns(monkeypatch, step, ((V, G), rows, rows), (1, 2, 5)) == [True] * 3


def test_what_a_loop_begins_with_may_be_anything_where_all_is_written() -> None:
    def run(v: Any, g: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            state, rows, _ = carry
            (v, g), _, after = network(*state)
            return ((v, g), _put(rows, x, v), after), None

        begin = (v, g), lax.empty((3, SIZE), jnp.float32), lax.empty((SIZE,), jnp.bool)
        return lax.scan(step, begin, jnp.arange(5.0, dtype=jnp.float32))[0]

    for a, b in zip(natively(run, V, G), jax.tree.leaves(jax.jit(run)(V, G)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


def _recorded(carry: Any, x: Any) -> Any:
    (v, g), before, _ = network(*carry)
    return (v, g), (before, g)


def _driven(carry: Any, x: Any) -> Any:
    state, _, after = network(*carry, x)
    return state, after


def _counted(carry: Any, x: Any) -> Any:
    state, n = carry
    state, _, after = network(*state, n)
    return (state, n + 1), after


def _picked(carry: Any, x: Any) -> Any:
    state, before, after = network(*carry)
    return state, (after, carry[1][3], before[2])


def _exchanged(carry: Any, x: Any) -> Any:
    (v, g), _, after = network(*carry)
    return (g, v), after


def _moved(carry: Any, x: Any) -> Any:
    (v, g), _, after = network(*carry)
    return (jnp.roll(v, 1), g + v[::-1]), after


def _begun(carry: Any, x: Any) -> Any:
    state, _, after = network(carry[0], jnp.exp(-carry[1]))
    return state, after


def _slow(carry: Any, x: Any) -> Any:
    (v, g), _, after = network(*carry)
    return (v, g), (after, jnp.exp(v))


def _set_late(carry: Any, x: Any) -> Any:
    (v, g), _, after = network(*carry)
    return (v.at[after.sum()].set(0.4), g), after


def _seen_late(carry: Any, x: Any) -> Any:
    state, rows = carry
    state, before, after = network(*state)
    return (state, rows.at[after.sum() % 2].set(before)), after


@pytest.mark.parametrize(
    "step",
    [_recorded, _driven, _counted, _picked, _exchanged, _moved, _begun, _slow, _set_late, _seen_late],
)
def test_loops_that_are_not_made_one(monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    carry: Any = (V, G)
    if step is _counted:
        carry = (carry, jnp.float32(0))
    if step is _seen_late:
        carry = (carry, jnp.zeros((2, SIZE), bool))
    assert turns(monkeypatch, step, carry, (3,)) == [False] * 2


def test_a_loop_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def inner(carry: Any, x: Any) -> Any:
        state, _, after = network(*carry)
        return state, after

    def step(carry: Any, x: Any) -> Any:
        (v, g), seen = lax.scan(inner, carry, None, length=3)
        return (v + 0.01 * x, g), seen

    assert any(turns(monkeypatch, step, (V, G), (2,)))

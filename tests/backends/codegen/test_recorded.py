"""Lists of what the steps of a loop record: the same whether a step lists for itself or uses the list that is sent."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategraph import event
from stategraph.backends.codegen import blocks
from stategraph.backends.events.compact_primitive import compact
from stategraph.backends.events.primitives import csr_product
from tests.backends.codegen.running import natively

pytest.importorskip("llvmlite")

TOP = 16


def lists(found: Any, stack: Any) -> None:
    found, places = np.asarray(found), np.flatnonzero(stack)
    np.testing.assert_array_equal(found[: 1 + len(places)], [len(places), *places])


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many arrays of bools each loop whose turn is one loop need not list for their own sake."""
    found: list[int] = []

    def observed(block: blocks.Block) -> Any:
        turn = whether(block)
        if turn is not None:
            found.append(len(turn.again))
        return turn

    whether = blocks.turn_of
    monkeypatch.setattr(blocks, "turn_of", observed)
    return found


def network(size: int, threshold: float, kind: str) -> Any:
    """A step of neurons that count (whole numbers: exact) and excite each other, the first half of them apart."""
    half = (size + 1) // 2
    one, two = (event.CSR.from_dense(np.eye(n, size, k=size // 3)) for n in (half, max(size - half, 1)))

    def spikes_of(v: Any) -> Any:
        return (v > threshold).astype(jnp.float32) if kind == "numbers" else v > threshold

    def step(carry: Any, t: Any) -> Any:
        v, g = carry
        spikes = spikes_of(v)
        g = g + 1 + csr_product(spikes[:half], jnp.float32(3), one.indptr, one.indices, one.shape)
        if half < size and kind != "half":
            g = g + csr_product(spikes[half:], jnp.float32(2), two.indptr, two.indices, two.shape)
        g = jnp.where(g > 20, 1.0, g)
        v = jnp.where(spikes != 0, 0.0, v + g - jnp.where(v > 7, 8.0, 0.0))
        after = spikes_of(v) != 0
        if kind == "others":
            return (v, g), (v > threshold + 1, g > 9)
        if kind == "now":  # what a step sends is what it records
            sent = csr_product(after[:half], jnp.float32(3), one.indptr, one.indices, one.shape)
            return (v, g + sent), (after, after)
        return (v, g), (after, after)

    return step


@pytest.mark.parametrize(
    ("size", "kind", "again"),
    [
        (150, "bools", 1),
        (33, "numbers", 1),
        (64, "half", 1),
        (81, "others", 0),
        (70, "now", 0),
        (17, "bools", 1),
        (2, "bools", 1),
        (1, "bools", 0),
    ],
)
def test_lists_are_what_would_be_stacked(
    monkeypatch: pytest.MonkeyPatch, size: int, kind: str, again: int
) -> None:
    start = jnp.asarray(np.random.default_rng(size).integers(0, TOP, size), jnp.float32)
    for steps, threshold in ((7, 9.0), (2, -1.0), (3, 1e4), (1, 9.0)):  # some, all and none of them spike
        step = network(size, threshold, kind)

        def stacked(v: Any, step: Any = step, steps: int = steps) -> Any:
            return lax.scan(step, (v, jnp.ones(v.shape, v.dtype)), jnp.arange(steps, dtype=jnp.float32))

        def listed(v: Any, stacked: Any = stacked) -> Any:
            last, (a, b) = stacked(v)
            return last, compact(a), compact(b)

        shared = watched(monkeypatch)
        v, g, a, b = natively(listed, start)
        monkeypatch.undo()
        assert set(shared) <= {again} and (len(shared) == 1 or steps == 1 or size == 1 or kind == "now")
        wanted, (first, second) = jax.jit(stacked)(start)
        np.testing.assert_array_equal(v, wanted[0])
        np.testing.assert_array_equal(g, wanted[1])
        lists(a, first)
        lists(b, second)


def _product(v: Any, level: Any, g: Any) -> tuple[Any, Any]:
    return v * (1.01 - g * 0.1), level


def _level(v: Any, level: Any, g: Any) -> tuple[Any, Any]:
    return jnp.where(v > 0.9, 0.0, v + 0.3 * g), level * 0.9 + g * 0.1


def _kept(v: Any, level: Any, g: Any) -> tuple[Any, Any]:
    return jnp.where(v > 0.9, 0.0, v + 0.3 * g), level


@pytest.mark.parametrize(("change", "again"), [(_product, 0), (_level, 1), (_kept, 1)])
def test_only_what_is_the_same_bit_for_bit_is_shared(
    monkeypatch: pytest.MonkeyPatch, change: Any, again: int
) -> None:
    """What is compared with a State that is a product is rounded once in the loop that computes that, twice in the other."""
    size = 70
    square = event.CSR.from_dense(np.eye(size)[::-1])
    random = np.random.default_rng(0)
    state = [jnp.asarray(random.uniform(0, 1, size), jnp.float32) for _ in range(3)]

    def step(carry: Any, x: Any) -> Any:
        v, level, g = carry
        spikes = v - level > 0
        g = g * 0.5 + csr_product(spikes, jnp.float32(1), square.indptr, square.indices, square.shape)
        v, level = change(v, level, g)
        return (v, level, g), v - level > 0

    def run(carry: Any, steps: int) -> Any:
        last, spikes = lax.scan(step, tuple(carry), jnp.arange(steps, dtype=jnp.float32))
        return (*last, compact(spikes))

    shared = watched(monkeypatch)
    found = natively(lambda *carry: run(carry, 6), *state)
    assert shared == [again]
    rows = []
    for _ in range(6):
        *state, once = natively(lambda *carry: run(carry, 1), *state)
        rows.append(np.isin(np.arange(size), once[1 : 1 + once[0]]))
    lists(found[-1], np.stack(rows))
    for a, b in zip(found, state, strict=False):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_differences_from_products_are_shared(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    """Both loops round the product and the difference once."""
    square = event.CSR.from_dense(np.eye(70)[::-1])
    state = (jnp.linspace(0.0, 1.0, 70), jnp.linspace(1.0, 0.1, 70))

    def spikes_of(v: Any, level: Any) -> Any:
        return v - (level if scale == 1 else level * scale) > 1e-30

    def step(carry: Any, x: Any) -> Any:
        v, level = carry
        sent = csr_product(spikes_of(v, level), jnp.float32(1), square.indptr, square.indices, square.shape)
        level = level * 0.77 + sent * 0.3
        v = jnp.maximum(jnp.maximum(level * 0.65, 0.0) * 2.0, 0.0)
        return (v, level), spikes_of(v, level)

    def run(carry: Any, steps: int) -> Any:
        last, spikes = lax.scan(step, carry, jnp.arange(steps, dtype=jnp.float32))
        return (*last, compact(spikes))

    shared = watched(monkeypatch)
    found = natively(lambda *carry: run(carry, 6), *state)
    assert shared == [1]
    rows = []
    for _ in range(6):
        *state, once = natively(lambda *carry: run(carry, 1), *state)
        rows.append(np.isin(np.arange(70), once[1 : 1 + once[0]]))
    lists(found[-1], np.stack(rows))

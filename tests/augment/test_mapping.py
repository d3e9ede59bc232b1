"""``augment.map``: one slice after another, or in batches, against the loop in Python."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

import stategraph as sg
from tests.augment.lanes import XS, close
from tests.oracle import Made, agree

vmap, grad = sg.augment.vmap, sg.augment.grad


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

"""Calls of programs with few and with many States."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.tracing import runner

pytestmark = pytest.mark.core


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_a_call_does_the_same_whether_cells_are_named_or_looped_over(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in (3, 0, 100):
        monkeypatch.setattr(runner, "MOST", most)
        runner._binder.cache_clear()
        read = [sg.State(jnp.float32(i)) for i in range(count)]
        both = [sg.State(jnp.float32(i)) for i in range(count)]
        only_written = [sg.State(jnp.float32(0)) for _ in range(count)]

        @sg.compile.jit
        def step(x: Any, read: Any = read, both: Any = both, only_written: Any = only_written) -> Any:
            for a, b, c in zip(read, both, only_written, strict=True):
                b.value = b.value * 2.0 + a.value + x
                c.value = a.value + x
            return x + 1.0

        for _ in range(3):
            assert float(step(1.0)) == 2.0
        for i in range(count):
            assert float(only_written[i].value) == i + 1
            np.testing.assert_allclose(both[i].value, 8 * i + 7 * (i + 1))
    runner._binder.cache_clear()

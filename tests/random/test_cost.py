"""What an eager draw costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import pytest

from stategraph import random

KEY = jax.random.key(0)
CALLS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "rand": (lambda: random.rand(3), lambda: jax.random.uniform(KEY, (3,))),
    "normal": (lambda: random.normal(0, 0.1, 3), lambda: jax.random.normal(KEY, (3,)) * 0.1),
    "choice": (lambda: random.choice(100, 3), lambda: jax.random.choice(KEY, 100, (3,))),
    "exponential": (lambda: random.exponential(2.0, 3), lambda: jax.random.exponential(KEY, (3,)) * 2.0),
}


def cost(function: Callable[[], Any], calls: int = 100) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = function()
    jax.block_until_ready(result)
    return time.perf_counter() - start


@pytest.mark.no_program_checks
@pytest.mark.parametrize("name", CALLS)
def test_an_eager_draw_costs_at_most_three_plain_calls(name: str) -> None:
    draw, plain = CALLS[name]
    draw(), plain()
    pairs = [(cost(draw), cost(plain)) for _ in range(12)]
    assert min(ours / theirs for ours, theirs in pairs) <= 3, pairs  # other work on the machine only adds

"""What an eager draw costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import pytest

from stategraph import random
from tests.support import python_calls

KEY = jax.random.key(0)
CALLS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "rand": (lambda: random.rand(3), lambda: jax.random.uniform(KEY, (3,))),
    "normal": (lambda: random.normal(0, 0.1, 3), lambda: jax.random.normal(KEY, (3,)) * 0.1),
    "choice": (lambda: random.choice(100, 3), lambda: jax.random.choice(KEY, 100, (3,))),
    "exponential": (lambda: random.exponential(2.0, 3), lambda: jax.random.exponential(KEY, (3,)) * 2.0),
}


@pytest.mark.no_program_checks
@pytest.mark.parametrize("name", CALLS)
def test_an_eager_draw_calls_at_most_twice_the_functions_of_a_plain_one(name: str) -> None:
    draw, plain = CALLS[name]
    for _ in range(2):
        draw(), plain()
    assert python_calls(draw) <= 2 * python_calls(plain)

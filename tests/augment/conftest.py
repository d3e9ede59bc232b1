"""Three ways to run a call, for the tests that compare them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import pytest

import stategraph as sg


@pytest.fixture(params=["eager", "jit", "disable_jit"])
def way(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    """Run a call eagerly (compiled and cached), inside jit, or as plain Python."""

    def run(call: Callable[[], Any]) -> Any:
        if request.param == "eager":
            return call()
        if request.param == "jit":
            return sg.compile.jit(call)()
        with jax.disable_jit():
            return call()

    return run

"""Three ways to run a call, for the tests that compare them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.oracle import WAYS, run


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    """Run a call in one of three ways: see ``tests.oracle.run``."""
    return functools.partial(run, request.param)

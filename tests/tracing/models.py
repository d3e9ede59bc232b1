"""What the tests of the rules of tracing share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import stategraph as sg

XS = jnp.arange(4, dtype=jnp.float32) + 1


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.ones(3))  # the weights
        self.count = sg.State(0)
        self.flag = False


def told(error: pytest.ExceptionInfo[Any], *parts: str) -> None:
    """Check the parts that every message has."""
    text = str(error.value)
    for part in (*parts, f"{Path(sys._getframe(1).f_code.co_filename).name}:", "why:", "fix:"):
        assert part in text, f"{part!r} is missing in:\n{text}"

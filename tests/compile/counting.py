"""A function over State that the tests of compiled calls share."""

from __future__ import annotations

from typing import Any

import stategraph as sg


def increment(s: sg.State[Any]) -> Any:
    return sg.compile.jit(lambda: setattr(s, "value", s.value + 1))

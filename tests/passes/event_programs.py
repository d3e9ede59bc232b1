"""Programs that the tests of event passes share."""

from __future__ import annotations

from typing import Any

HOIST = "lower-checks,inline-calls,hoist-state,forward-state,eliminate-local-state"


def send(x: Any, w: Any) -> Any:
    return (x > 0) @ w

"""The primitive of ``event.declare``: nothing happens to the values; the compiler reads what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stategraph import _jax


def declared(x: Any, rate: float | None, use: str | None) -> Any:
    """``event.declare`` of an array."""
    return declare_p.bind(x, rate=rate, use=use)


def _aval(x: Any, **params: Any) -> Any:
    return x


def _transpose(index: int, cotangent: Any, operands: Sequence[Any], aval: Any, **params: Any) -> Any:
    return cotangent


def _lanes(operands: Sequence[Any], axes: Sequence[int | None], **params: Any) -> tuple[Any, int]:
    return declare_p.bind(*operands, **params), axes[0] or 0


declare_p = _jax.new_operation("event.declare", _aval, linear=(0,), on_transpose=_transpose, on_batch=_lanes)
_jax.lower_by(declare_p, lambda *what: ("as it is", lambda x, **params: x))

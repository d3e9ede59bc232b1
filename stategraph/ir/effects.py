"""Effects: what an op does besides computing its results.

An effect has a *kind* and, for State, the symbol it touches. ``unknown`` is the answer for everything that
was not declared: such an op is neither moved, nor duplicated, nor removed.
"""

from __future__ import annotations

import attrs

READ, WRITE, ALLOC = "read", "write", "alloc"
HOST, HOST_ORDERED = "host", "host_ordered"
CHECK = "check"
UNKNOWN_EFFECT = "unknown"


@attrs.frozen(slots=True, cache_hash=True)
class Effect:
    """``read @s``, ``write @s``, ``alloc @s``, ``host`` (unordered), ``host_ordered``, ``check`` or ``unknown``."""

    kind: str
    symbol: str | None = None

    def __str__(self) -> str:
        return self.kind if self.symbol is None else f"{self.kind} @{self.symbol}"


HOST_EFFECT = Effect(HOST)
ORDERED_HOST_EFFECT = Effect(HOST_ORDERED)
CHECK_EFFECT = Effect(CHECK)
UNKNOWN = Effect(UNKNOWN_EFFECT)


def conflicts(a: Effect, b: Effect) -> bool:
    """Whether two effects must keep their order. The one place where 'unknown means unsafe' is decided."""
    if UNKNOWN_EFFECT in (a.kind, b.kind):
        return True
    if a.symbol is not None and b.symbol is not None:
        return a.symbol == b.symbol and (a.kind != READ or b.kind != READ)
    return a.symbol is None and b.symbol is None  # two host effects or checks keep their order

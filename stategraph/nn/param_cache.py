"""Keeping the computed values of Params between reads, in eager code.

A kept value is good as long as the State behind it holds the very same arrays; whoever writes the State, in
whatever way, thereby makes it invalid. In traced code nothing is kept: the value is computed where it is
read, gradients flow through it, no tracer outlives its trace, and the compiler computes equal values once.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stategraph import _jax
from stategraph.recording import LOCAL
from stategraph.state import State


def in_trace() -> bool:
    """Whether the code that runs is being traced, or transformed by JAX."""
    return LOCAL.recorder is not None or _jax.current_trace() is not None


class Cached:
    """The kept value of one Param."""

    def __init__(self) -> None:
        self.uses = 0
        """How many ``with`` blocks want it kept."""
        self.held = False
        """Whether it stays when they are gone."""
        self.kept: tuple[tuple[Any, ...], Any] | None = None
        """(the stored arrays, the value computed from them)"""
        self.hits = self.misses = 0

    def valid_for(self, state: State[Any]) -> bool:
        """Whether there is a value, of what the State holds now."""
        kept = self.kept
        if kept is None:
            return False
        leaves = state._peek()
        return len(leaves) == len(kept[0]) and all(a is b for a, b in zip(leaves, kept[0], strict=True))

    def get(self, state: State[Any], compute: Callable[[], Any]) -> Any:
        """The kept value, computed again where it is not valid."""
        if in_trace():
            return compute()
        kept = self.kept
        if kept is not None and self.valid_for(state):
            self.hits += 1
            return kept[1]
        self.misses += 1
        leaves = tuple(state._peek())
        value = compute()
        self.kept = (leaves, value)
        return value


CACHES: weakref.WeakKeyDictionary[Any, Cached] = weakref.WeakKeyDictionary()
"""The kept values by Param. They are no part of the model: a copy of it has none."""
LOCK = threading.RLock()


def hold(param: Any) -> None:
    """Keep the value of a Param until ``drop``; in a trace nothing is kept."""
    if in_trace():
        return
    with LOCK:
        CACHES.setdefault(param, Cached()).held = True


def drop(param: Any) -> None:
    """Forget the kept value of a Param; a ``with`` block in progress computes it again when asked."""
    with LOCK:
        cached = CACHES.get(param)
        if cached is None:
            return
        cached.held, cached.kept = False, None
        if not cached.uses:
            del CACHES[param]


@contextlib.contextmanager
def keeping(params: Iterable[Any]) -> Iterator[None]:
    """Keep the values of Params in the block."""
    entered: list[Any] = []
    try:
        for param in params:
            with LOCK:
                CACHES.setdefault(param, Cached()).uses += 1
            entered.append(param)
            param.value()
        yield
    finally:
        with LOCK:
            for param in entered:
                cached = CACHES[param]
                cached.uses -= 1
                if not cached.uses and not cached.held:
                    del CACHES[param]

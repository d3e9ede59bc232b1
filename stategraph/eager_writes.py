"""Where State may be written while a transformation of JAX runs eagerly.

What is written inside ``jax.grad`` or ``jax.vmap`` exists only there. The eager forms of our transformations take care of that:
they look at what their function wrote, and put back what was there before. They cannot do so for a body that JAX traces inside
of them (``jax.checkpoint`` does so even under ``disable_jit``), whose values no one has outside.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from stategraph import _jax


class _Scope(threading.local):
    body: tuple[Any] | None = None
    """What JAX was recording, if anything, when the innermost of these transformations began."""


_SCOPE = _Scope()


@contextlib.contextmanager
def writable_here() -> Iterator[None]:
    """State may be written for a while; whoever says so takes care of what is written."""
    outer, _SCOPE.body = _SCOPE.body, (_jax.recording_trace(),)
    try:
        yield
    finally:
        _SCOPE.body = outer


def is_writable_here() -> bool:
    """Whether somebody takes care of what is written now."""
    return _SCOPE.body is not None and _SCOPE.body[0] is _jax.recording_trace()


def transforms_eagerly() -> bool:
    """Whether one of these transformations runs."""
    return _SCOPE.body is not None

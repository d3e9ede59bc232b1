"""What makes compiling cheaper in the test process, where thousands of small programs and single ops are compiled.

JAX 0.10 makes an MLIR context for each, with all its dialects, which takes longer than lowering an op. Later versions let some
programs of a thread share one, and so do the tests. A context keeps the types and constants of all that it has seen,
so after some programs there is another.
"""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import Any

from jax._src.interpreters import mlir

PROGRAMS = 50
"""How many programs share a context."""


class _Contexts(threading.local):
    context: Any = None
    left = 0


def share_contexts() -> None:
    """Let programs share MLIR contexts, where JAX does not do so itself."""
    if not version("jaxlib").startswith("0.10."):
        return
    make, contexts = mlir.make_ir_context, _Contexts()

    def shared() -> Any:
        if (
            mlir.ir.Context.current is not None
        ):  # an op that runs while a program is lowered is no part of that program
            return make()
        if contexts.left == 0:
            contexts.context, contexts.left = make(), PROGRAMS
        contexts.left -= 1
        return contexts.context

    mlir.make_ir_context = shared

"""When what a program does to the host is over, and what JAX remembers of programs that failed.

On GPUs a call returns before its callbacks ran. What these raise comes with the results, and once more from
``jax.effects_barrier``: for ever, since JAX keeps the token of a program that failed.
"""

from __future__ import annotations

from typing import Any

import jax
from jax._src import dispatch


def wait_for_effects(results: Any) -> None:
    """Wait until a program that calls back has ended, and raise what it raised; on CPUs that is before its call returns.

    Args:
      results: what it gave, a pytree.
    """
    if jax.tree.leaves(results):
        jax.block_until_ready(results)
    else:
        jax.effects_barrier()


def forget_failed_effects() -> None:
    """Let later programs of this thread run, and be waited for, though one failed: its error has been raised."""
    known = dispatch.runtime_tokens
    held: dict[Any, Any]
    for held in (known.current_tokens, known.output_runtime_tokens):
        for key, token in list(held.items()):
            try:
                token.block_until_ready()
            except Exception:
                held.pop(key, None)

"""A sampler: one way of turning a key into numbers.

Eagerly, a draw takes one dispatch: advancing the key and sampling are compiled together, per shape and
dtype. That gives the bits of the function itself where it is one compiled function of JAX's already
(``compiled_together``); the others run as they are, after one dispatch for the key. Inside a trace the
function is recorded, as if the user had written the calls to ``jax.random``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax

from stategraph.random.keys import advance, advance_compiled

ON_CPUS = {"xla_backend_optimization_level": 1}
"""For CPUs: XLA unrolls small loops by default, and compiling ``threefry`` for a shape takes four times as long, for
the same bits at the same speed. A model has many shapes.
"""


class Sampler:
    """``function(key, static, *parameters)``; ``static`` is hashable (shape, dtype, options)."""

    def __init__(self, function: Callable[..., Any], compiled_together: bool) -> None:
        self.function = function
        self.compiled_together = compiled_together

    @cached_property
    def _kernel(self) -> Any:
        """``(key, static, *parameters)`` to (the next key, the sample); None where two dispatches are needed."""
        if not self.compiled_together:
            return None

        def draw(key: jax.Array, static: Any, *parameters: Any) -> tuple[jax.Array, jax.Array]:
            following, own = advance(key)
            return following, self.function(own, static, *parameters)

        draw.__name__ = f"random_{self.function.__name__}"
        options = ON_CPUS if jax.default_backend() == "cpu" else None
        return jax.jit(draw, static_argnums=1, compiler_options=options)

    def eager(self, key: jax.Array, static: Any, parameters: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
        """(the next key, the sample), outside of any trace."""
        if self._kernel is not None:
            following, sample = self._kernel(key, static, *parameters)
            return following, sample
        following, own = advance_compiled(key)
        return following, self.function(own, static, *parameters)

    def recorded(
        self, key: jax.Array, static: Any, parameters: tuple[Any, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """(the next key, the sample), op by op."""
        following, own = advance(key)
        return following, self.function(own, static, *parameters)


def sampler(function: Callable[..., Any]) -> Sampler:
    """A sampler that is one compiled function of JAX's, and is compiled together with ``advance``."""
    return Sampler(function, True)


def stepwise(function: Callable[..., Any]) -> Sampler:
    """A sampler of several steps, which round differently when they are compiled together."""
    return Sampler(function, False)

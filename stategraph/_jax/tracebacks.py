"""Tracebacks without the frames of this package and of JAX, as JAX shows its own: what is left is the user's code.

``JAX_TRACEBACK_FILTERING=off`` shows all of them.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
from jax._src import traceback_util

F = TypeVar("F", bound=Callable[..., object])

traceback_util.register_exclusion(__file__.rsplit("/", 2)[0])


def boundary(function: F) -> F:
    """A function that users call: errors that pass it lose internal frames."""
    return traceback_util.api_boundary(function)


def shortened(error: Exception) -> Exception:
    """The error without internal frames, unless JAX is told to show them."""
    trace = error.__traceback__
    if trace is None or jax.config.jax_traceback_filtering == "off":
        return error
    return error.with_traceback(traceback_util.filter_traceback(trace))

"""Telling the compiler what it cannot know of events: how many there are, and how products with them are to run."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from stategraph.backends.events.declared import declared
from stategraph.errors import describe


def declare(x: Any, rate: float | None = None, *, use: Literal["events", "dense"] | None = None) -> jax.Array:
    """``x`` itself, of which the compiler now knows that most elements are zero.

    The pass ``rewrite-events`` makes event products of products with it when they are cheaper. Spikes are found
    without this; declare them to give a rate, or to pin what happens. It also makes events of values that are not
    0 or 1, such as spikes with sizes.

    Args:
      x: an array of any dtype.
      rate: the share of elements that are not zero in a typical step, between 0 and 1.
      use: ``"events"``: products with it become event products, whatever they cost; ``"dense"``: they stay as they
        are. By cost if not given.

    Returns:
      ``x``, with the same values and derivatives.

    Raises:
      ValueError: when the rate is not a share, or ``use`` is something else.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> def send(spikes, w):
    ...     return sg.event.declare(spikes, rate=0.02) @ w
    >>> program = sg.trace(send, jnp.zeros(500), jnp.zeros((500, 500))).lower().program
    >>> [op.name for op in program.walk()]
    ['event.dense', 'flow.yield']
    """
    if rate is not None and not 0 <= rate <= 1:
        raise ValueError(
            describe(
                f"The rate {rate!r} is no share of elements.",
                why="it is the number of active elements divided by all, between 0 and 1",
                fix="event.declare(x, rate=0.02) for 2 %",
            )
        )
    if use not in (None, "events", "dense"):
        raise ValueError(f"use is 'events', 'dense' or None, not {use!r}")
    events: jax.Array = declared(jnp.asarray(x), None if rate is None else float(rate), use)
    return events

"""Primitives of transformations: what is bound while a trace runs, and becomes an op whose region is the function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stategraph import _jax
from stategraph.errors import StateGraphError, describe


def transformation(
    name: str,
    subject: str,
    function: str,
    *,
    on_batch: Callable[..., Any] | None = None,
) -> Any:
    """A primitive that stands only in programs that StateGraph records; in a transformation of JAX it is an error.

    Args:
      name: of the primitive.
      subject: what the user wrote, for the error.
      function: which function over State is an op, for the error.
      on_batch: what ``jax.vmap`` makes of it, where that can be said.
    """
    refuse = misplaced(subject, function)
    return _jax.new_primitive(
        name, _declared, on_eval=refuse, on_batch=refuse if on_batch is None else on_batch, on_jvp=refuse
    )


def misplaced(subject: str, function: str) -> Callable[..., Any]:
    """What raises the error of such a primitive."""

    def refuse(*args: Any, **params: Any) -> Any:
        raise StateGraphError(
            describe(
                f"{subject} is used inside a JAX transformation that StateGraph does not trace.",
                at=_jax.line_in_charge(),
                why=f"{function} is an op of a StateGraph program",
                fix="use stategraph.augment (grad, vmap, jvp, ...) instead of jax.grad or jax.vmap around it",
            )
        )

    return refuse


def _declared(*avals: Any, out_avals: Sequence[Any], **params: Any) -> Sequence[Any]:
    return out_avals

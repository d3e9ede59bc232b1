"""What a function would do, without doing it: ``eval_shape`` and ``StateFinder``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from stategraph import _jax
from stategraph.backends.params import treedef_of
from stategraph.errors import TraceError
from stategraph.state import State
from stategraph.tracing.entry import trace
from stategraph.tracing.tracer import accessed_states
from stategraph.typing import Filter
from stategraph.util.filter import to_predicate


def eval_shape(f: Callable[..., Any], *args: Any, return_state_shapes: bool = False, **kwargs: Any) -> Any:
    """The shapes and dtypes of what a call returns, without computing anything; no State changes.

    Args:
      f: a function or model.
      *args, **kwargs: what it would be called with: arrays or ``jax.ShapeDtypeStruct``s.
      return_state_shapes: also return those of the States that it touches, by path, as it would leave them.

    Returns:
      The result with a ``jax.ShapeDtypeStruct`` for every array; with ``return_state_shapes`` a pair of it and
      a dict.

    Example:

    >>> import jax, jax.numpy as jnp
    >>> import stategraph as sg
    >>> h = sg.State(jnp.zeros(3))
    >>> def step(x):
    ...     h.value = jnp.tanh(h.value + x)
    ...     return h.value.sum()
    >>> sg.compile.eval_shape(step, jax.ShapeDtypeStruct((3,), float), return_state_shapes=True)
    (ShapeDtypeStruct(shape=(), dtype=float32), {'h': ShapeDtypeStruct(shape=(3,), dtype=float32)})
    """
    record = trace(f, *args, **kwargs).trace
    program = record.program
    result = jax.tree.unflatten(record.out_tree, [_jax.struct_of(value.type) for value in program.results])
    if not return_state_shapes:
        return result
    states = {
        path: jax.tree.unflatten(
            treedef_of(symbol.result_tree), list(map(_jax.struct_of, symbol.result_types))
        )
        for path, symbol in program.states.items()
    }
    return result, states


class StateFinder:
    """The States that a function touches, found by tracing it; nothing runs and no State changes.

    Args:
      fn: a function or model.
      filter: which States: a filter of ``stategraph.util.filter``; None for all.
      usage: ``"all"``, ``"read"`` (those that it reads), ``"write"`` (those that it writes), or ``"both"``: a
        dict of these two.
      return_type: ``"dict"``, ``"list"`` or ``"tuple"``.
      key_fn: ``key_fn(index, state)`` gives the keys of dicts; else they are the paths under which the function
        finds the States.

    Example:

    >>> import stategraph as sg
    >>> a, b = sg.ParamState(1.), sg.State(0.)
    >>> def f(x): b.value = a.value * x
    >>> find = sg.compile.StateFinder(f, usage="both")
    >>> {usage: list(states) for usage, states in find(2.).items()}
    {'read': ['a'], 'write': ['b']}
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        filter: Filter = None,
        usage: str = "all",
        return_type: str = "dict",
        key_fn: Callable[[int, State[Any]], Any] | None = None,
    ) -> None:
        if usage not in ("all", "read", "write", "both"):
            raise ValueError(f"usage of StateFinder is 'all', 'read', 'write' or 'both', not {usage!r}")
        if return_type not in _CONTAINERS:
            raise ValueError(
                f"return_type of StateFinder is {', '.join(map(repr, _CONTAINERS))}, not {return_type!r}"
            )
        if not callable(fn):
            raise TraceError(f"StateFinder needs a function, not a {type(fn).__name__}")
        self.fn = fn
        self.usage = usage
        self._wanted = None if filter is None else to_predicate(filter)
        self._container = _CONTAINERS[return_type]
        self._key = key_fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The States that a call with these arguments touches."""
        read, written, _ = accessed_states(self.fn, args, kwargs)
        if self.usage == "both":
            return {"read": self._chosen(read), "write": self._chosen(written)}
        return self._chosen({"all": {**read, **written}, "read": read, "write": written}[self.usage])

    def _chosen(self, states: dict[str, State[Any]]) -> Any:
        wanted = self._wanted
        found = {
            path: state
            for path, state in states.items()
            if wanted is None or wanted(tuple(path.split(".")), state)
        }
        if self._key is not None:
            key = self._key
            found = {key(i, state): state for i, state in enumerate(found.values())}
        return self._container(found)


_CONTAINERS: dict[str, Callable[[dict[Any, State[Any]]], Any]] = {
    "dict": lambda found: found,
    "list": lambda found: list(found.values()),
    "tuple": lambda found: tuple(found.values()),
}

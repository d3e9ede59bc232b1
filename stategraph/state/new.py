"""Watching States as they are made, and small functions over States."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from stategraph.state import CHECKS, State
from stategraph.state.hooks import HookContext, register_state_hook
from stategraph.typing import Filter
from stategraph.util.filter import to_predicate


class NewStateCatcher:
    """The States that were made in a block, in order."""

    def __init__(self, state_tag: str | None, state_to_exclude: Filter) -> None:
        self.state_tag = state_tag
        self.states: list[State[Any]] = []
        self._excluded = to_predicate(state_to_exclude)
        self._thread = threading.get_ident()

    def _note(self, context: HookContext) -> None:
        state = context.state
        if threading.get_ident() != self._thread or self._excluded((), state):
            return
        if self.state_tag is not None:
            state.add_tag(self.state_tag)
        self.states.append(state)

    def get_states(self) -> list[State[Any]]:
        """The States."""
        return list(self.states)

    def get_state_values(self) -> list[Any]:
        """Their values."""
        return [state.value for state in self.states]

    def get_by_tag(self, tag: str) -> list[State[Any]]:
        """Those with a tag."""
        return [state for state in self.states if state.tag is not None and tag in state.tag]

    def __iter__(self) -> Iterator[State[Any]]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)


@contextlib.contextmanager
def catch_new_states(
    state_tag: str | None = None, state_to_exclude: Filter = None
) -> Iterator[NewStateCatcher]:
    """Collect the States that this thread makes in a block.

    Args:
      state_tag: a tag to give them.
      state_to_exclude: a filter: which ones are left alone.

    Example:

    >>> import stategraph as sg
    >>> with sg.catch_new_states("layer1") as caught:
    ...     w, h = sg.ParamState(1.0), sg.HiddenState(2.0)
    >>> caught.get_states() == [w, h], w.tag
    (True, {'layer1'})
    """
    catcher = NewStateCatcher(state_tag, state_to_exclude)
    hook = register_state_hook("init", catcher._note, name="catch_new_states")
    try:
        yield catcher
    finally:
        hook.remove()


@contextlib.contextmanager
def check_state_value_tree(val: bool = True) -> Iterator[None]:
    """In the block, giving a State a value of another structure is an error, in eager and traced code.

    Args:
      val: False allows it again in an inner block.

    Raises:
      StateTypeError: where such a value is assigned.

    Example:

    >>> import stategraph as sg
    >>> s = sg.State({"a": 1.0})
    >>> with sg.check_state_value_tree():
    ...     s.value = {"a": 2.0}
    """
    before, CHECKS.same_tree = CHECKS.same_tree, val
    try:
        yield
    finally:
        CHECKS.same_tree = before


@contextlib.contextmanager
def check_state_jax_tracer(val: bool = True) -> Iterator[None]:
    """In the block, giving a State a value that ends with a transformation of JAX is an error. So it is everywhere in
    StateGraph, which traces what ``stategraph.compile`` and ``stategraph.augment`` run: the block changes nothing.

    Args:
      val: changes nothing, either.

    Example:

    >>> import jax
    >>> import stategraph as sg
    >>> s = sg.State(1.0)
    >>> def write(x):
    ...     s.value = x
    >>> with sg.check_state_jax_tracer():
    ...     try:
    ...         jax.jit(write)(2.0)
    ...     except sg.TraceContextError:
    ...         print("refused")
    refused
    """
    yield


def maybe_state(val: Any) -> Any:
    """The value of a State; anything else as it is."""
    return val.value if isinstance(val, State) else val

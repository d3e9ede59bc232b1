"""What State offers besides its value: copies with changes, tags, facts in other words, hooks.

All of it is written with the public face of State.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stategraph import units
from stategraph.errors import CallError, StateAccessError, describe
from stategraph.recording import MISSING
from stategraph.state import hooks
from stategraph.state.hooks import Hookable


class Members(Hookable):
    """The base class of State that holds these methods."""

    __slots__ = ()

    @classmethod
    def init(cls, fn: Any, in_size: Any, batch_size: int | None = None, tag: str | None = None) -> Any:
        """A State of this kind with a first value from whatever stands for it, as in ``stategraph.nn.init.param``.

        Args:
          fn: an initialiser, a function of a shape, an array or a number.
          in_size: the shape, without a batch.
          batch_size: the length of a leading axis to add; None for none.
          tag: a tag for filters.

        Example:

        >>> import stategraph as sg
        >>> sg.HiddenState.init(sg.nn.init.ZeroInit(), (3,), batch_size=2).shape
        (2, 3)
        """
        from stategraph.init import param

        make: Any = cls
        return make(param(fn, in_size, batch_size), tag=tag)

    def numel(self: Any) -> int:
        """The number of elements, all leaves together."""
        count: int = self.size
        return count

    @property
    def unit(self: Any) -> Any:
        """The unit (of saiunit) of the value: declared, or that of the quantity it is; a pytree of units for several
        quantities, None for plain numbers.
        """
        return units.unit_of(self)

    @property
    def source_info(self: Any) -> Any:
        """Where the State was created; ``source_location`` by another name."""
        return self.source_location

    @property
    def stack_level(self) -> int:
        """No State has one: programs know the States that they access."""
        raise AttributeError(
            describe(
                "A State has no stack level.",
                why="what a trace accesses is written in its program, and not in the State",
                fix="stategraph.trace(function, ...) for that program, state.source_location for where the State was made",
            )
        )

    def check_valid_trace(self: Any, error_msg: Callable[[], str]) -> None:
        """Check that the State can be read and written here.

        Args:
          error_msg: a function of no arguments for the message.

        Raises:
          StateAccessError: it cannot: it was created in a trace that did not keep it, or this is a transformation of JAX
            that StateGraph does not trace.
        """
        try:
            self._check_access()
        except (StateAccessError, CallError) as error:
            raise StateAccessError(error_msg()) from error

    def value_call(self: Any, func: Callable[[Any], Any]) -> Any:
        """``func(state.value)``."""
        return func(self.value)

    def restore_value(self: Any, value: Any) -> None:
        """Put a value back that the State had before; the same as an assignment, but for hooks."""
        hooks.restored(self, value)

    def replace(self: Any, value: Any = MISSING, **metadata: Any) -> Any:
        """A new State of the same kind, with another value or other metadata (``name``, ``tag``, …)."""
        new = self.copy()
        new.name, tag = metadata.pop("name", new.name), metadata.pop("tag", new.tag)
        new.tag = {tag} if isinstance(tag, str) else tag
        new.metadata = {**new.metadata, **metadata}
        if value is not MISSING:
            new.value = value
        return new

    def copy_from(self: Any, other: Any) -> None:
        """Take over the value, tag and metadata of a State of the same kind."""
        if type(other) is not type(self):
            raise TypeError(f"a {type(self).__name__} cannot be a copy of a {type(other).__name__}")
        self.value = other.value
        self.tag = None if other.tag is None else set(other.tag)
        self.metadata = dict(other.metadata)

    def to_state_ref(self: Any) -> Any:
        """The value with all it takes to make the State again: a ``TreefyState``, which is a pytree."""
        from stategraph.util.treefy import treefy

        return treefy(self)

    def update_from_ref(self: Any, state_ref: Any) -> None:
        """Take over the value of a ``TreefyState``."""
        self.value = state_ref.value

    def add_tag(self: Any, tag: str) -> None:
        """Add a tag for filters."""
        self.tag = {tag} if self.tag is None else self.tag | {tag}

"""TreefyState: what a State is outside of its object: its value, and what kind of State to make of it again.

A State is a place; JAX's transformations take values. ``treefy_states`` and ``treefy_split`` give the
values as ``TreefyState``, a pytree
whose leaves are the arrays and whose structure holds everything else. The structure never depends on what
was done to the State.
"""

from __future__ import annotations

from typing import Any

import jax

from stategraph.state import State
from stategraph.util.static import static_key


class TreefyState:
    """The value of a State, as a pytree.

    Args:
      type: the kind of State that the value belongs to.
      value: the value.
      **metadata: what the State knows about itself: ``name``, ``tag``, and its metadata.

    Example:

    >>> import jax
    >>> import stategraph as sg
    >>> reference = sg.TreefyState(sg.ParamState, 2.0, tag="gain")
    >>> jax.tree.map(lambda x: 3 * x, reference).to_state().value
    Array(6., dtype=float32)
    """

    __slots__ = ("extra", "metadata", "name", "tag", "type", "value")

    def __init__(self, type: type[State[Any]], value: Any, **metadata: Any) -> None:
        self.type = type
        self.value = value
        self.name: str | None = metadata.pop("name", None)
        tag = metadata.pop("tag", None)
        self.tag: frozenset[str] | None = (
            None if tag is None else frozenset((tag,)) if isinstance(tag, str) else frozenset(tag)
        )
        self.metadata: dict[str, Any] = metadata
        self.extra: dict[str, Any] = {}
        """Attributes that a subclass of State keeps besides."""

    def replace(self, value: Any) -> TreefyState:
        """The same, with another value."""
        new: TreefyState = object.__new__(TreefyState)
        new.type, new.value, new.name, new.tag = self.type, value, self.name, self.tag
        new.metadata, new.extra = self.metadata, self.extra
        return new

    def copy(self) -> TreefyState:
        """The same, as another object."""
        return self.replace(self.value)

    def to_state(self) -> State[Any]:
        """A new State with this value."""
        state: State[Any] = object.__new__(self.type)
        for name, value in self.extra.items():
            object.__setattr__(state, name, value)
        State.__init__(state, self.value, self.name, tag=self.tag, **self.metadata)
        return state

    def __repr__(self) -> str:
        from stategraph.graph.show import treefy_repr

        return treefy_repr(self)


def treefy(state: State[Any]) -> TreefyState:
    """The value of a State with all it takes to make the State again. Reads the State."""
    new: TreefyState = object.__new__(TreefyState)
    new.type = type(state)
    new.value = state.value
    new.name = state.name
    new.tag = None if state.tag is None else frozenset(state.tag)
    new.metadata = state.metadata
    new.extra = state._extra()
    return new


class _About:
    """All of a ``TreefyState`` but its value, as one part of a tree structure: compares by content, hashes
    by kind.
    """

    __slots__ = ("extra", "metadata", "name", "tag", "type")

    def __init__(self, of: TreefyState) -> None:
        self.type, self.name, self.tag = of.type, of.name, of.tag
        self.metadata, self.extra = of.metadata, of.extra

    def __hash__(self) -> int:
        return hash((self.type, self.name, self.tag))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, _About):
            return False
        if self.type is not other.type or self.name != other.name or self.tag != other.tag:
            return False
        if not (self.metadata or other.metadata or self.extra or other.extra):
            return True
        return bool(static_key((self.metadata, self.extra)) == static_key((other.metadata, other.extra)))

    def __repr__(self) -> str:
        return self.type.__name__


def _flatten_with_keys(state: TreefyState) -> tuple[tuple[tuple[Any, Any]], _About]:
    return ((jax.tree_util.GetAttrKey("value"), state.value),), _About(state)


def _flatten(state: TreefyState) -> tuple[tuple[Any], _About]:
    return (state.value,), _About(state)


def _unflatten(about: _About, children: Any) -> TreefyState:
    new: TreefyState = object.__new__(TreefyState)
    (new.value,) = children
    new.type, new.name, new.tag = about.type, about.name, about.tag
    new.metadata, new.extra = about.metadata, about.extra
    return new


jax.tree_util.register_pytree_with_keys(TreefyState, _flatten_with_keys, _unflatten, _flatten)

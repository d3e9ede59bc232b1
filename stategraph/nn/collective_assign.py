"""Giving the States of a model new values by path: restoring what was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.errors import StateTypeError, describe
from stategraph.graph.edit import follow
from stategraph.graph.walk import path_text, states
from stategraph.nn.module_views import dotted
from stategraph.recording import render
from stategraph.state import State
from stategraph.typing import PathParts
from stategraph.util.mapping import path_part
from stategraph.util.treefy import TreefyState


def assign_state_values(
    target: Any, *state_by_abs_path: Mapping[Any, Any], strict: bool = False
) -> tuple[list[Any], list[PathParts]]:
    """Give the States of a model new values, by path.

    Args:
      target: the model.
      *state_by_abs_path: values by path; the last one counts where several have one. A key is the path of a
        State or of one leaf of its
        value, as a tuple (``("layer", "weight", "bias")``) or with dots (``"layer.weight.bias"``); any of
        several paths to a State will do.
      strict: whether an unexpected or missing key is an error.

    Returns:
      (unexpected, missing): keys that lead to no State, and the paths of States (or of leaves, where others
      were given) without a value.

    Raises:
      StateTypeError: for a value of another structure, shape or dtype than the State's.
      KeyError: with ``strict``, when a key is unexpected or missing.

    Nothing is assigned when an error is raised.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Layer(sg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = sg.ParamState({"weight": jnp.ones((2, 3)), "bias": jnp.zeros(3)})
    >>> layer = Layer()
    >>> sg.nn.assign_state_values(layer, {"weight.bias": jnp.ones(3), "v": 0.0})
    (['v'], [('weight', 'weight')])
    >>> layer.weight.value["bias"]
    Array([1., 1., 1.], dtype=float32)
    """
    slots = _Slots(target)
    unexpected: list[Any] = []
    for mapping in state_by_abs_path:
        for key, value in mapping.items():
            if not slots.take(key, value) and key not in unexpected:
                unexpected.append(key)
    missing = slots.missing()
    if strict and (unexpected or missing):
        raise KeyError(
            describe(
                f"The values do not fit the model: {len(unexpected)} unexpected, {len(missing)} missing.",
                why=f"unexpected: {unexpected[:5]!r}; missing: {missing[:5]!r}",
                fix="restore with the model that was saved, or look at what strict=False returns",
            )
        )
    slots.assign()
    return unexpected, missing


class _Slots:
    """The leaves of all States of a model, and the values given for them so far."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.states: dict[PathParts, State[Any]] = states(target)
        self.paths = {id(state): path for path, state in self.states.items()}
        self.leaves: dict[PathParts, dict[PathParts, Any]] = {}
        self.names: dict[str, PathParts] = {}
        self.given: dict[PathParts, dict[PathParts, Any]] = {path: {} for path in self.states}
        for path, state in self.states.items():
            structure = state._tree if state._tree is not None else jax.tree.structure(0)
            keyed, _ = jax.tree_util.tree_flatten_with_path(jax.tree.unflatten(structure, state._peek()))
            self.leaves[path] = {tuple(map(path_part, below)): leaf for below, leaf in keyed}
            for below in ((), *self.leaves[path]):
                self.names[dotted((*path, *below))] = self.names[path_text((*path, *below))] = (*path, *below)

    def find(self, key: Any) -> tuple[PathParts, PathParts] | None:
        """(path of a State, path of a leaf in its value or of all of it) that a key means."""
        path = (
            key
            if isinstance(key, tuple)
            else self.names.get(key) or _split(key)
            if isinstance(key, str)
            else (key,)
        )
        for variant in (path, tuple(map(_number, path))):
            for length in range(len(variant), -1, -1):
                where, below = variant[:length], variant[length:]
                known = where if where in self.states else self.paths.get(id(follow(self.target, where)))
                if known is not None and (not below or below in self.leaves[known]):
                    return known, below
        return None

    def take(self, key: Any, value: Any) -> bool:
        """Note a value; False when the key leads nowhere. Raises for a value of the wrong type."""
        found = self.find(key)
        if found is None:
            return False
        path, below = found
        if isinstance(value, (State, TreefyState)):
            value = value.value
        if below:
            self.given[path][below] = self._fit(path, below, value, key)
            return True
        keyed, structure = jax.tree_util.tree_flatten_with_path(value)
        state = self.states[path]
        if structure != (state._tree if state._tree is not None else jax.tree.structure(0)):
            raise _wrong(
                state,
                key,
                f"it holds {_text(state)}, and the value is a {type(value).__name__}, {structure}",
            )
        for (_, leaf), name in zip(keyed, self.leaves[path], strict=True):
            self.given[path][name] = self._fit(path, name, leaf, key)
        return True

    def _fit(self, path: PathParts, below: PathParts, value: Any, key: Any) -> Any:
        expected, state = self.leaves[path][below], self.states[path]
        if not hasattr(expected, "dtype"):
            return value
        if isinstance(value, (bool, int, float, complex)) and np.shape(expected) == ():
            return jnp.asarray(value, dtype=expected.dtype)
        try:
            array = value if isinstance(value, jax.Array) else jnp.asarray(value)
        except TypeError:
            raise _wrong(state, key, f"the value is a {type(value).__name__}") from None
        if np.shape(array) != np.shape(expected) or array.dtype != expected.dtype:
            have, want = (f"{leaf.dtype}{list(np.shape(leaf))}" for leaf in (array, expected))
            raise _wrong(state, key, f"it holds {want}, and the value is {have}")
        return array

    def missing(self) -> list[PathParts]:
        """Paths without a value: of a State where it has none at all, else of its leaves."""
        found: list[PathParts] = []
        for path, given in self.given.items():
            absent = [below for below in self.leaves[path] if below not in given]
            if absent and not given:
                found.append(path)
            else:
                found += [(*path, *below) for below in absent]
        return found

    def assign(self) -> None:
        for path, given in self.given.items():
            if not given:
                continue
            state = self.states[path]
            if state._tree is None:
                state.value = given[()]
                continue
            whole = len(given) == len(self.leaves[path])
            leaves = [None] * len(given) if whole else jax.tree.leaves(state.value)
            values = [given.get(below, leaf) for below, leaf in zip(self.leaves[path], leaves, strict=True)]
            state.value = jax.tree.unflatten(state._tree, values)


def _split(name: str) -> PathParts:
    return tuple(name.split("."))


def _number(step: Any) -> Any:
    return int(step) if isinstance(step, str) and step.isdecimal() else step


def _text(state: State[Any]) -> str:
    return render(state._tree, [_jax.typeof(leaf) for leaf in state._peek()])


def _wrong(state: State[Any], key: Any, why: str) -> StateTypeError:
    return StateTypeError(
        describe(
            f"The value for {key!r} does not fit its State.",
            state=state._describe(),
            created=state.source_location,
            why=why,
            fix="restore with the model that was saved, or convert the value; nothing was assigned",
        )
    )

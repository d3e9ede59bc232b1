"""What is saved of objects: one entry for each array in their States, by name.

A name is the path of the State with dots, and the path of the array in its value: ``layers.0.weight.bias``.
With several objects it begins with the object's position: ``1.state.0.mu.bias``. A State that is reached
twice, such as a parameter that the optimiser refers to, is saved once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax, random, units
from stategraph.errors import CheckpointError, describe
from stategraph.graph.walk import states
from stategraph.nn.module_views import dotted
from stategraph.state import Poisoned, State
from stategraph.typing import PathParts
from stategraph.util.mapping import path_part

RANDOM = "__random__"
"""The name of the default random stream."""


@attrs.frozen
class Entry:
    """One array of a State."""

    name: str
    state: State[Any]
    leaf: Any
    """The array; ``Poisoned`` where a failed call lost it."""
    unit: str = ""
    """Its unit, as text."""

    def type(self) -> dict[str, Any] | None:
        """What has to agree: ``dtype``, ``shape``, for keys ``key``, their implementation, and ``unit`` where there is one.
        None for a lost value, which takes any.
        """
        if isinstance(self.leaf, Poisoned):
            return None
        if _jax.is_key_array(self.leaf):
            return {"key": str(jax.random.key_impl(self.leaf)), "shape": list(self.leaf.shape)}
        found = {"dtype": np.dtype(self.leaf.dtype).name, "shape": list(self.leaf.shape)}
        return {**found, "unit": self.unit} if self.unit else found


def entries_of(objects: Sequence[Any], with_random: bool, to_restore: bool = False) -> dict[str, Entry]:
    """The entries of objects by name, each State once, in the order of the objects.

    Args:
      objects: Nodes, States, and containers of them.
      with_random: whether the default random stream is one more.
      to_restore: whether values may be lost, since they are to be replaced.

    Raises:
      CheckpointError: when two arrays have the same name, or a State holds something else than arrays.
    """
    found: dict[str, Entry] = {}
    seen: set[int] = set()
    for path, state in _all_states(objects, with_random):
        if id(state) in seen:
            continue
        seen.add(id(state))
        lost = to_restore and any(isinstance(leaf, Poisoned) for leaf in state._peek())
        if not lost:
            _ = state.value  # raises for what is lost or was never there
        for (below, leaf), unit in zip(_leaves(state), units.texts_of(state), strict=True):
            name = dotted((*path, *below)) or "value"
            if not isinstance(leaf, (jax.Array, Poisoned)):
                raise CheckpointError(
                    describe(
                        f"{name!r} is a {type(leaf).__name__}, and only arrays can be saved.",
                        state=state._describe(),
                        created=state.source_location,
                        fix="keep the object in an ordinary attribute, or save the other States",
                    )
                )
            if name in found:
                raise CheckpointError(
                    describe(
                        f"Two arrays have the name {name!r}.",
                        state=state._describe(),
                        created=state.source_location,
                        why="a key of a dict holds a dot, or paths are equal as text",
                        fix="rename the key",
                    )
                )
            found[name] = Entry(name, state, leaf, unit)
    return found


def _all_states(objects: Sequence[Any], with_random: bool) -> Iterator[tuple[PathParts, State[Any]]]:
    for position, obj in enumerate(objects):
        prefix: PathParts = (position,) if len(objects) > 1 else ()
        if isinstance(obj, State):
            yield prefix, obj
            continue
        for path, state in states(obj).items():
            yield (*prefix, *_steps(path)), state
    if with_random:
        yield (RANDOM,), random.DEFAULT


def _steps(path: PathParts) -> Iterator[Any]:
    """The steps of a path; keys that are paths themselves (``model.states()``) are taken apart."""
    for step in path:
        yield from step if isinstance(step, tuple) else (step,)


def _leaves(state: State[Any]) -> list[tuple[PathParts, Any]]:
    leaves = state._peek()
    tree = units.plain_structure(state._tree)
    if tree is None:
        return [((), leaves[0])]
    keyed = jax.tree_util.tree_flatten_with_path(jax.tree.unflatten(tree, leaves))[0]
    return [(tuple(path_part(key) for key in path), leaf) for path, leaf in keyed]


# ------------------------------------------------------------------------------------------- from and to host


def to_host(entries: Mapping[str, Entry]) -> dict[str, np.ndarray]:
    """The arrays in the memory of the host; keys as the numbers they are made of."""
    leaves = {
        name: jax.random.key_data(entry.leaf) if _jax.is_key_array(entry.leaf) else entry.leaf
        for name, entry in entries.items()
    }
    return {name: np.asarray(array) for name, array in jax.device_get(leaves).items()}


def described(entries: Mapping[str, Entry], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The types and checksums of entries, for a header."""
    return {
        name: {**(entry.type() or {}), "crc32": checksum(arrays[name])} for name, entry in entries.items()
    }


def checksum(array: np.ndarray) -> int:
    """CRC-32 of the bytes of an array."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return zlib.crc32(flat.view(np.uint8).data)


def check_types(entries: Mapping[str, Entry], saved: Mapping[str, Any], source: str) -> None:
    """Refuse saved arrays that do not fit: other names, shapes, dtypes or kinds of keys. All of them are
    listed.
    """
    missing = [f"{name}: not in the file" for name in entries if name not in saved]
    unknown = [f"{name}: only in the file" for name in saved if name not in entries]
    wrong = []
    for name, entry in entries.items():
        here = entry.type()
        there = {key: value for key, value in (saved.get(name) or here or {}).items() if key != "crc32"}
        if here is not None and here != there:
            wrong.append(f"{name}: {_text(there)} in the file, {_text(here)} here")
    problems = [*missing, *unknown, *wrong]
    if not problems:
        return
    shown = "\n           ".join(problems[:8]) + (
        f"\n           … {len(problems)} in all" if len(problems) > 8 else ""
    )
    raise CheckpointError(
        describe(
            f"{source} does not fit the objects given.",
            why=shown,
            fix="load into objects made like those that were saved, in the same order; nothing was changed",
        )
    )


def _text(kind: Mapping[str, Any]) -> str:
    unit = f" in {kind['unit']}" if "unit" in kind else ""
    return f"{kind.get('dtype') or 'key<' + str(kind.get('key')) + '>'}{kind['shape']}{unit}"


def assign(entries: Mapping[str, Entry], arrays: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Give the States their saved values. All of them are on the device before the first is assigned."""
    placed = {name: _placed(entry.leaf, arrays[name], saved[name]) for name, entry in entries.items()}
    by_state: dict[int, list[Any]] = {}
    for name, entry in entries.items():
        by_state.setdefault(id(entry.state), []).append(placed[name])
    done = set()
    for entry in entries.values():
        state = entry.state
        if id(state) not in done:
            done.add(id(state))
            leaves = by_state[id(state)]
            state.value = leaves[0] if state._tree is None else jax.tree.unflatten(state._tree, leaves)


def _placed(old: Any, value: Any, kind: Mapping[str, Any]) -> jax.Array:
    """An array where the State's old one is."""
    array = value if isinstance(value, jax.Array) else jnp.array(value)
    if "key" in kind:
        array = jax.random.wrap_key_data(array, impl=kind["key"])
    return jax.device_put(array, old.sharding) if getattr(old, "committed", False) else array

"""Specs of shards: how arguments, results and States are cut over a mesh.

What the user says, prefixes of pytrees and mappings from States to specs, becomes one ``PartitionSpec`` per
leaf.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stategraph import _jax
from stategraph.augment.lanes import reachable_states
from stategraph.backends.params import spec_of
from stategraph.errors import StateTypeError, describe
from stategraph.ir.shards import names_in
from stategraph.state import State
from stategraph.tracing.shardings import UNSAID, rows_of, said_of

Spec = tuple[Any, ...]


@attrs.frozen(eq=False)
class Shards:
    """What is cut, as the user said it."""

    mesh: Mesh
    in_specs: Any
    out_specs: Any
    state_in_specs: Any
    state_out_specs: Any
    check_vma: bool

    @property
    def sizes(self) -> dict[str, int]:
        return dict(self.mesh.shape)


@attrs.frozen(eq=False)
class Cut:
    """A State of which a device has a shard."""

    state: State[Any]
    entry: Any
    """A spec, or a prefix of the value's structure with specs: how it is cut at entry."""
    end: Any
    named: bool
    """Whether the user named it; a filter only selects it."""


# ------------------------------------------------------------------------------------------------------ leaves


def leaf_specs(what: str, specs: Any, tree: Any, sizes: Mapping[str, int]) -> list[Spec]:
    """A spec per leaf of a structure, from a prefix of it; None counts as ``PartitionSpec()``."""
    try:
        found = _jax.prefix_axes(what, tree, specs)
    except ValueError:
        raise ValueError(f"{what}={specs!r} is no prefix of the structure that it is for, {tree}") from None
    return [_spec(what, spec, sizes) for spec in found]


def _is_spec(value: Any) -> bool:
    return value is None or isinstance(value, PartitionSpec)


def _spec(what: str, spec: Any, sizes: Mapping[str, int]) -> Spec:
    if not _is_spec(spec):
        raise TypeError(f"{what} holds {spec!r}; give a jax.sharding.PartitionSpec")
    found: Spec = () if spec is None else spec_of(spec)
    for entry in found:
        for name in names_in(entry):
            if name not in sizes:
                axes = ", ".join(map(repr, sizes))
                raise ValueError(f"{what} holds {spec}, and the mesh has no axis {name!r}; it has {axes}")
    return found


def local_shape(shape: Sequence[int], spec: Spec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of one shard; raises ``ValueError`` when the array cannot be cut so."""
    if len(spec) > len(shape):
        raise ValueError(f"PartitionSpec{spec} has {len(spec)} entries, and the value has the shape {shape}")
    found = list(shape)
    for i, entry in enumerate(spec):
        count = math.prod(sizes[name] for name in names_in(entry))
        if found[i] % count:
            raise ValueError(f"axis {i} of the shape {tuple(shape)} cannot be cut into {count} equal parts")
        found[i] //= count
    return tuple(found)


def whole_shape(shape: Sequence[int], spec: Spec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of what the devices have together; raises ``ValueError`` when there is no such axis."""
    if len(spec) > len(shape):
        raise ValueError(f"PartitionSpec{spec} has {len(spec)} entries, and the value has the shape {shape}")
    counts = [math.prod(sizes[name] for name in names_in(entry)) for entry in spec]
    return tuple(n * count for n, count in zip(shape, [*counts, *[1] * len(shape)], strict=False))


# ------------------------------------------------------------------------------------------------------ States


def cut_states(shards: Shards, function: Callable[..., Any]) -> list[Cut]:
    """The States that have specs: named, selected by filters, or declared on the State."""
    entry = rows_of("state_in_specs", shards.state_in_specs, _is_spec, "PartitionSpec")
    end = rows_of("state_out_specs", shards.state_out_specs, _is_spec, "PartitionSpec")
    states: dict[int, tuple[str, State[Any]]] = {
        id(state): (path, state) for path, state in reachable_states(function).items()
    }
    for key, _ in (*entry, *end):
        if isinstance(key, State):
            states.setdefault(id(key), (key.name or "", key))
    found = []
    for path, state in states.values():
        first, named = said_of(state, path, entry)
        last, named_last = said_of(state, path, end)
        if first is UNSAID:
            first = _declared(state, shards.mesh)
        if first is UNSAID and last is UNSAID:
            continue
        first = PartitionSpec() if first is UNSAID else first
        found.append(Cut(state, first, first if last is UNSAID else last, named or named_last))
    return found


def _declared(state: State[Any], mesh: Mesh) -> Any:
    """The spec of the sharding that a State was made with, if it is over axes of this mesh."""
    sharding = state.metadata.get("sharding")
    spec = sharding.spec if isinstance(sharding, NamedSharding) else sharding
    if not isinstance(spec, PartitionSpec):
        return UNSAID
    names = {name for entry in spec_of(spec) for name in names_in(entry)}
    return spec if names <= set(mesh.axis_names) else UNSAID


def state_leaf_specs(cut: Cut, which: str, tree: Any, sizes: Mapping[str, int]) -> tuple[Spec, ...]:
    """A spec per leaf of the State's value, whose structure is ``tree`` (None: a single array)."""
    what = "state_in_specs" if which == "entry" else "state_out_specs"
    tree = jax.tree.structure(0) if tree is None else tree
    return tuple(leaf_specs(what, getattr(cut, which), tree, sizes))


def misfit(cut: Cut, problem: ValueError) -> StateTypeError:
    """The error for a State that cannot be cut as its spec says."""
    return StateTypeError(
        describe(
            f"{cut.state._describe()} cannot be cut into shards: {problem}.",
            created=cut.state.source_location,
            at=_jax.line_in_charge(),
            why="its spec says that every device has one part of it",
            fix="create it with a size that the axis of the mesh divides, or give it PartitionSpec()",
        )
    )

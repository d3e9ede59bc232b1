"""The types that States have inside an op, where lanes and shards see parts of them."""

from __future__ import annotations

from collections.abc import Callable

from stategraph.ir.core import Op
from stategraph.ir.lanes import one_lane, state_axes
from stategraph.ir.shards import local_type, mesh_sizes, state_specs
from stategraph.ir.types import Type

Types = tuple[Type, ...]


def entry_types(op: Op, around: Callable[[str], Types]) -> dict[str, Types]:
    """The States that have another type in the body of ``op`` than ``around`` it."""
    if op.name == "xform.vmap":
        mapped = state_axes(op, "in_states").items()
        return {path: tuple(one_lane(type, axis) for type in around(path)) for path, axis in mapped}
    if op.name == "xform.shard_map":
        sizes = mesh_sizes(op.attributes["mesh"])
        return {
            path: tuple(
                local_type(type, spec, sizes) for type, spec in zip(around(path), before, strict=True)
            )
            for path, (before, _) in state_specs(op).items()
        }
    return {}

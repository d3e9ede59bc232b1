"""Running the body of an ``xform.shard_map`` through ``jax.shard_map``.

JAX checks that what the specs call equal on all devices is so, or, with ``check_vma=False``, trusts them. For
States nobody vouches: without JAX's types the body is run on named lanes first, which know what depends on
them. Where a State that the body writes differs, the error names it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from stategraph import _jax
from stategraph.backends.params import mesh_of
from stategraph.errors import LoweringError, StateAccessError, StateGraphError, different_on_devices
from stategraph.ir.core import Op, Program, Region
from stategraph.ir.lanes import shape_of
from stategraph.ir.location import Location
from stategraph.ir.shards import local_type, mesh_sizes, names_in
from stategraph.sharding import plain_mesh


def over_shards(op: Op, function: Callable[..., list[Any]], whole: int) -> Callable[..., list[Any]]:
    """``function`` of shards as a function of whole arrays: first ``whole`` of them that every device has,
    then the operands of ``op``.
    """
    varying: list[frozenset[str]] = []

    def local(*shards: Any) -> list[Any]:
        results = function(*shards)
        varying[:] = map(_jax.varies_over, results)
        return results

    inside = _jax.inside_shard_map()
    mesh = None if inside else _mesh(op)  # inside another shard_map the mesh is the one that we are in
    mapped = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=tuple([PartitionSpec()] * whole + [PartitionSpec(*s) for s in op.attributes["in_specs"]]),
        out_specs=[PartitionSpec(*spec) for spec in op.attributes["out_specs"]],
        axis_names=set(op.attributes["axes"]),
        check_vma=op.attributes["check_vma"],
    )

    def run(*values: Any) -> list[Any]:
        if op.attributes["written"] and not op.attributes["check_vma"]:
            _check_lanes(op, function, values, whole)
        try:
            with contextlib.nullcontext() if inside else _jax.without_mesh():
                results: list[Any] = mapped(*values)
        except StateGraphError:
            raise
        except ValueError as error:
            _refuse(op, varying, error)
        return results

    return run


def _mesh(op: Op) -> Any:
    """The mesh of the op; of one without devices, those of the mesh that ``jax.set_mesh`` chose."""
    record = op.attributes["mesh"]
    try:
        if record.name == "mesh":
            return plain_mesh(mesh_of(record))
    except LoweringError as error:
        raise LoweringError(f"{op.name}: {error}\n  at: {op.location}") from None
    mesh = _jax.context_mesh()
    if dict(mesh.shape) != mesh_sizes(record):
        raise LoweringError(
            f"{op.name} runs on the mesh in context, with the axes {mesh_sizes(record)}; "
            f"here they are {dict(mesh.shape) or 'none'}\n  at: {op.location}\n"
            "  fix: call it inside `with jax.set_mesh(mesh):`, or give shard_map the mesh"
        )
    return plain_mesh(mesh)


def _check_lanes(op: Op, function: Callable[..., list[Any]], values: Sequence[Any], whole: int) -> None:
    """Refuse States without specs that may differ between devices, where JAX does not look."""
    sizes = mesh_sizes(op.attributes["mesh"])
    specs: list[Any] = [()] * whole + list(op.attributes["in_specs"])
    avals = [
        _jax.resized_aval(
            _jax.typeof(value), shape_of(local_type(_jax.type_of(_jax.typeof(value)), spec, sizes))
        )
        for value, spec in zip(values, specs, strict=True)
    ]
    cuts = [{name for entry in spec for name in names_in(entry)} for spec in specs]
    manual = {name: size for name, size in sizes.items() if name in op.attributes["axes"]}
    _refuse(op, _jax.axes_of_difference(function, avals, cuts, manual), None)


def _refuse(op: Op, varying: list[frozenset[str]], error: ValueError | None) -> None:
    """Say which results, or which States, differ between devices although the specs say that they do not."""
    rows = op.attributes["written"]
    starts = [*(first for first, _ in rows), len(op.results)]
    differing = [
        bool(axes - {name for entry in spec for name in names_in(entry)})
        for axes, spec in zip(varying, op.attributes["out_specs"], strict=False)
    ]
    found = {
        symbol.path: next((user.location for user, _ in op.results[first].uses), op.location)
        for (first, symbol), end in zip(rows, starts[1:], strict=True)
        if any(differing[first:end])
    }
    if not found and error is None:
        return
    if not found:
        raise LoweringError(f"the shard_map at {op.location} is refused by JAX: {error}") from error
    axes = frozenset().union(*(a for a, d in zip(varying, differing, strict=False) if d))
    first = next(iter(found))
    raise StateAccessError(
        different_on_devices(list(found), sorted(axes), found[first], created(op, first))
    ) from error


def created(op: Op, path: str) -> Location:
    """Where the program that ``op`` stands in says that a State was created."""
    region: Region | None = op.parent
    while region is not None and region.parent_op is not None:
        region = region.parent_op.parent
    owner = region.owner if region is not None else None
    symbol = owner.states.get(path) if isinstance(owner, Program) else None
    return symbol.location if symbol is not None else Location()

"""``shard_map`` equations, JAX's and our own, become ``xform.shard_map`` ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stategraph import _jax
from stategraph.backends.params import mesh_record, spec_of
from stategraph.errors import TraceError, describe
from stategraph.ir.attributes import Symbol
from stategraph.ir.core import Op, Region, Value
from stategraph.ir.lanes import resized
from stategraph.ir.location import Location
from stategraph.recording import Token

if TYPE_CHECKING:
    from stategraph.tracing.importer import Importer


def import_jax(importer: Importer, eqn: Any, operands: list[Value], location: Location) -> Op:
    """``jax.shard_map``: every State is the same on all devices."""
    params = eqn.params
    said = {
        "mesh": params["mesh"],
        "axes": tuple(sorted(params["newly_manual_axes"])),
        "check_vma": params["check_vma"],
        "in_specs": _specs(params["in_specs"], location),
        "out_specs": _specs(params["out_specs"], location),
    }
    return _shard_map(importer, eqn, operands, location, said, {}, ())


def import_own(importer: Importer, eqn: Any, operands: list[Value], location: Location) -> Op:
    """``stategraph.augment.shard_map``, which says what becomes of States. The keys that devices get for random
    States come last among the operands.
    """
    said = {key: eqn.params[key] for key in ("mesh", "axes", "check_vma", "in_specs", "out_specs")}
    states = {token: specs for token, *specs in eqn.params["states"]}
    with importer.types.shards(eqn.params):
        return _shard_map(importer, eqn, operands, location, said, states, eqn.params["keys"])


def _shard_map(
    importer: Importer,
    eqn: Any,
    operands: list[Value],
    location: Location,
    said: dict[str, Any],
    states: Mapping[Token, Sequence[Any]],
    keys: Sequence[Token],
) -> Op:
    body = eqn.params["jaxpr"]
    # Derivative rules run while importing.
    with _jax.within_mesh(said["mesh"], said["axes"], said["check_vma"]):
        region = importer.region(body, ())
    for position, (token, operand) in enumerate(
        zip(keys, operands[len(operands) - len(keys) :], strict=True)
    ):
        path = importer.symbol(token)
        own = Value(resized(operand.type, (1,)), region, len(region.args), path.rsplit(".", 1)[-1])
        region.args.append(own)
        _take_key(region, 2 * position, own, path, location)
    attributes = {
        **said,
        "mesh": mesh_record(said["mesh"]),
        "states": tuple(
            (Symbol(importer.symbol(token)), *specs)
            for token, specs in states.items()
            if token in importer.symbols
        ),
        "private": tuple(Symbol(importer.symbol(token)) for token in keys),
        "written": (),
    }
    types = _jax.result_types(eqn)
    return Op("xform.shard_map", operands, types, attributes, [region], location)


def _take_key(body: Region, position: int, keys: Value, path: str, location: Location) -> None:
    """A device begins by writing its own key to a random State."""
    take = Op("jax.squeeze", [keys], [resized(keys.type, ())], {"dimensions": (0,)}, (), location)
    write = Op("state.write", take.results, (), {"symbol": path}, (), location)
    for op in (write, take):
        op.parent = body
        body.ops.insert(position, op)


def _specs(specs: Sequence[Any], location: Location) -> tuple[Any, ...]:
    for spec in specs:
        if spec.unreduced or spec.reduced:
            raise TraceError(
                describe(
                    f"A shard_map has the spec {spec}.",
                    at=location,
                    why="StateGraph knows no partial sums as types",
                    fix="reduce the value in the function (jax.lax.psum) and give a plain spec",
                )
            )
    return tuple(map(spec_of, specs))

"""The transformations of ``stategraph.augment``, recorded as equations, become ``xform.*`` ops."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stategraph import _jax
from stategraph.backends.params import state_tree_of
from stategraph.ir.attributes import Symbol
from stategraph.ir.core import Op, Region, Value
from stategraph.ir.lanes import one_lane
from stategraph.ir.location import Location
from stategraph.recording import Token

if TYPE_CHECKING:
    from stategraph.tracing.importer import Importer


def import_grad(importer: Importer, eqn: Any, operands: list[Value], location: Location) -> Op:
    """``augment.grad``."""
    params = eqn.params
    consts = params["num_consts"]
    body = importer.region(params["jaxpr"], operands[:consts])
    states = tuple(Symbol(importer.symbol(token)) for token in params["tokens"])
    attributes: dict[str, Any] = {
        "states": states,
        "allow_int": params["allow_int"],
        "holomorphic": params["holomorphic"],
    }
    return Op("xform.grad", operands[consts:], _jax.result_types(eqn), attributes, [body], location)


def import_vmap(importer: Importer, eqn: Any, operands: list[Value], location: Location) -> Op:
    """``augment.vmap``. The lanes' keys come last among the operands: each lane begins by writing its own to the random
    State.
    """
    params = eqn.params
    consts = params["num_consts"]
    with importer.types.lanes(params):
        body = importer.region(params["jaxpr"], operands[:consts])
    given = operands[consts:]
    keys = len(params["keys"])
    for token, value, at in zip(params["keys"], given[len(given) - keys :], range(keys), strict=True):
        path = importer.symbol(token)
        key = Value(one_lane(value.type, 0), body, len(body.args), path.rsplit(".", 1)[-1])
        body.args.append(key)
        write = Op("state.write", [key], (), {"symbol": path}, (), location)
        write.parent = body
        body.ops.insert(at, write)

    def states(pairs: Sequence[tuple[Token, int]]) -> tuple[tuple[Symbol, int], ...]:
        return tuple((Symbol(importer.symbol(token)), axis) for token, axis in pairs)

    attributes: dict[str, Any] = {
        "size": params["size"],
        "axis_name": params["axis_name"],
        "spmd_axis_name": params["spmd_axis_name"],
        "in_axes": params["in_axes"],
        "out_axes": params["out_axes"],
        "in_states": states([pair for pair in params["in_states"] if pair[0] in importer.symbols]),
        "out_states": states(params["out_states"]),
        "private": tuple(Symbol(importer.symbol(token)) for token in params["private"]),
        "shared": (),
    }
    location.note = params["called"].renamed(importer.symbols)
    return Op("xform.vmap", given, _jax.result_types(eqn), attributes, [body], location)


def import_product(importer: Importer, eqn: Any, operands: list[Value], location: Location) -> Op:
    """``jvp`` and ``vjp``. Inputs: entry values of States that the body has copies of, constants,
    tangents or cotangents, arguments.

    A pullback runs the body again, on copies of the States as they were: each of ``local`` names a State,
    its structure and where among the entry values and arguments its leaves are.
    """
    params = eqn.params
    jaxpr, closed = _jax.body_parts(params["jaxpr"])
    sizes = (params["num_held"], params["num_consts"], params["num_seeds"])
    starts = [sum(sizes[:i]) for i in range(4)]
    held, consts, seeds = (operands[a:b] for a, b in itertools.pairwise(starts))
    given = operands[starts[3] :]
    region = Region([value.type for value in given])
    sources = [*held, *region.args]
    outer = {token: importer.symbol(token) for token, _, _ in params["local"]}
    depth = importer.depth
    if params["depth"] is not None:  # what it runs on is its own, so it may stand anywhere
        importer.depth = params["depth"]
    for token, tree, slots in params["local"]:
        assert importer.recorder is not None
        importer.symbols[token] = importer.name_copy(token)
        attributes = {
            "symbol": importer.symbols[token],
            "kind": type(importer.recorder.owners[token]).__name__,
            "tree": state_tree_of(tree),
        }
        region.append(Op("state.alloc", [sources[i] for i in slots], (), attributes, (), location))
    importer.fill(region, jaxpr, closed, dict(zip(jaxpr.invars, [*consts, *region.args], strict=False)))
    importer.symbols.update(outer)
    importer.depth = depth
    states = tuple(Symbol(importer.symbol(token)) for token in params["tokens"])
    attributes = {"outputs": params["outputs"], "lanes": params["lanes"], "states": states}
    name = "xform." + eqn.primitive.name.removeprefix("stategraph_")
    return Op(name, [*seeds, *given], _jax.result_types(eqn), attributes, [region], location)

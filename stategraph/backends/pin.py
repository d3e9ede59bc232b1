"""Keeping prints where they are while JAX differentiates a loop.

When JAX splits a scan for reverse mode it moves everything that does not depend on the carry in front of the
loop, prints included: they would come once instead of once per trip. Pinning gives such a loop a trip counter
and makes each print depend on it, which changes no value.
"""

from __future__ import annotations

import numpy as np

from stategraph import _jax
from stategraph.ir.attributes import Opaque
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.types import TensorType
from stategraph.passes.edit import REWRITER, insert_arg, insert_results, insert_yields

HOST = ("host.debug_print", "host.debug_callback", "host.io_callback", "host.pure_callback")
_I32, _BOOL = TensorType("i32"), TensorType("bool")


def pin_host_effects(region: Region, counter: Value | None = None) -> None:
    """Pin every result-less host op below ``region`` that stands in a scan."""
    for op in list(region.ops):
        if op.name == "flow.scan" and next(op.walk(*HOST), None) is not None:
            pin_host_effects(op.regions[0], _count_trips(op, counter))
        elif op.name in HOST and counter is not None and not op.results:
            _depend_on(op, counter)
        else:
            for inner in op.regions:
                pin_host_effects(inner, counter)


def _count_trips(loop: Op, outer: Value | None) -> Value:
    """Give a loop one more carry, its trip counter, which starts at the outer loop's."""
    position = loop.attributes["carry"]
    (body,) = loop.regions
    operands = list(loop.operands)
    operands.insert(position, Constant(np.int32(0), _I32) if outer is None else outer)
    REWRITER.set_operands(loop, operands)
    counter = insert_arg(body, position, _I32, "trip")
    following = Op("jax.add", [counter, Constant(np.int32(1), _I32)], [_I32], location=loop.location)
    REWRITER.insert_before(body.terminator, following)
    insert_yields(body, position, [following.result])
    insert_results(loop, position, [_I32], [None])
    loop.attributes = {**loop.attributes, "carry": position + 1}
    return counter


def _depend_on(op: Op, counter: Value) -> None:
    """Run ``op`` if ``counter >= 0``, which always holds."""
    test = Op("jax.ge", [counter, Constant(np.int32(0), _I32)], [_BOOL], location=op.location)
    never, always = Region(), Region()
    never.yield_((), op.location)
    name, attributes = op.name, dict(op.attributes)
    if name == "host.io_callback":  # differentiating a loop, JAX keeps callbacks of the debug kind only
        name = "host.debug_callback"
        effect = _jax.debug_effect(attributes["ordered"])
        attributes = {
            "callback": attributes["callback"],
            "effect": Opaque(type(effect).__name__, effect),
            "partitioned": False,
        }
    inner = Op(name, op.operands, (), attributes, (), op.location)
    always.append(inner)
    always.yield_((), op.location)
    REWRITER.insert_before(op, test, Op("flow.cond", [test.result], (), {}, [never, always], op.location))
    REWRITER.erase(op)

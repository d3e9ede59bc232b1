"""Transformations become ordinary ops.

A transformation op (``xform.grad``) keeps its body as one region until State has been hoisted out of it. Then
it is expanded, innermost first: a backend offers, per op name, a function that computes the ops of the
transformed body. No user code runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import attrs

from stategraph.ir.core import Op, Program, Region, Value
from stategraph.passes.base import Pass, PassError
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, erase_uses
from stategraph.passes.registry import register

Expansion = tuple[list[Op], list[Value]]
"""The ops to stand in place of a transformation, and the values of its results."""
Transformed = tuple[Callable[..., list[Any]], list[Value]]
"""A function of arrays that computes the results of a transformation, and its operands."""
EXPANDERS: dict[str, Callable[[Op, bool], Expansion]] = {}
"""How to expand each transformation, given whether it stands inside another one; filled by the backend."""
FUNCTIONS: dict[str, Callable[[Op], Transformed]] = {}
"""The same as functions, for places where JAX has to transform while it traces; filled by the backend."""
WHOLE = "xform.shard_map"
"""JAX decides in the body what is the same on all devices, and derivatives depend on it: transformations in
there are left to the backend.
"""
SURROUNDINGS: list[Callable[[Op], AbstractContextManager[None]]] = []
"""What has to hold while an op is expanded (the axes that lanes around it name); filled by the backend."""


@register
@attrs.frozen
class ExpandTransforms(Pass):
    """Replace gradients and other transformations by the ops that compute them."""

    name = "expand-transforms"

    differentiable: bool = False
    """Functions keep their derivative rules: the program is going to be differentiated."""

    def run(self, program: Program, context: Context) -> None:
        _expand(program.body, context, self.differentiable)


def _expand(region: Region, context: Context, inside: bool) -> None:
    ops: list[Op] = []
    for op in region.ops:
        if op.name == WHOLE:
            ops.append(op)
            continue
        for inner_region in op.regions:
            _expand(inner_region, context, inside or op.name in EXPANDERS)
        if op.name in EXPANDERS:
            if next(op.walk("state.read", "state.write", "state.alloc"), None) is not None:
                raise PassError(
                    f"{op.name} still contains State; run hoist-state before expand-transforms\n  at: {op.location}"
                )
            with ExitStack() as surroundings:
                for enter in SURROUNDINGS:
                    surroundings.enter_context(enter(op))
                new, values = EXPANDERS[op.name](op, inside)
            for result, value in zip(op.results, values, strict=True):
                REWRITER.replace_uses(result, value)
            erase_uses(op)
            for inner in new:
                inner.parent = region
            ops += new
            context.report(op, "expanded", ops=len(new))
            continue
        ops.append(op)
    region.ops = ops

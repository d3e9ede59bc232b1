"""Inline calls: the body of a call stands in its place where that helps the other passes.

An inner ``jit`` is traced as a ``flow.call``. It is dissolved when it touches State (so that the accesses
around it are seen together), when it is small, or when nothing else calls a body of that name. A call with
attributes other than its name (shardings, donation) means something to the backend and stays. So does, until
the transformation around it is expanded, a pure call of more than a few ops: the backend differentiates equal calls once.
"""

from __future__ import annotations

import itertools
from collections import Counter

import attrs

from stategraph.ir.core import Op, Program, Region
from stategraph.ir.forms import STATE_OPS
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.edit import splice
from stategraph.passes.registry import register

SELECTION = 5
"""Ops of ``jnp.where``, its yield included: conversions, broadcasts and the selection itself."""


@register
@attrs.frozen
class InlineCalls(Pass):
    """Put the bodies of calls in place of the calls."""

    name = "inline-calls"
    max_ops: int = 32
    """Bodies of up to this many ops are inlined however often they are called."""

    def run(self, program: Program, context: Context) -> None:
        calls = Counter(str(op.attributes.get("name")) for op in program.walk("flow.call"))
        if calls:
            self._visit(program.body, calls, False)

    def _visit(self, region: Region, calls: Counter[str], transformed: bool) -> None:
        placed: list[Op] = []
        for op in region.ops:
            for inner in op.regions:
                self._visit(inner, calls, transformed or op.name.startswith("xform."))
            wanted = self._wanted(op, calls, transformed)
            placed += splice(op, op.regions[0], op.operands) if wanted else [op]
        region.ops = placed

    def _wanted(self, op: Op, calls: Counter[str], transformed: bool) -> bool:
        if op.name != "flow.call" or op.attributes.keys() != {"name"}:
            return False
        if any(True for _ in op.walk(*STATE_OPS)):
            return True
        if transformed:
            # JAX differentiates equal calls once; a selection (jnp.where) hides more than that saves.
            body = op.regions[0].ops
            return len(body) <= SELECTION and not any(inner.regions for inner in body)
        if calls[str(op.attributes["name"])] == 1:
            return True
        return (
            sum(1 for _ in itertools.islice(op.walk(), self.max_ops + 2)) <= self.max_ops + 1
        )  # with its yield

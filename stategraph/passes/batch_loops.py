"""Products of a loop body that need no carry run once for all steps.

A loop is taken apart as Allen and Kennedy do for vector machines ("Automatic translation of Fortran programs to vector
form", ACM TOPLAS 1987). Ops that take part in a *recurrence* (from a carry, through the body, to the same carry) stay in a
loop. A matrix product that takes part in none runs once, on the stacked values of all steps: before the loop, if it
depends on stacked inputs alone; after it, if only stacked outputs depend on it; and where one recurrence feeds another
through it (a readout with a memory of its own), the loop becomes two. Even *stages* are ops on stacked values, odd stages
are loops:

    loop: v, z, out = ...                     0   I = xs @ w_in
      v = f(v, x @ w_in + z @ w)      ->      1   loop: v, z = ...  with I_t, stacks z
      z = spike(v)                            2   O = Z @ w_out
      out = 0.9 out + z @ w_out               3   loop: out = 0.9 out + O_t

A gradient that collects a product in every step (a carry ``acc + x_t^T g_t``) is one product that sums over the steps as
well.

Other ops stay where they are, unless they stand between a product and a stacked input, or between a product and the
results: they would be stacked for nothing. Nothing moves out of a loop with effects.

*Exactness.* Rows of a product do not depend on each other; how the backend orders the sum within one may depend on their
number. The sum over steps of a gradient is JAX's (``add_any``), in an order that no one has written; a carry that the user
adds up (``add``) keeps its order, except under ``fast-math``.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from stategraph.ir.core import Op, Program, Region
from stategraph.ir.registry import effects_of
from stategraph.ir.types import OpaqueType
from stategraph.passes.base import Pass
from stategraph.passes.batch_plan import EVENTS, PRODUCT, Limits, Plan, plan
from stategraph.passes.batch_rebuild import rebuild
from stategraph.passes.batch_rules import stacked
from stategraph.passes.context import Context
from stategraph.passes.edit import carries, is_gradient
from stategraph.passes.registry import register

_ADVICE = 'options of this pass in passes=: "batch-loops{stack_price=0 max_bytes=...}"'


@register
@attrs.frozen
class BatchLoops(Pass):
    """Run the products of a loop body that need no carry once for all steps."""

    name = "batch-loops"
    exactness = "reduction-order"
    max_bytes: int = 1 << 28
    """Stack at most so many bytes more than the loop does, per loop."""
    stack_price: float = 0.2
    """Nanoseconds that one more stacked byte costs; with 0, all products that can be moved are."""

    def run(self, program: Program, context: Context) -> None:
        for loop in list(_inner_first(program.body, context)):
            found = self._plan(loop, context)
            if found is None:
                continue
            for op, reason in found.kept.items():
                context.explain(op, "stays in the loop", reason=reason, advice=_ADVICE)
            if found.moved:
                rebuild(loop, found)
                context.report(
                    loop,
                    "products run once for all steps",
                    products=len(found.moved),
                    loops=found.loops,
                    stacked_bytes=found.new_bytes,
                )

    def _plan(self, loop: Op, context: Context) -> Plan | None:
        if not can_be_taken_apart(loop):
            return None
        limits = Limits(self.max_bytes, self.stack_price, ("jax.add_any",))
        if context.allows("fast-math"):
            limits = attrs.evolve(limits, sums=("jax.add_any", "jax.add"))
        return plan(loop, limits)


def _inner_first(region: Region, context: Context) -> Iterable[Op]:
    """The scans, without those in bodies that are still to be differentiated (their sums would be others), that run on
    shards (types say less there), or that are rematerialised to save memory.
    """
    for op in list(region.ops):
        if op.name in ("xform.shard_map", "xform.remat") or (
            is_gradient(op) and not context.allows("fast-math")
        ):
            continue
        for inner in op.regions:
            yield from _inner_first(inner, context)
        if op.name == "flow.scan":
            yield op


def can_be_taken_apart(loop: Op) -> bool:
    """Whether a scan is one that this pass understands: more than one step, no effects, values that stack as declared."""
    (body,) = loop.regions
    length, count = loop.attributes["length"], carries(loop)
    if length < 2 or not any(op.name in (PRODUCT, EVENTS) for op in body.ops) or effects_of(loop):
        return False
    if any(isinstance(value.type, OpaqueType) for op in body.ops for value in op.results):
        return False
    outputs = zip(loop.results[count:], body.yielded[count:], strict=True)
    return all(stacked(value.type, length) == result.type for result, value in outputs)

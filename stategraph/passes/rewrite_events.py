"""Products of events become event products, where these are cheaper.

    %y = jax.dot_general %spikes, %w {…}     %y = event.dense %spikes, %w {threshold = none, transposed = false}

What is an event has been noted by ``infer-events``; truth values are events too. Candidates are found by
``event_products``: products with a matrix on either side, with batches, sums of masked rows, and products with sparse
matrices of ``jax.experimental.sparse``. A cost model (``event_costs``) decides by sizes, rate and platform; every
decision is explained with its figures.

An event product multiplies every element that is not zero, so it is right for any numbers, and it is an ordinary
product where many are active. It differs from the ordinary one in two ways, which make it ``reduction-order``: the sum
runs over other terms, in another order; and what is silent contributes nothing, where an ordinary product
contributes ``0 * weight``, which is NaN if the weight is not finite.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from stategraph.ir.core import Op, Program, Region, Value
from stategraph.ir.registry import definition_of
from stategraph.ir.types import TensorType
from stategraph.passes import hooks
from stategraph.passes.base import Pass, PassError
from stategraph.passes.context import Context
from stategraph.passes.edit import LOOPS, REWRITER
from stategraph.passes.event_costs import AT_MOST, TABLE
from stategraph.passes.event_origin import Origin, Origins
from stategraph.passes.event_products import Place, Product, dot_general, masked_sum
from stategraph.passes.event_sparse import sparse_places, sparse_rows
from stategraph.passes.native_ops import FLOATS
from stategraph.passes.registry import register

FINDERS: dict[str, Callable[[Op, Place], Product | None]] = {
    "jax.dot_general": dot_general,
    "jax.reduce_sum": masked_sum,
    "jax.bcsr_dot_general": sparse_rows,
    "jax.bcoo_dot_general": sparse_places,
}
"""Which products events may take part in; None when none do."""
MODES = ("auto", "always", "never")


@register
@attrs.frozen
class RewriteEvents(Pass):
    """Turn products of events into event products where a cost model says so."""

    name = "rewrite-events"
    exactness = "reduction-order"

    rate: float = 0.01
    """Share of active elements where the user declared none."""
    mode: str = "auto"
    """auto: by cost; always: wherever it is possible; never: nowhere."""
    platform: str | None = None
    """Where the program will run: cpu-native (a CPU with numba), cpu, gpu, tpu; none for where it is lowered for."""

    def run(self, program: Program, context: Context) -> None:
        if self.mode not in MODES:
            raise PassError(
                f"option 'mode' of 'rewrite-events' is one of {', '.join(MODES)}, not {self.mode!r}"
            )
        if not 0 <= self.rate <= 1:
            raise PassError(
                f"option 'rate' of 'rewrite-events' is a share between 0 and 1, not {self.rate!r}"
            )
        found = candidates(program)
        if found:
            origins = Origins.of(program)
            for product in found:
                self._decide(product, origins.find(product.events), context)
        _forget_declarations(program)

    def _decide(self, product: Product, origin: Origin, context: Context) -> None:
        rate = self.rate if origin.rate is None else origin.rate
        if origin.rate is None and origin.inverted:
            rate = 1 - rate
        platform = kernels(self.platform or context.platform or hooks.platform(), _dtype(product))
        costs = TABLE.get(platform)
        numbers: dict[str, int | float | str] = {**product.numbers, "rate": rate}
        whole = active = worst = 0.0
        if costs is not None and product.has_kernel(costs):
            whole, active = product.costs(costs, rate)
            worst = product.worst(costs)
            numbers |= {"dense_us": round(whole / 1000, 2), "event_us": round(active / 1000, 2)}
        declared = "declared" if origin.rate is not None else "assumed"
        wanted, why = self._wanted(origin, whole, active, platform)
        if (
            wanted
            and costs is not None
            and self.mode == "auto"
            and origin.use is None
            and origin.rate is None
        ):
            product.guard(costs, always=platform == "gpu")
            wanted, why = _is_safe(product, rate, whole, worst, why)
            if product.threshold is not None:
                numbers["threshold"] = product.threshold
        if product.precise and product.batch > 1 and not platform.startswith("cpu"):
            product.refusal = (
                product.refusal or "its precision is chosen, and vectors together are an ordinary product"
            )
        if wanted and product.refusal:
            wanted, why = False, product.refusal
        if not wanted:
            context.explain(
                product.op,
                "stays as it is, with events as an operand",
                reason=why,
                numbers=numbers,
                advice="sg.event.declare(x, use='events'), or rewrite-events{mode=always}",
            )
            return
        new = product.build()
        context.explain(
            product.op,
            f"became {new}",
            reason=f"{why}; the rate is {declared}",
            numbers=numbers,
            advice="sg.event.declare(x, rate=...) or use='dense', or rewrite-events{mode=never}",
        )

    def _wanted(self, origin: Origin, whole: float, active: float, platform: str) -> tuple[bool, str]:
        """Whether to rewrite, and why."""
        if self.mode != "auto":
            return self.mode == "always", f"rewrite-events{{mode={self.mode}}} says so"
        if origin.use is not None:
            return origin.use == "events", f"event.declare(use={origin.use!r}) says so"
        if not whole:
            return False, f"on {platform} a matrix is multiplied whole"
        if active < whole:
            return True, f"that is {whole / active:.3g} times cheaper"
        return False, f"events would cost {active / whole:.3g} times as much"


def kernels(platform: str, dtype: str) -> str:
    """Which kernels compute with weights of a dtype on a platform, as a row of the table of costs, which may have none.

    XLA's CPU code makes 32-bit floats of a whole matrix of 16 bits: for an ordinary product once before a loop, in the
    branch of an event product each time, and of ``bf16`` before each row that is read.
    """
    if platform == "cpu-native" and dtype not in FLOATS:
        platform = "cpu"
    return f"cpu with weights of {dtype}" if platform == "cpu" and dtype in ("f16", "bf16") else platform


def _dtype(product: Product) -> str:
    type_ = product.weights.type
    return type_.dtype if isinstance(type_, TensorType) else ""


def _is_safe(product: Product, rate: float, whole: float, worst: float, why: str) -> tuple[bool, str]:
    """Whether a wrong guess at the rate would be cheap, and a right one takes the rows."""
    if worst > AT_MOST * whole:
        return False, f"if the guess is wrong, events cost {worst / whole:.3g} times as much"
    if product.threshold is not None and product.threshold < rate:
        return False, f"above {product.threshold:.2%} of active events it would be an ordinary product"
    return True, why


def candidates(program: Program) -> list[Product]:
    """The products of a program that events, as ``infer-events`` has noted them, take part in."""
    found: list[Product] = []
    placed = any("sharding" in symbol.attributes for symbol in program.states.values())
    _search(program.body, Place(sharded=placed), found)
    return found


def _search(region: Region, place: Place, found: list[Product]) -> None:
    for op in region.ops:
        if op.name in FINDERS:
            product = FINDERS[op.name](op, place)
            if product is not None:
                found.append(product)
        elif op.regions and not op.name.startswith("jax."):
            for inner in op.regions:
                _search(inner, _inside(op, place), found)


def _inside(op: Op, place: Place) -> Place:
    if op.name in LOOPS:
        return attrs.evolve(place, loops=(*place.loops, op))
    if op.name == "xform.vmap":
        return attrs.evolve(place, lanes=(*place.lanes, op))
    if op.name == "xform.shard_map":
        return attrs.evolve(place, sharded=True)
    return place


def _forget_declarations(program: Program) -> None:
    """They have told what they had to tell."""
    if definition_of("event.declare") is None:
        return
    for op in program.walk("event.declare"):
        source: Value = op.operands[0]
        if source.event is None:
            source.event = op.result.event
        REWRITER.replace(op, [source])

"""Find out which values are events, and note it in the program.

    %s = jax.convert_element_type %0 {…} : event<f32[100]>          every element is 0 or 1
    %r = state.read @net.spike : event<f32[100], entry>             0 or 1, if the State was so at entry
    %m = jax.mul %s, %gain : event<f32[100], sparse>                mostly zero

A State whose every write is binary gets the attribute ``event``: ``entry`` speaks of these. What such a State holds when
the program begins is not known when it is compiled, the value that it has while it is traced included: anybody may
write 0.5 into it. The *guard* against that is part of every event product, which tests each value against zero and
multiplies by it, and is an ordinary product where many are not zero. So ``entry`` and ``sparse`` tell what to expect;
only ``binary``, and truth values (``bool``), which are 0 or 1 by type and print as ever, may be relied on.
Constants are no events.

``event_facts`` is the analysis. The notes are of the program as it is here; passes may lose them.
"""

from __future__ import annotations

import attrs

from stategraph.ir.core import Op, Program, Region, Value
from stategraph.ir.types import TensorType
from stategraph.passes.base import Pass
from stategraph.passes.context import Context
from stategraph.passes.event_facts import NAMES, RULED, Facts, event_facts
from stategraph.passes.event_rules import UNKNOWN, is_filled
from stategraph.passes.registry import register

PRODUCTS = ("jax.dot_general", "jax.bcsr_dot_general", "jax.bcoo_dot_general", "jax.reduce_sum")
"""The ops for which it matters what is an event, besides those of the family ``event``."""
CHOOSING = ("jax.convert_element_type", "jax.select_n")
"""What makes numbers of truth values."""


@register
@attrs.frozen
class InferEvents(Pass):
    """Prove which values hold only 0 and 1, State across loops and calls included."""

    name = "infer-events"

    def run(self, program: Program, context: Context) -> None:
        if not _may_have_events(program):
            return
        facts = event_facts(program)
        annotate(program, facts)
        for path, found in facts.states.items():
            symbol = program.states[path]
            leaves = tuple(leaf for leaf in found if not _is_bool(symbol.types[leaf]))
            if not leaves:
                continue
            symbol.attributes["event"] = True if leaves == tuple(range(len(symbol.types))) else leaves
            context.explain(
                symbol,
                "holds events",
                reason="every value written to it is 0 or 1; each product tests what it held before",
                numbers={"elements": sum(_size(symbol.types[leaf]) for leaf in leaves)},
            )


def annotate(program: Program, facts: Facts) -> None:
    """Note the facts at the values, in place of what was noted before."""
    for symbol in program.states.values():
        symbol.attributes.pop("event", None)
    _annotate(program.body, facts)


def _annotate(region: Region, facts: Facts) -> None:
    for arg in region.args:
        _note(arg, facts)
    for op in region.ops:
        for result in op.results:
            _note(result, facts)
        for inner in op.regions:
            _annotate(inner, facts)


def _note(value: Value, facts: Facts) -> None:
    type_ = value.type
    if type(type_) is TensorType and type_.dtype != "bool":
        value.event = NAMES.get(facts.values.get(value, UNKNOWN))


def _may_have_events(program: Program) -> bool:
    """A look at the ops that costs next to nothing: there are products, and something that can be an event."""
    found = (
        {"events"} if any(_is_bool(t) for symbol in program.states.values() for t in symbol.types) else set()
    )
    return _looks_like_events(program.body, found)


def _looks_like_events(region: Region, found: set[str]) -> bool:
    """Whether both have been found; masks of derivative rules (of ``relu``, say) do not count."""
    for op in region.ops:
        name = op.name
        if name in PRODUCTS:
            found.add("products")
            if any(_is_bool(operand.type) for operand in op.operands):
                found.add("events")
        elif name in CHOOSING:
            if "events" not in found and _is_choice(op):
                found.add("events")
        elif name.startswith("event."):
            return True
        for inner in op.regions[:1] if name in RULED else op.regions:
            if _looks_like_events(inner, found):
                return True
        if len(found) == 2:
            return True
    return False


def _is_choice(op: Op) -> bool:
    """Numbers made of truth values: converted, or a choice between 0 and 1."""
    if not _is_bool(op.operands[0].type) or _is_bool(op.results[0].type):
        return False
    cases = op.operands[1:]
    return all(is_filled(case, 0) or is_filled(case, 1) for case in cases)


def _is_bool(type: object) -> bool:
    return isinstance(type, TensorType) and type.dtype == "bool"


def _size(type: object) -> int:
    return type.size if isinstance(type, TensorType) else 0

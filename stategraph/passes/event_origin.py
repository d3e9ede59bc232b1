"""Where events come from: the rate that the user declared, and whether they are the others (``1 - spikes``).

    sg.event.declare(x, rate=0.05)            5 % of the elements are expected to be active
    sg.event.declare(x, use="dense")          products with it stay as they are; "events": they become event products

The declaration is an op ``event.declare`` on the way of the values. It is looked for backwards from a product, through
ops that move elements, products and selections, into and out of loops, and through State.
"""

from __future__ import annotations

import attrs

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.passes.edit import LOOPS
from stategraph.passes.event_rules import is_filled

OPENED = 200
"""How many values are looked at before the search is given up."""
MIXING = (
    "jax.mul",
    "jax.max",
    "jax.min",
    "jax.and",
    "jax.or",
    "jax.concatenate",
    "jax.stack",
    "jax.pad",
    "jax.add",
)
MOVING = tuple(
    f"jax.{name}"
    for name in (
        *(
            "convert_element_type",
            "reshape",
            "transpose",
            "rev",
            "squeeze",
            "slice",
            "dynamic_slice",
            "gather",
        ),
        *(
            "broadcast_in_dim",
            "copy",
            "unstack",
            "stop_gradient",
            "div",
            "neg",
            "gt",
            "ge",
            "ne",
            "sign",
            "abs",
        ),
    )
)


@attrs.frozen
class Origin:
    """What is known about the events of a product."""

    rate: float | None = None
    """The declared share of active elements."""
    use: str | None = None
    """``dense`` or ``events`` where the user pinned the product."""
    inverted: bool = False
    """Active are those that are silent: ``1 - spikes``."""


@attrs.define
class Origins:
    """The search, with the writes of every State."""

    writes: dict[tuple[str, int], list[Value]]

    @classmethod
    def of(cls, program: Program) -> Origins:
        found: dict[tuple[str, int], list[Value]] = {}
        for op in program.walk("state.write", "state.alloc"):
            for i, operand in enumerate(op.operands):
                found.setdefault((op.symbol, i), []).append(operand)
        return cls(found)

    def find(self, value: Value) -> Origin:
        """The nearest declaration, breadth first."""
        seen: set[Value] = set()
        queue: list[tuple[Value, bool]] = [(value, False)]
        for here, flipped in queue:
            if here in seen or isinstance(here, Constant) or len(seen) > OPENED:
                continue
            seen.add(here)
            owner = here.owner
            if isinstance(owner, Op) and owner.name == "event.declare":
                rate = owner.attributes["rate"]
                return Origin(
                    1 - rate if flipped and rate is not None else rate, owner.attributes["use"], flipped
                )
            flipped = flipped != _flips(owner)
            queue += [(source, flipped) for source in self._sources(here)]
        return Origin(inverted=_is_inverted(value))

    def _sources(self, value: Value) -> list[Value]:
        owner = value.owner
        if isinstance(owner, Region):
            return entering(owner, value.index)
        if owner is None:
            return []
        if owner.name == "state.read":
            return self.writes.get((owner.symbol, value.index), [])
        if owner.name in ("flow.scan", "flow.while"):
            found = [region.yielded[value.index] for region in owner.regions[-1:]]
            return found + owner.operands[value.index : value.index + 1]
        if owner.regions:
            return [r.yielded[value.index] for r in owner.regions[:1] if value.index < len(r.yielded)]
        if owner.name in MOVING:
            return owner.operands[:1]
        if owner.name == "jax.select_n":
            return [*owner.operands[1:], owner.operands[0]]
        if owner.name == "jax.dynamic_update_slice":
            return [owner.operands[1], owner.operands[0]]
        if owner.name.startswith("jax.scatter"):
            return [owner.operands[2], owner.operands[0]]
        if owner.name in MIXING or _flips(owner):
            return list(owner.operands)
        return []


def entering(region: Region, index: int) -> list[Value]:
    """What an argument of a region begins as, and what comes around."""
    op = region.owner
    if not isinstance(op, Op):
        return []
    if op.name in ("xform.jvp", "xform.vjp"):
        index += len(op.operands) - len(region.args)
    found = op.operands[index : index + 1]
    if op.name in LOOPS and index < (op.attributes["carry"] if op.name == "flow.scan" else len(op.operands)):
        found = [region.owner.regions[-1].yielded[index], *found]  # type: ignore[union-attr]
    return found


def _is_inverted(value: Value) -> bool:
    """Whether the events are those that are silent, by the ops right before."""
    inverted = False
    for _ in range(OPENED):
        owner = value.owner
        if not isinstance(owner, Op) or not (_flips(owner) or owner.name in MOVING):
            break
        inverted = inverted != _flips(owner)
        value = owner.operands[1 if owner.name == "jax.sub" else 0]
    return inverted


def _flips(owner: Op | Region | None) -> bool:
    """``1 - x``, ``not x``, ``x == 0``."""
    if not isinstance(owner, Op):
        return False
    if owner.name == "jax.sub":
        return is_filled(owner.operands[0], 1)
    return owner.name == "jax.not" or (owner.name == "jax.eq" and is_filled(owner.operands[1], 0))

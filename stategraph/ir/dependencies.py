"""Which op has to come before which: data, and effects that may not change places.

Drawing and the networkx export both rest on this; passes ask ``effects_of`` and ``conflicts`` about the few
ops they touch.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from stategraph.ir.core import Op, Region, Value
from stategraph.ir.effects import READ, UNKNOWN_EFFECT, Effect
from stategraph.ir.registry import effects_of


@attrs.frozen
class Order:
    """``before`` has an effect on ``symbol`` (None: on the host, or unknown) that ``after`` may not
    overtake."""

    before: Op
    after: Op
    symbol: str | None


def captured_values(op: Op) -> Iterator[Value]:
    """Values that the regions of ``op`` use and do not define, each once, in order of use."""
    inside: set[Value] = set()
    seen: set[Value] = set()
    for region in op.regions:
        inside.update(region.args)
    for nested in op.walk():
        inside.update(nested.results)
        for region in nested.regions:
            inside.update(region.args)
    for nested in op.walk():
        for operand in nested.operands:
            if operand.owner is not None and operand not in inside and operand not in seen:
                seen.add(operand)
                yield operand


def effect_order(region: Region) -> Iterator[Order]:
    """The direct order between the ops of one region that their effects impose."""
    writer: dict[str | None, Op] = {}
    readers: dict[str | None, list[Op]] = {}
    barrier: Op | None = None
    for op in region.ops:
        touched = _touched(effects_of(op))
        if touched is None:  # an unknown effect stays in place
            before = {(other, symbol) for symbol, other in writer.items()}
            before |= {(other, symbol) for symbol, others in readers.items() for other in others}
            ordered = sorted(before, key=lambda item: (str(item[1]), region.ops.index(item[0])))
            yield from (Order(other, op, symbol) for other, symbol in ordered)
            writer.clear()
            readers.clear()
            if barrier is not None and not ordered:
                yield Order(barrier, op, None)
            barrier = op
            continue
        for symbol, changes in touched.items():
            last = writer.get(symbol, barrier)
            between = readers.get(symbol, [])
            if changes:
                if between:
                    yield from (Order(other, op, symbol) for other in between)
                elif last is not None:
                    yield Order(last, op, symbol)
                writer[symbol], readers[symbol] = op, []
            else:
                if last is not None:
                    yield Order(last, op, symbol)
                readers.setdefault(symbol, []).append(op)


def _touched(effects: tuple[Effect, ...]) -> dict[str | None, bool] | None:
    """Symbol -> whether it is changed; None when an effect is unknown. Host effects have the symbol None and
    keep their order."""
    touched: dict[str | None, bool] = {}
    for effect in effects:
        if effect.kind == UNKNOWN_EFFECT:
            return None
        touched[effect.symbol] = touched.get(effect.symbol, False) or effect.kind != READ
    return touched

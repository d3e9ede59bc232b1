"""What a region takes from outside, and what it computes."""

from __future__ import annotations

from typing import Any

from stategraph.ir.core import Constant, Region, Value


def region_key(region: Region) -> Any | None:
    """What a region computes, as a hashable key; None when it captures values or has parameters that cannot
    be compared.
    """
    numbers: dict[Value, int] = {}
    try:
        key = _region_key(region, numbers)
        hash(key)
    except (KeyError, TypeError):
        return None
    return key


def _region_key(region: Region, numbers: dict[Value, int]) -> Any:
    for arg in region.args:
        numbers[arg] = len(numbers)
    ops = []
    for op in region.ops:
        operands = tuple(value.key() if type(value) is Constant else numbers[value] for value in op.operands)
        inner = tuple(_region_key(nested, numbers) for nested in op.regions)
        ops.append(
            (
                op.name,
                operands,
                tuple(op.attributes.items()),
                inner,
                tuple(result.type for result in op.results),
            )
        )
        for result in op.results:
            numbers[result] = len(numbers)
    return (tuple(arg.type for arg in region.args), tuple(ops))


def captures(*regions: Region) -> list[Value]:
    """The values from outside that these regions use, in order of first use."""
    found: dict[Value, None] = {}
    inside: set[Value] = set()
    for region in regions:
        _capture(region, inside, found)
    return list(found)


def _capture(region: Region, inside: set[Value], found: dict[Value, None]) -> None:
    inside.update(region.args)
    for op in region.ops:
        for operand in op.operands:
            if operand not in inside and type(operand) is not Constant:
                found[operand] = None
        for nested in op.regions:
            _capture(nested, inside, found)
        inside.update(op.results)

"""Edits that several passes share: erasing many ops, dropping results and arguments and putting in new ones, splicing
a region into its parent.

They keep uses, owners and positions consistent, as ``ir.Rewriter`` does, and are linear in what they touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.registry import EffectRule, definition_of, own_effects
from stategraph.ir.rewriter import Rewriter
from stategraph.ir.types import Type

REWRITER = Rewriter()


class _EffectRules(dict[str, EffectRule]):
    """``own_effects`` with the look-up of the definition done once per op name: what long programs can
    afford.
    """

    def __missing__(self, name: str) -> EffectRule:
        definition = definition_of(name)
        if definition is None:
            return own_effects  # which knows what unknown ops do; somebody may register the op later
        self[name] = definition.effects
        return definition.effects


EFFECTS_OF = _EffectRules()
"""The effects of an op without those of its regions: ``EFFECTS_OF[op.name](op)``."""
LOOPS = ("flow.scan", "flow.while")


def keep_results(op: Op, keep: Sequence[bool]) -> None:
    """Drop the results of ``op`` that are not kept; nobody may take them. Its regions' yields are left to the
    caller.
    """
    op.results = [result for result, kept in zip(op.results, keep, strict=True) if kept]
    for i, result in enumerate(op.results):
        result.index = i


def keep_operands(op: Op, keep: Sequence[bool]) -> None:
    """Drop the operands of ``op`` that are not kept."""
    REWRITER.set_operands(op, [operand for operand, kept in zip(op.operands, keep, strict=True) if kept])


def keep_args(region: Region, keep: Sequence[bool]) -> None:
    """Drop the arguments of ``region`` that are not kept; nobody may take them."""
    region.args = [arg for arg, kept in zip(region.args, keep, strict=True) if kept]
    for i, arg in enumerate(region.args):
        arg.index = i


def keep_carries(loop: Op, keep: Sequence[bool]) -> None:
    """Drop the carries of a loop that are not kept: init, arguments, yield and result, all unused."""
    count = carries(loop)
    rest = [True] * (len(loop.operands) - count)
    keep_operands(loop, [*keep, *rest])
    for region in loop.regions:
        keep_args(region, [*keep, *rest])
    keep_operands(loop.regions[-1].terminator, [*keep, *[True] * (len(loop.results) - count)])
    keep_results(loop, [*keep, *[True] * (len(loop.results) - count)])
    if loop.name == "flow.scan":
        loop.attributes["carry"] = sum(keep)


def add_carry(scan: Op, init: Value, yielded: Value) -> Value:
    """Let a scan carry one more value, which begins as ``init``; returns its last value, a new result."""
    count, body = carries(scan), scan.regions[0]
    REWRITER.set_operands(scan, [*scan.operands[:count], init, *scan.operands[count:]])
    REWRITER.set_operands(body.terminator, [*body.yielded[:count], yielded, *body.yielded[count:]])
    body.args.insert(count, Value(yielded.type, body))
    scan.results.insert(count, Value(yielded.type, scan))
    keep_args(body, [True] * len(body.args))
    keep_results(scan, [True] * len(scan.results))
    scan.attributes["carry"] = count + 1
    return scan.results[count]


def carries(loop: Op) -> int:
    """How many values a loop carries."""
    count: int = loop.attributes["carry"] if loop.name == "flow.scan" else len(loop.operands)
    return count


def is_plain_body(op: Op) -> bool:
    """Whether the op runs one body once with its operands as arguments, and nothing else refers to their
    positions.
    """
    return op.name == "xform.remat" or (op.name == "flow.call" and op.attributes.keys() <= {"name"})


def is_gradient(op: Op) -> bool:
    """Whether the regions of the op are transformed before they run (differentiated, mapped), so that
    rounding inside may show elsewhere. Rematerialised bodies only run again, those of shards on every device.
    """
    return op.name.startswith("xform.") and op.name not in ("xform.remat", "xform.shard_map")


def home(value: Value) -> Region | None:
    """The region in which a value is defined; None for constants."""
    owner = value.owner
    return owner.parent if type(owner) is Op else owner  # type: ignore[return-value]


def same_value(a: Value, b: Value) -> bool:
    """Whether two operands are the same value: one definition, or constants with equal bits."""
    if a is b:
        return True
    return type(a) is Constant and type(b) is Constant and a.key() == b.key()


def visible_outside(value: Value, regions: Sequence[Region]) -> bool:
    """Whether ``value``, taken somewhere inside ``regions`` (directly or below), is defined outside of all of
    them.
    """
    region = home(value)
    while region is not None:
        if region in regions:
            return False
        region = region.parent_op.parent if region.parent_op is not None else None
    return True


def splice(op: Op, region: Region, arguments: Iterable[Value]) -> list[Op]:
    """Dissolve ``op`` into the ops of its ``region``: returns these, to stand in its place.

    The region's arguments become ``arguments``, the results of ``op`` what the region yields. ``op`` lets go
    of everything; the caller puts the returned ops into the parent region, whose ops they now are, where
    ``op`` was.
    """
    for arg, argument in zip(list(region.args), arguments, strict=True):
        REWRITER.replace_uses(arg, argument)
    for result, value in zip(op.results, region.yielded, strict=True):
        REWRITER.replace_uses(result, value)
    ops = region.ops[:-1]
    region.ops = region.ops[-1:]
    for moved in ops:
        moved.parent = op.parent
    erase_uses(op)
    return ops


def erase_uses(op: Op) -> None:
    """Let go of the operands of ``op`` and of everything inside it; the caller drops it from its region."""
    REWRITER.detach(op)
    op.parent = None


def insert_results(op: Op, position: int, types: Sequence[Type], names: Sequence[str | None]) -> list[Value]:
    """New results of an op at ``position``."""
    new = [Value(type, op, 0, name) for type, name in zip(types, names, strict=True)]
    op.results[position:position] = new
    for index, result in enumerate(op.results):
        result.index = index
    return new


def insert_yields(region: Region, position: int, values: Sequence[Value]) -> None:
    """New yielded values of a region at ``position``."""
    terminator = region.terminator
    terminator.operands[position:position] = values
    for value in values:
        value._users.append(terminator)


def insert_arg(region: Region, position: int, type: Type, name: str | None) -> Value:
    """A new argument of a region at ``position``."""
    arg = Value(type, region, position, name)
    region.args.insert(position, arg)
    for index, other in enumerate(region.args):
        other.index = index
    return arg

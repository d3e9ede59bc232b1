"""Lifting State out of ``xform.vmap``.

- a State that is mapped becomes one more mapped operand;
- a State that is only read, or that every lane starts from, is closed over;
- what the lanes write becomes results: stacked along the declared axis, or, where none is declared, one
  value that all lanes agree on;
- what lanes write to a private State is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stategraph.ir.attributes import Symbol
from stategraph.ir.core import Op, Value
from stategraph.ir.lanes import all_lanes, private_states, shape_of, state_axes
from stategraph.passes.edit import REWRITER
from stategraph.passes.forward_state import Accesses


def lift_vmap(op: Op, found: Accesses) -> tuple[list[Op], list[Op]]:
    """(reads to stand before the op, writes to stand after it); the State ops of the body go."""
    (region,) = op.regions
    size: int = op.attributes["size"]
    mapped, kept, private = state_axes(op, "in_states"), state_axes(op, "out_states"), private_states(op)
    operands, in_axes, before = list(op.operands), list(op.attributes["in_axes"]), []
    written = _written(found, mapped, kept, private)
    for path, read in found.reads.items():
        axis = mapped.get(path)
        types = [
            result.type if axis is None else all_lanes(result.type, axis, size) for result in read.results
        ]
        outer = Op("state.read", (), types, {"symbol": path}, (), read.location)
        before.append(outer)
        for inner, whole in zip(read.results, outer.results, strict=True):
            whole.name = _short(path)
            value: Value = whole
            if axis is not None:
                value = REWRITER.add_region_arg(region, inner.type, inner.name)
                operands.append(whole)
                in_axes.append(_resolved(axis, whole))
            REWRITER.replace_uses(inner, value)
            written = {
                key: [value if leaf is inner else leaf for leaf in leaves] for key, leaves in written.items()
            }
        REWRITER.erase(read)
    REWRITER.set_operands(op, operands)
    after, out_axes, shared = _results(op, written, kept, found)
    for write in found.writes.values():
        REWRITER.erase(write)
    op.attributes = {
        **op.attributes,
        "in_axes": tuple(in_axes),
        "out_axes": out_axes,
        "in_states": (),
        "out_states": (),
        "private": (),
        "shared": (*op.attributes["shared"], *shared),
    }
    return before, after


def _written(
    found: Accesses, mapped: Mapping[str, int], kept: Mapping[str, int], private: set[str]
) -> dict[str, list[Value]]:
    """What each lane leaves in the States that it changes."""
    written = {path: list(write.operands) for path, write in found.writes.items() if path not in private}
    for path, axis in kept.items():
        read = found.reads.get(path)
        if path not in written and read is not None and mapped.get(path) != axis:
            written[path] = list(read.results)  # it wrote back what it read, and is stacked all the same
    return written


def _results(
    op: Op, written: Mapping[str, Sequence[Value]], kept: Mapping[str, int], found: Accesses
) -> tuple[list[Op], tuple[int | None, ...], list[tuple[Any, ...]]]:
    """Return what lanes wrote: (the writes after the op, its ``out_axes``, which results all lanes share)."""
    (region,) = op.regions
    out_axes: list[int | None] = list(op.attributes["out_axes"])
    after, shared = [], []
    for path, leaves in written.items():
        axis = kept.get(path)
        if axis is None:
            shared.append((len(op.results), Symbol(path)))
        new = []
        for leaf in leaves:
            type = leaf.type if axis is None else all_lanes(leaf.type, axis, op.attributes["size"])
            result = Value(type, op, len(op.results), _short(path))
            op.results.append(result)
            new.append(result)
            out_axes.append(None if axis is None else _resolved(axis, result))
        REWRITER.set_operands(region.terminator, [*region.yielded, *leaves])
        write = found.writes.get(path)
        after.append(
            Op("state.write", new, (), {"symbol": path}, (), op.location if write is None else write.location)
        )
    return after, tuple(out_axes), shared


def _resolved(axis: int, whole: Value) -> int:
    return axis + len(shape_of(whole.type)) if axis < 0 else axis


def _short(path: str) -> str:
    return path.rsplit(".", 1)[-1]

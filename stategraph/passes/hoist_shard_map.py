"""Lifting State out of ``xform.shard_map``.

- a State with specs becomes one more operand, cut as its specs say;
- another State that is only read is closed over: every device has the whole;
- what devices write becomes results: put together by the specs, or, where there are none, one value that all
  devices have to agree on (checked when the op is lowered);
- what devices write to a private State is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stategraph.ir.attributes import Symbol
from stategraph.ir.core import Op, Value
from stategraph.ir.lanes import private_states
from stategraph.ir.shards import Specs, global_type, mesh_sizes, state_specs
from stategraph.passes.edit import REWRITER
from stategraph.passes.forward_state import Accesses


def lift_shard_map(op: Op, found: Accesses) -> tuple[list[Op], list[Op]]:
    """(reads to stand before the op, writes to stand after it); the State ops of the body go."""
    (region,) = op.regions
    specs, private, sizes = state_specs(op), private_states(op), mesh_sizes(op.attributes["mesh"])
    operands, in_specs, before = list(op.operands), list(op.attributes["in_specs"]), []
    written = {path: list(write.operands) for path, write in found.writes.items() if path not in private}
    for path, (entry, end) in specs.items():
        if path not in written and path in found.reads and entry != end:
            written[path] = list(found.reads[path].results)  # read only, and put together in another way
    for path, read in found.reads.items():
        cuts = specs[path][0] if path in specs else ((),) * len(read.results)
        types = [global_type(value.type, cut, sizes) for value, cut in zip(read.results, cuts, strict=True)]
        outer = Op("state.read", (), types, {"symbol": path}, (), read.location)
        before.append(outer)
        for inner, whole, cut in zip(read.results, outer.results, cuts, strict=True):
            whole.name = _short(path)
            value: Value = whole
            if cut:
                value = REWRITER.add_region_arg(region, inner.type, inner.name)
                operands.append(whole)
                in_specs.append(cut)
            REWRITER.replace_uses(inner, value)
            written = {
                key: [value if leaf is inner else leaf for leaf in leaves] for key, leaves in written.items()
            }
        REWRITER.erase(read)
    REWRITER.set_operands(op, operands)
    after, out_specs, named = _results(op, written, {path: end for path, (_, end) in specs.items()}, found)
    for write in found.writes.values():
        REWRITER.erase(write)
    op.attributes = {
        **op.attributes,
        "in_specs": tuple(in_specs),
        "out_specs": out_specs,
        "states": (),
        "private": (),
        "written": (*op.attributes["written"], *named),
    }
    return before, after


def _results(
    op: Op, written: Mapping[str, Sequence[Value]], ends: Mapping[str, Specs], found: Accesses
) -> tuple[list[Op], Specs, list[tuple[int, Symbol]]]:
    """Return what devices wrote: (the writes after the op, its ``out_specs``, which results are States)."""
    (region,) = op.regions
    sizes = mesh_sizes(op.attributes["mesh"])
    out_specs = list(op.attributes["out_specs"])
    after, named = [], []
    for path, leaves in written.items():
        if path not in ends or op.attributes["check_vma"]:  # else the user vouches for it
            named.append((len(op.results), Symbol(path)))
        new = []
        for leaf, spec in zip(leaves, ends.get(path, ((),) * len(leaves)), strict=True):
            result = Value(global_type(leaf.type, spec, sizes), op, len(op.results), _short(path))
            op.results.append(result)
            new.append(result)
            out_specs.append(spec)
        REWRITER.set_operands(region.terminator, [*region.yielded, *leaves])
        write = found.writes.get(path)
        location = op.location if write is None else write.location
        after.append(Op("state.write", new, (), {"symbol": path}, (), location))
    return after, tuple(out_specs), named


def _short(path: str) -> str:
    return path.rsplit(".", 1)[-1]

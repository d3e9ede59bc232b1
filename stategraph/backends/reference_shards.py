"""What ``xform.shard_map`` means: the body, op by op, under ``jax.shard_map``.

Every device starts from its shards of the operands and of the States that have specs; other States are whole.
A condition has to be the same on all devices, since Python asks for its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from stategraph import _jax
from stategraph.backends.params import mesh_of
from stategraph.backends.reference_values import Leaves
from stategraph.ir.core import Op
from stategraph.ir.lanes import private_states
from stategraph.ir.shards import state_specs


def run_shards(machine: Any, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """The results of the op; the interpreter's store then holds what the devices left."""
    specs, private = state_specs(op), private_states(op)
    store: dict[str, Leaves] = machine.store
    start = dict(store)
    changed = {access.symbol for access in op.walk("state.write")} & store.keys()
    changed |= {path for path, (entry, end) in specs.items() if entry != end}
    written = sorted(changed - private)

    def local(arguments: Sequence[Any], own: Sequence[Leaves]) -> tuple[list[Any], list[Leaves]]:
        store.update(start)
        store.update(zip(specs, map(tuple, own), strict=True))
        try:
            results: list[Any] = machine.region(op.regions[0], arguments)
            return results, [tuple(store[path]) for path in written]
        finally:
            store.update(start)

    mapped = jax.shard_map(
        local,
        mesh=None if _jax.inside_shard_map() else mesh_of(op.attributes["mesh"]),
        in_specs=(_specs(op.attributes["in_specs"]), [tuple(_specs(entry)) for entry, _ in specs.values()]),
        out_specs=(
            _specs(op.attributes["out_specs"]),
            [tuple(_specs(specs[path][1])) if path in specs else PartitionSpec() for path in written],
        ),
        axis_names=set(op.attributes["axes"]),
        check_vma=op.attributes["check_vma"],
    )
    results, left = mapped(list(operands), [tuple(start[path]) for path in specs])
    store.update(zip(written, left, strict=True))
    return list(results)


def _specs(specs: Sequence[Any]) -> list[Any]:
    return [PartitionSpec(*spec) for spec in specs]

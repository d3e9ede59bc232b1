"""Shards in eager Python: the meaning that the compiled form is compared with.

Under ``jax.disable_jit()``, or inside a JAX trace that StateGraph does not follow, the function runs under
``jax.shard_map`` itself, with the shards of cut States in these. Which States it touches is found by tracing
it on one shard first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from stategraph import _jax
from stategraph.augment.shards import Cut, Shards, cut_states, local_shape, misfit, state_leaf_specs
from stategraph.eager_writes import writable_here
from stategraph.recording import LOCAL
from stategraph.state import State
from stategraph.tracing.tracer import accessed_states


def eager_shards(function: Callable[..., Any], shards: Shards, args: Sequence[Any]) -> Any:
    """What ``shard_map(function)(*args)`` returns, with what it does to State."""
    from stategraph.augment.shard_map import argument_shards

    leaves, tree, in_specs, avals = argument_shards(shards, args)
    cuts = {id(cut.state): cut for cut in cut_states(shards, function)}
    touched, written = _touched(function, shards, list(cuts.values()), tree, avals)
    # a derivative rule may read one that the function itself does not touch
    cuts = {
        number: cut
        for number, cut in cuts.items()
        if number in touched or (cut.named and cut.entry == cut.end)
    }
    return _Call(function, shards, cuts, written).run(leaves, tree, in_specs)


def _touched(
    function: Callable[..., Any], shards: Shards, cuts: Sequence[Cut], tree: Any, avals: Sequence[Any]
) -> tuple[dict[int, State[Any]], dict[int, State[Any]]]:
    """(States that one device touches, those that it writes)."""
    wholes = [cut.state._peek() for cut in cuts]
    examples = [jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type) for aval in avals]
    values = [cut.state.value for cut in cuts]
    wrong = {}
    with writable_here():
        try:
            for cut, leaves in zip(cuts, wholes, strict=True):
                specs = state_leaf_specs(cut, "entry", cut.state._tree, shards.sizes)
                try:
                    shapes = [
                        local_shape(x.shape, spec, shards.sizes)
                        for x, spec in zip(leaves, specs, strict=True)
                    ]
                except ValueError as error:
                    wrong[id(cut.state)] = misfit(cut, error)
                    if cut.named:
                        raise wrong[id(cut.state)] from None
                    continue
                shard = [x[tuple(slice(n) for n in shape)] for x, shape in zip(leaves, shapes, strict=True)]
                cut.state.value = jax.tree.unflatten(jax.tree.structure(cut.state.value), shard)
            with (
                jax.disable_jit(False),
                _jax.within_mesh(shards.mesh, shards.mesh.axis_names, False),
            ):
                read, written, _ = accessed_states(function, jax.tree.unflatten(tree, examples), {})
        finally:
            for cut, value in zip(cuts, values, strict=True):
                cut.state.value = value
    touched = {id(state): state for state in (*read.values(), *written.values())}
    for number, misfitting in wrong.items():
        if number in touched:
            raise misfitting
    return touched, {id(state): state for state in written.values()}


class _Call:
    """One call: the function, the States that are cut, and the random ones of which every device gets a key."""

    def __init__(
        self,
        function: Callable[..., Any],
        shards: Shards,
        cuts: dict[int, Cut],
        written: dict[int, State[Any]],
    ) -> None:
        from stategraph.augment.vmap import is_random

        self.function = function
        self.shards = shards
        self.states = [cut.state for cut in cuts.values()]
        self.ends = [_plain(cut.end) for cut in cuts.values()]
        self.entries = [
            PartitionSpec(*spec)
            for cut in cuts.values()
            for spec in state_leaf_specs(cut, "entry", cut.state._tree, shards.sizes)
        ]
        self.random = [s for number, s in written.items() if number not in cuts and is_random(s)]

    def run(self, leaves: Sequence[Any], tree: Any, in_specs: Sequence[Any]) -> Any:
        """Run it on all devices; the States then hold what they left."""
        mesh, before = self.shards.mesh, LOCAL.shards
        held = [state.value for state in self.states]
        structure = jax.tree.structure(held)
        keys = [jax.random.split(state.value, mesh.size + 1) for state in self.random]

        def local(given: Sequence[Any], own: Sequence[Any], drawn: Sequence[Any]) -> Any:
            for state, value in zip(self.states, jax.tree.unflatten(structure, own), strict=True):
                state.value = value
            for state, key in zip(self.random, drawn, strict=True):
                state.value = key[0]
            results = self.function(*jax.tree.unflatten(tree, given))
            return results, [state.value for state in self.states]

        mapped = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(
                [PartitionSpec(*spec) for spec in in_specs],
                self.entries,
                [PartitionSpec(mesh.axis_names)] * len(keys),
            ),
            out_specs=(_plain(self.shards.out_specs), self.ends),
            check_vma=self.shards.check_vma,
        )
        LOCAL.shards = before | {id(state) for state in (*self.states, *self.random)}
        try:
            results, left = mapped(list(leaves), jax.tree.leaves(held), [key[1:] for key in keys])
        finally:
            for state, value in zip(self.states, held, strict=True):
                state.value = value
            for state, key in zip(self.random, keys, strict=True):
                state.value = key[0]
            LOCAL.shards = before
        for state, value in zip(self.states, left, strict=True):
            state.value = value
        return results


def _plain(specs: Any) -> Any:
    """Specs as ``jax.shard_map`` takes them."""
    return jax.tree.map(
        lambda spec: PartitionSpec() if spec is None else spec, specs, is_leaf=lambda spec: spec is None
    )

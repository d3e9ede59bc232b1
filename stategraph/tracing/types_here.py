"""The types that States have at the equation that is being imported.

Derivative rules run while a function is imported, when the trace is over. Then the recorder knows the types
that States have at the end; a rule has to see those that they had where its function was called: before a
later change of type, and of one slice inside of lanes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from jax.sharding import PartitionSpec

from stategraph import _jax
from stategraph.ir.shards import global_type
from stategraph.recording import Recorder, Token

Types = tuple[Sequence[Any], Any]
"""(avals of the leaves, structure)."""


class TypesHere:
    def __init__(self, recorder: Recorder | None) -> None:
        self.recorder = recorder
        self.known: dict[Token, Types] = {}

    def passed(self, eqn: Any) -> None:
        """A ``state_write`` or ``state_alloc`` was imported."""
        found = None if self.recorder is None else self.recorder.typed.get(eqn.params["at"])
        if found is not None:
            self.known[eqn.params["token"]] = found

    def of(self, token: Token) -> Types:
        assert self.recorder is not None
        return self.known.get(token) or self.recorder.entry[token] or ((), None)

    @contextlib.contextmanager
    def lanes(self, params: dict[str, Any]) -> Iterator[None]:
        """The body of a vmap: mapped States are one slice; afterwards kept ones are stacked."""
        outer, size = dict(self.known), params["size"]
        for token, axis in params["in_states"]:
            avals, tree = self.of(token)
            self.known[token] = ([_slice(aval, axis) for aval in avals], tree)
        yield
        ends = {token: (axis, self.of(token)) for token, axis in params["out_states"]}
        changed = {token: types for token, types in self.known.items() if outer.get(token) is not types}
        private = {*params["private"], *(token for token, _ in params["in_states"])}
        self.known = {**outer, **{token: types for token, types in changed.items() if token not in private}}
        for token, (axis, (avals, tree)) in ends.items():
            self.known[token] = ([_stack(aval, axis, size) for aval in avals], tree)

    @contextlib.contextmanager
    def shards(self, params: dict[str, Any]) -> Iterator[None]:
        """The body of a shard_map: cut States are one shard; afterwards they are put together."""
        mesh, axes, check_vma = params["mesh"], params["axes"], params["check_vma"]
        before = {token: self.known.get(token) for token in params["keys"]}
        for token, entry, _ in params["states"]:
            avals, tree = self.of(token)
            cuts = [PartitionSpec(*spec) for spec in entry]
            self.known[token] = (
                [
                    _jax.local_aval(aval, mesh, axes, cut, check_vma)
                    for aval, cut in zip(avals, cuts, strict=True)
                ],
                tree,
            )
        yield
        for token, _, end in params["states"]:
            avals, tree = self.of(token)
            types = [_jax.type_of(_jax.plain_aval(aval)) for aval in avals]
            sizes = dict(mesh.shape)
            whole = [
                _jax.aval_of(global_type(type, spec, sizes)) for type, spec in zip(types, end, strict=True)
            ]
            self.known[token] = (whole, tree)
        for token, types_before in before.items():
            self.known.pop(token, None)
            if types_before is not None:
                self.known[token] = types_before

    @contextlib.contextmanager
    def seen(self) -> Iterator[None]:
        """Code that runs now reads States with these types."""
        recorder = self.recorder
        if recorder is None:
            yield
            return
        before = list(zip(recorder.avals, recorder.trees, strict=True))
        for token, owner_types in enumerate(before):
            avals, tree = self.known.get(Token(token)) or recorder.entry[token] or owner_types
            recorder.avals[token], recorder.trees[token] = tuple(avals), tree
        recorder.advance()
        try:
            yield
        finally:
            for token, (avals, tree) in enumerate(before):
                recorder.avals[token], recorder.trees[token] = avals, tree
            recorder.advance()


def _slice(aval: Any, axis: int) -> Any:
    shape = list(aval.shape)
    del shape[axis]
    return _jax.resized_aval(aval, shape)


def _stack(aval: Any, axis: int, size: int) -> Any:
    shape = list(aval.shape)
    shape.insert(axis + len(shape) + 1 if axis < 0 else axis, size)
    return _jax.resized_aval(aval, shape)

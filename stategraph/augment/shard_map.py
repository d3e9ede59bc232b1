"""A function over shards: every device of a mesh runs it on its part of the data, with State.

Inside a trace ``shard_map`` runs the function once, on one shard, and records it as one ``xform.shard_map``
op whose body may read and write State; ``jax.shard_map`` runs the body after State has been hoisted out of
it. Called eagerly, that program is compiled and kept.

What becomes of State:

- a State with a spec (``state_in_specs``, ``state_out_specs``, or the sharding that it was made with) is cut:
  a device sees its shard, and what the devices write is put together;
- other States are the same on every device, and stay so: what is written has to be (a ``psum`` makes it so);
- a random State that is drawn from gives each device a key of its own, and goes on with another, unless a spec
  says that all share it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from stategraph import _jax
from stategraph.augment.eager_shards import eager_shards
from stategraph.augment.primitive import transformation
from stategraph.augment.shards import (
    Cut,
    Shards,
    Spec,
    cut_states,
    leaf_specs,
    local_shape,
    misfit,
    state_leaf_specs,
    whole_shape,
)
from stategraph.augment.vmap import Touched, is_random, split_keys
from stategraph.compile.cached import run_cached
from stategraph.compile.identity import ByValue, looked_into
from stategraph.errors import StateTypeError, TraceError, describe
from stategraph.recording import LOCAL, Recorder, Token
from stategraph.sharding import plain_mesh
from stategraph.state import State

_MISSING: Any = object()


shard_map_p = transformation(
    "stategraph_shard_map", "stategraph.augment.shard_map", "a function over State that runs on shards"
)


@looked_into
class ShardedFunction:
    """A function over shards; made by ``shard_map``."""

    def __init__(self, function: Callable[..., Any], shards: Shards) -> None:
        if not callable(function):
            raise TypeError(f"shard_map needs a function, not a {type(function).__name__}")
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.shards = shards

    def __call__(self, *args: Any) -> Any:
        shards, function = self.shards, self.function
        recorder = LOCAL.recorder
        if recorder is not None:
            return record_shard_map(recorder, function, shards, args)
        if _jax.under_disable_jit() or _jax.current_trace() is not None:
            return eager_shards(function, shards, args)
        argument_shards(shards, args)  # what is wrong with them is said before anything is traced

        def body_of(function: Callable[..., Any]) -> Callable[..., Any]:
            def body(*given: Any) -> Any:
                found = LOCAL.recorder
                assert found is not None
                return record_shard_map(found, function, shards, given)

            return body

        return run_cached("shard_map", (function,), (), body_of, args, also=self._said())

    def _said(self) -> tuple[Any, ...]:
        """What becomes of the shards, for the cache of eager calls."""
        shards = self.shards
        states = (list(_items(shards.state_in_specs)), list(_items(shards.state_out_specs)))
        return (
            *states,
            shards.mesh,
            shards.check_vma,
            ByValue(_hashable((shards.in_specs, shards.out_specs))),
        )

    def __repr__(self) -> str:
        return f"<{getattr(self.function, '__qualname__', repr(self.function))} over shards>"


def _hashable(specs: Any) -> Any:
    leaves, tree = jax.tree.flatten(specs, is_leaf=lambda x: x is None)
    return tuple(leaves), tree


def _items(specs: Any) -> Any:
    """What identifies specs of States, for the cache of eager calls."""
    rows = specs.items() if isinstance(specs, Mapping) else [(None, specs)]
    return [(key, str(jax.tree.leaves(spec)), str(jax.tree.structure(spec))) for key, spec in rows]


def argument_shards(shards: Shards, args: Sequence[Any]) -> tuple[list[Any], Any, list[Spec], list[Any]]:
    """(leaves of the arguments, their structure, the spec of each, the type of one shard of each)."""
    leaves, tree = jax.tree.flatten(tuple(args))
    specs = shards.in_specs
    if isinstance(specs, list):
        specs = tuple(specs)
    if isinstance(specs, tuple) and len(specs) != len(args):
        raise TypeError(
            f"in_specs has {len(specs)} entries, and the function was given {len(args)} arguments"
        )
    found = leaf_specs("in_specs", specs, tree, shards.sizes)
    avals = []
    for leaf, spec in zip(leaves, found, strict=True):
        aval = _jax.typeof(leaf)
        try:
            local_shape(aval.shape, spec, shards.sizes)
        except ValueError as error:
            raise ValueError(f"an argument does not fit in_specs: {error}") from None
        avals.append(
            _jax.local_aval(
                aval, shards.mesh, shards.mesh.axis_names, jax.sharding.PartitionSpec(*spec), shards.check_vma
            )
        )
    return leaves, tree, found, avals


# -------------------------------------------------------------------------------------------------- recording


def record_shard_map(
    recorder: Recorder, function: Callable[..., Any], shards: Shards, args: Sequence[Any]
) -> Any:
    """The results, put together, as values of the program being traced."""
    leaves, tree, in_specs, avals = argument_shards(shards, args)
    run = _Run(recorder, function, shards, tree)
    jaxpr, consts = run.trace(avals)
    body = _jax.close_over(jaxpr)
    touched = Touched(body)
    states, keys = run.plan(touched)
    count = shards.mesh.size
    split = [split_keys(recorder, token, count) for token in keys]
    out_specs = leaf_specs("out_specs", shards.out_specs, run.out_tree, shards.sizes)
    out_avals = [_whole(var.aval, spec, shards) for var, spec in zip(jaxpr.outvars, out_specs, strict=True)]
    results = shard_map_p.bind(
        *consts,
        *leaves,
        *(own for own, _ in split),
        jaxpr=body,
        mesh=shards.mesh,
        axes=tuple(shards.mesh.axis_names),
        check_vma=shards.check_vma,
        in_specs=(*[()] * len(consts), *in_specs, *[(tuple(shards.mesh.axis_names),)] * len(keys)),
        out_specs=tuple(out_specs),
        states=tuple((token, *specs) for token, specs in states.items()),
        keys=tuple(keys),
        out_avals=tuple(out_avals),
    )
    run.settle(states)
    for token, (_, following) in zip(keys, split, strict=True):
        recorder.owners[token].value = following
    return jax.tree.unflatten(run.out_tree, results)


def _whole(aval: Any, spec: Spec, shards: Shards) -> Any:
    try:
        shape = whole_shape(aval.shape, spec, shards.sizes)
    except ValueError as error:
        raise ValueError(f"a result does not fit out_specs: {error}") from None
    return _jax.resized_aval(_jax.plain_aval(aval), shape)


StateSpecs = dict[Token, tuple[tuple[Spec, ...], tuple[Spec, ...]]]


class _Run:
    """One run of the function on one shard. The recorder then knows cut States by a shard's types."""

    def __init__(
        self, recorder: Recorder, function: Callable[..., Any], shards: Shards, in_tree: Any
    ) -> None:
        self.recorder = recorder
        self.function = function
        self.shards = shards
        self.in_tree = in_tree
        self.out_tree: Any = None
        self.cuts = {cut.state._token(recorder): cut for cut in cut_states(shards, function)}
        self.entry: dict[Token, tuple[Spec, ...]] = {}
        self.misfits: dict[Token, StateTypeError] = {}
        """Selected by a filter, but not to be cut: an error only if the function touches them."""
        self.before: list[tuple[Any, Any]] = []

    def trace(self, avals: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        recorder, shards = self.recorder, self.shards
        self.before = list(zip(recorder.avals, recorder.trees, strict=True))
        own = dict(recorder.own_in)
        try:
            for token, cut in self.cuts.items():
                self._enter(token, cut)
            recorder.advance()
            name = getattr(self.function, "__name__", type(self.function).__name__)
            with _jax.within_mesh(shards.mesh, shards.mesh.axis_names, shards.check_vma):
                return _jax.trace_flat(self._call, avals, traced_for="shard_map", name=name)
        except BaseException:
            for token, (given, structure) in enumerate(self.before):
                recorder.avals[token], recorder.trees[token] = given, structure
            raise
        finally:
            recorder.own_in = own
            recorder.advance()

    def _enter(self, token: Token, cut: Cut) -> None:
        recorder, shards = self.recorder, self.shards
        specs = state_leaf_specs(cut, "entry", recorder.trees[token], shards.sizes)
        try:
            local = []
            for aval, spec in zip(recorder.avals[token], specs, strict=True):
                local_shape(aval.shape, spec, shards.sizes)
                local.append(
                    _jax.local_aval(
                        aval,
                        shards.mesh,
                        shards.mesh.axis_names,
                        jax.sharding.PartitionSpec(*spec),
                        shards.check_vma,
                    )
                )
        except ValueError as error:
            wrong = misfit(cut, error)
            if cut.named:
                raise wrong from None
            self.misfits[token] = wrong
            return
        self.entry[token] = specs
        recorder.avals[token] = tuple(local)

    def _call(self, *flat: Any) -> list[Any]:
        recorder = self.recorder
        for token in self.entry:
            recorder.own_in[token] = recorder.body_here("read", recorder.owners[token])
        results, self.out_tree = jax.tree.flatten(self.function(*jax.tree.unflatten(self.in_tree, flat)))
        for result in results:
            _check_result(result)
        return results

    def plan(self, touched: Touched) -> tuple[StateSpecs, list[Token]]:
        """(specs of the States that the function touches, random States of which every device gets a key)."""
        for token, error in self.misfits.items():
            if token in touched.any:
                raise error
        recorder = self.recorder
        keys = [
            token for token in touched.written if token not in self.cuts and is_random(recorder.owners[token])
        ]
        states: StateSpecs = {
            token: (
                specs,
                state_leaf_specs(self.cuts[token], "end", recorder.trees[token], self.shards.sizes),
            )
            for token, specs in self.entry.items()
            if touched.may_see(token)
        }
        for token in map(Token, range(len(self.before))):
            if token not in states and (token not in touched.written or token in keys):
                recorder.avals[token], recorder.trees[token] = self.before[token]
        recorder.advance()
        return states, keys

    def settle(self, states: StateSpecs) -> None:
        """Give cut States the types that they have when put together."""
        recorder = self.recorder
        for token, (_, specs) in states.items():
            cut = self.cuts[token]
            try:
                avals = tuple(
                    _jax.resized_aval(_jax.plain_aval(aval), whole_shape(aval.shape, spec, self.shards.sizes))
                    for aval, spec in zip(recorder.avals[token], specs, strict=True)
                )
            except ValueError as error:
                raise misfit(cut, error) from None
            tree = recorder.trees[token]
            known = self.before[token] if token < len(self.before) else recorder.entry[token]
            assert known is not None
            recorder.avals[token], recorder.trees[token] = known
            recorder.change_type(token, avals, tree)
        recorder.advance()


def _check_result(result: Any) -> None:
    if isinstance(result, State) or (
        not isinstance(result, (jax.Array, bool, int, float, complex)) and not hasattr(result, "__array__")
    ):
        raise TraceError(
            describe(
                f"A function over shards returns a {type(result).__name__}.",
                at=_jax.line_in_charge(),
                why="the results of all devices are put together, which arrays can be",
                fix="return only arrays, and containers of these",
            )
        )


# ----------------------------------------------------------------------------------------------------- public


def shard_map(
    fun: Callable[..., Any] = _MISSING,
    mesh: Any = None,
    in_specs: Any = None,
    out_specs: Any = None,
    state_in_specs: Any = None,
    state_out_specs: Any = None,
    check_vma: bool = True,
) -> Any:
    """A function that every device of ``mesh`` runs on its shard of the arguments; it may read and write State.

    Args:
      fun: a function of one shard of every argument. In it, ``jax.lax.psum`` and the other collectives take the
        names of the mesh's axes.
      mesh: a ``jax.sharding.Mesh``: devices in a grid with named axes.
      in_specs: a ``PartitionSpec`` per argument, or a prefix of the tuple of arguments with such: over which
        axes of the mesh each axis of an array is cut. ``PartitionSpec()`` gives every device the whole.
      out_specs: likewise, how the shards of the results are put together. ``PartitionSpec()`` takes a result
        that is the same on every device.
      state_in_specs: how States are cut: ``{State or filter: PartitionSpec}``, or one spec for all States that
        the function reaches. Without it a State is cut as the ``sharding=`` says that it was made with, or not
        at all.
      state_out_specs: how what the devices leave in States is put together, where that differs.
      check_vma: let JAX prove that what the specs call the same on every device is so.

    Returns:
      A function of the whole arguments.

    Raises:
      StateAccessError: devices may leave different values in a State that has no spec.
      StateTypeError: a State has a size that the mesh does not divide.

    Example:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from jax.sharding import Mesh, PartitionSpec
    >>> import stategraph as sg
    >>> mesh = Mesh(jax.devices()[:1], "data")
    >>> total = sg.State(0.)
    >>> def add(x):
    ...     total.value += jax.lax.psum(x.sum(), "data")
    ...     return x * total.value
    >>> f = sg.augment.shard_map(add, mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"))
    >>> f(jnp.arange(4.))
    Array([ 0.,  6., 12., 18.], dtype=float32)
    """
    if mesh is None:
        raise TypeError("shard_map needs mesh=, a jax.sharding.Mesh")
    mesh = plain_mesh(mesh)
    for what, specs in (("in_specs", in_specs), ("out_specs", out_specs)):
        for spec in jax.tree.leaves(specs):
            leaf_specs(what, spec, jax.tree.structure(0), dict(mesh.shape))
    shards = Shards(mesh, in_specs, out_specs, state_in_specs, state_out_specs, bool(check_vma))
    if fun is _MISSING:
        return lambda function: ShardedFunction(function, shards)
    return ShardedFunction(fun, shards)

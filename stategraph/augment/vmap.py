"""Mapping a function over lanes, with State.

Inside a trace ``vmap`` runs the function once, on one lane, and records it as one ``xform.vmap`` op whose
body may read and write State; the compiler batches the body after State has been hoisted out of it. Called
eagerly, that program is compiled and kept.

What becomes of State:

- *mapped* States (``in_states``) are taken apart along an axis, like arguments: a lane sees its slice, and
  what it writes goes back there;
- *kept* States (``out_states``): what the lanes write is stacked along an axis;
- other States are *shared*: all lanes see one value, and may only write one value;
- with ``isolated=True`` every lane works on a copy of its own, which is forgotten;
- a random State that the lanes draw from gives each lane a key of its own, and goes on with another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategraph import _jax
from stategraph.augment.eager_vmap import eager_lanes
from stategraph.augment.lanes import (
    Chosen,
    Lanes,
    NewStates,
    argument_axes,
    gain_lanes,
    inside_lanes,
    kept_axis,
    lane_count,
    lane_of,
    mapped_states,
    result_axes,
    selection,
    stacked,
)
from stategraph.augment.primitive import transformation
from stategraph.compile.cached import run_cached
from stategraph.compile.identity import ByValue, looked_into
from stategraph.errors import StateTypeError, TraceError, describe
from stategraph.graph.walk import walk
from stategraph.recording import LANES, LOCAL, Recorder, Token
from stategraph.state import Cell, State, Unborn
from stategraph.tracing.roots import StateNames, find_names

_MISSING: Any = object()


vmap_p = transformation(
    "stategraph_vmap", "stategraph.augment.vmap", "a function over State that is mapped over lanes"
)


@looked_into
class MappedFunction:
    """A function over lanes; made by ``vmap``."""

    def __init__(self, function: Callable[..., Any], spec: Lanes) -> None:
        if not callable(function):
            raise TypeError(f"vmap needs a function, not a {type(function).__name__}")
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.spec = spec.called_by(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        spec, function = self.spec, self.function
        recorder = LOCAL.recorder
        if recorder is not None:
            return record_vmap(recorder, function, spec, args, kwargs)
        if _jax.under_disable_jit() or _jax.current_trace() is not None:
            return eager_lanes(function, spec, args, kwargs)
        argument_axes(
            spec.in_axes, args, kwargs
        )  # what is wrong with the arguments is said before anything is traced

        def body_of(function: Callable[..., Any]) -> Callable[..., Any]:
            def body(arguments: Any, named: Any) -> Any:
                found = LOCAL.recorder
                assert found is not None
                return record_vmap(found, function, spec, arguments, named)

            return body

        operands = (args, kwargs)
        return run_cached(
            "vmap", (function,), (), body_of, operands, also=self._said(), assignments=spec.new is not None
        )

    def _said(self) -> tuple[Any, ...]:
        """What is mapped, for the cache of eager calls."""
        spec, new = self.spec, self.spec.new
        states = (_key(spec.in_states), _key(spec.out_states), _key(None if new is None else new.exclude))
        lanes = (spec.axis_size, spec.axis_name, spec.isolated, spec.batches)
        born = (new is None, None if new is None else new.tag)
        return (spec.in_axes, spec.out_axes, *states, ByValue((*lanes, *born)))

    def __repr__(self) -> str:
        return f"<{getattr(self.function, '__qualname__', repr(self.function))} over lanes>"


def _key(states: Any) -> Any:
    """What identifies the States that were named, for the cache of eager calls."""
    return dict(states) if hasattr(states, "items") else states


# -------------------------------------------------------------------------------------------------- recording


def record_vmap(
    recorder: Recorder, function: Callable[..., Any], spec: Lanes, args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """The stacked results, as values of the program being traced."""
    leaves, tree, in_axes = argument_axes(spec.in_axes, args, kwargs)
    mapped = mapped_states(selection("in_states", spec.in_states), function)
    size = lane_count(spec, leaves, in_axes, mapped)
    run = _Run(recorder, function, spec, size, tree, mapped)
    avals = [_lane_aval(_jax.typeof(leaf), axis) for leaf, axis in zip(leaves, in_axes, strict=True)]
    jaxpr, consts = run.trace(avals)
    body = _jax.close_over(jaxpr)
    touched = Touched(body)
    plan = run.plan(touched)
    keys = [split_keys(recorder, token, size) for token in plan.keys]
    count = run.out_tree.num_leaves
    out_axes = [
        *result_axes(spec.out_axes, run.out_tree, [len(var.aval.shape) for var in jaxpr.outvars[:count]]),
        *[0] * (len(jaxpr.outvars) - count),
    ]
    out_avals = [_whole(var.aval, axis, size) for var, axis in zip(jaxpr.outvars, out_axes, strict=True)]
    results = vmap_p.bind(
        *consts,
        *leaves,
        *(lanes for lanes, _ in keys),
        jaxpr=body,
        num_consts=len(consts),
        size=size,
        axis_name=spec.axis_name,
        spmd_axis_name=spec.spmd_axis_name,
        in_axes=(*in_axes, *[0] * len(keys)),
        out_axes=tuple(out_axes),
        in_states=tuple((token, axis) for token, axis in run.sliced() if touched.may_see(token)),
        out_states=tuple(plan.kept.items()),
        private=tuple(plan.private),
        keys=tuple(plan.keys),
        called=spec.called(function, plan.shared, plan.names),
        out_avals=tuple(out_avals),
    )
    run.settle(plan)
    for token, (_, following) in zip(plan.keys, keys, strict=True):
        recorder.owners[token].value = following
    run.adopt_births(results[count:])
    return jax.tree.unflatten(run.out_tree, results[:count])


class Touched:
    """The States that a body accesses, those born in it aside."""

    def __init__(self, body: Any) -> None:
        born: set[Token] = {eqn.params["token"] for eqn in _jax.equations_of(body, ("state_alloc",))}
        self.written = {token: None for token in _written(body) if token not in born}
        read = {eqn.params["token"]: None for eqn in _jax.equations_of(body, ("state_read",))}
        self.any = {token: None for token in (*read, *self.written) if token not in born}
        self.rules = bool(_jax.equations_of(body, ("custom_jvp_call", "custom_vjp_call")))
        """Whether there are derivative rules, which may read any State later."""

    def may_see(self, token: Token) -> bool:
        """Whether the body reads or writes a State, or a rule in it might."""
        return self.rules or token in self.any


def _written(body: Any) -> dict[Token, None]:
    """The States that a body writes, without what lanes inside it write to copies of their own."""
    lanes = ("stategraph_vmap",)
    found = {eqn.params["token"]: None for eqn in _jax.equations_of(body, ("state_write",), skip=lanes)}
    for inner in _jax.equations_of(body, lanes, skip=lanes):
        found.update(
            (token, None) for token in _written(inner.params["jaxpr"]) if token not in inner.params["private"]
        )
    return found


class _Plan:
    """What becomes of the States that lanes write."""

    def __init__(self) -> None:
        self.kept: dict[Token, int] = {}
        self.private: list[Token] = []
        self.keys: list[Token] = []
        self.shared: dict[Token, State[Any]] = {}
        self.names: dict[int, str] = {}
        """What the function calls its States, by id."""


class _Run:
    """One run of the function on one lane. The recorder then knows mapped States by a lane's types."""

    def __init__(
        self,
        recorder: Recorder,
        function: Callable[..., Any],
        spec: Lanes,
        size: int,
        tree: Any,
        mapped: Sequence[Chosen],
    ) -> None:
        self.recorder = recorder
        self.function = function
        self.spec = spec
        self.size = size
        self.in_tree = tree
        self.out_tree: Any = None
        self.mapped = mapped
        self.misfits: dict[Token, StateTypeError] = {}
        """Selected by a filter, but not to be mapped: an error only if the function touches them."""
        self.births: list[State[Any]] = []
        """States created by the lanes that a Node keeps."""
        self.new = NewStates() if spec.new is None else spec.new
        self.before: list[tuple[Any, Any]] = []
        self.changes = 0
        """How many changes of type the recorder knew before."""

    def trace(self, avals: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        recorder, spec = self.recorder, self.spec
        tokens = {id(chosen.state): chosen.state._token(recorder) for chosen in self.mapped}
        self.before = list(zip(recorder.avals, recorder.trees, strict=True))
        self.changes = len(recorder.type_changes)
        named = [(spec.axis_name, self.size)] if spec.axis_name is not None else []
        own = dict(recorder.own_in)
        try:
            for chosen in self.mapped:
                self._enter(chosen, tokens[id(chosen.state)])
            recorder.advance()
            name = getattr(self.function, "__name__", type(self.function).__name__)
            with _jax.named_axes(named):
                return _jax.trace_flat(self._call, avals, traced_for=LANES, name=name)
        except BaseException:
            for token, (given, structure) in enumerate(self.before):
                recorder.avals[token], recorder.trees[token] = given, structure
            raise
        finally:
            recorder.own_in = own
            recorder.advance()

    def _enter(self, chosen: Chosen, token: Token) -> None:
        try:
            self.recorder.avals[token] = tuple(
                lane_of(chosen, aval, self.size, self.spec.caller) for aval in self.recorder.avals[token]
            )
        except StateTypeError as error:
            if chosen.named:
                raise
            self.misfits[token] = error

    def _call(self, *flat: Any) -> list[Any]:
        recorder = self.recorder
        for chosen in self.mapped:
            recorder.own_in[recorder.tokens[id(chosen.state)]] = recorder.body_here("read", chosen.state)
        for _, those in selection("out_states", self.spec.out_states):
            for state in those if isinstance(those, list) else ():
                recorder.own_in[state._token(recorder)] = recorder.body_here("read", state)
        known, journal = len(recorder.owners), len(recorder.journal)
        args, kwargs = jax.tree.unflatten(self.in_tree, flat)
        with inside_lanes(chosen.state for chosen in self.mapped):
            results, self.out_tree = jax.tree.flatten(self.function(*args, **kwargs))
        for result in results:
            _check_result(result)
        if not self.spec.isolated:
            self.births = self._births(known, journal)
        return [*results, *(leaf for state in self.births for leaf in jax.tree.leaves(state.value))]

    def _births(self, known: int, journal: int) -> list[State[Any]]:
        recorder = self.recorder
        last = {(id(node), name): value for node, name, _, value in recorder.journal[journal:]}
        found: dict[int, State[Any]] = {}
        for value in last.values():
            for _, obj in walk(value):
                token = recorder.token(obj) if isinstance(obj, State) else None
                if token is not None and token >= known and token in recorder.born_in:
                    found[id(obj)] = obj
        return list(found.values())

    def sliced(self) -> list[tuple[Token, int]]:
        """The States that are taken apart, with their axes."""
        found = [(self.recorder.tokens[id(chosen.state)], chosen.axis) for chosen in self.mapped]
        return [(token, axis) for token, axis in found if token not in self.misfits]

    def plan(self, touched: Touched) -> _Plan:
        """Decide for every State that is written; settle what cannot be."""
        for token, error in self.misfits.items():
            if token in touched.any:
                raise error
        recorder, spec, plan = self.recorder, self.spec, _Plan()
        mapped = {recorder.tokens[id(chosen.state)]: chosen.axis for chosen in self.mapped}
        names = StateNames(self.function)
        plan.names = names.states
        wanted = selection("out_states", spec.out_states)
        for token in touched.written:
            owner: State[Any] = recorder.owners[token]
            axis = kept_axis(wanted, names.of(owner), owner)
            if axis is None:
                axis = mapped.get(token)
            if axis is None and is_random(owner):
                plan.keys.append(token)
            if spec.isolated or token in plan.keys:
                plan.private.append(token)
            elif axis is not None:
                plan.kept[token] = axis
        settled = {*plan.kept, *plan.private}  # what becomes of a type that lanes change is said here
        changes = recorder.type_changes
        changes[self.changes :] = [c for c in changes[self.changes :] if c[1] not in settled]
        born = {recorder.tokens[id(state)] for state in self.births}
        plan.private = [token for token in plan.private if token not in born]
        plan.shared = {
            token: recorder.owners[token]
            for token in touched.written
            if token not in plan.kept and token not in plan.private
        }
        for token in map(Token, range(len(self.before))):
            if token not in plan.shared and token not in plan.kept:
                recorder.avals[token], recorder.trees[token] = self.before[token]
        for token in plan.private:
            if token >= len(self.before):
                entry = recorder.entry[token]
                assert entry is not None
                recorder.avals[token], recorder.trees[token] = entry
        recorder.advance()
        return plan

    def settle(self, plan: _Plan) -> None:
        """Give kept States the types that they have after all lanes."""
        recorder = self.recorder
        for token, axis in plan.kept.items():
            owner = recorder.owners[token]
            avals = tuple(stacked(aval, axis, self.size, owner._describe) for aval in recorder.avals[token])
            tree = recorder.trees[token]
            known = self.before[token] if token < len(self.before) else recorder.entry[token]
            assert known is not None
            recorder.avals[token], recorder.trees[token] = known
            recorder.change_type(token, avals, tree)
        recorder.advance()

    def adopt_births(self, leaves: Sequence[Any]) -> None:
        """A State that the lanes created and a Node keeps is one State, with the lanes along axis 0; an
        excluded one has the value of the first lane.
        """
        recorder, rest = self.recorder, list(leaves)
        names = find_names(self.function)[0] if self.births and self.new.exclude is not None else {}
        for state in self.births:
            count, tree = len(state._cells), recorder.trees[recorder.tokens[id(state)]]
            chunk, rest = rest[:count], rest[count:]
            if self.new.excluded(names.get(id(state), ""), state):
                chunk = [leaf[0] for leaf in chunk]
            else:
                gain_lanes(state, self.size, self.new)
            state._cells = tuple(Cell(Unborn(leaf)) for leaf in chunk)
            recorder.alloc(state, chunk, tree)


def split_keys(recorder: Recorder, token: Token, size: int) -> tuple[Any, Any]:
    """(a key per lane, the key that the random State goes on with)."""
    keys = jax.random.split(recorder.owners[token].value, size + 1)
    return keys[1:], keys[0]


def is_random(state: State[Any]) -> bool:
    """Whether a State is a stream of random keys, of which every lane gets its own."""
    from stategraph.random.stream import Stream

    return isinstance(state, Stream) and all(leaf.shape == () for leaf in state._peek())


def _check_result(result: Any) -> None:
    if isinstance(result, State) or (
        not isinstance(result, (jax.Array, bool, int, float, complex)) and not hasattr(result, "__array__")
    ):
        raise TraceError(
            describe(
                f"A mapped function returns a {type(result).__name__}.",
                at=_jax.line_in_charge(),
                why="the results of all lanes are stacked, which arrays can be",
                fix="return only arrays, and containers of these",
            )
        )


def _lane_aval(aval: Any, axis: int | None) -> Any:
    if axis is None:
        return aval
    return _jax.resized_aval(aval, (*aval.shape[:axis], *aval.shape[axis + 1 :]))


def _whole(aval: Any, axis: int | None, size: int) -> Any:
    return aval if axis is None else _jax.resized_aval(aval, (*aval.shape[:axis], size, *aval.shape[axis:]))


# ----------------------------------------------------------------------------------------------------- public


def check_axis_name(axis_name: Any) -> None:
    """Refuse what is no name of an axis."""
    if axis_name is not None and not isinstance(axis_name, str):
        raise TypeError(f"axis_name is {axis_name!r}; give a str")


def mesh_axes(spmd_axis_name: Any) -> str | tuple[str, ...] | None:
    """The names of mesh axes as JAX takes them."""
    if spmd_axis_name is None or isinstance(spmd_axis_name, str):
        return spmd_axis_name
    names = tuple(spmd_axis_name) if isinstance(spmd_axis_name, (tuple, list)) else (spmd_axis_name,)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"spmd_axis_name is {spmd_axis_name!r}; give the name of a mesh axis, or a tuple of them"
        )
    return names


def vmap(
    fn: Callable[..., Any] = _MISSING,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: str | None = None,
    axis_size: int | None = None,
    spmd_axis_name: str | Sequence[str] | None = None,
    in_states: Any = None,
    out_states: Any = None,
    isolated: bool = False,
) -> Any:
    """A function that runs ``fn`` on many lanes at once; ``fn`` may read and write State.

    Args:
      fn: a function of one lane's arguments.
      in_axes: along which axis of each positional argument its lanes lie; None for what every lane gets
        whole. An int for all, or a tuple, with trees for arguments that are containers. Keyword arguments are
        mapped along their first axis.
      out_axes: where the lanes go in each result; None for a result that is the same in every lane.
      axis_name: a name by which ``jax.lax.psum`` and the like address all lanes.
      axis_size: the number of lanes, where no argument tells.
      spmd_axis_name: the axis of a mesh that the lanes are spread over, or a tuple of axes: what ``fn`` says of the
        sharding of a value (``jax.lax.with_sharding_constraint``, ``jax.shard_map``) then gets that axis for the lanes,
        as in ``jax.vmap``.
      in_states: States whose lanes lie along axis 0: a State, a list or mapping of States, a filter, or
        ``{axis: those}``. Every lane sees its slice, and what it writes goes back there.
      out_states: States that keep what the lanes write, along axis 0, likewise.
      isolated: let every lane work on a copy of all States and forget it: the model stays as it was. Random
        States go on, so that the next call draws other numbers.

    Returns:
      A function of the arguments of all lanes.

    Raises:
      StateAccessError: lanes leave different values in a State that is neither mapped nor kept.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> gain, v = sg.State(2.), sg.State(jnp.zeros(3))
    >>> def step(x):
    ...     v.value += gain.value * x
    ...     return v.value
    >>> sg.augment.vmap(step, in_states=v)(jnp.arange(3.))
    Array([0., 2., 4.], dtype=float32)
    >>> v.value
    Array([0., 2., 4.], dtype=float32)
    """
    check_axis_name(axis_name)
    if isolated and out_states is not None:
        raise ValueError("isolated=True forgets what lanes write, and out_states keeps it; give one of them")
    spec = Lanes(
        in_axes,
        out_axes,
        axis_name,
        axis_size,
        in_states,
        out_states,
        bool(isolated),
        spmd_axis_name=mesh_axes(spmd_axis_name),
    )
    if fn is _MISSING:
        return lambda function: MappedFunction(function, spec)
    return MappedFunction(fn, spec)

"""Tracing: one run of the user's Python becomes a program.

Transactional: while the trace runs, State accesses are recorded (nothing is written), and attribute
assignments on Nodes are journalled and undone at the end, whether it succeeded or failed. What survives is a
``Trace``: the program, the live States behind its symbols, and what the program depends on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import jax
import numpy as np
from jax.sharding import Sharding

from stategraph import _jax, units
from stategraph.backends.params import state_tree_of, tree_of
from stategraph.backends.placement import sharding_attribute
from stategraph.errors import ConcretizationError, StateGraphError, TraceError, describe
from stategraph.graph.node import Node, Structure, watching
from stategraph.ir.core import Program, Region, StateSymbol, Value
from stategraph.recording import Recorder, StartAgain, Token, state_read_p
from stategraph.sharding import per_leaf
from stategraph.state import State
from stategraph.tracing.importer import Importer
from stategraph.tracing.left_behind import check_reused, escapes, final_guards, rollback
from stategraph.tracing.pause import paused_gc
from stategraph.tracing.roots import StateNames, unique


@attrs.define(eq=False)
class Trace:
    """What one trace gave."""

    program: Program
    states: dict[str, State[Any]]
    """The live State behind each symbol that existed before the trace."""
    born: dict[str, State[Any]]
    """States created in the trace that outlive it."""
    replays: list[tuple[Node, str, Any]]
    """Attribute assignments that every call repeats: those that bind trace-born States, or all."""
    guards: list[tuple[Node, str | Structure, Any]]
    """Attributes that the trace read, with the values it saw."""
    containers: list[tuple[Any, Any]]
    """Lists and dicts that the trace saw, with copies."""
    in_tree: Any
    out_tree: Any
    settings: list[tuple[Callable[[], Any], Any]] = attrs.Factory(list)
    """Settings that the trace read: (how to read it again, the value it had)."""


F = TypeVar("F", bound=Callable[..., Any])
MOST_BEGINNINGS = 100
"""How often a trace may begin."""


def _begun_again(traces: F) -> F:
    """A function that traces, and begins again when the trace asks for it (``recording.StartAgain``)."""

    @functools.wraps(traces)
    def tracing(*args: Any, **kwargs: Any) -> Any:
        for _ in range(MOST_BEGINNINGS):
            try:
                return traces(*args, **kwargs)
            except StartAgain:
                pass
        raise TraceError(
            f"a trace began {MOST_BEGINNINGS} times, and each time it made what it depends on anew"
        )

    return tracing  # type: ignore[return-value]


@_begun_again
def trace_function(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    name: str | None = None,
    roots: Callable[..., Any] | None = None,
    objects: Mapping[str, Any] | None = None,
    argument_names: Sequence[str] | None = None,
    assignments: bool = False,
) -> Trace:
    """Trace ``function`` at these arguments (arrays, scalars, ``ShapeDtypeStruct``s).

    ``roots`` is the callable whose closure names the States, when it differs from ``function``; ``objects``
    are its other arguments, by name. With ``assignments`` every call repeats all attribute assignments, not
    only those that bind trace-born States.
    """
    leaves, in_tree = jax.tree.flatten((tuple(args), dict(kwargs)))
    avals = [_argument_aval(leaf) for leaf in leaves]
    name = name or program_name(roots or function)
    recorder = Recorder()
    names = functools.partial(StateNames, roots or function, objects or {})
    recorder.naming = lambda: names().states
    run = _Run(function, in_tree, recorder)
    with paused_gc(), recorder, watching():
        try:
            try:
                jaxpr, consts = _jax.trace_flat(run, avals, traced_for="stategraph", name=name)
            except Exception as error:
                pending = recorder.pending_error()
                if pending is not None:
                    raise pending from _jax.shortened(error)
                if isinstance(error, _CONCRETE) and not isinstance(error, StateGraphError):
                    raise _concretization(error, recorder) from _jax.shortened(error)
                raise
            for check in recorder.finishing.values():
                check()
            recorder.root = None
            labels = list(argument_names or _leaf_names(in_tree))
            return _assemble(run, recorder, jaxpr, consts, name, names, labels, assignments)
        finally:
            rollback(recorder)


_CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerArrayConversionError,
)
"""What JAX raises when Python asks for the value of something that is only traced."""


def touched_states(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[dict[str, State[Any]], dict[str, State[Any]]]:
    """(States that a call touches, those of them that it reads), by name, without running it."""
    read, written, _ = accessed_states(function, args, kwargs)
    return {**read, **written}, read


@_begun_again
def accessed_states(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[dict[str, State[Any]], dict[str, State[Any]], Any]:
    """(States that a call reads, those that it writes, both by name, the call as a jaxpr), without running it."""
    leaves, in_tree = jax.tree.flatten((tuple(args), dict(kwargs)))
    recorder = Recorder()
    run = _Run(function, in_tree, recorder)
    with recorder:
        try:
            jaxpr, _ = _jax.trace_flat(
                run, [_argument_aval(leaf) for leaf in leaves], traced_for="stategraph", name="touched"
            )
        finally:
            rollback(recorder)
    names = StateNames(function)
    found: dict[str, dict[str, State[Any]]] = {"state_read": {}, "state_write": {}}
    for eqn in _jax.equations_of(jaxpr, found):
        token = eqn.params["token"]
        owner: State[Any] = recorder.owners[token]
        if token not in recorder.born_in:
            found[eqn.primitive.name][names.of(owner)] = owner
    return found["state_read"], found["state_write"], jaxpr


class _Run:
    """The traced function on flat leaves; remembers the structure of the result."""

    def __init__(self, function: Callable[..., Any], in_tree: Any, recorder: Recorder) -> None:
        self.function = function
        self.in_tree = in_tree
        self.recorder = recorder
        self.out_tree: Any = None

    def __call__(self, *leaves: Any) -> list[Any]:
        self.recorder.root = _jax.weak(_jax.current_trace())
        args, kwargs = jax.tree.unflatten(self.in_tree, leaves)
        result = self.function(*args, **kwargs)
        flat, self.out_tree = jax.tree.flatten(result)
        for path, leaf in zip(_leaf_names(self.out_tree, "result"), flat, strict=True):
            if isinstance(leaf, State):
                raise TraceError(
                    describe(
                        f"The traced function returns a State ({path}).",
                        state=leaf._describe(),
                        created=leaf.source_location,
                        fix="return its value: `return state.value`",
                    )
                )
            if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
                raise TraceError(
                    describe(
                        f"The traced function returns a {type(leaf).__name__} ({path}), which is no array.",
                        why="a program returns arrays, scalars and containers of these",
                        fix="return only arrays, and keep other objects outside",
                    )
                )
        return flat


def _argument_aval(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return _jax.array_aval(leaf.shape, leaf.dtype, bool(getattr(leaf, "weak_type", False)))
    if isinstance(leaf, State):
        raise TraceError(
            describe(
                "A State is given as an argument.",
                state=leaf._describe(),
                created=leaf.source_location,
                fix="pass its value, or let the function close over the State",
            )
        )
    try:
        return _jax.typeof(leaf)
    except TypeError:
        raise TraceError(
            describe(
                f"An argument is a {type(leaf).__name__}, which is no array.",
                why="a program takes arrays, scalars and containers of these",
                fix="mark it static (static_argnums, static_argnames) or let the function close over it",
            )
        ) from None


# ------------------------------------------------------------------------------------------------ the program


def _assemble(
    run: _Run,
    recorder: Recorder,
    jaxpr: Any,
    consts: Sequence[Any],
    name: str,
    names: Callable[[], StateNames],
    argument_names: list[str],
    assignments: bool,
) -> Trace:
    found = names()
    escaping, replays = escapes(recorder, assignments)
    namer = _Namer(recorder, found, escaping)
    body = Region([_jax.type_of(var.aval) for var in jaxpr.invars], argument_names)
    captures = _Captures(body, found.arrays, set(argument_names))
    importer = Importer(recorder, captures, namer)
    importer.name_copy = namer.copy
    env = dict(zip(jaxpr.invars, list(body.args), strict=True))
    importer.fill(body, jaxpr, consts, env)
    for changing, token, error in recorder.type_changes:
        if token not in recorder.born_in and not importer.instances.get(changing.number):
            raise error
    check_reused(recorder, importer, escaping)
    program = Program(
        name=name,
        body=body,
        argument_names=argument_names + list(captures.arrays),
        argument_tree=tree_of(run.in_tree),
        captured=captures.arrays,
        result_names=_leaf_names(run.out_tree, "result"),
        result_tree=tree_of(run.out_tree),
    )
    states: dict[str, State[Any]] = {}
    born: dict[str, State[Any]] = {}
    for token, path in importer.symbols.items():
        owner: State[Any] = recorder.owners[token]
        if token in recorder.born_in and token not in escaping:
            continue
        program.states[path] = _symbol(recorder, token, path, owner)
        (born if token in recorder.born_in else states)[path] = owner
    return Trace(
        program=program,
        states=states,
        born=born,
        replays=replays,
        guards=final_guards(recorder, replays),
        containers=list(recorder.containers.values()),
        in_tree=run.in_tree,
        out_tree=run.out_tree,
        settings=list(recorder.settings.values()),
    )


def _symbol(recorder: Recorder, token: Token, path: str, owner: State[Any]) -> StateSymbol:
    entry = recorder.entry[token]
    final = tuple(_jax.type_of(aval) for aval in recorder.avals[token])
    final_tree = state_tree_of(recorder.trees[token])
    types, tree = (
        (final, final_tree)
        if entry is None
        else (tuple(_jax.type_of(aval) for aval in entry[0]), state_tree_of(entry[1]))
    )
    changed = types != final or tree != final_tree
    return StateSymbol(
        path=path,
        kind=type(owner).__name__,
        types=types,
        tree=tree,
        final_types=final if changed else None,
        final_tree=final_tree if changed else None,
        born=entry is None,
        attributes=_symbol_attributes(owner, recorder.trees[token]),
        location=owner.source_location,
    )


def _symbol_attributes(owner: State[Any], tree: Any) -> dict[str, Any]:
    """What a symbol says of its State besides its type: whether it is trained, and where it lies."""
    attributes: dict[str, Any] = {"trainable": True} if _is_trainable(owner) else {}
    declared = owner.metadata.get("sharding")
    if any(isinstance(item, Sharding) for item in jax.tree.leaves(declared)):
        attributes["sharding"] = sharding_attribute(per_leaf("sharding", declared, tree))
    attributes.update(owner.metadata.get("attributes", {}))
    unit = units.attribute_of(owner, tree)
    return attributes if unit is None else {**attributes, units.DECLARED: unit}


def _is_trainable(owner: State[Any]) -> bool:
    from stategraph.state import ParamState

    return isinstance(owner, ParamState)


class _Captures:
    """Arrays that the code closed over, as named operands of the program."""

    def __init__(self, body: Region, names: dict[int, str], taken: set[str]) -> None:
        self.body = body
        self.names = names
        self.taken = set(taken)
        self.arrays: dict[str, Any] = {}
        self.values: dict[int, tuple[Any, Value]] = {}

    def __call__(self, array: Any) -> Value:
        if id(array) in self.values:
            return self.values[id(array)][1]
        if _jax.is_tracer(array):
            raise TraceError(
                describe(
                    "A derivative rule or inner function uses a value of another trace.",
                    at=_jax.here(),
                    why="the value exists only inside the function that computed it",
                    fix="pass it as an argument",
                )
            )
        aval = _jax.typeof(array)
        wanted = self.names.get(id(_jax.user_array(array)), f"captured{len(self.arrays)}")
        name = unique(wanted, self.taken)
        value = Value(_jax.type_of(aval), self.body, len(self.body.args), name)
        self.body.args.append(value)
        # A NumPy array may be edited in place later; the program keeps what it saw.
        self.arrays[name] = array if isinstance(array, jax.Array) else jax.numpy.array(np.array(array))
        self.values[id(array)] = (array, value)
        return value


class _Namer:
    """Paths of symbols."""

    def __init__(self, recorder: Recorder, names: StateNames, escaping: set[Token]) -> None:
        self.recorder = recorder
        self.names = names
        self.escaping = escaping
        self.paths: dict[Token, str] = {}

    def __call__(self, token: Token, fresh: bool) -> str:
        if token in self.paths and (not fresh or token in self.escaping):
            return self.paths[token]
        owner: State[Any] = self.recorder.owners[token]
        path = self.names.fresh(owner, local=token in self.recorder.born_in)
        self.paths[token] = path
        return path

    def copy(self, token: Token) -> str:
        """A path for a copy of a State."""
        return unique(self(token, False), self.names.taken)


def program_name(function: Callable[..., Any]) -> str:
    """A program's name: the function's, without ``<lambda>`` brackets."""
    while hasattr(function, "func"):
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return name.strip("<>")


def _leaf_names(tree: Any, root: str = "args") -> list[str]:
    """A name for every leaf: ``args[0]``, ``result['loss']``."""
    if tree is None:
        return [root]
    example = jax.tree.unflatten(tree, range(tree.num_leaves))
    paths = jax.tree_util.tree_flatten_with_path(example)[0]
    if root == "args":
        return [_argument_name(path) for path, _ in paths]
    return [root + jax.tree_util.keystr(path) for path, _ in paths]


def _argument_name(path: Sequence[Any]) -> str:
    which, *rest = path
    if which.idx == 1 and rest:
        return f"{rest[0].key}{jax.tree_util.keystr(tuple(rest[1:]))}"
    return f"args{jax.tree_util.keystr(tuple(rest))}"


def _concretization(error: BaseException, recorder: Recorder) -> StateGraphError:
    """Name the State and the line when Python branched on a traced value."""
    tracer = _jax.tracer_of_error(error)
    reads = _jax.origin_reads(tracer, state_read_p) if tracer is not None else []
    states = {
        owner._describe(): owner.source_location
        for owner in (recorder.owners[params["token"]] for params in reads)
    }
    names = sorted(states)
    return ConcretizationError(
        describe(
            f"Python needs the concrete value of {' and '.join(names) if names else 'a traced value'} while tracing.",
            state="; ".join(
                f"{name}, created at {place.file}:{place.line}" for name, place in sorted(states.items())
            ),
            at=_jax.here_of(error),
            why="the value is known only when the program runs: `if`, `while`, `float()`, `int()` and NumPy cannot use it",
            fix="use stategraph.compile.cond, while_loop or ifelse (or jnp.where) instead of Python control flow",
        )
    )

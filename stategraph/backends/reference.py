"""The reference interpreter: what a program means.

    results, states = run(program, arguments, states)

Ops run one by one, on concrete arrays; loops are Python loops, State is a dict from path to leaves. Slow
and obvious: every other way to run a program is measured against this one.

Vocabulary: a *frame* maps values to arrays (one scope per region that is running), the *store* maps State
paths to leaves.

Gradients. ``xform.grad`` runs its body under ``jax.vjp``. Its values are then JAX's tracers, which know the
concrete value underneath: ``bool`` and ``int`` of a condition work as they do in ``jax.grad`` of plain
Python, so loops and branches are run as always, and nested gradients need nothing more. Functions with
derivative rules become ``jax.custom_jvp`` and ``jax.custom_vjp`` functions only there; elsewhere their rules
do not matter.
"""

from __future__ import annotations

import contextlib
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.backends.checks import CheckFailure, failure_of, run_check
from stategraph.backends.events.generic import MEANINGS
from stategraph.backends.params import decode
from stategraph.backends.reference_lanes import run_lanes
from stategraph.backends.reference_shards import run_shards
from stategraph.backends.reference_values import (
    ExecutionError,
    Leaves,
    as_array,
    constant,
    fit,
    no_tangent,
    nothing_stacked,
    select_going,
    strong,
)
from stategraph.errors import StateGraphError
from stategraph.ir.attributes import RegionRef
from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.event_ops import EVENT_OPS
from stategraph.ir.printer import Printer
from stategraph.ir.types import KeyType

Store = dict[str, Leaves]
Host = Callable[[Op, Sequence[Any], dict[str, Any]], Sequence[Any]]
"""Performs a ``host.*`` op: (op, operands, parameters) -> results."""


class Watcher(Protocol):
    """Somebody who looks on."""

    def ran(self, op: Op, operands: Sequence[Any], results: Sequence[Any]) -> None:
        """An op has run, and those in its regions before it."""

    def trip(self, loop: Op, number: int | None) -> None:
        """A loop begins a trip; None when it has ended."""


class Interrupt(Exception):
    """What a watcher raises to end the run."""


class TooManyTrips(StateGraphError):
    """A ``flow.while`` ran for more trips than ``run(trip_limit=)`` allows."""


def run(
    program: Program,
    arguments: Sequence[Any],
    states: Mapping[str, Sequence[Any]],
    *,
    captured: Mapping[str, Any] | None = None,
    host: Host | None = None,
    trip_limit: int | None = None,
    watcher: Watcher | None = None,
) -> tuple[list[Any], Store]:
    """Run a program, in stateful or functional form.

    Args:
      program: what to run.
      arguments: the leaves of its arguments, in order, without the captured arrays.
      states: the leaves of every State, by path. Nothing that is given is changed.
      captured: other values for captured arrays, by name.
      host: performs the ``host.*`` ops instead of JAX.
      trip_limit: the largest number of trips of a ``flow.while``; None for no limit.
      watcher: is told of every op that ran; what it raises ends the run.

    Returns:
      (leaves of the results, the State afterwards): every path of ``states``, and the States that the
      program creates.

    Raises:
      ExecutionError: an op failed; the error behind it is its cause.
      CheckFailure: a runtime check failed; what it raises is the cause.
      TooManyTrips: see ``trip_limit``.
    """
    given = {**program.captured, **(captured or {})}
    inputs = [*arguments, *(given[name] for name in program.captured)]
    if len(inputs) != len(program.body.args):
        wanted = len(program.body.args) - len(program.captured)
        raise ExecutionError(
            f"program @{program.name} takes {wanted} arguments and was given {len(arguments)}"
        )
    store = {path: tuple(map(as_array, leaves)) for path, leaves in states.items()}
    for path, symbol in program.states.items():
        if not symbol.born:
            store[path] = _entry(program, path, store.get(path))
    values = [fit(as_array(x), arg.type, f"argument {name!r}") for x, arg, name in _named(inputs, program)]
    born = frozenset(path for path, symbol in program.states.items() if symbol.born)
    settings = _Settings(program, born, host or _bind, trip_limit, watcher)
    machine = _Machine(settings, ChainMap({}), store, (), False)
    results = machine.region(program.body, values)
    jax.effects_barrier()
    failure_of(program, machine.store)
    return results, machine.store


def evaluate(op: Op) -> list[np.ndarray] | None:
    """The results of a ``jax.*`` op on constants; None for other ops, and where JAX refuses."""
    if (
        not op.name.startswith("jax.")
        or "effects" in op.attributes
        or any(isinstance(r.type, KeyType) for r in op.results)
    ):
        return None
    settings = _Settings(None, frozenset(), _bind, None)
    try:
        return [
            np.asarray(x)
            for x in _Machine(settings, ChainMap({}), {}, (), False).primitive(
                op, [constant(v) for v in op.operands]
            )
        ]
    except Exception:
        return None


def state_paths(op: Op) -> list[str]:
    """The States that an ``xform.grad`` differentiates with respect to."""
    return [str(getattr(symbol, "path", symbol)) for symbol in op.attributes.get("states", ())]


# ----------------------------------------------------------------------------------------------- the machine


@attrs.frozen
class _Settings:
    """What stays the same during a run."""

    program: Program | None
    born: frozenset[str]
    """States that outlive the region that creates them."""
    host: Host
    trip_limit: int | None
    watcher: Watcher | None = None
    params: dict[Op, dict[str, Any]] = attrs.Factory(dict)
    """Decoded parameters of the ops that ran."""


@attrs.define
class _Machine:
    settings: _Settings
    frame: ChainMap[Value, Any]
    store: Store
    rules: tuple[Callable[[Sequence[Any]], Sequence[Any]], ...]
    """The functions whose derivative rules are being run, outermost first."""
    differentiating: bool

    def region(self, region: Region, arguments: Sequence[Any]) -> list[Any]:
        """Run one region: its arguments are bound, its ops run in order, its own States die."""
        self.frame = self.frame.new_child(dict(zip(region.args, arguments, strict=True)))
        try:
            for op in region.ops[:-1]:
                self.op(op)
            return [self.read(value) for value in region.yielded]
        finally:
            self.frame = self.frame.parents
            for op in region.ops:
                if op.name == "state.alloc" and op.symbol not in self.settings.born:
                    self.store.pop(op.symbol, None)

    def read(self, value: Value) -> Any:
        return constant(value) if isinstance(value, Constant) else self.frame[value]

    def op(self, op: Op) -> None:
        operands: list[Any] = []
        try:
            operands += [self.read(value) for value in op.operands]
            results = self.perform(op, operands)
            if len(results) != len(op.results):
                raise ExecutionError(f"it gave {len(results)} results, not {len(op.results)}")
            for i, (result, x) in enumerate(zip(op.results, results, strict=True)):
                self.frame[result] = fit(x, result.type, f"result {i}")
        except (TooManyTrips, CheckFailure, Interrupt):
            raise
        except Exception as error:
            self.fail(op, operands, error)
        if self.settings.watcher is not None:
            self.settings.watcher.ran(op, operands, [self.frame[result] for result in op.results])

    def fail(self, op: Op, operands: Sequence[Any], error: Exception) -> NoReturn:
        """Say which op failed; of nested ops the innermost says most."""
        if isinstance(error, ExecutionError) and str(error).startswith("While executing"):
            error.add_note(f"  inside {op.name} at {op.location}")
            raise error
        lines = [f"While executing {_text(op, self.settings.program)}", f"  at:     {op.location}"]
        lines += [f"  operand {i}: {_describe(x)}" for i, x in enumerate(operands)]
        if op.name.startswith("state."):
            lines.append(f"  states: {', '.join('@' + path for path in sorted(self.store)) or 'none'}")
        lines.append(f"  why:    {type(error).__name__}: {error}")
        raise ExecutionError("\n".join(lines)) from error

    def perform(self, op: Op, operands: list[Any]) -> Sequence[Any]:
        handler = _HANDLERS.get(op.name)
        if handler is not None:
            return handler(self, op, operands)
        if op.name.startswith("jax."):
            return self.primitive(op, operands)
        if op.name.startswith("host."):
            return self.settings.host(op, operands, self.parameters(op))
        raise ExecutionError("the reference interpreter has no meaning for this op")

    # -------------------------------------------------------------------------------------- JAX's primitives

    def primitive(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        return _bind(op, operands, self.parameters(op))

    def parameters(self, op: Op) -> dict[str, Any]:
        found = self.settings.params.get(op)
        if found is None:
            attributes = {key: value for key, value in op.attributes.items() if key != "effects"}

            def body(ref: RegionRef, closed: bool) -> Any:
                return self.body(op.regions[ref.index], closed)

            found = self.settings.params[op] = {key: decode(value, body) for key, value in attributes.items()}
        return found

    def body(self, region: Region, closed: bool) -> Any:
        """A function for a JAX primitive (the combiner of a reduction): this interpreter, traced."""

        def function(*args: Any) -> list[Any]:
            machine = _Machine(self.settings, ChainMap({}), {}, (), self.differentiating)
            return machine.region(region, args)

        jaxpr = jax.make_jaxpr(function)(*(_jax.aval_of(arg.type) for arg in region.args))
        return jaxpr if closed else _jax.body_parts(jaxpr)[0]

    # ------------------------------------------------------------------------------------------------- State

    def state_read(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        if op.symbol not in self.store:
            raise ExecutionError(f"State @{op.symbol} has no value here")
        return self.store[op.symbol]

    def state_write(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        if op.symbol not in self.store and op.symbol not in self.settings.born:
            raise ExecutionError(f"there is no State @{op.symbol} here")
        self.store[op.symbol] = strong(operands)
        return ()

    def state_alloc(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        self.store[op.symbol] = strong(operands)
        return ()

    # ------------------------------------------------------------------------------------------ control flow

    def scan(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        (body,) = op.regions
        length, count = op.attributes["length"], op.attributes["carry"]
        carries, xs = list(operands[:count]), operands[count:]
        stacks: list[list[Any]] = [[] for _ in op.results[count:]]
        for trip in reversed(range(length)) if op.attributes["reverse"] else range(length):
            self.begin(op, trip)
            elements = [jax.lax.dynamic_index_in_dim(x, trip, keepdims=False) for x in xs]
            values = self.region(body, [*carries, *elements])
            carries = values[:count]
            for stack, y in zip(stacks, values[count:], strict=True):
                stack.append(y)
        self.begin(op, None)
        if op.attributes["reverse"]:
            stacks = [stack[::-1] for stack in stacks]
        stacked = zip(stacks, op.results[count:], strict=True)
        return [
            *carries,
            *(jnp.stack(stack) if stack else nothing_stacked(result.type) for stack, result in stacked),
        ]

    def while_(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        condition, body = op.regions
        carries = list(operands)
        trips = 0
        while True:
            self.begin(op, trips)
            (going,) = self.region(condition, carries)
            if not bool(going.any() if going.ndim else going):
                break
            carries = [
                select_going(going, new, old)
                for new, old in zip(self.region(body, carries), carries, strict=True)
            ]
            trips += 1
            if trips == self.settings.trip_limit:
                raise TooManyTrips(f"{op.name} at {op.location} ran for {trips} trips")
        self.begin(op, None)
        return carries

    def begin(self, loop: Op, trip: int | None) -> None:
        if self.settings.watcher is not None:
            self.settings.watcher.trip(loop, trip)

    def cond(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        index = min(max(int(operands[0]), 0), len(op.regions) - 1)
        return self.region(op.regions[index], ())

    def call(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        return self.region(op.regions[0], operands)

    # --------------------------------------------------------------------------------------------- gradients

    def grad(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        """The value, its companions, the gradients; State is written as if the body had run once."""
        paths = state_paths(op)
        order = list(self.store)

        def body(arguments: Sequence[Any], leaves: Sequence[Leaves]) -> tuple[Any, Any]:
            store = {**self.store, **dict(zip(paths, leaves, strict=True))}
            machine = attrs.evolve(self, frame=self.frame.new_child(), store=store, differentiating=True)
            value, *others = machine.region(op.regions[0], arguments)
            return value, (others, machine.store)

        wanted = [self.store[path] for path in paths]
        value, pullback, (others, store) = jax.vjp(body, list(operands), wanted, has_aux=True)
        gradients, state_gradients = pullback(jnp.ones_like(value))
        self.store.clear()
        self.store.update(
            {path: store[path] for path in [*order, *(path for path in store if path not in order)]}
        )
        return [value, *others, *gradients, *(leaf for leaves in state_gradients for leaf in leaves)]

    def product(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        """``jvp`` and ``vjp``: the body's results, then tangents or gradients, lane by lane."""
        (region,) = op.regions
        seeds, arguments = operands[: -len(region.args) or None], operands[len(operands) - len(region.args) :]
        paths = state_paths(op)
        sizes = [len(self.store[path]) for path in paths]
        flat = [*arguments, *(leaf for path in paths for leaf in self.store[path])]
        active = [i for i, x in enumerate(flat) if _jax.has_tangent(_jax.typeof(x))]
        out_active = _active(region.yielded[: op.attributes["outputs"]])

        def body(*moving: Any) -> tuple[Any, Any]:
            full = list(flat)
            for i, x in zip(active, moving, strict=True):
                full[i] = x
            rest = iter(full[len(arguments) :])
            leaves = {
                path: tuple(next(rest) for _ in range(size)) for path, size in zip(paths, sizes, strict=True)
            }
            machine = attrs.evolve(
                self, frame=self.frame.new_child(), store={**self.store, **leaves}, differentiating=True
            )
            values = machine.region(region, full[: len(arguments)])
            return [values[i] for i in out_active], (values, machine.store)

        primals = [flat[i] for i in active]
        if op.name == "xform.jvp":
            _, linear, (values, store) = jax.linearize(body, *primals, has_aux=True)
        else:
            outputs, pull, (values, store) = jax.vjp(body, *primals, has_aux=True)

            def linear(*cotangents: Any) -> Any:
                return pull(_jax.cast_like(cotangents, outputs))

        self.store.update(store)
        lanes = op.attributes["lanes"]
        if lanes is None:
            return [*values, *linear(*seeds)]
        found = [linear(*(seed[lane] for seed in seeds)) for lane in range(lanes)]
        if not found:
            return [*values, *(nothing_stacked(result.type) for result in op.results[len(values) :])]
        return [*values, *(jnp.stack(column) for column in zip(*found, strict=True))]

    def custom_jvp(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        if "recursive" in op.attributes:
            return self.enclosing_rule(op, operands)
        if not self.differentiating:
            return self.call(op, operands)
        call, jvp = op.regions
        machine = attrs.evolve(self)
        active, out_active = _active(op.operands), _active(op.results)
        count = len(op.results)

        @jax.custom_jvp
        def function(context: _Context, args: Sequence[Any]) -> tuple[list[Any], Store]:
            return machine.isolated(call, context, args)

        @function.defjvp
        def rule(primals: Any, tangents: Any) -> Any:
            context, args = primals
            given = [tangents[1][i] for i in active]
            flat, _ = machine.isolated(jvp, context, [*args, *given], function)
            moved = iter(flat[count:])
            out = [next(moved) if i in out_active else no_tangent(flat[i]) for i in range(count)]
            return (flat[:count], context[1]), (out, tangents[0][1])

        return self.with_rule(function, op, operands)

    def custom_vjp(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        if "recursive" in op.attributes:
            return self.enclosing_rule(op, operands)
        if not self.differentiating:
            return self.call(op, operands)
        call, forward, backward = op.regions
        machine = attrs.evolve(self)
        active, out_active = _active(op.operands), _active(op.results)
        count = len(op.results)

        @jax.custom_vjp
        def function(context: _Context, args: Sequence[Any]) -> tuple[list[Any], Store]:
            return machine.isolated(call, context, args)

        def fwd(context: _Context, args: Sequence[Any]) -> Any:
            flat, _ = machine.isolated(forward, context, args, function)
            return (flat[:count], context[1]), (context, flat[count:])

        def bwd(kept: Any, cotangents: Any) -> Any:
            context, residuals = kept
            given = [cotangents[0][i] for i in out_active]
            moved = iter(machine.isolated(backward, context, [*residuals, *given], function)[0])
            return (None, cotangents[1]), [
                next(moved) if i in active else None for i in range(len(op.operands))
            ]

        function.defvjp(fwd, bwd)
        return self.with_rule(function, op, operands)

    def with_rule(self, function: Callable[..., Any], op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        """Call a function that has a rule. What it captures, State included, goes in and out explicitly.

        Under its rule the function itself does not run: State that it would have written stays as it was.
        """
        results: list[Any]
        results, store = function(self.context(op), list(operands))
        self.store.update(store)
        return results

    def context(self, op: Op) -> _Context:
        """What the regions of ``op`` use from outside: values, and State."""
        inside = [value for region in op.regions for value in _defined(region)]
        taken = dict.fromkeys(v for inner in op.walk() for v in inner.operands if not isinstance(v, Constant))
        symbols = dict.fromkeys(inner.symbol for inner in op.walk("state.read", "state.write"))
        captured = {value: self.frame[value] for value in taken if value not in set(inside)}
        return _Captured(list(captured.values()), tuple(captured)), {
            path: self.store[path] for path in symbols if path in self.store
        }

    def isolated(
        self, region: Region, context: _Context, args: Sequence[Any], rule: Callable[..., Any] | None = None
    ) -> tuple[list[Any], Store]:
        """Run a region that sees nothing but its context and its arguments; ``rule`` is the function whose
        rule it is."""
        captured, store = context
        rules = (
            self.rules if rule is None else (*self.rules, lambda operands: rule(context, list(operands))[0])
        )
        frame = ChainMap(dict(zip(captured.values, captured.arrays, strict=True)))
        machine = attrs.evolve(self, frame=frame, store=dict(store), rules=rules)
        return machine.region(region, args), {path: machine.store[path] for path in store}

    def enclosing_rule(self, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
        """A rule that calls the function it belongs to."""
        if not self.differentiating or not self.rules:
            return self.call(op, operands)
        results: Sequence[Any] = self.rules[-op.attributes["recursive"]](operands)
        return results


@jax.tree_util.register_pytree_node_class
class _Captured:
    """Arrays, and the values of the program that they are."""

    def __init__(self, arrays: Sequence[Any], values: tuple[Value, ...]) -> None:
        self.arrays = arrays
        self.values = values

    def tree_flatten(self) -> tuple[Sequence[Any], tuple[Value, ...]]:
        return self.arrays, self.values

    @classmethod
    def tree_unflatten(cls, values: tuple[Value, ...], arrays: Sequence[Any]) -> _Captured:
        return cls(list(arrays), values)

    def __len__(self) -> int:
        return len(self.arrays)


_Context = tuple[_Captured, Store]
"""What a function with a derivative rule uses from outside."""


def _event(machine: _Machine, op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """The dense meaning: every synapse is used, whatever is active."""
    return [MEANINGS[op.name](*operands, **op.attributes)]


_HANDLERS: dict[str, Callable[[_Machine, Op, list[Any]], Sequence[Any]]] = {
    "state.read": _Machine.state_read,
    "state.write": _Machine.state_write,
    "state.alloc": _Machine.state_alloc,
    "check.error_if": lambda _, op, operands: run_check(op, operands),
    "flow.scan": _Machine.scan,
    "flow.while": _Machine.while_,
    "flow.cond": _Machine.cond,
    "flow.call": _Machine.call,
    "flow.custom_jvp": _Machine.custom_jvp,
    "flow.custom_vjp": _Machine.custom_vjp,
    "xform.remat": _Machine.call,
    "native.kernel": _Machine.call,
    "xform.grad": _Machine.grad,
    "xform.vmap": run_lanes,
    "xform.shard_map": run_shards,
    "xform.jvp": _Machine.product,
    "xform.vjp": _Machine.product,
    **{name: _event for name in EVENT_OPS},
}


# ---------------------------------------------------------------------------------------------- small things


def _bind(op: Op, operands: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
    """Run one JAX primitive."""
    name = op.name.split(".", 1)[1]
    primitive = _jax.primitive_by_name(name)
    if primitive is None:
        raise ExecutionError(f"JAX {jax.__version__} has no primitive {name!r}")
    if name == "debug_print":
        params = {**params, "logging_record": None}
    return _jax.bind_here(primitive, params, operands)


def _entry(program: Program, path: str, leaves: Leaves | None) -> Leaves:
    symbol = program.states[path]
    if leaves is None and symbol.initial is not None:
        leaves = tuple(map(as_array, symbol.initial))
    if leaves is None:
        raise ExecutionError(f"program @{program.name} needs a value for State @{path}")
    if len(leaves) != len(symbol.types):
        raise ExecutionError(f"State @{path} has {len(symbol.types)} leaves and was given {len(leaves)}")
    return tuple(fit(x, type, f"State @{path}") for x, type in zip(leaves, symbol.types, strict=True))


def _named(inputs: Sequence[Any], program: Program) -> Iterator[tuple[Any, Value, str]]:
    return zip(inputs, program.body.args, program.argument_names, strict=True)


def _active(values: Sequence[Value]) -> list[int]:
    return [i for i, value in enumerate(values) if _jax.has_tangent(_jax.aval_of(value.type))]


def _defined(region: Region) -> Iterator[Value]:
    yield from region.args
    for op in region.walk():
        yield from op.results
        for nested in op.regions:
            yield from nested.args


def _text(op: Op, program: Program | None) -> str:
    """The op as the program prints it."""
    with contextlib.suppress(Exception):
        printer = Printer(locations=False)
        printer.program(program, resources=False)  # type: ignore[arg-type]
        return printer.lines[printer.op_lines[op]].strip()
    return repr(op)


def _describe(x: Any) -> str:
    text = f"{_jax.type_of(_jax.typeof(x))}"
    return f"{text} = {x}" if np.ndim(x) == 0 and not _jax.is_tracer(x) else text

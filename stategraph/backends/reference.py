"""The reference interpreter: what a program means.

    results, states = run(program, arguments, states)

Ops run one by one, on concrete arrays; loops are Python loops, State is a dict from path to leaves. Slow
and obvious: every other way to run a program is measured against this one.

Vocabulary: a *frame* maps values to arrays (one scope per region that is running), the *store* maps State
paths to leaves.
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
from stategraph.backends import reference_derivatives
from stategraph.backends.checks import CheckFailure, failure_of, run_check
from stategraph.backends.events.generic import MEANINGS
from stategraph.backends.params import decode
from stategraph.backends.reference_lanes import run_lanes
from stategraph.backends.reference_shards import run_shards
from stategraph.backends.reference_values import (
    ExecutionError,
    Leaves,
    Store,
    as_array,
    constant,
    fit,
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
    try:
        results = machine.region(program.body, values)
        jax.effects_barrier()
    except BaseException:
        _jax.forget_failed_effects()
        raise
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
    "flow.custom_jvp": reference_derivatives.custom_jvp,
    "flow.custom_vjp": reference_derivatives.custom_vjp,
    "xform.remat": _Machine.call,
    "native.kernel": _Machine.call,
    "xform.grad": reference_derivatives.grad,
    "xform.vmap": run_lanes,
    "xform.shard_map": run_shards,
    "xform.jvp": reference_derivatives.product,
    "xform.vjp": reference_derivatives.product,
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
    results = _jax.bind_here(primitive, params, operands)
    if op.name.startswith("host."):
        _jax.wait_for_effects(results)
    return results


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

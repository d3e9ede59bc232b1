"""From a jaxpr that JAX recorded to a program.

One walk over the equations. Structured primitives (scan, while, cond, jit, remat, custom derivative rules,
our own transformations) become region ops whose bodies capture what they use; State accesses become
``state.*`` ops; every other primitive becomes ``jax.<name>`` with its parameters as attributes.

The walk also proves that JAX moved nothing: each instance of a body must hold all accesses that the body's
one run made, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stategraph import _jax
from stategraph.backends.checks import jax_check
from stategraph.backends.params import encode, state_tree_of
from stategraph.errors import StateAccessError, TraceError, describe
from stategraph.ir.attributes import Opaque, RegionRef
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.event_ops import EVENT_OPS
from stategraph.ir.location import Location
from stategraph.recording import Body, Recorder, Token
from stategraph.tracing.import_rules import import_jvp, import_kept, import_vjp
from stategraph.tracing.import_shards import import_jax, import_own
from stategraph.tracing.import_transforms import import_grad, import_product, import_vmap
from stategraph.tracing.rules import Enclosing
from stategraph.tracing.types_here import TypesHere

Env = dict[Any, Value]
HOST = {
    "debug_print": "host.debug_print",
    "debug_callback": "host.debug_callback",
    "io_callback": "host.io_callback",
    "pure_callback": "host.pure_callback",
}


class Importer:
    """Builds regions from jaxprs. One instance serves one trace."""

    def __init__(
        self, recorder: Recorder | None, capture: Callable[[Any], Value], symbol: Callable[[Token, bool], str]
    ) -> None:
        self.recorder = recorder
        self.capture = capture
        """The program's operand for an array that the code closed over."""
        self.name_symbol = symbol
        """The path of a token's State; the second argument asks for a fresh local one."""
        self.name_copy: Callable[[Token], str] = lambda token: symbol(token, True)
        """A path for a copy of a token's State."""
        self.types = TypesHere(recorder)
        self.symbols: dict[Token, str] = {}
        self.instances: dict[int, int] = {}
        """How often each body number was imported."""
        self.depth = 0
        """In how many loop bodies and branches the current instance stands."""
        self.here: Location | None = None
        """The op whose regions are being imported: the location of inner ops that have none."""
        self.envs: list[Env] = []
        """The values of the bodies being imported, outermost first."""
        self.keep_rules = True
        """Whether functions with derivative rules keep them; else they are calls."""
        self.rules: list[Enclosing] = []
        """The functions whose derivative rules are being imported, outermost first."""

    # ------------------------------------------------------------------------------------------------- bodies

    def region(
        self, body: Any, captured: Sequence[Value], names: Sequence[str | None] | None = None
    ) -> Region:
        """A region for ``body``; its first inputs are bound to ``captured``, the others become region
        arguments.
        """
        jaxpr, consts = _jax.body_parts(body)
        args = jaxpr.invars[len(captured) :]
        region = Region([_jax.type_of(var.aval) for var in args], names)
        env: Env = dict(zip(jaxpr.invars, [*captured, *region.args], strict=True))
        self.fill(region, jaxpr, consts, env)
        return region

    def inner(self, body: Any, captured: Sequence[Value]) -> Region:
        """A region that does not run exactly when the code around it does."""
        self.depth += 1
        try:
            return self.region(body, captured)
        finally:
            self.depth -= 1

    def fill(self, region: Region, jaxpr: Any, consts: Sequence[Any], env: Env) -> None:
        """Import the equations of ``jaxpr`` into ``region`` and close it."""
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            env[var] = self.constant(const)
        self.check_accesses(jaxpr)
        self.envs.append(env)
        for eqn in jaxpr.eqns:
            self.equation(region, eqn, env)
        self.envs.pop()
        region.yield_([self.read(env, atom) for atom in jaxpr.outvars])

    def constant(self, const: Any) -> Value:
        """What a body closes over: an array, or (in a derivative rule) a value of an enclosing body."""
        if _jax.is_tracer(const):
            variable = _jax.tracer_var(const)
            for env in reversed(self.envs):
                if variable in env:
                    return env[variable]
        return self.capture(const)

    def read(self, env: Env, atom: Any) -> Value:
        if type(atom) is _jax.Literal:
            kind = _jax.type_of(atom.aval)
            return Constant(np.asarray(atom.val, getattr(atom.aval, "dtype", None)), kind)
        return env[atom]

    # ---------------------------------------------------------------------------------------------- equations

    def equation(self, region: Region, eqn: Any, env: Env) -> None:
        name = eqn.primitive.name
        operands = [self.read(env, atom) for atom in eqn.invars]
        location = _jax.location_of(eqn, self.here)
        handler = _HANDLERS.get(name)
        if handler is not None:
            outer, self.here = self.here, location
            op = handler(self, eqn, operands, location)
            self.here = outer
        else:
            op = self.plain(eqn, name, operands, location)
        region.append(op)
        for var, result in zip(eqn.outvars, op.results, strict=True):
            env[var] = result

    def plain(self, eqn: Any, name: str, operands: list[Value], location: Location) -> Op:
        """A primitive without structure of its own; functions among its parameters become regions without
        State.
        """
        regions: list[Region] = []

        def body(value: Any) -> RegionRef:
            self.refuse_state(value, name, location)
            regions.append(self.region(value, ()))
            return RegionRef(len(regions) - 1)

        attributes = {
            key: encode(value, body) for key, value in eqn.params.items() if key != "logging_record"
        }
        _jax.remember_primitive(eqn.primitive)
        if _jax.STATE_EFFECT in eqn.effects:  # in a function that cannot be looked into
            raise _used_inside(_jax.public_name(eqn), location)
        if name in HOST:
            name = HOST[name]
        elif name in EVENT_OPS:
            pass  # the primitive is called like its op
        else:
            name = f"jax.{name}"
            declared = _jax.declared_effects(eqn) if eqn.effects else ()
            if declared:
                attributes["effects"] = tuple(sorted(str(type(effect).__name__) for effect in declared))
        return Op(name, operands, _jax.result_types(eqn), attributes, regions, location)

    def refuse_state(self, body: Any, name: str, location: Location) -> None:
        """State inside a function that only JAX understands would be lost."""
        jaxpr, _ = _jax.body_parts(body)
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in ("state_read", "state_write", "state_alloc"):
                raise _used_inside(name, _jax.location_of(eqn))
            for value in eqn.params.values():
                for inner in value if isinstance(value, (tuple, list)) else (value,):
                    if _jax.is_body(inner):
                        self.refuse_state(inner, name, location)

    # ----------------------------------------------------------------------------------------- State accesses

    def check_accesses(self, jaxpr: Any) -> None:
        """Prove that this instance holds every access of its body, in order (see ``recording``)."""
        if self.recorder is None:
            return
        found: dict[int, int] = {}
        for eqn in jaxpr.eqns:
            at = eqn.params.get("at")
            if at is None or not eqn.primitive.name.startswith("state_"):
                continue
            number, ordinal = at
            if found.get(number, 0) != ordinal:
                self._moved(eqn)
            found[number] = ordinal + 1
        for number, count in found.items():
            body = self.recorder.bodies[number]
            if body.error is not None:
                raise body.error
            if count != len(body.accesses) or not (self._in_place(body) or self._harmless(body)):
                self._moved(next(e for e in jaxpr.eqns if e.params.get("at", (None,))[0] == number))
            self.instances[number] = self.instances.get(number, 0) + 1

    def _in_place(self, body: Body) -> bool:
        """Whether an instance of ``body`` stands in as many loops and branches as its code; under a raw
        gradient, also only once.

        JAX keeps the body of an inner jit and uses it again, possibly in another loop: that is no move, unless
        a raw gradient put it there.
        """
        if body.differentiated:
            return body.depth == self.depth and not self.instances.get(body.number)
        return body.depth == self.depth or not self._transformed()

    def _transformed(self) -> bool:
        """Whether the equation being imported comes out of a JAX transformation, as its name stack says."""
        return self.here is not None and "(" in self.here.scope

    def _harmless(self, body: Body) -> bool:
        """Reads of State that nobody writes give the same wherever they stand."""
        assert self.recorder is not None
        return not any(token in self.recorder.written or kind == "alloc" for kind, token in body.accesses)

    def _moved(self, eqn: Any) -> None:
        raise StateAccessError(
            describe(
                "JAX moved an access of a State to another place in the program.",
                state=self.symbol(eqn.params["token"]),
                at=_jax.location_of(eqn),
                why="a raw JAX transformation (jax.grad, jax.linearize, ...) split the function that contains it",
                fix="use stategraph.augment.grad and the other transformations of stategraph.augment",
            )
        )

    def symbol(self, token: Token) -> str:
        found = self.symbols.get(token)
        if found is None:
            found = self.symbols[token] = self.name_symbol(token, False)
        return found

    def state_read(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        types = _jax.result_types(eqn)
        path = self.symbol(eqn.params["token"])
        op = Op("state.read", (), types, {"symbol": path}, (), location)
        short = path.rsplit(".", 1)[-1]
        for result in op.results:
            result.name = short
        return op

    def state_write(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        self.types.passed(eqn)
        return Op("state.write", operands, (), {"symbol": self.symbol(eqn.params["token"])}, (), location)

    def state_alloc(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        token = eqn.params["token"]
        assert self.recorder is not None
        self.types.passed(eqn)
        self.symbols[token] = self.name_symbol(token, True)
        owner = self.recorder.owners[token]
        attributes = {
            "symbol": self.symbols[token],
            "kind": type(owner).__name__,
            "tree": state_tree_of(owner._tree),
        }
        return Op("state.alloc", operands, (), attributes, (), location)

    def check(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        return Op("check.error_if", operands, (), eqn.params["check"].attributes(), (), location)

    def jax_check(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        """``jax.experimental.checkify.check``, which nobody around it collects."""
        err_tree = eqn.params["err_tree"]
        flag = _jax.checkify_flag(err_tree)
        if eqn.params["debug"] or flag is None or getattr(operands[flag].type, "shape", None) != ():
            return self.plain(eqn, eqn.primitive.name, operands, location)
        attributes = jax_check(err_tree).attributes()
        return Op("check.error_if", [operands[flag], *operands], (), attributes, (), location)

    # ---------------------------------------------------------------------------------- structured primitives

    def scan(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        consts, carry = _jax.scan_counts(eqn.params)
        body = self.inner(eqn.params["jaxpr"], operands[:consts])
        attributes = {
            "length": int(eqn.params["length"]),
            "reverse": eqn.params["reverse"],
            "unroll": int(eqn.params["unroll"]),
            "carry": carry,
        }
        return Op("flow.scan", operands[consts:], _jax.result_types(eqn), attributes, [body], location)

    def while_(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        cond = self.inner(eqn.params["cond_jaxpr"], operands[:n])
        body = self.inner(eqn.params["body_jaxpr"], operands[n : n + m])
        return Op("flow.while", operands[n + m :], _jax.result_types(eqn), {}, [cond, body], location)

    def cond(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        branches = [self.inner(branch, operands[1:]) for branch in eqn.params["branches"]]
        return Op("flow.cond", operands[:1], _jax.result_types(eqn), {}, branches, location)

    def call(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        attributes: dict[str, Any] = {"name": eqn.params.get("name") or eqn.primitive.name}
        body = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if eqn.primitive.name in ("jit", "pjit") and not _jax.is_plain_jit(eqn.params):
            kept = {key: value for key, value in eqn.params.items() if key not in ("jaxpr", "name")}
            attributes["jit"] = Opaque("jit parameters", kept)
        return Op(
            "flow.call", operands, _jax.result_types(eqn), attributes, [self.region(body, ())], location
        )

    def expanded(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        """An operation that JAX itself takes apart before it compiles."""
        name = _jax.public_name(eqn)
        if _jax.STATE_EFFECT in eqn.effects:
            raise _used_inside(name, location)
        body = _jax.low_body(eqn, name)
        return Op(
            "flow.call", operands, _jax.result_types(eqn), {"name": name}, [self.region(body, ())], location
        )

    def remat(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        attributes = {key: encode(value, _no_body) for key, value in eqn.params.items() if key != "jaxpr"}
        return Op(
            "xform.remat",
            operands,
            _jax.result_types(eqn),
            attributes,
            [self.region(eqn.params["jaxpr"], ())],
            location,
        )


def _used_inside(name: str, location: Location) -> StateAccessError:
    return StateAccessError(
        describe(
            f"A State is used inside the function given to {name}.",
            at=location,
            why=f"{name} may call that function any number of times, in any order",
            fix="read the State before and pass its value; write it after",
        )
    )


def _no_body(value: Any) -> RegionRef:
    raise TraceError(
        "a parameter of jax.checkpoint is a function body; StateGraph does not know what it means"
    )


_HANDLERS: dict[str, Callable[[Importer, Any, list[Value], Location], Op]] = {
    "state_read": Importer.state_read,
    "state_write": Importer.state_write,
    "state_alloc": Importer.state_alloc,
    "stategraph_check": Importer.check,
    "check": Importer.jax_check,
    "scan": Importer.scan,
    "while": Importer.while_,
    "cond": Importer.cond,
    "jit": Importer.call,
    "pjit": Importer.call,
    "closed_call": Importer.call,
    "eval_jaxpr": Importer.call,
    "call_hi_primitive": Importer.expanded,
    "core_call": Importer.call,
    "checkpoint": Importer.remat,
    "remat": Importer.remat,
    "remat2": Importer.remat,
    "custom_jvp_call": import_jvp,
    "custom_vjp_call": import_vjp,
    "stategraph_kept_rule": import_kept,
    "shard_map": import_jax,
    "stategraph_shard_map": import_own,
    "stategraph_grad": import_grad,
    "stategraph_vmap": import_vmap,
    "stategraph_jvp": import_product,
    "stategraph_vjp": import_product,
}


def import_inline(
    jaxpr: Any, consts: Sequence[Any], operands: Sequence[Value], location: Location, *, keep_rules: bool
) -> tuple[list[Op], list[Value]]:
    """The ops of a jaxpr without State, to stand among other ops, and its results."""
    importer = Importer(None, _constant, _no_symbol)
    importer.here = location
    importer.keep_rules = keep_rules
    holder = Region()
    env: Env = dict(zip(jaxpr.invars, operands, strict=True))
    importer.fill(holder, jaxpr, consts, env)
    results = list(holder.yielded)
    for value in results:
        value._users.remove(holder.terminator)
    return holder.ops[:-1], results


def _constant(const: Any) -> Value:
    return Constant(np.asarray(const), _jax.type_of(_jax.typeof(const)))


def _no_symbol(token: Token, fresh: bool) -> str:
    raise TraceError("a State where none can be")

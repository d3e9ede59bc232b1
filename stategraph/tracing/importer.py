"""From a jaxpr that JAX recorded to a program.

One walk over the equations. Structured primitives (scan, while, cond, jit, remat, custom derivative rules,
our own transformations) become region ops whose bodies capture what they use; State accesses become
``state.*`` ops; every other primitive becomes ``jax.<name>`` with its parameters as attributes.

The walk also proves that JAX moved nothing: each instance of a body must hold all accesses that the body's
one run made, in order.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from stategraph import _jax
from stategraph.backends.checks import jax_check
from stategraph.backends.params import encode, state_tree_of
from stategraph.errors import StateAccessError, TraceError, describe
from stategraph.ir.attributes import Opaque, RegionRef, Symbol
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.event_ops import EVENT_OPS
from stategraph.ir.lanes import one_lane
from stategraph.ir.location import Location
from stategraph.recording import Body, Recorder, Token
from stategraph.tracing.import_shards import import_jax, import_own
from stategraph.tracing.rules import closed_over, force_jvp, force_vjp, has_tangents, rule_key, rule_name
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
        self.rules: list[tuple[Any, list[str]]] = []
        """The derivative rules being imported, outermost first: which function, and the types of its
        operands.
        """

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
        return Op(
            name, operands, [_jax.type_of(var.aval) for var in eqn.outvars], attributes, regions, location
        )

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
        types = [_jax.type_of(var.aval) for var in eqn.outvars]
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
        return Op("flow.scan", operands[consts:], _types(eqn), attributes, [body], location)

    def while_(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        cond = self.inner(eqn.params["cond_jaxpr"], operands[:n])
        body = self.inner(eqn.params["body_jaxpr"], operands[n : n + m])
        return Op("flow.while", operands[n + m :], _types(eqn), {}, [cond, body], location)

    def cond(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        branches = [self.inner(branch, operands[1:]) for branch in eqn.params["branches"]]
        return Op("flow.cond", operands[:1], _types(eqn), {}, branches, location)

    def call(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        attributes: dict[str, Any] = {"name": eqn.params.get("name") or eqn.primitive.name}
        body = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if eqn.primitive.name in ("jit", "pjit") and not _jax.is_plain_jit(eqn.params):
            kept = {key: value for key, value in eqn.params.items() if key not in ("jaxpr", "name")}
            attributes["jit"] = Opaque("jit parameters", kept)
        return Op("flow.call", operands, _types(eqn), attributes, [self.region(body, ())], location)

    def expanded(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        """An operation that JAX itself takes apart before it compiles."""
        name = _jax.public_name(eqn)
        if _jax.STATE_EFFECT in eqn.effects:
            raise _used_inside(name, location)
        body = _jax.low_body(eqn, name)
        return Op("flow.call", operands, _types(eqn), {"name": name}, [self.region(body, ())], location)

    def remat(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        attributes = {key: encode(value, _no_body) for key, value in eqn.params.items() if key != "jaxpr"}
        return Op(
            "xform.remat", operands, _types(eqn), attributes, [self.region(eqn.params["jaxpr"], ())], location
        )

    def custom_jvp(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        depth = self.enclosing(eqn)
        if depth:
            return self.recursive("flow.custom_jvp", eqn, operands, depth, location)
        consts = closed_over(eqn)
        kept = operands[eqn.params["num_consts"] : consts]
        call = self.inner(eqn.params["call_jaxpr"], operands[:consts])
        args = operands[consts:]
        if not self.needs_rule(eqn):
            return Op("flow.call", args, _types(eqn), {"name": rule_name(eqn)}, [call], location)
        with self.inside(eqn):
            with self.types.seen():
                rule = force_jvp(eqn)
            jvp = self.rule_region(rule.body, rule.consts, "custom_jvp", kept)
        return Op("flow.custom_jvp", args, _types(eqn), {"name": rule.name}, [call, jvp], location)

    def needs_rule(self, eqn: Any) -> bool:
        """Whether a derivative rule can still matter: not for integers, nor where nobody will differentiate
        any more.
        """
        return self.keep_rules and has_tangents(eqn)

    def enclosing(self, eqn: Any) -> int:
        """A rule may call its own function (``jax.nn.relu`` does): how many rules up this function is, 0 if
        it is none of them.
        """
        key = rule_key(eqn)
        avals = [str(atom.aval) for atom in eqn.invars]
        for depth, (known, args) in enumerate(reversed(self.rules), start=1):
            if known == key and avals[len(avals) - len(args) :] == args:
                return depth
        return 0

    def recursive(self, name: str, eqn: Any, operands: list[Value], depth: int, location: Location) -> Op:
        """A call of a function inside its own rule. What the function closes over comes first among the
        operands.
        """
        consts = len(operands) - len(self.rules[-depth][1])
        call = self.inner(eqn.params["call_jaxpr"], operands[:consts])
        attributes = {"name": rule_name(eqn), "recursive": depth}
        return Op(name, operands[consts:], _types(eqn), attributes, [call], location)

    @contextlib.contextmanager
    def inside(self, eqn: Any) -> Iterator[None]:
        args = eqn.invars[closed_over(eqn) :]
        self.rules.append((rule_key(eqn), [str(atom.aval) for atom in args]))
        try:
            yield
        finally:
            self.rules.pop()

    def custom_vjp(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        depth = self.enclosing(eqn)
        if depth:
            return self.recursive("flow.custom_vjp", eqn, operands, depth, location)
        consts = closed_over(eqn)
        kept = operands[eqn.params["num_consts"] : consts]
        call = self.inner(eqn.params["call_jaxpr"], operands[:consts])
        args = operands[consts:]
        if not self.needs_rule(eqn):
            return Op("flow.call", args, _types(eqn), {"name": rule_name(eqn)}, [call], location)
        with self.inside(eqn):
            with self.types.seen():
                forward, backward = force_vjp(eqn)
            fwd = self.rule_region(forward.body, forward.consts, "custom_vjp", kept)
            bwd = self.rule_region(backward.body, backward.consts, "custom_vjp")
        attributes = {"name": forward.name}
        return Op("flow.custom_vjp", args, _types(eqn), attributes, [call, fwd, bwd], location)

    def rule_region(self, jaxpr: Any, consts: Sequence[Any], what: str, kept: Sequence[Value] = ()) -> Region:
        """The body of a derivative rule; its first inputs are bound to ``kept``. It may read State, and write
        only what it creates.
        """
        born = {alloc.params["token"] for alloc in _jax.equations_of(jaxpr, ("state_alloc",))}
        for write in _jax.equations_of(jaxpr, ("state_write",)):
            if write.params["token"] not in born:
                raise StateAccessError(
                    describe(
                        f"A State is written in a derivative rule of {what}.",
                        state=self.symbol(write.params["token"]),
                        at=_jax.location_of(write),
                        why="a rule runs only when a gradient is taken, so the write would come and go with it",
                        fix="write the State in the function itself",
                    )
                )
        region = Region([_jax.type_of(var.aval) for var in jaxpr.invars[len(kept) :]])
        env: Env = dict(zip(jaxpr.invars, [*kept, *region.args], strict=True))
        outer, self.depth = self.depth, 0  # a rule is a body of its own
        self.fill(region, jaxpr, consts, env)
        self.depth = outer
        return region

    def grad(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        params = eqn.params
        consts = params["num_consts"]
        body = self.region(params["jaxpr"], operands[:consts])
        states = tuple(Symbol(self.symbol(token)) for token in params["tokens"])
        attributes: dict[str, Any] = {
            "states": states,
            "allow_int": params["allow_int"],
            "holomorphic": params["holomorphic"],
        }
        return Op("xform.grad", operands[consts:], _types(eqn), attributes, [body], location)

    def vmap(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        """The lanes' keys come last among the operands: each lane begins by writing its own to the random
        State.
        """
        params = eqn.params
        consts = params["num_consts"]
        with self.types.lanes(params):
            body = self.region(params["jaxpr"], operands[:consts])
        given = operands[consts:]
        keys = len(params["keys"])
        for token, value, at in zip(params["keys"], given[len(given) - keys :], range(keys), strict=True):
            path = self.symbol(token)
            key = Value(one_lane(value.type, 0), body, len(body.args), path.rsplit(".", 1)[-1])
            body.args.append(key)
            write = Op("state.write", [key], (), {"symbol": path}, (), location)
            write.parent = body
            body.ops.insert(at, write)

        def states(pairs: Sequence[tuple[Token, int]]) -> tuple[tuple[Symbol, int], ...]:
            return tuple((Symbol(self.symbol(token)), axis) for token, axis in pairs)

        attributes: dict[str, Any] = {
            "size": params["size"],
            "axis_name": params["axis_name"],
            "spmd_axis_name": params["spmd_axis_name"],
            "in_axes": params["in_axes"],
            "out_axes": params["out_axes"],
            "in_states": states([pair for pair in params["in_states"] if pair[0] in self.symbols]),
            "out_states": states(params["out_states"]),
            "private": tuple(Symbol(self.symbol(token)) for token in params["private"]),
            "shared": (),
        }
        location.note = params["called"].renamed(self.symbols)
        return Op("xform.vmap", given, _types(eqn), attributes, [body], location)

    def product(self, eqn: Any, operands: list[Value], location: Location) -> Op:
        """``jvp`` and ``vjp``. Inputs: entry values of States that the body has copies of, constants,
        tangents or cotangents, arguments.

        A pullback runs the body again, on copies of the States as they were: each of ``local`` names a State,
        its structure and where among the entry values and arguments its leaves are.
        """
        params = eqn.params
        jaxpr, closed = _jax.body_parts(params["jaxpr"])
        sizes = (params["num_held"], params["num_consts"], params["num_seeds"])
        starts = [sum(sizes[:i]) for i in range(4)]
        held, consts, seeds = (operands[a:b] for a, b in itertools.pairwise(starts))
        given = operands[starts[3] :]
        region = Region([value.type for value in given])
        sources = [*held, *region.args]
        outer = {token: self.symbol(token) for token, _, _ in params["local"]}
        depth = self.depth
        if params["depth"] is not None:  # what it runs on is its own, so it may stand anywhere
            self.depth = params["depth"]
        for token, tree, slots in params["local"]:
            assert self.recorder is not None
            self.symbols[token] = self.name_copy(token)
            attributes = {
                "symbol": self.symbols[token],
                "kind": type(self.recorder.owners[token]).__name__,
                "tree": state_tree_of(tree),
            }
            region.append(Op("state.alloc", [sources[i] for i in slots], (), attributes, (), location))
        self.fill(region, jaxpr, closed, dict(zip(jaxpr.invars, [*consts, *region.args], strict=False)))
        self.symbols.update(outer)
        self.depth = depth
        states = tuple(Symbol(self.symbol(token)) for token in params["tokens"])
        attributes = {"outputs": params["outputs"], "lanes": params["lanes"], "states": states}
        name = "xform." + eqn.primitive.name.removeprefix("stategraph_")
        return Op(name, [*seeds, *given], _types(eqn), attributes, [region], location)


def _used_inside(name: str, location: Location) -> StateAccessError:
    return StateAccessError(
        describe(
            f"A State is used inside the function given to {name}.",
            at=location,
            why=f"{name} may call that function any number of times, in any order",
            fix="read the State before and pass its value; write it after",
        )
    )


def _types(eqn: Any) -> list[Any]:
    return [_jax.type_of(var.aval) for var in eqn.outvars]


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
    "custom_jvp_call": Importer.custom_jvp,
    "custom_vjp_call": Importer.custom_vjp,
    "shard_map": import_jax,
    "stategraph_shard_map": import_own,
    "stategraph_grad": Importer.grad,
    "stategraph_vmap": Importer.vmap,
    "stategraph_jvp": Importer.product,
    "stategraph_vjp": Importer.product,
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

"""From functional programs to jaxprs.

Equations are built directly, one per op, without running any of JAX's tracing: an op's parameters are its
attributes, and the body of a region op becomes a jaxpr whose leading inputs are the values that it captures.
Variants: for running (custom derivative rules are irrelevant and their functions are inlined), where the body may be
*final* (XLA is all that comes), and *differentiable* (the rules are kept, for ``jax.vjp`` to find).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import stategraph.backends.events  # noqa: F401  (defines the primitives of event ops)
from stategraph import _jax
from stategraph.backends.broadcasts import MIXING, Broadcasts
from stategraph.backends.codegen.primitive import Source, kernel_p
from stategraph.backends.params import decode
from stategraph.backends.shards import over_shards
from stategraph.errors import LoweringError, describe
from stategraph.ir.attributes import RegionRef
from stategraph.ir.core import Constant, Op, Region, Value
from stategraph.ir.event_ops import EVENT_OPS
from stategraph.ir.regions import captures, region_key
from stategraph.passes.expand_transforms import FUNCTIONS

HOST = {"host.debug_print", "host.debug_callback", "host.io_callback", "host.pure_callback"}


def emit_region(
    region: Region,
    inputs: Sequence[Value],
    *,
    differentiable: bool = False,
    final: bool = False,
    again: bool = False,
    name: str = "body",
) -> tuple[Any, list[Value]]:
    """(closed body, captured values): a body whose inputs are the captured values followed by ``inputs``.
    ``again`` says that the derivative will itself be differentiated.
    """
    emitter = _Emitter(differentiable, None, final, again)
    return emitter.body(region, inputs, name)


def emit_op(op: Op, inputs: Sequence[Value], again: bool) -> Any:
    """A body of one op. ``inputs``: what its regions capture and its operands, each a variable of its own where
    the op has no regions. ``again``: as of ``emit_region``.
    """
    if not op.regions:
        inputs = [Value(value.type) for value in inputs]
        op = Op(op.name, inputs, [result.type for result in op.results], op.attributes, (), op.location)
    emitter = _Emitter(bool(op.regions), None, again=again)
    variables = [emitter.define(value) for value in inputs]
    emitter.op(op)
    results = [emitter.read(result) for result in op.results]
    return _jax.make_body(variables, results, emitter.eqns, name=op.name)


class _Emitter:
    """Builds the equations of one body. ``env`` maps values to variables; values of outer regions are
    collected in ``free``.
    """

    def __init__(
        self, differentiable: bool, parent: _Emitter | None, final: bool = False, again: bool = False
    ) -> None:
        self.differentiable = differentiable
        self.again: bool = again if parent is None else parent.again
        """Whether derivative rules are for more than one derivative."""
        self.env: dict[Value, Any] = {}
        self.free: dict[Value, Any] = {}
        self.eqns: list[Any] = []
        self.final = final
        """Whether XLA is all that comes: nobody transforms the body any more."""
        self.broadcasts = Broadcasts()
        """Numbers in the shapes of arrays, for final bodies."""
        self.rules: tuple[tuple[Callable[..., Any], list[Value]], ...] = (
            parent.rules if parent is not None else ()
        )
        """Functions with derivative rules that enclose this body, outermost first, and the values that each
        captures.
        """
        self.local = _jax.inside_shard_map()
        """Whether this is for a body that JAX is tracing for one shard: it will be typed again, with
        knowledge of the mesh."""
        self.calls: dict[Any, Any] = parent.calls if parent is not None and parent.local == self.local else {}
        """Bodies of calls by what they compute: equal calls share one, so that JAX differentiates and lowers
        it once.
        """

    # ------------------------------------------------------------------------------------------------- bodies

    def body(
        self,
        region: Region,
        inputs: Sequence[Value],
        name: str = "body",
        closed: bool = True,
        order: Sequence[Value] | None = None,
    ) -> tuple[Any, list[Value]]:
        """A body for ``region``. With ``order``, captured values are exactly these, used or not."""
        child = _Emitter(self.differentiable, self, self.final)
        variables = [child.define(value) for value in inputs]
        if order is not None:
            for value in order:
                child.free[value] = child.env[value] = _jax.new_var(_jax.aval_of(value.type))
        for op in region.ops[:-1]:
            child.op(op)
        results = [child.read(value) for value in region.yielded]
        captured = list(child.free)
        body = _jax.make_body(
            [*child.free.values(), *variables], results, child.eqns, name=name, closed=closed
        )
        return body, captured

    def bodies(self, regions: Sequence[Region], name: str) -> tuple[list[Any], list[Value]]:
        """Bodies that share one list of captured values (the branches of a conditional)."""
        order = captures(*regions)
        return [self.body(region, (), name, order=order)[0] for region in regions], order

    def define(self, value: Value) -> Any:
        variable = self.env[value] = _jax.new_var(_jax.aval_of(value.type))
        return variable

    def read(self, value: Value) -> Any:
        found = self.env.get(value)
        if found is not None:
            return found
        if type(value) is Constant:
            whole = value.data.ndim or value.data.dtype.kind == "V"  # JAX takes float0 as an array only
            return _jax.literal(value.data if whole else value.data[()], _jax.aval_of(value.type))
        found = self.env[value] = self.free[value] = _jax.new_var(_jax.aval_of(value.type))
        return found

    # ---------------------------------------------------------------------------------------------------- ops

    def op(self, op: Op) -> None:
        handler = _HANDLERS.get(op.name)
        if handler is not None:
            handler(self, op)
            return
        if op.name.startswith("jax.") or op.name in HOST or op.name in EVENT_OPS:
            self.plain(op)
            return
        if self.local and op.name in FUNCTIONS:
            function, operands = FUNCTIONS[op.name](op)
            self.deferred(op, function, operands)
            return
        raise LoweringError(
            f"{op.name} cannot be lowered: no rule for it\n  at: {op.location}\n  fix: run the default passes first"
        )

    def equation(
        self, op: Op, operands: Sequence[Any], primitive: Any, params: dict[str, Any], effects: Any = None
    ) -> None:
        results = [self.define(result) for result in op.results]
        self.eqns.append(
            _jax.new_eqn(operands, results, primitive, params, effects, _jax.source_of(op.location))
        )

    def plain(self, op: Op) -> None:
        name = op.name if op.name in EVENT_OPS else op.name.split(".", 1)[1]
        primitive = _jax.primitive_by_name(name)
        if primitive is None:
            raise LoweringError(f"JAX {jax.__version__} has no primitive {name!r}\n  at: {op.location}")

        def region(ref: RegionRef, closed: bool) -> Any:
            inner = op.regions[ref.index]
            body, captured = self.body(inner, inner.args, name, closed)
            if captured:
                raise LoweringError(
                    f"a function inside {op.name} uses outer values, which JAX cannot express\n  at: {op.location}"
                )
            return body

        try:
            params = {key: decode(value, region) for key, value in op.attributes.items() if key != "effects"}
        except LoweringError as error:
            raise LoweringError(f"{op.name}: {error}\n  at: {op.location}") from None
        if name == "debug_print":
            params["logging_record"] = None
        if self.final and op.name in MIXING:
            operands = self.broadcasts.operands(op, self.read, self.eqns)
        else:
            operands = [self.read(operand) for operand in op.operands]
        effects = None
        if self.differentiable and not op.regions and op.name not in HOST and "effects" not in op.attributes:
            self.differentiated_once(op, operands, primitive, params)
            return
        if op.name in HOST or "effects" in op.attributes:
            effects = _jax.effects_of_primitive(
                primitive, [_jax.aval_of(operand.type) for operand in op.operands], params
            )
        self.equation(op, operands, primitive, params, effects)

    def differentiated_once(
        self, op: Op, operands: Sequence[Any], primitive: Any, params: dict[str, Any]
    ) -> None:
        """Wrap an op in a call of its own, shared by all equal ones: JAX keeps the derivative of a call, not
        of an equation.
        """
        types = tuple(operand.type for operand in op.operands)
        try:
            key = (op.name, types, tuple(op.attributes.items()))
            body = self.calls.get(key)
        except TypeError:  # parameters that cannot be compared
            self.equation(op, operands, primitive, params)
            return
        if body is None:
            invars = [_jax.new_var(_jax.aval_of(type)) for type in types]
            outvars = [_jax.new_var(_jax.aval_of(result.type)) for result in op.results]
            equation = _jax.new_eqn(invars, outvars, primitive, params, None, _jax.source_of(op.location))
            body = self.calls[key] = _jax.make_body(invars, outvars, [equation], name=primitive.name)
        call, parameters = _jax.inline_call(body, primitive.name, len(operands), len(op.results))
        self.equation(op, operands, call, parameters)

    # ---------------------------------------------------------------------------------- structured operations

    def scan(self, op: Op) -> None:
        carry = op.attributes["carry"]
        region = op.regions[0]
        body, captured = self.body(region, region.args, "scan")
        params = _jax.scan_params(
            body,
            consts=len(captured),
            carry=carry,
            xs=len(region.args) - carry,
            ys=len(op.results) - carry,
            length=op.attributes["length"],
            reverse=op.attributes["reverse"],
            unroll=op.attributes["unroll"],
        )
        operands = [self.read(value) for value in (*captured, *op.operands)]
        self.equation(op, operands, _jax.primitive_by_name("scan"), params, _jax.body_effects(body))

    def while_(self, op: Op) -> None:
        cond, body = op.regions
        cond_body, cond_captured = self.body(cond, cond.args, "while_cond")
        body_body, body_captured = self.body(body, body.args, "while_body")
        params = {
            "cond_nconsts": len(cond_captured),
            "cond_jaxpr": cond_body,
            "body_nconsts": len(body_captured),
            "body_jaxpr": body_body,
        }
        operands = [self.read(value) for value in (*cond_captured, *body_captured, *op.operands)]
        effects = set(_jax.body_effects(cond_body)) | set(_jax.body_effects(body_body))
        self.equation(op, operands, _jax.primitive_by_name("while"), params, effects)

    def cond(self, op: Op) -> None:
        bodies, captured = self.bodies(op.regions, "branch")
        index = self.read(op.operands[0])
        if getattr(op.operands[0].type, "dtype", "i32") != "i32":
            variable = _jax.new_var(_jax.array_aval((), "int32"))
            params = {"new_dtype": variable.aval.dtype, "weak_type": False, "sharding": None}
            convert = _jax.primitive_by_name("convert_element_type")
            self.eqns.append(
                _jax.new_eqn([index], [variable], convert, params, None, _jax.source_of(op.location))
            )
            index = variable
        effects: set[Any] = set()
        for body in bodies:
            effects |= set(_jax.body_effects(body))
        operands = [index, *(self.read(value) for value in captured)]
        self.equation(op, operands, _jax.primitive_by_name("cond"), _jax.cond_params(bodies), effects)

    def call(self, op: Op) -> None:
        region = op.regions[0]
        key = region_key(region)
        shared = self.calls.get(key) if key is not None else None
        body, captured = (
            (shared, [])
            if shared is not None
            else self.body(region, region.args, str(op.attributes.get("name", "call")))
        )
        if key is not None and not captured:
            self.calls[key] = body
        operands = [self.read(value) for value in (*captured, *op.operands)]
        primitive, params = _jax.jit_call(
            body, str(op.attributes.get("name", "call")), len(operands), len(op.results)
        )
        kept = op.attributes.get("jit")
        if kept is not None:
            given = decode(kept, _no_region)
            params.update(given)
            for key in ("in_shardings", "in_layouts", "donated_invars"):
                params[key] = (_jax.jit_call(body, "", 1, 1)[1][key][0],) * len(captured) + tuple(given[key])
            for key in ("out_shardings", "out_layouts"):  # what hoisting added comes last
                params[key] = tuple(given[key]) + (_jax.jit_call(body, "", 1, 1)[1][key][0],) * (
                    len(op.results) - len(given[key])
                )
        self.equation(op, operands, primitive, params, _jax.body_effects(body))

    def remat(self, op: Op) -> None:
        region = op.regions[0]
        if not self.differentiable and not op.attributes.get("differentiated"):
            self.inline(op, region, op.operands)
            return
        body, captured = self.body(region, region.args, "checkpoint", closed=False)
        params = {key: decode(value, _no_region) for key, value in op.attributes.items()}
        params["jaxpr"] = body
        operands = [self.read(value) for value in (*captured, *op.operands)]
        self.equation(op, operands, _jax.remat_primitive(), params, _jax.body_effects(body))

    def kernel(self, op: Op) -> None:
        region = op.regions[0]
        if self.differentiable or self.local:
            self.inline(op, region, op.operands)
            return
        body, _ = self.body(region, region.args, "kernel", order=())
        source = Source(region, op.attributes["aliases"])
        self.equation(op, [self.read(v) for v in op.operands], kernel_p, {"body": body, "source": source})

    def inline(self, op: Op, region: Region, operands: Sequence[Value]) -> None:
        """Emit a region's ops in place."""
        for arg, operand in zip(region.args, operands, strict=True):
            self.env[arg] = self.read(operand)
        for inner in region.ops[:-1]:
            self.op(inner)
        for result, value in zip(op.results, region.yielded, strict=True):
            self.env[result] = self.read(value)

    # ------------------------------------------------------------------------ functions with derivative rules

    def custom_jvp(self, op: Op) -> None:
        if not self.differentiable:
            self.inline(op, op.regions[0], op.operands)
            return
        if "recursive" in op.attributes:
            self.traced(op, *self.rules[-op.attributes["recursive"]])
            return
        call, jvp = op.regions
        captured = captures(call, jvp)
        active = _active(op.operands)
        out_active = _active(op.results)
        count = len(op.results)

        function = jax.custom_jvp(_named(op, lambda outer, args: self.run(call, captured, outer, args)))

        def rule(primals: Any, tangents: Any) -> Any:
            outer, args = primals
            if not all(map(_jax.is_zero_tangent, tangents[0])):
                raise _closed_over(op)
            given_tangents = [_jax.instantiate_zero(tangents[1][i], tangents[1][i]) for i in active]
            flat = self.run(jvp, captured, outer, [*args, *given_tangents], called)
            out, given = flat[:count], iter(flat[count:])
            return out, [next(given) if i in out_active else _jax.zero_tangent(out[i]) for i in range(count)]

        function.defjvp(rule, symbolic_zeros=True)
        called: Callable[..., Any] = function
        if self.again and not self.local:
            first = len(captured)
            kept = _jax.kept_rule(
                lambda *flat: function(list(flat[:first]), list(flat[first:])),
                [_jax.aval_of(result.type) for result in op.results],
            )
            called = lambda outer, args: kept(*outer, *args)  # noqa: E731
        self.traced(op, called, captured)

    def custom_vjp(self, op: Op) -> None:
        if not self.differentiable:
            self.inline(op, op.regions[0], op.operands)
            return
        if "recursive" in op.attributes:
            self.traced(op, *self.rules[-op.attributes["recursive"]])
            return
        call, fwd, bwd = op.regions
        captured = captures(call, fwd, bwd)
        active, out_active = _active(op.operands), _active(op.results)
        count = len(op.results)

        function = jax.custom_vjp(_named(op, lambda outer, args: self.run(call, captured, outer, args)))

        def forward(outer: Any, args: Any) -> Any:
            if any(value.perturbed for value in outer):
                raise _closed_over(op)
            values = [value.value for value in outer]
            flat = self.run(fwd, captured, values, [arg.value for arg in args], function)
            return flat[:count], (values, flat[count:])

        def backward(kept: Any, cotangents: Any) -> Any:
            outer, residuals = kept
            given_cotangents = [_jax.instantiate_zero(cotangents[i], cotangents[i]) for i in out_active]
            given = iter(self.run(bwd, captured, outer, [*residuals, *given_cotangents], function))
            return None, [next(given) if i in active else None for i in range(len(op.operands))]

        function.defvjp(forward, backward, symbolic_zeros=True)
        self.traced(op, function, captured)

    def run(
        self,
        region: Region,
        captured: list[Value],
        outer: Sequence[Any],
        args: Sequence[Any],
        rule: Any = None,
    ) -> list[Any]:
        """Evaluate a region under JAX's current trace; ``rule`` is the function whose derivative rule the
        region is.
        """
        emitter = _Emitter(self.differentiable, self)
        if rule is not None:
            emitter.rules = (*self.rules, (rule, captured))
        body, _ = emitter.body(region, region.args, order=captured)
        return _jax.body_as_function(body)(*outer, *args)

    def shard_map(self, op: Op) -> None:
        region = op.regions[0]
        captured = captures(region)

        def local(*shards: Any) -> list[Any]:
            return self.run(region, captured, shards[: len(captured)], shards[len(captured) :])

        mapped = over_shards(op, local, len(captured))
        self.traced(op, lambda outer, args: mapped(*outer, *args), captured)

    def deferred(self, op: Op, function: Callable[..., Any], operands: Sequence[Value]) -> None:
        """Emit an equation that calls ``function`` when the body is typed."""
        primitive, params = _jax.deferred(function, [_jax.aval_of(result.type) for result in op.results])
        self.equation(op, [self.read(value) for value in operands], primitive, params)

    def traced(self, op: Op, function: Callable[..., Any], captured: Sequence[Value] = ()) -> None:
        """Emit ``op`` by letting JAX trace ``function(captured, operands)``."""
        count = len(captured)
        if self.local:
            self.deferred(
                op,
                lambda *flat: function(list(flat[:count]), list(flat[count:])),
                [*captured, *op.operands],
            )
            return
        avals = [_jax.aval_of(value.type) for value in (*captured, *op.operands)]
        jaxpr, consts = _jax.trace_flat(
            lambda *flat: function(list(flat[:count]), list(flat[count:])),
            avals,
            traced_for="stategraph",
            name=op.name,
        )
        operands = [self.read(value) for value in (*captured, *op.operands)]
        variables = dict(zip(jaxpr.invars, operands, strict=True))
        for variable, const in zip(jaxpr.constvars, consts, strict=True):
            variables[variable] = _jax.literal(np.asarray(const), variable.aval)
        self.eqns += _jax.rename(jaxpr.eqns, variables)
        for result, atom in zip(op.results, jaxpr.outvars, strict=True):
            self.env[result] = atom if type(atom) is _jax.Literal else variables.get(atom, atom)


def _closed_over(op: Op) -> LoweringError:
    return LoweringError(
        describe(
            f"The function {op.attributes.get('name', '')!r} has a derivative rule and uses a differentiated value that is no argument.",
            at=op.location,
            why="its rule says nothing about that value (a State that it reads, or a variable that it closes over), so the gradient "
            "would miss it",
            fix="pass the value as an argument: `f(x, state.value)`",
        )
    )


_TAGS = itertools.count()


def _named(op: Op, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function the op's name, a tag by which the importer recognises it inside its own rule, and its
    number of arguments.
    """
    function.__name__ = f"{op.attributes.get('name', 'rule')}#{next(_TAGS)}.{len(op.operands)}"
    return function


def _active(values: Sequence[Value]) -> tuple[int, ...]:
    return tuple(i for i, value in enumerate(values) if _jax.has_tangent(_jax.aval_of(value.type)))


def _no_region(ref: RegionRef, closed: bool) -> Any:
    raise LoweringError("a function body where none can be")


_HANDLERS: dict[str, Callable[[_Emitter, Op], None]] = {
    "flow.scan": _Emitter.scan,
    "flow.while": _Emitter.while_,
    "flow.cond": _Emitter.cond,
    "flow.call": _Emitter.call,
    "xform.remat": _Emitter.remat,
    "native.kernel": _Emitter.kernel,
    "xform.shard_map": _Emitter.shard_map,
    "flow.custom_jvp": _Emitter.custom_jvp,
    "flow.custom_vjp": _Emitter.custom_vjp,
}

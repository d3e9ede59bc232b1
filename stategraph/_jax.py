"""The one module that touches JAX internals.

Everything that reads or builds a jaxpr, looks at JAX's current trace, or imports ``jax._src`` is here, behind
names that mean the same on every supported JAX (0.10.2 to 0.12.x). What differs between versions:

- 0.12 folded ``ClosedJaxpr`` into ``Jaxpr`` (which then carries its constants): ``body_parts`` and
  ``make_body``;
- 0.12 describes the arguments of ``scan`` by tree structures instead of counts: ``scan_counts`` and
  ``scan_params``.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax._src import api_util, config, core, dtypes, effects, source_info_util
from jax._src import linear_util as lu
from jax._src import mesh as mesh_lib
from jax._src import shard_map as shard_map_lib
from jax._src.array import ArrayImpl
from jax._src.interpreters import ad, batching, mlir
from jax._src.interpreters import partial_eval as pe
from jax._src.lib import xla_client
from jax.extend.source_info_util import register_exclusion

from stategraph.ir.location import Location
from stategraph.ir.types import KeyType, OpaqueType, TensorType, Type, numpy_dtype, short_dtype

FOLDED = not hasattr(core, "ClosedJaxpr")
"""Whether this JAX keeps constants inside ``Jaxpr`` (0.12 and later)."""

Jaxpr = Any
Tracer = core.Tracer
Var = core.Var
Literal = core.Literal

register_exclusion(__file__.rsplit("/", 1)[0])

# ----------------------------------------------------------------------------------------------------- arrays

_ARRAY = ArrayImpl
_COPY = xla_client.ArrayCopySemantics.ALWAYS_COPY


def copies(arrays: Sequence[Any]) -> list[Any]:
    """The same arrays in memory of their own. What JAX offers in public takes 20 µs for each, or compiles a program
    for each shape.
    """
    if not all(type(array) is _ARRAY and array.is_fully_addressable for array in arrays):
        return [jax.numpy.array(array, copy=True) for array in arrays]
    shardings = [array.sharding for array in arrays]
    devices = [sharding._internal_device_list for sharding in shardings]
    copied: list[Any] = xla_client.batched_copy_array_to_devices_with_sharding(
        list(arrays), devices, shardings, [_COPY] * len(shardings)
    )
    return copied


# ----------------------------------------------------------------------------------------------------- traces


TRACE_STATE = core.trace_state_strong_ref
"""``TRACE_STATE.value is EAGER``: operations run now. For the one path where a function call is too much."""
EAGER = core.eval_trace
DISABLE_JIT = config.disable_jit


def current_trace() -> Any | None:
    """The trace that operations go to right now; None when they run eagerly."""
    trace = core.trace_ctx.trace
    return None if trace is core.eval_trace else trace


def trace_chain(root: Any = None) -> list[Any]:
    """The current trace and those it is nested in, innermost first, down to ``root``; empty when operations
    run eagerly.

    While JAX binds a ``custom_jvp``, ``custom_vjp`` or ``shard_map`` function it puts the current trace
    aside, so the trace of that function does not know the one it is nested in. Then the chain goes on with
    the trace that is processing the call, found on the Python stack.
    """
    chain: list[Any] = []
    trace = core.trace_ctx.trace
    stack: Any = None
    while trace is not None and trace is not core.eval_trace:
        chain.append(trace)
        if trace is root:
            break
        trace = getattr(trace, "parent_trace", None)
        if (trace is None or trace is core.eval_trace) and root is not None:
            trace, stack = _processing(stack or sys._getframe(), chain)
    return chain


_CUSTOM_CALLS = {
    "process_custom_jvp_call": "self",
    "process_custom_vjp_call": "self",
    "_shard_map_staging": "trace",
}
"""JAX's functions that put the current trace aside, and what they call it."""


def _processing(frame: Any, known: Sequence[Any]) -> tuple[Any, Any]:
    """The innermost trace on the stack that processes a function with a derivative rule and is not ``known``,
    and its frame.
    """
    while frame is not None:
        if frame.f_code.co_name in _CUSTOM_CALLS:
            trace = frame.f_locals.get(_CUSTOM_CALLS[frame.f_code.co_name])
            if isinstance(trace, core.Trace) and all(trace is not other for other in known):
                return trace, frame.f_back
        frame = frame.f_back
    return None, None


def frame_of(trace: Any) -> Any | None:
    """``trace`` if it records a body, which it then identifies; None for other traces (AD, batching)."""
    return trace if isinstance(trace, pe.DynamicJaxprTrace) else None


def weak(trace: Any) -> Any:
    """A weak reference to a trace: ``weak(trace)() is trace`` while it lives. Holding traces would be a leak."""
    return trace._weakref if hasattr(trace, "_weakref") else weakref.ref(trace)


def is_batching(trace: Any) -> bool:
    return isinstance(trace, batching.BatchTrace)


def is_differentiating(trace: Any) -> bool:
    return isinstance(trace, (ad.JVPTrace, ad.LinearizeTrace))


def traced_for(frame: Any) -> str:
    """What the body of ``frame`` is traced for: ``jit``, ``scan``, ``while_body``, ``cond``, …"""
    info = frame.frame.debug_info
    return info.traced_for if info is not None else ""


def records_here() -> bool:
    """Whether the current trace, or one around it, records what is done: a value read now may be kept as a
    constant.
    """
    return any(frame_of(trace) is not None for trace in trace_chain())


def folds_eagerly() -> bool:
    """Whether operations on constants run at once, past the trace (``jax.ensure_compile_time_eval``)."""
    return bool(config.eager_constant_folding.value)


def under_disable_jit() -> bool:
    return bool(jax.config.jax_disable_jit)


def is_tracer(x: Any) -> bool:
    return isinstance(x, core.Tracer)


def tracer_frame(x: Any) -> Any | None:
    """The body that a tracer belongs to, None when it is no recording tracer."""
    return frame_of(x._trace) if isinstance(x, core.Tracer) else None


# ----------------------------------------------------------------------------------------------- user context

trace_context = jax.make_user_context(default_value=0)
"""Part of the key of JAX's trace caches: (trace number, epoch) as one int while user code is traced."""


def set_trace_context(value: int) -> None:
    """Change the context in the middle of a trace; the surrounding ``with trace_context(...)`` restores it."""
    trace_context._obj.set_local(value)


# ------------------------------------------------------------------------------------------------- primitives


class StateEffect(effects.Effect):
    """The effect of our State primitives. It is allowed in every structured primitive and can never be
    lowered.
    """

    def __repr__(self) -> str:
        return "State"


STATE_EFFECT = StateEffect()
for _allowed in (
    effects.control_flow_allowed_effects,
    effects.custom_derivatives_allowed_effects,
    effects.remat_allowed_effects,
):
    _allowed.add_type(StateEffect)


def new_primitive(
    name: str,
    out_avals: Callable[..., Sequence[Any]],
    *,
    has_state: bool = True,
    on_eval: Callable[..., Any],
    on_batch: Callable[..., Any] | None = None,
    on_jvp: Callable[..., Any] | None = None,
    each_device: bool = False,
) -> Any:
    """A primitive with many results that only ever stands in jaxprs that we import.

    ``out_avals(*avals, **params)`` gives the results' avals; the ``on_`` functions raise the project's
    errors. With ``each_device`` a ``shard_map`` that runs eagerly calls ``on_eval`` for one device after another.
    """
    primitive = core.Primitive(name)
    primitive.multiple_results = True
    allowed = {STATE_EFFECT} if has_state else set()

    def abstract(*avals: Any, **params: Any) -> tuple[Sequence[Any], set[Any]]:
        return out_avals(*avals, **params), allowed

    primitive.def_effectful_abstract_eval(abstract)
    primitive.def_impl(on_eval)
    if on_batch is not None:
        batching.primitive_batchers[primitive] = on_batch
    if on_jvp is not None:
        ad.primitive_jvps[primitive] = on_jvp
    if each_device:

        def devices(mesh: Any, *values: Any, **params: Any) -> list[Any]:
            with core.eval_context():
                for own in zip(*map(list, values), strict=True):
                    on_eval(*own, **params)
            return []

        shard_map_lib.eager_rules[primitive] = devices
    return primitive


@functools.cache
def _primitive_table() -> dict[str, Any]:
    table: dict[str, Any] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("jax._src") and module is not None:
            for value in list(vars(module).values()):
                if isinstance(value, core.Primitive):
                    table.setdefault(value.name, value)
    return table


_SEEN_PRIMITIVES: dict[str, Any] = {}


def primitive_by_name(name: str) -> Any | None:
    """The JAX primitive called ``name``, None when there is none in the loaded modules."""
    found = _SEEN_PRIMITIVES.get(name)
    return found if found is not None else _primitive_table().get(name)


def public_name(eqn: Any) -> str:
    """What users call the function that an equation comes from: JAX 0.12 has objects (``CustomRoot``) as the
    parameters of one primitive.
    """
    inner = eqn.params.get("_prim")
    if inner is None:
        return str(eqn.primitive.name)
    letters = type(inner).__name__.lstrip("_")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in letters).lstrip("_")


def remember_primitive(primitive: Any) -> None:
    """Make a primitive of another package known by name."""
    _SEEN_PRIMITIVES.setdefault(primitive.name, primitive)


# ----------------------------------------------------------------------------------------------------- bodies


def is_body(x: Any) -> bool:
    """Whether a parameter of an equation is a function body (a jaxpr, closed or not)."""
    return isinstance(x, core.Jaxpr) or (not FOLDED and isinstance(x, core.ClosedJaxpr))


def is_closed(x: Any) -> bool:
    return isinstance(x, core.Jaxpr) if FOLDED else isinstance(x, core.ClosedJaxpr)


def body_parts(x: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """A body as (jaxpr with ``constvars``, the values of these), whichever way this JAX keeps them."""
    if FOLDED:
        return x, getattr(x, "consts", None) or ()
    if isinstance(x, core.ClosedJaxpr):
        return x.jaxpr, x.consts
    return x, ()


def _debug_info(traced_for: str, name: str, count: int) -> Any:
    return lu.DebugInfo(traced_for, name, ("",) * count, None)


def make_body(
    invars: Sequence[Any],
    outvars: Sequence[Any],
    eqns: Sequence[Any],
    *,
    name: str = "body",
    closed: bool = True,
) -> Any:
    """A body without constants, built from equations. ``closed=False`` gives what primitives like ``remat``
    want.
    """
    union: set[Any] = set()
    for eqn in eqns:
        if eqn.effects:
            union |= set(eqn.effects)
    info = lu.DebugInfo("jit", name, ("",) * len(invars), ("",) * len(outvars))
    jaxpr = core.Jaxpr((), list(invars), list(outvars), list(eqns), union or frozenset(), info)
    return jaxpr if FOLDED or not closed else core.ClosedJaxpr(jaxpr, ())


def new_var(aval: Any) -> Any:
    return core.Var(aval)


def new_eqn(
    invars: Sequence[Any],
    outvars: Sequence[Any],
    primitive: Any,
    params: dict[str, Any],
    effs: Any,
    source: Any,
) -> Any:
    return core.new_jaxpr_eqn(list(invars), list(outvars), primitive, params, effs or frozenset(), source)


def literal(value: Any, aval: Any) -> Any:
    return core.Literal(value, aval)


def body_effects(body: Any) -> Any:
    return body_parts(body)[0].effects


def body_as_function(body: Any) -> Callable[..., list[Any]]:
    """A function of flat arrays that runs a body without constants, op by op under the current trace."""
    jaxpr, consts = body_parts(body)

    def run(*args: Any) -> list[Any]:
        if inside_shard_map():
            return _typed(jaxpr, consts, *args)
        results: list[Any] = core.eval_jaxpr(jaxpr, consts, *args)
        return results

    return run


def trace_flat(
    function: Callable[..., Sequence[Any]], avals: Sequence[Any], *, traced_for: str, name: str
) -> tuple[Jaxpr, list[Any]]:
    """Trace a function of flat values: the jaxpr, and what its ``constvars`` stand for (arrays or outer
    tracers).
    """
    wrapped = lu.wrap_init(function, debug_info=_debug_info(traced_for, name, len(avals)))
    jaxpr, _, consts = pe.trace_to_jaxpr_dynamic(wrapped, list(avals))
    if FOLDED and consts:
        jaxpr = jaxpr.with_consts(consts)  # else they are leading inputs
    return jaxpr, list(consts)


@functools.cache
def _jit_template() -> Any:
    (eqn,) = jax.make_jaxpr(jax.jit(lambda x: x + 1))(0.0).eqns
    return eqn


def call_body(body: Any, args: Sequence[Any], name: str) -> list[Any]:
    """Bind a whole body as one inner-jit equation: constant cost, whatever its size."""
    primitive, params = jit_call(body, name, len(args), len(body_parts(body)[0].outvars))
    results: list[Any] = primitive.bind(*args, **params)
    return results


def jit_call(body: Any, name: str, inputs: int, outputs: int) -> tuple[Any, dict[str, Any]]:
    """The inner-jit primitive and parameters that call ``body``."""
    eqn = _jit_template()
    params = dict(eqn.params)
    for key in ("in_shardings", "in_layouts", "donated_invars"):
        params[key] = (eqn.params[key][0],) * inputs
    for key in ("out_shardings", "out_layouts"):
        params[key] = (eqn.params[key][0],) * outputs
    params.update(jaxpr=body, name=name)
    return eqn.primitive, params


def inline_call(body: Any, name: str, inputs: int, outputs: int) -> tuple[Any, dict[str, Any]]:
    """Like ``jit_call``, for a body that JAX is to dissolve when it records it; transformations still treat
    equal ones once.
    """
    primitive, params = jit_call(body, name, inputs, outputs)
    flag = params["inline"]
    params["inline"] = True if isinstance(flag, bool) else type(flag)("jax_early")
    return primitive, params


def is_plain_jit(params: dict[str, Any]) -> bool:
    """Whether an inner jit says nothing but its name (no shardings, layouts, mesh or compiler options)."""
    template = _jit_template().params
    plain_sharding = template["in_shardings"][0]
    return (
        all(s is plain_sharding for s in params["in_shardings"])
        and all(s is plain_sharding for s in params["out_shardings"])
        and all(layout is None for layout in (*params["in_layouts"], *params["out_layouts"]))
        and not params["compiler_options_kvs"]
        and not any(params["donated_invars"])
        and params["ctx_mesh"] == template["ctx_mesh"]
    )


# --------------------------------------------------------------------------------------------- scan and while


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """(number of constants, number of carried values) of a scan equation."""
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


@functools.cache
def _scan_template() -> dict[str, Any]:
    jaxpr = jax.make_jaxpr(lambda xs: jax.lax.scan(lambda c, x: (c, x), 0.0, xs))(np.zeros(2, np.float32))
    return dict(jaxpr.eqns[0].params)


def scan_params(
    body: Any, *, consts: int, carry: int, xs: int, ys: int, length: int, reverse: bool, unroll: int
) -> dict[str, Any]:
    """The parameters of a scan equation for this JAX."""
    params = {**_scan_template(), "jaxpr": body, "length": length, "reverse": reverse, "unroll": unroll}
    if "num_carry" in params:
        params.update(num_consts=consts, num_carry=carry)
        if "linear" in params:
            params["linear"] = (False,) * (consts + carry + xs)
        return params
    from jax._src import flattree as ft  # type: ignore[import-not-found, unused-ignore]

    params["ft_in"] = ft.pack((ft.nones(consts), ft.nones(carry), ft.nones(xs)))
    params["ft_out"] = ft.pack((ft.nones(carry), ft.nones(ys)))
    return params


# ------------------------------------------------------------------------------------------------------ types

_TYPES: dict[tuple[Any, ...], Type] = {}


def type_of(aval: Any) -> Type:
    """The IR type of a JAX aval."""
    dtype = getattr(aval, "dtype", None)
    shape = getattr(aval, "shape", None)
    if dtype is None or shape is None or type(aval) is not core.ShapedArray:
        return OpaqueType(str(aval))
    key = (dtype, shape, aval.weak_type)
    found = _TYPES.get(key)
    if found is None:
        if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
            found = KeyType(dtype._impl.tag, tuple(shape))
        else:
            found = TensorType(
                short_dtype(dtype.name if dtype != dtypes.float0 else "float0"),
                tuple(shape),
                bool(aval.weak_type),
            )
        _TYPES[key] = found
    return found


@functools.cache
def aval_of(type: Type) -> Any:
    """The JAX aval of an IR type."""
    if isinstance(type, TensorType):
        dtype = dtypes.float0 if type.dtype == "f0" else numpy_dtype(type.dtype)
        return core.ShapedArray(type.shape, dtype, weak_type=type.weak)
    if isinstance(type, KeyType):
        return core.ShapedArray(type.shape, key_dtype(type.impl))
    raise TypeError(f"no JAX type for {type}")


@functools.cache
def key_dtype(tag: str) -> Any:
    """The dtype of typed PRNG keys whose implementation prints as ``tag``."""
    from jax._src.random import prng

    for name, impl in prng.prngs.items():
        if impl.tag == tag:
            return jax.random.key(0, impl=name).dtype
    raise TypeError(f"no PRNG implementation {tag!r}")


def strong_aval(value: Any) -> Any:
    """The aval of a value (or aval) without the weak flag."""
    aval = value if isinstance(value, core.AbstractValue) else core.typeof(value)
    return aval.update(weak_type=False) if getattr(aval, "weak_type", False) else aval


def typeof(value: Any) -> Any:
    return core.typeof(value)


def array_aval(shape: Sequence[int], dtype: Any, weak_type: bool = False) -> Any:
    return core.ShapedArray(
        tuple(shape), jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True), weak_type=weak_type
    )


def is_key_array(value: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(value, "dtype", np.dtype(bool)), jax.dtypes.prng_key)


# -------------------------------------------------------------------------------------------------- locations


def resolve_source(source: Any) -> tuple[str, int, str, str]:
    """(file, line, function, scope) of a JAX source info, in the user's code."""
    scope = str(source.name_stack) if source.name_stack else ""
    frame = source_info_util.user_frame(source.traceback) if source.traceback is not None else None
    if frame is None:
        return ("", 0, "", scope)
    return (display_file(frame.file_name), frame.start_line, frame.function_name, scope)


def location_of(eqn: Any, fallback: Location | None = None) -> Location:
    return Location.deferred(eqn.source_info, resolve_source, fallback)


def here() -> Location:
    """The user's current line, found when looked at."""
    return Location.deferred(source_info_util.current(), resolve_source)


def source_of(location: Location) -> Any:
    """What JAX needs to know of a location when an equation is built for it."""
    if location.source is not None:
        return location.source
    return source_info_util.new_source_info()


def display_file(file: str) -> str:
    """A file name as people write it: relative to the working directory, ``In[5]`` for a notebook cell."""
    ipython = sys.modules.get("IPython")
    if ipython is not None:
        shell = ipython.get_ipython()
        label = shell.compile.format_code_name(file) if shell is not None else None
        if label is not None:
            return str(label[1])
    import os

    try:
        relative = os.path.relpath(file)
    except ValueError:
        return file
    return file if relative.startswith("..") else relative


# ------------------------------------------------------------------------------------------------- parameters


@functools.cache
def _classes() -> dict[str, type]:
    """Records and enumerations of JAX's by class name: what parameters of primitives are made of."""
    import enum

    table: dict[str, type] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("jax._src") and module is not None:
            for value in list(vars(module).values()):
                if isinstance(value, type) and (issubclass(value, enum.Enum) or hasattr(value, "_fields")):
                    table.setdefault(value.__name__, value)
    return table


def class_by_name(name: str) -> type | None:
    """A record or enumeration class of JAX's, None when there is none of that name."""
    return _classes().get(name)


def prng_impl_name(value: Any) -> str | None:
    """The name of a PRNG implementation given as a parameter, None for anything else."""
    from jax._src.random import prng

    return value.name if isinstance(value, prng.PRNGImpl) else None


def prng_impl(name: str) -> Any:
    from jax._src.random import prng

    return prng.prngs[name]


def same_tree(a: Any, b: Any) -> bool:
    """Whether two structures are equal; None stands for a single leaf (a ``PyTreeDef`` refuses to be compared
    with it).
    """
    return a is b or (a is not None and b is not None and bool(a == b))


def is_treedef(value: Any) -> bool:
    return isinstance(value, jax.tree_util.PyTreeDef)


# ------------------------------------------------------------------------------------------- derivative rules


def set_trace(trace: Any) -> Any:
    """A context manager: operations go to ``trace``."""
    return core.set_current_trace(trace)


def is_zero_tangent(value: Any) -> bool:
    return isinstance(value, (ad.Zero, jax.custom_derivatives.SymbolicZero))


def tangent_aval(aval: Any) -> Any:
    return aval.to_tangent_aval()


def has_tangent(aval: Any) -> bool:
    """Whether values of this type can be differentiated (their tangents are not float0)."""
    return tangent_aval(aval).dtype != dtypes.float0


def instantiate_zero(value: Any, aval: Any) -> Any:
    """A symbolic zero as an array of zeros; other values as they are."""
    return jax.numpy.zeros(aval.shape, aval.dtype) if is_zero_tangent(value) else value


def cotangents(result: Any) -> list[Any]:
    """What a flattened backward rule returns, without the logs that JAX 0.12 adds."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], (list, tuple)):
        return list(result[0])
    return list(result)


def user_array(const: Any) -> Any:
    """The user's own object behind a constant of a jaxpr (JAX wraps NumPy arrays)."""
    return getattr(const, "val", const) if type(const).__name__ == "TypedNdArray" else const


def eval_body(jaxpr: Any, consts: Sequence[Any], *args: Any) -> list[Any]:
    """Run a jaxpr under the current trace, equation by equation."""
    results: list[Any] = core.eval_jaxpr(jaxpr, consts, *args)
    return results


def tracer_var(tracer: Any) -> Any:
    """The variable of its jaxpr that a recording tracer stands for, None for other tracers."""
    return getattr(tracer, "val", None)


def origin_reads(tracer: Any, primitive: Any, limit: int = 2000) -> list[Any]:
    """Parameters of the ``primitive`` equations that a tracer was computed from."""
    found: list[Any] = []
    seen: set[int] = set()
    queue = [tracer]
    while queue and len(seen) < limit:
        current = queue.pop()
        equation = getattr(current, "parent", None)
        if equation is None or id(equation) in seen:
            continue
        seen.add(id(equation))
        if equation.primitive is primitive:
            found.append(dict(equation.params))
        queue.extend(t for t in equation.in_tracers if isinstance(t, core.Tracer))
    return found


def origin_of(tracer: Any) -> Location:
    """The user's line that computed a tracer."""
    equation = getattr(tracer, "parent", None)
    source = getattr(equation, "source_info", None)
    return Location() if source is None else Location.deferred(source, resolve_source)


def tracer_of_error(error: BaseException) -> Any | None:
    """The tracer that Python wanted a concrete value of, found in the frames that raised the error."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        for name in ("self", "arg", "x", "tracer"):
            value = traceback.tb_frame.f_locals.get(name)
            if isinstance(value, core.Tracer):
                found = value
        traceback = traceback.tb_next
    return found


def here_of(error: BaseException) -> Location:
    """The user's line that raised ``error``: the innermost frame that is neither JAX's nor ours."""
    traceback, found = error.__traceback__, None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if source_info_util.is_user_filename(code.co_filename):
            found = (display_file(code.co_filename), traceback.tb_lineno, code.co_qualname, "")
        traceback = traceback.tb_next
    return Location(*found) if found is not None else Location()


# ------------------------------------------------------------------------------------- for building equations


def effects_of_primitive(primitive: Any, avals: Sequence[Any], params: dict[str, Any]) -> Any:
    """The effects that JAX declares for a primitive at these types."""
    _, effs = primitive.abstract_eval(*avals, **params)
    return effs


@functools.cache
def _cond_template() -> dict[str, Any]:
    jaxpr = jax.make_jaxpr(lambda p, x: jax.lax.cond(p, lambda y: y + 1, lambda y: y, x))(True, 0.0)
    return dict(next(eqn for eqn in jaxpr.eqns if eqn.primitive.name == "cond").params)


def cond_params(bodies: Sequence[Any]) -> dict[str, Any]:
    """The parameters of a cond equation for this JAX."""
    return {**_cond_template(), "branches": tuple(bodies)}


@functools.cache
def remat_primitive() -> Any:
    return jax.make_jaxpr(jax.checkpoint(lambda x: x + 1))(0.0).eqns[0].primitive


def zero_tangent(primal: Any) -> Any:
    """The tangent of a value that has none."""
    return np.zeros(np.shape(primal), dtypes.float0)


def rename(eqns: Iterable[Any], variables: dict[Any, Any]) -> list[Any]:
    """Equations with some of their input variables replaced."""
    renamed = []
    for eqn in eqns:
        invars = [atom if type(atom) is Literal else variables.get(atom, atom) for atom in eqn.invars]
        renamed.append(eqn.replace(invars=invars))
    return renamed


def close_over(jaxpr: Any) -> Any:
    """A body whose constants are its first inputs."""
    converted = pe.convert_constvars_jaxpr(jaxpr)
    return converted if FOLDED else core.ClosedJaxpr(converted, ())


def equations_of(body: Any, names: Iterable[str], skip: Sequence[str] = ()) -> list[Any]:
    """All equations of these primitives in a body, nested bodies included but those of equations to ``skip``."""
    wanted, found, stack = set(names), [], [body_parts(body)[0]]
    while stack:
        for eqn in stack.pop().eqns:
            if eqn.primitive.name in wanted:
                found.append(eqn)
            if eqn.primitive.name in skip:
                continue
            stack += [body_parts(inner)[0] for inner in _bodies_among(eqn.params)]
    return found


def gradient_aval(aval: Any) -> Any:
    """The type of the gradient with respect to a value of this type."""
    tangent = tangent_aval(aval)
    return tangent.update(weak_type=False) if getattr(tangent, "weak_type", False) else tangent


def x64() -> bool:
    """Whether JAX's 64-bit types are on for this thread."""
    return bool(jax.config.read("jax_enable_x64"))


# ------------------------------------------------------------------------------------------------------ lanes


def named_axes(axes: Sequence[tuple[str, int]]) -> Any:
    """A context manager: collectives over these (name, size) can be traced."""
    return core.extend_axis_env_nd(list(axes))


def declared_effects(eqn: Any) -> list[Any]:
    """The effects of an equation; that it names an axis is none, since it is computed where the axis is."""
    return [effect for effect in eqn.effects if not isinstance(effect, core.NamedAxisEffect)]


def talks_over(body: Any, name: str) -> bool:
    """Whether an equation of a body, nested bodies included, is a collective over a named axis."""
    stack = [body_parts(body)[0]]
    while stack:
        for eqn in stack.pop().eqns:
            if any(
                isinstance(effect, core.NamedAxisEffect) and effect.name == name for effect in eqn.effects
            ):
                return True
            stack += [body_parts(inner)[0] for inner in _bodies_among(eqn.params)]
    return False


def _bodies_among(params: Any) -> list[Any]:
    values = [
        v for value in params.values() for v in (value if isinstance(value, (tuple, list)) else (value,))
    ]
    return [value for value in values if is_body(value)]


def depends_on_lane(value: Any) -> bool:
    """Whether a value computed inside ``jax.vmap`` differs between the lanes of the innermost one."""
    if not isinstance(value, batching.BatchTracer) or value._trace is not core.trace_ctx.trace:
        return False
    return value.batch_dim is not None


def prefix_axes(name: str, tree: Any, axes: Any) -> list[Any]:
    """One axis (or other value, None included) per leaf of ``tree``, from a prefix of it as ``jax.vmap`` takes;
    raises ``ValueError`` if it is none.
    """
    return list(api_util.flatten_axes(name, tree, axes))


def resized_aval(aval: Any, shape: Sequence[int]) -> Any:
    """The type with another shape; inside a mesh it still says over which axes the value varies."""
    if aval.sharding.mesh.empty:
        return core.ShapedArray(tuple(shape), aval.dtype, weak_type=getattr(aval, "weak_type", False))
    return aval.update(shape=tuple(shape), sharding=_unsharded(aval.sharding.mesh, len(shape)))


# ----------------------------------------------------------------------------------------------------- meshes
#
# Inside the body of a ``shard_map`` JAX's types say over which axes of the mesh a value *varies*. IR types do
# not, so what is emitted for such a body is typed again: it is evaluated under JAX's trace of the body, nested
# bodies through JAX's own functions, with the casts that the types ask for.


def _unsharded(mesh: Any, rank: int) -> Any:
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*[None] * rank))


class _Probing(threading.local):
    on = False


_PROBING = _Probing()


def inside_shard_map() -> bool:
    """Whether the code runs for one shard: axes of a mesh are manual, or named lanes stand for them."""
    return _PROBING.on or bool(mesh_lib.get_abstract_mesh().manual_axes)


def axes_of_difference(
    function: Callable[..., Sequence[Any]],
    avals: Sequence[Any],
    cuts: Sequence[Iterable[str]],
    sizes: dict[str, int],
) -> list[frozenset[str]]:
    """Along which axes of a mesh the results of a function of shards may differ, given the axes along which its
    arguments do: found by running it on lanes, which know what depends on them.
    """
    found: list[frozenset[str]] = []
    for axis in sizes:
        order = [axis, *(other for other in sizes if other != axis)]  # innermost first

        def lane(*values: Any, axis: str = axis) -> list[Any]:
            results = function(*values)
            known = found or [frozenset()] * len(results)
            found[:] = [
                axes | {axis} if depends_on_lane(x) else axes for axes, x in zip(known, results, strict=True)
            ]
            return []

        mapped: Callable[..., list[Any]] = lane
        whole = list(avals)
        for name in order:
            mapped = _lanes(mapped, name, sizes[name], [0 if name in cut else None for cut in cuts])
            whole = [
                resized_aval(aval, (sizes[name], *aval.shape)) if name in cut else aval
                for aval, cut in zip(whole, cuts, strict=True)
            ]
        _PROBING.on = True
        try:
            trace_flat(mapped, whole, traced_for="stategraph vmap", name="shards")
        finally:
            _PROBING.on = False
    return found


def _lanes(
    function: Callable[..., list[Any]], name: str, size: int, in_axes: Sequence[int | None]
) -> Callable[..., list[Any]]:
    def run(*values: Any) -> list[Any]:
        lanes: Any = jax.vmap(
            lambda lane, *rest: function(*rest), in_axes=(0, *in_axes), axis_size=size, axis_name=name
        )
        results: list[Any] = lanes(jax.numpy.arange(size), *values)
        return results

    return run


def aval_here(aval: Any) -> Any:
    """The type of a value from outside, the same on all devices, as the mesh that we are in sees it."""
    mesh = mesh_lib.get_abstract_mesh()
    if not mesh.manual_axes or aval.sharding.mesh == mesh:
        return aval
    return aval.update(sharding=_unsharded(mesh, len(aval.shape)))


def local_aval(aval: Any, mesh: Any, axes: Iterable[str], spec: Any, check_vma: bool) -> Any:
    """The type of one shard of a value of this type."""
    return core.shard_aval(mesh, frozenset(axes), check_vma, spec, plain_aval(aval))


def plain_aval(aval: Any) -> Any:
    """The type without what it says of meshes."""
    return core.ShapedArray(aval.shape, aval.dtype, weak_type=aval.weak_type)


def varies_over(value: Any) -> frozenset[str]:
    """The axes of the mesh over which a value of a shard_map's body varies."""
    return frozenset(getattr(core.typeof(value), "mat", core.empty_mat).varying)


@contextlib.contextmanager
def within_mesh(mesh: Any, axes: Iterable[str], check_vma: bool) -> Iterator[None]:
    """What JAX sets up while it traces the body of a shard_map."""
    axes = frozenset(axes)
    abstract = mesh if isinstance(mesh, jax.sharding.AbstractMesh) else mesh.abstract_mesh
    manual = abstract.update_axis_types({name: jax.sharding.AxisType.Manual for name in axes})
    sizes = [(name, size) for name, size in mesh.shape.items() if name in axes]
    with (
        core.extend_axis_env_nd(sizes),
        mesh_lib.use_abstract_mesh(manual),
        config._check_vma(check_vma),
    ):
        yield


def eager_shard(value: Any) -> tuple[Any, frozenset[str]]:
    """A value computed in a shard_map that runs eagerly, as an ordinary array, and the axes that it varies
    over; with any it has no such array and is returned as it is.
    """
    if not isinstance(value, shard_map_lib.ShardMapTracer):
        return value, frozenset()
    shards = np.asarray(jax.random.key_data(value.val) if is_key_array(value) else value.val)
    axes = frozenset(value.mat.varying)
    if not value._trace.check and all(shard.tobytes() == shards[0].tobytes() for shard in shards):
        axes = frozenset()  # JAX says nothing, and they are equal
    if axes:
        return value, axes
    with core.set_current_trace(core.eval_trace), mesh_lib.use_abstract_mesh(value._trace.amesh):
        array = jax.numpy.asarray(shards[0])
        return (
            jax.random.wrap_key_data(array, impl=value.dtype._impl.name) if is_key_array(value) else array
        ), axes


def runs_shards_eagerly() -> bool:
    """Whether operations go to a shard_map that runs eagerly."""
    return isinstance(core.trace_ctx.trace, shard_map_lib.ShardMapTrace)


def _cast(value: Any, axes: Iterable[str]) -> Any:
    """``value`` typed as varying over ``axes`` too."""
    missing = frozenset(axes) - varies_over(value)
    return core.pvary(value, tuple(sorted(missing))) if missing else value


def _together(values: Sequence[Any]) -> list[Any]:
    axes = frozenset().union(*map(varies_over, values)) if values else frozenset()
    return [_cast(value, axes) for value in values]


def deferred(function: Callable[..., Sequence[Any]], out_avals: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """The primitive and parameters of an equation that is computed by ``function`` when a body is typed
    again.
    """
    return _deferred_p, {"function": function, "out_avals": tuple(out_avals)}


def _not_here(*args: Any, **params: Any) -> Any:
    raise NotImplementedError("a deferred equation outside of a shard_map")


_deferred_p = new_primitive(
    "stategraph_deferred",
    lambda *avals, function, out_avals: out_avals,
    has_state=False,
    on_eval=_not_here,
)


def _typed(jaxpr: Any, consts: Sequence[Any], *args: Any) -> list[Any]:
    """Evaluate a jaxpr whose types say nothing of the mesh that we are in."""
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        operands = [a.val if type(a) is Literal else env[a] for a in eqn.invars]
        with source_info_util.user_context(eqn.source_info.traceback, name_stack=eqn.source_info.name_stack):
            results = _TYPED.get(eqn.primitive.name, _bind_typed)(eqn, operands)
        env.update(zip(eqn.outvars, results, strict=True))
    return [a.val if type(a) is Literal else env[a] for a in jaxpr.outvars]


def _bind_typed(eqn: Any, operands: list[Any]) -> Sequence[Any]:
    params = eqn.params
    if any(map(is_body, params.values())):
        found = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(params))
        return found if eqn.primitive.multiple_results else [found]  # type: ignore[no-any-return]
    return bind_here(eqn.primitive, params, operands)


def bind_here(primitive: Any, params: dict[str, Any], operands: Sequence[Any]) -> list[Any]:
    """Run a primitive; inside a mesh its operands are cast so that they vary over the same axes."""
    if inside_shard_map():
        if primitive.name == "pvary":
            return [_cast(operands[0], params["axes"])]
        operands = _together(operands)
        if primitive.name == "psum_invariant":
            operands = [_cast(operands[0], params["axes"])]
    found = primitive.bind(*operands, **params)
    return list(found) if primitive.multiple_results else [found]


def _typed_function(body: Any) -> Callable[..., list[Any]]:
    jaxpr, consts = body_parts(body)
    return functools.partial(_typed, jaxpr, consts)


def _typed_call(eqn: Any, operands: list[Any]) -> Sequence[Any]:
    return _typed_function(eqn.params.get("jaxpr") or eqn.params["call_jaxpr"])(*operands)


def _typed_remat(eqn: Any, operands: list[Any]) -> Sequence[Any]:
    params = eqn.params
    run = _typed_function(params["jaxpr"])
    found = jax.checkpoint(run, prevent_cse=params["prevent_cse"], policy=params["policy"])(*operands)
    return found  # type: ignore[no-any-return]


def _varying_carry(step: Callable[[list[Any]], list[Any]], carry: list[Any]) -> list[Any]:
    """What a loop starts with, typed so that what comes round has the same type."""
    for _ in range(len(mesh_lib.get_abstract_mesh().manual_axes) + 1):
        axes: list[frozenset[str]] = []

        def probe(
            *values: Any, axes: list[frozenset[str]] = axes
        ) -> list[Any]:  # the axes are those of the types, found while tracing
            axes[:] = map(varies_over, step(list(values)))
            return []

        trace_flat(probe, [core.typeof(value) for value in carry], traced_for="stategraph", name="carry")
        wider = [_cast(value, found) for value, found in zip(carry, axes, strict=True)]
        if all(map(operator.is_, wider, carry)):
            break
        carry = wider
    return carry


def cast_like(values: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """Values typed as varying over the axes of a mesh over which ``others`` vary; as they are where there is none."""
    return [_cast(value, varies_over(other)) for value, other in zip(values, others, strict=True)]


def _typed_scan(eqn: Any, operands: list[Any]) -> Sequence[Any]:
    params = eqn.params
    n, m = scan_counts(params)
    consts, carry, xs = operands[:n], operands[n : n + m], operands[n + m :]
    run = _typed_function(params["jaxpr"])

    def element(x: Any) -> Any:
        return jax.lax.index_in_dim(x, 0, keepdims=False)

    if params["length"]:
        carry = _varying_carry(lambda c: run(*consts, *c, *map(element, xs))[:m], carry)

    def body(c: Any, x: Any) -> tuple[Any, Any]:
        results = run(*consts, *c, *x)
        return cast_like(results[:m], c), results[m:]

    last, ys = jax.lax.scan(
        body, carry, xs, length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return [*last, *ys]


def _typed_while(eqn: Any, operands: list[Any]) -> Sequence[Any]:
    params = eqn.params
    n, m = params["cond_nconsts"], params["body_nconsts"]
    test, run = _typed_function(params["cond_jaxpr"]), _typed_function(params["body_jaxpr"])

    def step(carry: list[Any]) -> list[Any]:
        return run(*operands[n : n + m], *carry)

    def tested(carry: list[Any]) -> list[Any]:  # devices that leave the loop at different trips differ
        axes = varies_over(test(*operands[:n], *carry)[0])
        return [_cast(value, axes) for value in step(carry)]

    carry = _varying_carry(tested, operands[n + m :])
    found: Sequence[Any] = jax.lax.while_loop(
        lambda c: test(*operands[:n], *c)[0], lambda c: cast_like(step(list(c)), c), carry
    )
    return found


def _typed_cond(eqn: Any, operands: list[Any]) -> Sequence[Any]:
    index, *values = operands
    if is_batching(
        core.trace_ctx.trace
    ):  # JAX's rule casts what it batches, and cannot cast that again inside
        index, *values = _together(operands)
    branches = [_typed_function(branch) for branch in eqn.params["branches"]]
    axes: list[frozenset[str]] = [varies_over(index)] * len(eqn.outvars)
    for branch in branches:

        def probe(*args: Any, branch: Callable[..., list[Any]] = branch) -> list[Any]:
            axes[:] = [a | varies_over(x) for a, x in zip(axes, branch(*args), strict=True)]
            return []

        trace_flat(probe, [core.typeof(value) for value in values], traced_for="stategraph", name="branch")

    def cast(branch: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        return lambda *args: [_cast(x, a) for x, a in zip(branch(*args), axes, strict=True)]

    found: Sequence[Any] = jax.lax.switch(index, [cast(branch) for branch in branches], *values)
    return found


def _typed_deferred(eqn: Any, operands: list[Any]) -> Sequence[Any]:
    found: Sequence[Any] = eqn.params["function"](*operands)
    return found


_TYPED: dict[str, Callable[[Any, list[Any]], Sequence[Any]]] = {
    "jit": _typed_call,
    "pjit": _typed_call,
    "closed_call": _typed_call,
    "checkpoint": _typed_remat,
    "remat2": _typed_remat,
    "scan": _typed_scan,
    "while": _typed_while,
    "cond": _typed_cond,
    "stategraph_deferred": _typed_deferred,
}
"""How primitives with bodies, and casts, are evaluated where types have to be found again."""


# ----------------------------------------------------------------------------------------------- jax_debug_nans

_DEBUG = (config.debug_nans, config.debug_infs)


def watched_numbers() -> tuple[bool, bool]:
    """Whether NaN and whether infinities are errors (``jax_debug_nans``, ``jax_debug_infs``)."""
    return bool(config.debug_nans.value), bool(config.debug_infs.value)


@contextlib.contextmanager
def unwatched_numbers() -> Iterator[None]:
    """Neither NaN nor infinities are errors here."""
    with config.debug_nans(False), config.debug_infs(False):
        yield


def when_watching_changes(notice: Callable[[], None]) -> None:
    """Call ``notice`` whenever ``jax_debug_nans`` or ``jax_debug_infs`` is set, globally or for this thread."""

    def before(hook: Callable[[Any], None] | None) -> Callable[[Any], None]:
        def changed(value: Any) -> None:
            notice()
            if hook is not None:
                hook(value)

        return changed

    for state in _DEBUG:
        for name in ("_update_global_hook", "_update_thread_local_hook"):
            setattr(state, name, before(getattr(state, name)))


@functools.cache
def debug_effect(ordered: bool) -> Any:
    """The effect of ``jax.debug.callback``."""
    (eqn,) = jax.make_jaxpr(lambda: jax.debug.callback(lambda: None, ordered=ordered))().eqns
    return eqn.params["effect"]


# ---------------------------------------------------------------------------------------------- checkify.check


def checkify_flag(err_tree: Any) -> int | None:
    """Which operand of a ``check`` equation says whether it fails; None when there is not exactly one."""
    error = jax.tree.unflatten(err_tree, range(err_tree.num_leaves))
    flags = list(error._pred.values())
    return flags[0] if len(flags) == 1 else None


def checkify_exception(err_tree: Any, leaves: Sequence[Any]) -> BaseException:
    """What a failed ``check`` equation raises."""
    message = jax.tree.unflatten(err_tree, leaves).get()
    return jax.errors.JaxRuntimeError(message)


# ------------------------------------------------------------------------------------------- across all lanes


def new_lane_reduction(name: str, whole: Callable[[Any], Any], lanes: Callable[[Any, int], Any]) -> Any:
    """A primitive that makes ``whole(x)`` of an array, and of the arrays of all lanes of every ``vmap`` around it
    first one array, ``lanes(x, axis)``.

    The result is the same in all lanes; it has no derivative.
    """
    primitive = core.Primitive(name)

    def result(aval: Any) -> Any:
        found = jax.eval_shape(whole, jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        return core.ShapedArray(found.shape, found.dtype)

    def batched(values: Sequence[Any], axes: Sequence[Any]) -> Any:
        return primitive.bind(lanes(values[0], axes[0])), None

    def differentiated(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        value = primitive.bind(*primals)
        return value, ad.Zero(tangent_aval(core.typeof(value)))

    primitive.def_impl(whole)
    primitive.def_abstract_eval(result)
    batching.primitive_batchers[primitive] = batched
    ad.primitive_jvps[primitive] = differentiated
    mlir.register_lowering(primitive, mlir.lower_fun(whole, multiple_results=False))
    remember_primitive(primitive)
    return primitive

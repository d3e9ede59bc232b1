"""Reading, building and running jaxprs: bodies, equations, and the parameters of loops, branches and calls."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax._src import core, dtypes
from jax._src import linear_util as lu
from jax._src.interpreters import partial_eval as pe

from stategraph._jax.versions import FOLDED, Jaxpr, Literal


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


def low_body(eqn: Any, name: str) -> Any:
    """The body of an operation that JAX 0.12 defines by others (``call_hi_primitive``)."""

    def expand(*args: Any) -> list[Any]:
        return list(eqn.primitive.to_lojax(*args, **eqn.params))

    avals = [atom.aval for atom in eqn.invars]
    jaxpr, consts = trace_flat(expand, avals, traced_for="stategraph", name=name)
    return jaxpr if FOLDED else core.ClosedJaxpr(jaxpr, consts)


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


def x64() -> bool:
    """Whether JAX's 64-bit types are on for this thread."""
    return bool(jax.config.read("jax_enable_x64"))


def _bodies_among(params: Any) -> list[Any]:
    values = [
        v for value in params.values() for v in (value if isinstance(value, (tuple, list)) else (value,))
    ]
    return [value for value in values if is_body(value)]


COMPARED = 1024
"""Elements of the largest constant that ``outline`` looks at."""


def outline(body: Any, consts: Sequence[Any] = ()) -> tuple[Any, ...]:
    """What a body computes, to compare it with another one: primitives in order, with what they take and give and with the
    parameters that are plain data, and constants. What State it uses does not count.
    """
    jaxpr, own = body_parts(body)
    places: dict[Any, int] = {}

    def place(atom: Any) -> Any:
        if type(atom) is Literal:
            return _plain(atom.val)
        return places.setdefault(atom, len(places))

    rows = [
        (
            eqn.primitive.name,
            *map(place, eqn.invars),
            *((place(variable), str(variable.aval)) for variable in eqn.outvars),
            () if eqn.primitive.name.startswith("state_") else _plain(eqn.params),
        )
        for eqn in jaxpr.eqns
    ]
    return (*rows, *map(place, jaxpr.outvars), *map(_plain, (*own, *consts)))


def _plain(value: Any) -> Any:
    """Data as it is, of anything else its type."""
    if isinstance(value, dict):
        return tuple((key, _plain(value[key])) for key in sorted(value))
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    if is_body(value):
        return outline(value)
    if isinstance(value, (str, int, float, complex, enum.Enum, np.dtype, type(None))):
        return repr(value)  # NaN is NaN here
    if isinstance(value, (np.ndarray, np.generic, jax.Array)) and not isinstance(value, core.Tracer):
        if value.size <= COMPARED and not jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
            return str(value.dtype), value.shape, np.asarray(value).tobytes()
    return type(value).__name__

"""Tangents and derivative rules, and what errors of differentiation are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax._src import core, dtypes, source_info_util
from jax._src.interpreters import ad

from stategraph._jax.locations import display_file, resolve_source
from stategraph.ir.location import Location


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


def gradient_aval(aval: Any) -> Any:
    """The type of the gradient with respect to a value of this type."""
    tangent = tangent_aval(aval)
    return tangent.update(weak_type=False) if getattr(tangent, "weak_type", False) else tangent

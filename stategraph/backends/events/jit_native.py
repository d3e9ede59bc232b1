"""Products with connectivity that is not stored, as native kernels: those that generated code has for the op."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from stategraph.backends.native.binding import available
from stategraph.ir.core import Op, Region
from stategraph.ir.types import TensorType, numpy_dtype, short_dtype
from stategraph.passes.native_ops import why_not


def jit(avals: Any, **params: Any) -> Callable[..., Any] | None:
    """``event.jit`` by a kernel, None when there is none for these types."""
    types = tuple(TensorType(short_dtype(aval.dtype.name), aval.shape) for aval in avals)
    return _kernel(types, tuple(params.items())) if available() else None


@functools.cache
def _kernel(types: tuple[TensorType, ...], params: tuple[tuple[str, Any], ...]) -> Callable[..., Any] | None:
    from stategraph.backends.codegen.primitive import Source, registered

    events, weight, _ = types
    attributes = dict(params)
    arrived = attributes["shape"][0 if attributes["transposed"] else 1]
    result = TensorType(weight.dtype, (*events.shape[:-1], arrived))
    body = Region(types)
    op = Op("event.jit", body.args, [result], attributes)
    if why_not(op) is not None:
        return None
    body.append(op)
    body.yield_([op.result])
    code = registered(Source(body, ()))
    if code is None:
        return None
    results = [jax.ShapeDtypeStruct(result.shape, numpy_dtype(result.dtype))]
    results += [jax.ShapeDtypeStruct((code.scratch,), np.uint8)] if code.scratch else []
    target = code.handler

    def compute(*operands: Any, **params: Any) -> Any:
        return jax.ffi.ffi_call(target, results)(*operands)[0]

    return compute

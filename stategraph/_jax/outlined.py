"""Bodies that are one equation: they mean what the body means, and a platform may lower them in its own way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import core, dispatch
from jax._src.interpreters import ad, batching, mlir

from stategraph._jax.bodies import body_parts
from stategraph._jax.primitives import remember_primitive
from stategraph._jax.shards import body_as_function

OUTLINED: dict[Any, Any] = {}
"""How the body of each of these primitives is lowered."""
Lower = Callable[..., list[Any] | None]
"""(context, operands, **params) -> the results' values, or None to lower the body."""


def new_outlined(name: str, lower_on_cpu: Lower) -> Any:
    """A primitive with the parameter ``body`` and others that only ``lower_on_cpu`` understands. That is not asked
    when a program is lowered for export or for several platforms. Derivatives and lanes are those of the body.
    """
    primitive = core.Primitive(name)
    primitive.multiple_results = True

    def results(*avals: Any, body: Any, **params: Any) -> list[Any]:
        return [atom.aval for atom in body_parts(body)[0].outvars]

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], *, body: Any, **params: Any) -> Any:
        given = [ad.instantiate_zeros(tangent) for tangent in tangents]
        return jax.jvp(lambda *args: body_as_function(body)(*args), tuple(primals), tuple(given))

    def batch(operands: Sequence[Any], axes: Sequence[Any], *, body: Any, **params: Any) -> Any:
        found = jax.vmap(lambda *args: body_as_function(body)(*args), tuple(axes))(*operands)
        return found, [0] * len(found)

    inlined = mlir.lower_fun(
        lambda *args, body, **params: body_as_function(body)(*args), multiple_results=True
    )

    def lower(context: Any, *operands: Any, **params: Any) -> Any:
        module = context.module_context
        if not module.lowering_parameters.for_export and tuple(module.platforms) == ("cpu",):
            found = lower_on_cpu(context, operands, **params)
            if found is not None:
                return found
        return inlined(context, *operands, **params)

    primitive.def_abstract_eval(results)
    primitive.def_impl(functools.partial(dispatch.apply_primitive, primitive))
    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    OUTLINED[primitive] = inlined
    mlir.register_lowering(primitive, inlined)
    mlir.register_lowering(primitive, lower, platform="cpu")
    remember_primitive(primitive)
    return primitive


def lower_foreign(
    context: Any, target: str, operands: Sequence[Any], aliases: dict[int, int], more: Sequence[Any]
) -> list[Any]:
    """The results' values of a call of a registered function in a lowering rule; ``more`` are avals of results
    beyond those of the primitive.
    """
    context = context.replace(
        avals_in=[core.physical_aval(aval) for aval in context.avals_in],
        avals_out=[core.physical_aval(aval) for aval in (*context.avals_out, *more)],
    )
    rule = jax.ffi.ffi_lowering(target, operand_output_aliases=aliases)
    return list(rule(context, *operands))

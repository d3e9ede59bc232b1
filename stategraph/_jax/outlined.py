"""Bodies that are one equation: they mean what the body means, and are lowered in place, or by a platform in its own
way.

An inner ``jax.jit`` is one equation too, but lowered as a function, which XLA inlines again: for a program with
hundreds of inputs and results that takes longer than some of its passes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import core, dispatch
from jax._src.interpreters import ad, batching, mlir

from stategraph._jax.bodies import body_effects, body_parts, make_body
from stategraph._jax.primitives import remember_primitive
from stategraph._jax.shards import body_as_function
from stategraph._jax.versions import Literal

OUTLINED: dict[Any, Any] = {}
"""How the body of each of these primitives is lowered."""
Lower = Callable[..., list[Any] | None]
"""(context, operands, **params) -> the results' values, or None to lower the body."""


def _lower_body(context: Any, *operands: Any, body: Any, name: str | None = None, **params: Any) -> Any:
    """The rule that lowers a body, which has no constants, in place: under a name as inner jits have one."""
    names = context.name_stack if name is None else context.name_stack.extend(f"jit({name})")
    module = context.module_context
    if context.platforms is not None:
        module = module.replace(platforms=context.platforms)
    results, tokens = mlir.jaxpr_subcomp(
        module,
        body_parts(body)[0],
        names,
        context.tokens_in,
        (),
        *operands,
        dim_var_values=context.dim_var_values,
        const_lowering=context.const_lowering,
        outer_traceback=None,
    )
    context.set_tokens_out(tokens)
    return results


def _new_body_primitive(name: str) -> Any:
    """A primitive with the parameter ``body``, whose effects, derivatives and lanes it has."""
    primitive = core.Primitive(name)
    primitive.multiple_results = True

    def results(*avals: Any, body: Any, **params: Any) -> tuple[list[Any], Any]:
        return [atom.aval for atom in body_parts(body)[0].outvars], body_effects(body)

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], *, body: Any, **params: Any) -> Any:
        given = [ad.instantiate_zeros(tangent) for tangent in tangents]
        return jax.jvp(lambda *args: body_as_function(body)(*args), tuple(primals), tuple(given))

    def batch(operands: Sequence[Any], axes: Sequence[Any], *, body: Any, **params: Any) -> Any:
        found = jax.vmap(lambda *args: body_as_function(body)(*args), tuple(axes))(*operands)
        return found, [0] * len(found)

    primitive.def_effectful_abstract_eval(results)
    primitive.def_impl(functools.partial(dispatch.apply_primitive, primitive))
    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    return primitive


_program_p = _new_body_primitive("program")
mlir.register_lowering(_program_p, _lower_body, cacheable=False)


def call_program(body: Any, args: Sequence[Any], name: str) -> list[Any]:
    """Bind a whole body as one equation: constant cost, whatever its size. What the body does not use is no input of
    the equation, so that JAX drops it.
    """
    jaxpr, _ = body_parts(body)
    used = {atom for eqn in jaxpr.eqns for atom in eqn.invars if type(atom) is not Literal}
    used.update(atom for atom in jaxpr.outvars if type(atom) is not Literal)
    kept = [i for i, variable in enumerate(jaxpr.invars) if variable in used]
    if len(kept) < len(args):
        body = make_body([jaxpr.invars[i] for i in kept], jaxpr.outvars, jaxpr.eqns, name=name)
    results: list[Any] = _program_p.bind(*(args[i] for i in kept), body=body, name=name)
    return results


def new_outlined(name: str, lower_on_cpu: Lower) -> Any:
    """A primitive with the parameter ``body`` and others that only ``lower_on_cpu`` understands. That is not asked
    when a program is lowered for export or for several platforms. Derivatives and lanes are those of the body.
    """
    primitive = _new_body_primitive(name)

    def lower(context: Any, *operands: Any, **params: Any) -> Any:
        module = context.module_context
        if not module.lowering_parameters.for_export and tuple(module.platforms) == ("cpu",):
            found = lower_on_cpu(context, operands, **params)
            if found is not None:
                return found
        return _lower_body(context, *operands, **params)

    OUTLINED[primitive] = _lower_body
    mlir.register_lowering(primitive, _lower_body)
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

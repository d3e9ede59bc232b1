"""Operations of our own that compute: primitives with a lowering, derivatives and lanes.

``new_operation`` makes a primitive with one result that is linear in some of its operands (separately: a product).
Its derivative is the sum of the same operation with one operand replaced by its tangent; what is linear in an
operand can be transposed, and the caller says how.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax._src import core, dispatch, sharding_impls
from jax._src.interpreters import ad, batching, mlir
from jax.experimental.xla_metadata import set_xla_metadata

from stategraph._jax.outlined import OUTLINED
from stategraph._jax.primitives import remember_primitive
from stategraph._jax.shards import plain_aval, together, untyped

Transpose = Callable[..., Any]
"""(index of the operand, cotangent, operands with None in its place, aval of the operand, **params) -> cotangent."""
Lanes = Callable[..., tuple[Any, int]]
"""(operands, their lane axes or None, **params) -> (result, its lane axis)."""


class _Operation(core.Primitive):  # type: ignore[misc]
    """In a shard_map its operands are cast so that they vary over the same axes, as those of JAX's own operations are: its
    result then does, and derivatives to what all devices share are summed over these.
    """

    def bind(self, *operands: Any, **params: Any) -> Any:
        return super().bind(*together(operands), **params)  # type: ignore[no-untyped-call]


def new_operation(
    name: str,
    out_aval: Callable[..., Any],
    *,
    linear: Sequence[int] = (),
    on_transpose: Transpose | None = None,
    on_batch: Lanes | None = None,
    apart: Callable[..., Any] | None = None,
    smooth: Callable[..., Any] | None = None,
) -> Any:
    """A primitive with one result; ``out_aval(*avals, **params)`` gives its aval or raises.

    Args:
      name: the name of the primitive, and of its op in the IR.
      out_aval: the aval of the result.
      linear: the operands in which it is linear; the others have no derivative.
      on_transpose: the cotangent of one linear operand.
      on_batch: the operation over lanes.
      apart: instead of these three, the same as several operations, which have derivatives and lanes.
      smooth: instead of ``linear`` and ``on_transpose``, a function of JAX whose derivative it has.
    """
    primitive: Any = _Operation(name)
    primitive.def_abstract_eval(out_aval)
    primitive.def_impl(functools.partial(dispatch.apply_primitive, primitive))

    remember_primitive(primitive)
    if apart is not None:

        def parts(operands: Sequence[Any], **params: Any) -> Any:
            return apart(*operands, **params)

        ad.primitive_jvps[primitive] = lambda primals, tangents, **params: _jvp_of(
            lambda *given: parts(given, **params), primals, tangents
        )
        batching.primitive_batchers[primitive] = lambda operands, axes, **params: (
            jax.vmap(lambda *given: parts(given, **params), in_axes=tuple(axes))(*operands),
            0,
        )
        return primitive

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
        out = primitive.bind(*primals, **params)
        moved: Any = None
        for index in linear:
            tangent = tangents[index]
            if type(tangent) is ad.Zero:
                continue
            term = primitive.bind(*primals[:index], tangent, *primals[index + 1 :], **params)
            moved = term if moved is None else ad.add_tangents(moved, term)
        return out, ad.Zero.from_primal_value(out) if moved is None else moved

    def jvp_of_smooth(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
        assert smooth is not None
        moved = _jvp_of(functools.partial(smooth, **params), primals, tangents)[1]
        return primitive.bind(*primals, **params), moved

    def transpose(cotangent: Any, *operands: Any, **params: Any) -> list[Any]:
        found: list[Any] = [None] * len(operands)
        (index,) = (i for i, operand in enumerate(operands) if ad.is_undefined_primal(operand))
        if type(cotangent) is not ad.Zero and on_transpose is not None:
            others = [None if i == index else operand for i, operand in enumerate(operands)]
            found[index] = on_transpose(index, cotangent, others, operands[index].aval, **params)
        return found

    def batch(operands: Sequence[Any], axes: Sequence[Any], **params: Any) -> tuple[Any, int]:
        assert on_batch is not None
        return on_batch(operands, axes, **params)

    ad.primitive_jvps[primitive] = jvp if smooth is None else jvp_of_smooth
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch
    return primitive


def _jvp_of(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The derivative of a function along tangents of which some are symbolic zeros."""
    moving = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of_moving(*moved: Any) -> Any:
        given = list(primals)
        for i, value in zip(moving, moved, strict=True):
            given[i] = value
        return function(*given)

    return jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])


Choose = Callable[[str, str, bool, Sequence[Any], dict[str, Any], bool], tuple[str, Callable[..., Any]]]
"""(primitive, platform, whether functions of this process may be called, avals, params, whether the program runs on one
device) -> (name, function).
"""

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


_CHOICES: dict[Any, Choose] = {}


def lower_by(primitive: Any, choose: Choose) -> None:
    """Lower a primitive as a function of JAX that ``choose`` names when the program is lowered."""
    _CHOICES[primitive] = choose
    for platform in PLATFORMS:
        mlir.register_lowering(primitive, _rule(primitive, choose, platform), platform=platform)


def _rule(primitive: Any, choose: Choose, platform: str | None) -> Callable[..., Any]:
    """The rule for a platform; None for all, and then without functions of this process."""

    def rule(context: Any, *operands: Any, **params: Any) -> Any:
        module = context.module_context
        one = tuple(module.platforms) == (platform,)
        in_process = one and not module.lowering_parameters.for_export
        chosen = platform or (module.platforms[0] if len(module.platforms) == 1 else "")
        _, function = choose(primitive.name, chosen, in_process, context.avals_in, params, _alone(module))
        lower = mlir.lower_fun(lambda *given: function(*given, **params), multiple_results=False)
        context = context.replace(avals_in=[plain_aval(aval) for aval in context.avals_in])
        with warnings.catch_warnings(), untyped():  # what is left to do runs on one device
            # JAX 0.11 and later say so whenever a kernel for GPUs is compiled.
            warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
            return lower(context, *operands)

    return rule


def _alone(module: Any) -> bool:
    """Whether what is lowered runs on one device, or on each by itself: XLA does not divide it."""
    context = module.axis_context
    if isinstance(context, sharding_impls.ShardingContext):
        return context.num_devices == 1
    if isinstance(context, sharding_impls.SPMDAxisContext):
        return context.mesh.size == 1 or context.manual_axes == frozenset(context.mesh.axis_names)
    return False


def in_one_function(function: Callable[..., Any], *operands: Any) -> Any:
    """``function(*operands)`` as a call that XLA compiles for a CPU as one function, loops and branches included.

    XLA does so with small loops of its own choice; the attributes say that this call is to be taken for one of them and not
    to be dissolved. They are no part of XLA's interface: a version that does not know them computes the same, but each
    round of a loop takes as long there as dispatching its ops, so ask ``KNOWS_CALLS`` first. The function must not
    hold scatters, sorts, calls of functions, or communication, for which XLA has no code in such a place. Nor has it any
    for an operand without use: so a barrier keeps constants from moving into the call, and each operand has a use.

    Args:
      function: of arrays of which none is empty; None stands for one that is not there. It returns such an array.
    """

    def compute(*operands: Any) -> Any:
        found = function(*operands)
        never = functools.reduce(jnp.logical_or, map(_never, jax.tree.leaves(operands)))
        one = (1,) * found.ndim
        first = lax.slice(found, (0,) * found.ndim, one)
        return lax.dynamic_update_slice(
            found, jnp.where(never, jnp.zeros_like(first), first), (0,) * found.ndim
        )

    called = jax.jit(compute)(*lax.optimization_barrier(operands))
    return set_xla_metadata(called, xla_cpu_small_call="true", inlineable="false")


def _never(x: Any) -> Any:
    """False, as a use of an array: more bits of its first number are set than it has. LLVM knows that, XLA does not."""
    first = lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(())
    first = first.real if jnp.iscomplexobj(first) else first
    floating = jnp.issubdtype(first.dtype, jnp.floating)
    bits = (
        lax.bitcast_convert_type(first, f"uint{8 * first.dtype.itemsize}")
        if floating
        else first.astype(jnp.uint32)
    )
    return lax.population_count(bits) > 64


def lowering_without_foreign_calls() -> dict[str, Any]:
    """Options of ``jax.stages.Traced.lower`` for a program that names no function of this process."""
    rules: Any = (*((p, _rule(p, choose, None)) for p, choose in _CHOICES.items()), *OUTLINED.items())
    return {"_private_parameters": mlir.LoweringParameters(override_lowering_rules=rules)}


def lower_foreign_call(
    context: Any, target: str, operands: Sequence[Any], aliases: dict[int, int]
) -> list[Any]:
    """The results' values of a call of a registered function, in a lowering rule."""
    rule = jax.ffi.ffi_lowering(target, operand_output_aliases=aliases)
    return list(rule(context, *operands))

"""Meshes: typing the body of a ``shard_map`` with what varies over devices, and running it eagerly."""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax._src import config, core, source_info_util
from jax._src import mesh as mesh_lib
from jax._src import shard_map as shard_map_lib

from stategraph._jax.axes import _unsharded, depends_on_lane, resized_aval
from stategraph._jax.bodies import body_parts, is_body, scan_counts, trace_flat
from stategraph._jax.primitives import new_primitive
from stategraph._jax.traces import is_batching
from stategraph._jax.types import is_key_array
from stategraph._jax.versions import Literal


def body_as_function(body: Any) -> Callable[..., list[Any]]:
    """A function of flat arrays that runs a body without constants, op by op under the current trace."""
    jaxpr, consts = body_parts(body)

    def run(*args: Any) -> list[Any]:
        if inside_shard_map():
            return _typed(jaxpr, consts, *args)
        results: list[Any] = core.eval_jaxpr(jaxpr, consts, *args)
        return results

    return run


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


def context_mesh() -> Any:
    """The mesh that ``jax.set_mesh`` chose."""
    return mesh_lib.get_concrete_mesh()


def without_mesh() -> Any:
    """A context manager: as if ``jax.set_mesh`` had chosen none."""
    return mesh_lib.use_abstract_mesh(mesh_lib.empty_abstract_mesh)


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


@contextlib.contextmanager
def untyped() -> Iterator[None]:
    """What is traced here knows nothing of the mesh that we are in, and is for one device."""
    with without_mesh(), config._check_vma(False):
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


def together(values: Sequence[Any]) -> Sequence[Any]:
    """Values typed as varying over the axes of a mesh over which any of them varies; as they are where there is none."""
    if not mesh_lib.get_abstract_mesh().manual_axes:
        return values
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
        operands = together(operands)
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
    if is_batching(core.trace_ctx.trace):
        # JAX's rule casts what it batches, and cannot cast that again inside.
        index, *values = together(operands)
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
    "eval_jaxpr": _typed_call,
    "checkpoint": _typed_remat,
    "remat2": _typed_remat,
    "scan": _typed_scan,
    "while": _typed_while,
    "cond": _typed_cond,
    "stategraph_deferred": _typed_deferred,
}
"""How primitives with bodies, and casts, are evaluated where types have to be found again."""

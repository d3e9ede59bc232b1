"""NaN checks, ``checkify``, and reductions across all lanes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax._src import config, core
from jax._src.interpreters import ad, batching, mlir

from stategraph._jax.derivatives import tangent_aval
from stategraph._jax.primitives import remember_primitive

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


def checkify_flag(err_tree: Any) -> int | None:
    """Which operand of a ``check`` equation says whether it fails; None when there is not exactly one."""
    error = jax.tree.unflatten(err_tree, range(err_tree.num_leaves))
    flags = list(error._pred.values())
    return flags[0] if len(flags) == 1 else None


def checkify_exception(err_tree: Any, leaves: Sequence[Any]) -> BaseException:
    """What a failed ``check`` equation raises."""
    message = jax.tree.unflatten(err_tree, leaves).get()
    return jax.errors.JaxRuntimeError(message)


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

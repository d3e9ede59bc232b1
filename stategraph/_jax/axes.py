"""Axes that lanes name, and what depends on a lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax._src import api_util, core
from jax._src.interpreters import batching

from stategraph._jax.bodies import _bodies_among, body_parts


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


def _unsharded(mesh: Any, rank: int) -> Any:
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*[None] * rank))

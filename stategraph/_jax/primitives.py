"""Primitives of our own, with the effect that keeps them, and looking up all others by name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jax._src import core, effects
from jax._src import shard_map as shard_map_lib
from jax._src.interpreters import ad, batching


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


@functools.cache
def _sparse_primitives() -> dict[str, Any]:
    """Those of sparse matrices, which are no part of JAX's core and may not be loaded."""
    from jax.experimental.sparse import bcoo, bcsr

    found = [value for module in (bcoo, bcsr) for value in vars(module).values()]
    return {value.name: value for value in found if isinstance(value, core.Primitive)}


_SEEN_PRIMITIVES: dict[str, Any] = {}


def primitive_by_name(name: str) -> Any | None:
    """The JAX primitive called ``name``, None when there is none in the loaded modules."""
    found = _SEEN_PRIMITIVES.get(name)
    if found is None:
        found = _primitive_table().get(name)
    if found is None and name.startswith(("bcoo_", "bcsr_")):
        found = _sparse_primitives().get(name)
    return found


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

"""The op registry: what every op name means to the compiler.

An op is registered with its effects; without them it cannot be registered. ``jax.<primitive>`` names share
one definition: pure unless the importer marked the op (attribute ``effects``) because JAX reported an effect
that this compiler does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from stategraph.ir.core import Op
from stategraph.ir.effects import (
    ALLOC,
    CHECK_EFFECT,
    HOST_EFFECT,
    ORDERED_HOST_EFFECT,
    READ,
    UNKNOWN,
    WRITE,
    Effect,
)
from stategraph.ir.types import TensorType

EffectRule = Callable[[Op], Iterable[Effect]]


@attrs.frozen
class OpDefinition:
    """What the compiler knows about one op name."""

    name: str
    summary: str
    effects: EffectRule
    verify: Callable[[Op], str | None] = lambda op: None
    """Returns what is wrong with the op in one sentence, or None."""


_DEFINITIONS: dict[str, OpDefinition] = {}
_NONE: tuple[Effect, ...] = ()


def no_effects(op: Op) -> tuple[Effect, ...]:
    """The effect rule of pure ops."""
    return _NONE


def register_op(
    name: str, *, effects: EffectRule, summary: str = "", verify: Callable[[Op], str | None] = lambda op: None
) -> OpDefinition:
    """Declare an op. ``effects`` is required: an op whose effects are not known cannot exist.

    Raises ``ValueError`` when the name is taken.
    """
    if name in _DEFINITIONS:
        raise ValueError(f"op {name!r} is already registered")
    if not callable(effects):
        raise TypeError(
            f"op {name!r} needs an effect rule, a function of the op; use no_effects for a pure op"
        )
    definition = OpDefinition(name, summary, effects, verify)
    _DEFINITIONS[name] = definition
    return definition


def definition_of(name: str) -> OpDefinition | None:
    """The definition of an op name, None when nobody registered it."""
    found = _DEFINITIONS.get(name)
    if found is None and name.startswith("jax."):
        return _JAX_OP
    return found


def registered_names() -> list[str]:
    """Every registered op name, in order of registration."""
    return list(_DEFINITIONS)


def own_effects(op: Op) -> tuple[Effect, ...]:
    """The effects of the op itself, without those of its regions."""
    definition = definition_of(op.name)
    if definition is None:
        return (UNKNOWN,)
    return tuple(definition.effects(op))


def effects_of(op: Op) -> tuple[Effect, ...]:
    """The effects of the op and of everything in its regions, without repetition.

    A State that is allocated inside a region is invisible outside of it.
    """
    if not op.regions:
        return own_effects(op)
    found = dict.fromkeys(own_effects(op))
    for region in op.regions:
        inner = [effect for nested in region.ops for effect in effects_of(nested)]
        local = {effect.symbol for effect in inner if effect.kind == ALLOC}
        found.update(
            dict.fromkeys(effect for effect in inner if effect.symbol is None or effect.symbol not in local)
        )
    return tuple(found)


def is_pure(op: Op) -> bool:
    """No effects at all, regions included: the op may be removed when unused, or merged with an equal one."""
    return not effects_of(op)


def may_diverge(op: Op) -> bool:
    """Whether the op may run forever: such an op must not be run where it would not have run."""
    return op.name == "flow.while" or any(True for _ in op.walk("flow.while"))


def _marked(op: Op) -> tuple[Effect, ...]:
    return (UNKNOWN,) if "effects" in op.attributes else _NONE


def _host(op: Op) -> tuple[Effect, ...]:
    return (ORDERED_HOST_EFFECT,) if op.attributes.get("ordered") else (HOST_EFFECT,)


_JAX_OP = OpDefinition("jax.*", "a JAX primitive; its parameters are attributes", _marked)

register_op("state.read", summary="the leaves of a State", effects=lambda op: (Effect(READ, op.symbol),))
register_op("state.write", summary="give a State new leaves", effects=lambda op: (Effect(WRITE, op.symbol),))
register_op(
    "state.alloc", summary="create a State with these leaves", effects=lambda op: (Effect(ALLOC, op.symbol),)
)
for _name, _summary in {
    "flow.yield": "the results of a region",
    "flow.scan": "loop a known number of times over carried values and stacked inputs",
    "flow.while": "loop while a condition holds",
    "flow.cond": "run one of several branches",
    "flow.call": "run a body once, as one unit (an inner jit)",
    "native.kernel": "a body run once, which may be machine code of its own where it can be made",
    "flow.custom_jvp": "a body with a forward derivative rule of its own",
    "flow.custom_vjp": "a body with a reverse derivative rule of its own",
    "xform.grad": "a body, its results, and the gradient of the first one",
    "xform.jvp": "a body, its results, and the change of the first ones along given tangents",
    "xform.vjp": "a body, its results, and the gradient of the first ones weighted with given cotangents",
    "xform.vmap": "a body that runs once per lane",
    "xform.shard_map": "a body that runs once per device of a mesh, on its shard",
    "xform.remat": "a body whose intermediate values are recomputed in reverse mode",
}.items():
    register_op(_name, summary=_summary, effects=no_effects)
for _name, _summary in {
    "host.debug_print": "print values while the program runs",
    "host.debug_callback": "call a Python function for its effect",
    "host.io_callback": "call a Python function that may do input and output",
    "host.pure_callback": "call a Python function of the values",
}.items():
    register_op(_name, summary=_summary, effects=_host)


def _check(op: Op) -> str | None:
    first = op.operands[0].type if op.operands else None
    if not isinstance(first, TensorType) or first.dtype != "bool" or first.shape:
        return "its first operand says whether the check fails: a bool[]"
    return None


register_op(
    "check.error_if",
    summary="fail with an error if the first operand holds; the others are values for its message",
    effects=lambda op: (CHECK_EFFECT,),
    verify=_check,
)

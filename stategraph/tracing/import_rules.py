"""Functions with derivative rules, ``jax.custom_jvp`` and ``custom_vjp``, become ops whose regions are the function and its
rules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stategraph import _jax
from stategraph.errors import StateAccessError, TraceError, describe
from stategraph.ir.core import Op, Region, Value
from stategraph.ir.location import Location
from stategraph.tracing.rules import (
    Enclosing,
    Rule,
    closed_over,
    force_jvp,
    force_vjp,
    has_tangents,
    rule_key,
    rule_name,
)

if TYPE_CHECKING:
    from stategraph.tracing.importer import Env, Importer

DEEPEST = 12
"""Functions that one line of Python makes, in the rules of each other."""


def import_jvp(importer: Importer, eqn: Any, operands: list[Value], location: Location) -> Op:
    """A function with a rule of forward differentiation."""
    return _with_rules(importer, "custom_jvp", lambda: [force_jvp(eqn)], eqn, operands, location)


def import_vjp(importer: Importer, eqn: Any, operands: list[Value], location: Location) -> Op:
    """A function whose pullback is written out, in a forward and a backward part."""
    return _with_rules(importer, "custom_vjp", lambda: force_vjp(eqn), eqn, operands, location)


def _with_rules(
    importer: Importer,
    what: str,
    force: Callable[[], Sequence[Rule]],
    eqn: Any,
    operands: list[Value],
    location: Location,
) -> Op:
    """A function and the rules that ``force`` traces; the first of them takes what the function closes over."""
    depth = _enclosing(importer, eqn, force, location)
    if depth:
        return _recursive(importer, f"flow.{what}", eqn, operands, depth, location)
    consts = closed_over(eqn)
    kept = operands[eqn.params["num_consts"] : consts]
    call = importer.inner(eqn.params["call_jaxpr"], operands[:consts])
    args = operands[consts:]
    if not _needs_rule(importer, eqn):
        return Op("flow.call", args, _jax.result_types(eqn), {"name": rule_name(eqn)}, [call], location)
    with importer.types.seen():
        rules = force()
    with _inside(importer, Enclosing(eqn, rules)):
        regions = [
            _rule_region(importer, rule.body, rule.consts, what, () if number else kept)
            for number, rule in enumerate(rules)
        ]
    attributes = {"name": rules[0].name}
    return Op(f"flow.{what}", args, _jax.result_types(eqn), attributes, [call, *regions], location)


def import_kept(importer: Importer, eqn: Any, operands: list[Value], location: Location) -> Op:
    """A call of a function that keeps its rule through derivatives."""
    avals = [atom.aval for atom in eqn.invars]
    jaxpr, consts = _jax.trace_flat(eqn.params["function"], avals, traced_for="stategraph rule", name="kept")
    region = _rule_region(importer, jaxpr, consts, "custom_jvp")
    return Op("flow.call", operands, _jax.result_types(eqn), {"name": "kept"}, [region], location)


def _needs_rule(importer: Importer, eqn: Any) -> bool:
    """Whether a derivative rule can still matter: not for integers, nor where nobody will differentiate
    any more.
    """
    return importer.keep_rules and has_tangents(eqn)


def _enclosing(importer: Importer, eqn: Any, force: Callable[[], Sequence[Rule]], location: Location) -> int:
    """A rule may call its own function (``jax.nn.relu`` does): how many rules up this function is, 0 if
    it is none of them.
    """

    def forced() -> Sequence[Rule]:
        with importer.types.seen():
            return force()

    for depth, known in enumerate(reversed(importer.rules), start=1):
        if known.is_called_by(eqn, forced):
            return depth
    if sum(rule_key(known.eqn) == rule_key(eqn) for known in importer.rules) >= DEEPEST:
        raise TraceError(
            describe(
                f"The derivative rule of {rule_name(eqn)} calls another function with a rule, whose rule does so too, and "
                f"so on, {DEEPEST} times.",
                at=location,
                why="a program holds the rules of all its functions, each once",
                fix="let the rule call its own function, or write out what the other one computes",
            )
        )
    return 0


def _recursive(
    importer: Importer, name: str, eqn: Any, operands: list[Value], depth: int, location: Location
) -> Op:
    """A call of a function inside its own rule. What the function closes over comes first among the
    operands.
    """
    consts = len(operands) - len(importer.rules[-depth].args)
    call = importer.inner(eqn.params["call_jaxpr"], operands[:consts])
    attributes = {"name": rule_name(eqn), "recursive": depth}
    return Op(name, operands[consts:], _jax.result_types(eqn), attributes, [call], location)


@contextlib.contextmanager
def _inside(importer: Importer, function: Enclosing) -> Iterator[None]:
    """While the rules of a function are imported."""
    importer.rules.append(function)
    try:
        yield
    finally:
        importer.rules.pop()


def _rule_region(
    importer: Importer, jaxpr: Any, consts: Sequence[Any], what: str, kept: Sequence[Value] = ()
) -> Region:
    """The body of a derivative rule; its first inputs are bound to ``kept``. It may read State, and write
    only what it creates.
    """
    born = {alloc.params["token"] for alloc in _jax.equations_of(jaxpr, ("state_alloc",))}
    for write in _jax.equations_of(jaxpr, ("state_write",)):
        if write.params["token"] not in born:
            raise StateAccessError(
                describe(
                    f"A State is written in a derivative rule of {what}.",
                    state=importer.symbol(write.params["token"]),
                    at=_jax.location_of(write),
                    why="a rule runs only when a gradient is taken, so the write would come and go with it",
                    fix="write the State in the function itself",
                )
            )
    region = Region([_jax.type_of(var.aval) for var in jaxpr.invars[len(kept) :]])
    env: Env = dict(zip(jaxpr.invars, [*kept, *region.args], strict=True))
    outer, importer.depth = importer.depth, 0  # a rule is a body of its own
    importer.fill(region, jaxpr, consts, env)
    importer.depth = outer
    return region

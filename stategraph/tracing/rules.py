"""Derivative rules as bodies.

``jax.custom_jvp`` and ``jax.custom_vjp`` keep their rules as Python functions that run when a gradient is
taken. Here they are run once, while the trace is active, so that a program contains them and expanding a
gradient never runs user code again.

Conventions: only *differentiable* operands and results (not integers) have tangents. A jvp body takes the
operands and their tangents and gives the results and their tangents. A forward body gives the results and the
residuals; a backward body takes the residuals and the results' cotangents and gives the operands' cotangents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from stategraph import _jax


@attrs.frozen
class Rule:
    """One rule as a jaxpr, with the values of its constants."""

    body: Any
    consts: Sequence[Any]
    name: str


@attrs.frozen(eq=False)
class Enclosing:
    """A function whose rules are being imported."""

    eqn: Any
    rules: Sequence[Rule]

    @property
    def args(self) -> list[str]:
        """The types of its arguments."""
        return [str(atom.aval) for atom in self.eqn.invars[closed_over(self.eqn) :]]

    def is_called_by(self, eqn: Any, force: Callable[[], Sequence[Rule]]) -> bool:
        """Whether an equation in one of its rules calls this function; ``force`` gives the rules of what it calls.

        What one line of Python makes, a decorator say, may be many functions: those that compute the same and have rules
        that compute the same are one.
        """
        avals, args = [str(atom.aval) for atom in eqn.invars], self.args
        if rule_key(eqn) != rule_key(self.eqn) or avals[len(avals) - len(args) :] != args:
            return False
        if "#" in rule_key(eqn)[0]:  # a name that our own backend gave to one function
            return True
        if _jax.outline(eqn.params["call_jaxpr"]) != _jax.outline(self.eqn.params["call_jaxpr"]):
            return False
        if len(avals) - len(args) != eqn.params["num_consts"]:
            return True  # what it closes over became arguments, of which its rules know nothing
        if any(_jax.equations_of(rule.body, STATE) for rule in self.rules):
            return True  # its rules are not traced again: each access of State has its place
        return _outlines(force()) == _outlines(self.rules)


def _outlines(rules: Sequence[Rule]) -> list[Any]:
    return [_jax.outline(rule.body, rule.consts) for rule in rules]


STATE = ("state_read", "state_write", "state_alloc")


def differentiable(avals: Sequence[Any]) -> tuple[int, ...]:
    """Positions that have tangents."""
    return tuple(i for i, aval in enumerate(avals) if _jax.has_tangent(aval))


def has_tangents(eqn: Any) -> bool:
    """Whether any argument of the function can be differentiated."""
    return bool(differentiable([atom.aval for atom in eqn.invars[closed_over(eqn) :]]))


def closed_over(eqn: Any) -> int:
    """How many leading operands are what the function closes over, not its arguments.

    JAX counts them; for functions that our own backend made (``name#tag.arguments``) the arguments are
    counted instead, since JAX turns constants into operands when it evaluates a jaxpr.
    """
    name = _source(eqn).split(" ")[0]
    if "#" in name:
        return len(eqn.invars) - int(name.rsplit(".", 1)[1])
    count: int = eqn.params["num_consts"]
    return count


def _operand_avals(eqn: Any) -> list[Any]:
    return [atom.aval for atom in eqn.invars[eqn.params["num_consts"] :]]


def force_jvp(eqn: Any) -> Rule:
    """The jvp body of a ``custom_jvp_call`` equation. Its first inputs are operands that the function closes
    over, if any.
    """
    avals = _operand_avals(eqn)
    kept = closed_over(eqn) - eqn.params["num_consts"]
    active = [i for i in differentiable(avals) if i >= kept]
    zeros = [i not in active for i in range(len(avals))]
    jaxpr, consts, out_zeros = eqn.params["jvp_jaxpr_fun"].call_wrapped(*zeros)
    out_avals = [var.aval for var in eqn.outvars]
    out_active = differentiable(out_avals)
    tangents = [_jax.tangent_aval(avals[i]) for i in active]

    def run(*args: Any) -> list[Any]:
        results = _jax.eval_body(jaxpr, consts, *args)
        primals, given = results[: len(out_zeros)], iter(results[len(out_zeros) :])
        outs = [None if zero else next(given) for zero in out_zeros]
        return primals + [
            _jax.instantiate_zero(_zero(out_avals[i]), _jax.tangent_aval(out_avals[i]))
            if outs[i] is None
            else outs[i]
            for i in out_active
        ]

    name = rule_name(eqn)
    body, body_consts = _jax.trace_flat(run, [*avals, *tangents], traced_for="stategraph rule", name=name)
    return Rule(body, body_consts, name)


def force_vjp(eqn: Any) -> tuple[Rule, Rule]:
    """The forward and backward bodies of a ``custom_vjp_call`` equation."""
    avals = _operand_avals(eqn)
    kept = closed_over(eqn) - eqn.params["num_consts"]
    out_avals = [var.aval for var in eqn.outvars]
    jaxpr, consts = eqn.params["fwd_jaxpr_thunk"].call_wrapped(*[i >= kept for i in range(len(avals))])
    _, _residual_tree, forwarded = eqn.params["out_trees"]()
    offset = eqn.params["num_consts"]

    def forward(*args: Any) -> list[Any]:
        results = _jax.eval_body(jaxpr, consts, *args)
        count = len(results) - len(out_avals)
        own = iter(results[:count])
        residuals = [next(own) if f is None else args[f - offset] for f in forwarded]
        return [*results[count:], *residuals]

    name = rule_name(eqn)
    fwd, fwd_consts = _jax.trace_flat(forward, avals, traced_for="stategraph rule", name=name)
    residual_avals = [var.aval for var in fwd.outvars[len(out_avals) :]]
    active, out_active = [i for i in differentiable(avals) if i >= kept], differentiable(out_avals)
    cotangents = [_jax.tangent_aval(out_avals[i]) for i in out_active]
    bwd_function = eqn.params["bwd"]

    def backward(*args: Any) -> list[Any]:
        residuals, given = args[: len(residual_avals)], iter(args[len(residual_avals) :])
        full = [next(given) if i in out_active else _zero(out_avals[i]) for i in range(len(out_avals))]
        for store in getattr(bwd_function, "stores", ()):
            if store:
                store.reset()
        results = _jax.cotangents(bwd_function.call_wrapped(*residuals, *full))
        return [_jax.instantiate_zero(results[i], _jax.tangent_aval(avals[i])) for i in active]

    bwd, bwd_consts = _jax.trace_flat(
        backward, [*residual_avals, *cotangents], traced_for="stategraph rule", name=name
    )
    return Rule(fwd, fwd_consts, name), Rule(bwd, bwd_consts, name)


def _zero(aval: Any) -> Any:
    from jax.custom_derivatives import SymbolicZero

    return SymbolicZero(_jax.tangent_aval(aval))


def rule_name(eqn: Any) -> str:
    """The name of the function that has the rule."""
    return _source(eqn).split(" ")[0].split("#")[0] or "rule"


def rule_key(eqn: Any) -> tuple[Any, ...]:
    """What tells functions with rules apart: where they are written, and the types of their results."""
    return (_source(eqn), tuple(str(var.aval) for var in eqn.outvars))


def _source(eqn: Any) -> str:
    jaxpr, _ = _jax.body_parts(eqn.params["call_jaxpr"])
    info = getattr(jaxpr, "debug_info", None)
    return str(info.func_src_info or "") if info is not None else ""

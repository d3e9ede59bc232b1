"""The plans of one function: found by what a call depends on, made when there is none.

The plan of the last call is tried first, at the cost of one comparison of integers (``EPOCHS.structure``) and
JAX's own look at the types.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from typing import Any

import attrs

from stategraph import _jax
from stategraph.backends.xla import SignatureMiss, build
from stategraph.errors import CallError
from stategraph.passes.manager import PassManager
from stategraph.recording import EPOCHS
from stategraph.tracing.functions import (
    Signature,
    Split,
    argument_names,
    is_dead,
    nodes_among,
    of_dynamic,
    split,
)
from stategraph.tracing.nans import watched_call
from stategraph.tracing.pause import paused_gc
from stategraph.tracing.plan import Plan
from stategraph.tracing.shardings import Shardings
from stategraph.tracing.tracer import Trace, program_name, trace_function

MOST_PLANS = 64
"""How many plans are kept for the same static arguments."""


class PlanCache:
    """The compiled forms of one function. It does not hold the function: every call brings it."""

    def __init__(
        self,
        passes: Any = "default",
        exactness: str = "reduction-order",
        *,
        assignments: bool = False,
        debug_nans: bool = False,
        shardings: Shardings | None = None,
        name: str | None = None,
    ) -> None:
        self.shardings = shardings
        self.name = name
        """The name of the programs, when it is not the function's."""
        self.debug_nans = debug_nans
        """Whether NaN in results or States is an error that says where it arose."""
        self.assignments = assignments
        """Whether calls repeat all attribute assignments of the traced function."""
        self.manager = PassManager(passes, exactness=exactness)
        self.fast: Plan | None = None
        """The plan of the last call, when it had neither static nor donated arguments."""
        self.plans: dict[Hashable, list[Plan]] = {}
        self.lock = threading.RLock()
        self.trace_count = 0

    @_jax.boundary
    def call(
        self,
        function: Callable[..., Any],
        signature: Signature,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        plan = self.fast
        if plan is not None and plan.epoch == EPOCHS.structure and plan.containers_hold():
            try:
                return plan(args, kwargs)
            except SignatureMiss:
                pass
        nans, infinities = _jax.watched_numbers()
        if nans or infinities or self.debug_nans:
            return self._watched(function, signature, args, kwargs, infinities)
        parts = split(signature, args, kwargs)
        try:
            with self.lock, paused_gc():
                plan = self._find(function, parts)
                if plan.compiling == math.inf:
                    plan.compile(parts.args, parts.kwargs, parts.given)
                plain = signature.plain and parts.key == (len(parts.args), ())
                self.fast = plan if plain else None
            return plan(parts.args, parts.kwargs, parts.given)
        except SignatureMiss:
            raise CallError(
                f"{program_name(function)!r} was compiled for these types and then refused them\n"
                "  fix: please report this as a bug of StateGraph"
            ) from None

    def _watched(
        self,
        function: Callable[..., Any],
        signature: Signature,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        infinities: bool,
    ) -> Any:
        """A call whose results and States may not be NaN. No argument is donated, and no later call is fast."""
        kept = attrs.evolve(signature, donate_nums=frozenset(), donate_names=frozenset())
        parts = split(kept, args, kwargs)
        with self.lock:
            plan = self._find(function, parts)
            self.fast = None
        return watched_call(
            lambda: plan(parts.args, parts.kwargs),
            {path: reference() for path, reference in plan.states.items() if path not in plan.born},
            lambda: self.trace(function, parts),
            parts.args,
            parts.kwargs,
            infinities,
        )

    def _find(self, function: Callable[..., Any], parts: Split) -> Plan:
        plans = self.plans.setdefault(parts.key, [])
        merged = merge_split(parts)
        for position, plan in enumerate(plans):
            if plan.current() and plan.matches(*merged):
                plans.insert(0, plans.pop(position))
                return plan
        del plans[MOST_PLANS:]
        for key in [key for key in self.plans if is_dead(key)]:
            del self.plans[key]
        with paused_gc():
            plan = self._make(function, parts)
        plans.insert(0, plan)
        return plan

    def _make(self, function: Callable[..., Any], parts: Split) -> Plan:
        record = self.trace(function, parts)
        outcome = self.manager.run(record.program, copy=False)
        options: dict[str, Any] = {}
        if self.shardings is not None:
            given = () if parts.given is None else tuple(parts.given[0])
            options = {**self.shardings.options(), "given": given}
        plan = Plan(build(outcome.program, record.in_tree, record.out_tree, **options), record)
        plan.executable.x64 = _jax.x64()
        if not plan.holds():
            raise CallError(
                f"{plan.name!r} changes, while it is traced, attributes that it depends on; keep what changes in a State"
            )
        return plan

    @_jax.boundary
    def trace(self, function: Callable[..., Any], parts: Split) -> Trace:
        """Trace the function at one call's arguments."""
        self.trace_count += 1
        args, kwargs = merge_split(parts)
        names = argument_names(function, parts, args, kwargs)
        record = trace_function(
            of_dynamic(function, parts),
            args,
            kwargs,
            roots=function,
            objects=nodes_among(function, parts),
            name=self.name or program_name(function),
            argument_names=names,
            assignments=self.assignments,
        )
        if self.shardings is not None:
            self.shardings.declare(record)
        return record

    def clear(self) -> None:
        """Forget all plans."""
        with self.lock:
            self.plans.clear()
            self.fast = None


def merge_split(parts: Split) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The dynamic arguments of a call, donated ones included."""
    from stategraph.backends.xla import merge_given

    if parts.given is None:
        return parts.args, parts.kwargs
    merged: tuple[tuple[Any, ...], dict[str, Any]] = merge_given(parts.args, parts.kwargs, parts.given)
    return merged

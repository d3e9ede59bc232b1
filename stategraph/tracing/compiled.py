"""The last stage of a program: an executable that reads and writes live States, or a mapping of their values."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends.params import treedef_of
from stategraph.backends.xla import Executable, SignatureMiss
from stategraph.errors import CallError, describe
from stategraph.ir.core import Program
from stategraph.recording import EPOCHS
from stategraph.state import State
from stategraph.tracing.binding import different, find, key_text
from stategraph.tracing.nans import watched_call
from stategraph.tracing.plan import Plan
from stategraph.tracing.stage import Explanations, Stage

if TYPE_CHECKING:
    from stategraph.tracing.stages import Lowered


@attrs.define(eq=False, repr=False)
class Compiled(Stage):
    """An executable bound to the live States of its model."""

    program: Program
    lowered: Lowered
    executable: Any
    """JAX's compiled object."""
    times: dict[str, float] = attrs.Factory(dict)
    _plan: Plan | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on the live States, as ``jit`` does; other types or a replaced State are an error here."""
        plan = self._plan
        if plan is None:
            plan = Plan(self.lowered.executable, self.lowered.traced.trace)
            plan.jitted = _Checked(self.executable, plan)
            self._plan = plan
        if plan.epoch != EPOCHS.structure or not plan.containers_hold():
            if not plan.holds():
                raise CallError(
                    describe(
                        f"The model changed since {self.program.name!r} was compiled.",
                        why="a State, attribute or setting that it depends on is another one, or a State has another structure",
                        fix="trace, lower and compile again, or use stategraph.compile.jit, which does so by itself",
                    )
                )
        try:
            nans, infinities = _jax.watched_numbers()
            if nans or infinities:
                return self._watched(plan, args, kwargs, infinities)
            return plan(args, kwargs)
        except SignatureMiss:
            held = [*(c.v for c in (*plan.donated, *plan.kept)), *plan.captured]
            raise self._mismatch(held, args, kwargs) from None

    def _watched(self, plan: Plan, args: Any, kwargs: Any, infinities: bool) -> Any:
        record = self.lowered.traced.trace
        call = functools.partial(plan, args, kwargs)
        return watched_call(call, record.states, lambda: record, args, kwargs, infinities)

    @property
    def states(self) -> dict[str, State[Any]]:
        """The live States behind the program's symbols, by path."""
        return self.lowered.states

    def _mismatch(self, inputs: list[Any], args: Any, kwargs: Any) -> CallError:
        executable = self.lowered.executable
        leaves, tree = jax.tree.flatten((args, kwargs))
        if tree != executable.in_tree:
            return CallError(
                f"{self.program.name!r} was compiled for arguments of another structure\n"
                f"  given:    {tree}\n  compiled: {executable.in_tree}\n"
                "  fix:   compile again at these arguments, or use stategraph.compile.jit"
            )
        names = [f"@{path}" for path, _ in (*executable.donated, *executable.kept)]
        names += list(self.program.captured) + [
            n for n in self.program.argument_names if n not in self.program.captured
        ]
        given = [*inputs, *leaves]
        return different(self.program.name, names, given, executable.input_avals)

    def functional(self, states: Mapping[Any, Any], *args: Any, **kwargs: Any) -> tuple[Any, dict[Any, Any]]:
        """``(result, new states)`` from a mapping of States or their values by path; no live State is
        touched.

        The keys are paths as texts or tuples, such as those of ``model.states()``; the new mapping has the
        same keys, and those of States that the program creates.
        """
        executable = self.lowered.executable
        keys = {key_text(key): key for key in states}
        needed = dict.fromkeys(
            path for path, _ in (*executable.donated, *executable.kept, *executable.written)
        )
        known = {path: find(path, keys) for path in needed}
        reads = {path for path, _ in (*executable.donated, *executable.kept)}
        missing = sorted(path for path in reads if known[path] is None)
        if missing:
            raise CallError(
                f"the mapping of States has no {', '.join('@' + path for path in missing)}; it has {', '.join(sorted(keys)) or 'nothing'}"
            )
        values = {p: states[keys[name]] for p, name in known.items() if name is not None}
        values = {p: value.value if isinstance(value, State) else value for p, value in values.items()}
        leaves = {path: jax.tree.leaves(value) for path, value in values.items()}
        for path in reads:
            if len(leaves[path]) != len(self.program.states[path].types):
                raise CallError(f"State @{path} has another structure than the program was compiled for")
        donated = _jax.copies([leaves[path][i] for path, i in executable.donated])
        kept = [leaves[path][i] for path, i in executable.kept] + list(self.program.captured.values())
        try:
            new, result = _call_compiled(self.executable, executable, donated, kept, args, kwargs)
        except SignatureMiss:
            raise self._mismatch([*donated, *kept], args, kwargs) from None
        if executable.checks is not None:
            result, failures = result
            executable.checks.raise_failure(failures)
        updated = _updated(self.program, executable, values, leaves, new)
        renamed = {keys[known[p]] if known.get(p) is not None else p: value for p, value in updated.items()}  # type: ignore[index]
        return result, {**states, **renamed}

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        raise self._refuse_to_pickle()

    def as_text(self, dialect: str = "hlo") -> str:
        """The optimised ``hlo``, or any text of the stages before."""
        return str(self.executable.as_text()) if dialect == "hlo" else self.lowered.as_text(dialect)

    def cost_analysis(self) -> Any:
        """XLA's estimate of operations and bytes for the compiled program."""
        return self.executable.cost_analysis()

    def memory_analysis(self) -> Any:
        """XLA's figures for argument, output, temporary and aliased memory."""
        return self.executable.memory_analysis()

    def explain(self) -> Explanations:
        """See ``Lowered.explain``."""
        return self.lowered.explain()


def _updated(
    program: Program,
    executable: Executable,
    states: Mapping[str, Any],
    leaves: dict[str, list[Any]],
    new: Sequence[Any],
) -> dict[str, Any]:
    """The mapping of States after a call."""
    result = dict(states)
    changed: dict[str, dict[int, Any]] = {}
    for (path, i), value in zip(executable.written, new, strict=True):
        changed.setdefault(path, {})[i] = value
    for path, values in changed.items():
        symbol = program.states[path]
        if symbol.final_types is not None or symbol.born or path not in leaves:
            flat = [values[i] for i in sorted(values)]
        else:
            flat = [values.get(i, leaf) for i, leaf in enumerate(leaves[path])]
        result[path] = jax.tree.unflatten(treedef_of(symbol.result_tree), flat)
    return result


def _call_compiled(
    compiled: Any, executable: Executable, donated: Any, kept: Any, args: Any, kwargs: Any
) -> Any:
    leaves, tree = jax.tree.flatten((args, kwargs))
    inputs = [*donated, *kept, *leaves]
    if tree != executable.in_tree or len(inputs) != len(executable.input_avals):
        raise SignatureMiss
    for value, expected in zip(inputs, executable.input_avals, strict=True):
        try:
            aval = _jax.typeof(value)
        except TypeError:
            raise SignatureMiss from None
        if aval.shape != expected.shape or aval.dtype != expected.dtype:
            raise SignatureMiss
    return compiled(donated, kept, *args, **kwargs)


class _Checked:
    """A compiled object that answers other types as ``jax.jit`` does through its cache: with
    ``SignatureMiss``.
    """

    def __init__(self, compiled: Any, plan: Plan) -> None:
        self.compiled = compiled
        self.plan = plan

    def __call__(self, donated: Any, kept: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _call_compiled(self.compiled, self.plan.executable, donated, kept, args, kwargs)

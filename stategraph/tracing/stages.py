"""The stages of a program: ``Traced`` → ``Lowered`` → ``Compiled``, with JAX's nouns.

traced = stategraph.trace(model, x)      # the program as traced
lowered = traced.lower()                 # after the passes, ready for XLA
compiled = lowered.compile()             # an executable
y = compiled(x)                          # reads and writes the live States
y, new = compiled.functional(states, x)  # touches none
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends.params import treedef_of
from stategraph.backends.xla import Executable, SignatureMiss, build, strip_host_effects
from stategraph.errors import CallError, LoweringError, PickleError, TraceError, describe
from stategraph.ir.core import Program
from stategraph.ir.event_ops import EVENT_OPS
from stategraph.ir.shards import sharding_text
from stategraph.passes import hooks
from stategraph.passes.base import Pass
from stategraph.passes.context import Explanation
from stategraph.passes.manager import PassManager
from stategraph.recording import EPOCHS
from stategraph.state import State
from stategraph.tracing.binding import different, find, key_text
from stategraph.tracing.nans import watched_call
from stategraph.tracing.pause import paused_gc
from stategraph.tracing.plan import Plan
from stategraph.tracing.shardings import Shardings
from stategraph.tracing.signature import SignatureTable, signature_table
from stategraph.tracing.tracer import Trace


def _validate(before: Program, after: Program, pass_: Pass) -> None:
    from stategraph.backends.reference_compare import validate_pass

    validate_pass(before, after, pass_)


if hooks.validator() is None:
    hooks.install(validate=_validate)


def _machine() -> str:
    """What passes have in mind unless somebody names a platform: this machine, with its native kernels."""
    backend: str = jax.default_backend()
    kernels = backend == "cpu" and importlib.util.find_spec("numba") is not None
    return "cpu-native" if kernels else backend


hooks.install(platform=_machine)


HERE = {"lowering_platforms": None}
"""An option of JAX's lowering: for this machine. XLA compiles no program that is for several platforms."""


class Explanations(list[Explanation]):
    """Records of what was decided about States and ops; prints one a line."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


class Stage:
    """What all stages have: a program and its signature."""

    program: Program

    @property
    def signature(self) -> SignatureTable:
        """Inputs, State in, outputs and State out, by name."""
        return signature_table(self.program)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.program!r}>"

    def _refuse_to_pickle(self) -> PickleError:
        kind = type(self).__name__
        return PickleError(
            describe(
                f"{kind} programs cannot be pickled or copied: {self.program.name!r} is one.",
                why="it is bound to an executable and to live States of this process",
                fix="keep `.export()` of it (`.save(path)`, `.to_bytes()`), which runs without the model; or pickle the model and "
                "compile it again; a model may hold stategraph.compile.jit(function), which is pickled with it",
            )
        )

    def _repr_html_(self) -> str:
        return self.program._repr_html_()


@attrs.define(eq=False, repr=False)
class Traced(Stage):
    """A traced function: ``program`` is as traced and never changes."""

    program: Program
    trace: Trace
    exactness: str = "reduction-order"
    passes: Any = "default"
    times: dict[str, float] = attrs.Factory(dict)
    """Seconds that each stage took."""
    shardings: Shardings | None = None
    """Where arguments and results lie, if anybody said."""

    def lower(
        self,
        *args: Any,
        passes: Any = None,
        exactness: str | None = None,
        platforms: Sequence[str] | None = None,
        strip_host_effects: bool = False,
        instruments: Sequence[Any] = (),
        **kwargs: Any,
    ) -> Lowered:
        """Run the passes and emit the program for XLA.

        Args:
          passes: a pipeline as text, passes, or a list of both; the default pipeline when not given.
          exactness: what the passes may do to floating point: ``exact``, ``reduction-order`` or
            ``fast-math``.
          platforms: compile for these instead of this machine: any of ``cpu``, ``cuda``, ``rocm``, ``tpu``.
          strip_host_effects: drop callbacks and debug prints, which cannot be lowered for other platforms;
            ``Lowered.stripped`` lists them.
          instruments: of ``stategraph.passes``, to verify, time or print after each pass.
        """
        if args or kwargs:
            raise TraceError(
                "this program is already traced at its arguments; call .lower() without any, or trace(function).lower(*args)"
            )
        level = exactness or self.exactness
        manager = PassManager(
            passes if passes is not None else self.passes,
            exactness=level,
            instruments=instruments,
            platform=_platform_of(platforms),
        )
        start = time.perf_counter()
        with paused_gc():
            outcome = manager.run(self.program)
            middle = time.perf_counter()
            program = outcome.program
            stripped = strip_host_effects_of(program, platforms, strip_host_effects)
            said = {} if self.shardings is None else self.shardings.options()
            executable = build(program, self.trace.in_tree, self.trace.out_tree, **said)
        times = {**self.times, "passes": middle - start, "emit": time.perf_counter() - middle}
        return Lowered(
            program,
            self,
            executable,
            Explanations(outcome.explanations),
            tuple(platforms or ()),
            stripped,
            times,
        )

    def explain(self) -> Explanations:
        """One record per State: what it is and where the program touches it."""
        found = Explanations()
        for path, symbol in self.program.states.items():
            reads = sum(op.symbol == path for op in self.program.walk("state.read"))
            writes = sum(op.symbol == path for op in self.program.walk("state.write"))
            found.append(
                Explanation(
                    "trace",
                    f"@{path}",
                    symbol.location,
                    "is a State of the program",
                    "",
                    {"reads": reads, "writes": writes, "bytes": symbol.nbytes},
                )
            )
            if "sharding" in symbol.attributes:
                where = ", ".join(map(sharding_text, symbol.attributes["sharding"]))
                found.append(
                    Explanation(
                        "trace",
                        f"@{path}",
                        symbol.location,
                        f"is {where}",
                        "its sharding is declared",
                        {"bytes": symbol.nbytes},
                        "State(..., sharding=) or jit(state_shardings=)",
                    )
                )
        for name, array in self.program.captured.items():
            found.append(
                Explanation(
                    "trace",
                    f"%{name}",
                    self.program.location,
                    "is a captured array",
                    "the code closes over it",
                    {"bytes": int(array.nbytes)},
                    "make it a State or an argument when it is to change",
                )
            )
        return found

    def as_text(self, dialect: str = "stategraph") -> str:
        """The program as text; ``stategraph`` is the only dialect before lowering."""
        if dialect != "stategraph":
            raise LoweringError(
                f"a traced program has no {dialect} text yet; write .lower().as_text({dialect!r})"
            )
        return str(self.program)


def _platform_of(platforms: Sequence[str] | None) -> str | None:
    """What passes have in mind: of several platforms one that is no CPU, which is good on all."""
    found = [
        "gpu" if platform in ("cuda", "rocm") else platform
        for platform in platforms or ()
        if platform != "cpu"
    ]
    return found[0] if found else "cpu" if platforms else None


def strip_host_effects_of(program: Program, platforms: Sequence[str] | None, strip: bool) -> list[str]:
    """Drop host effects when asked; refuse them when the program is for another platform."""
    stripped = [f"{op.name} at {op.location}" for op in strip_host_effects(program)] if strip else []
    if platforms is not None:
        refuse_host_effects(program, "lowered for other platforms")
    return stripped


def refuse_host_effects(program: Program, what: str) -> None:
    """Raise ``LoweringError`` naming the first host op."""
    for op in program.walk(
        "host.debug_print", "host.debug_callback", "host.io_callback", "host.pure_callback"
    ):
        raise LoweringError(
            describe(
                f"{op.name} cannot be {what}.",
                at=op.location,
                why="it calls Python of this process",
                fix="remove it, or pass strip_host_effects=True to leave out prints and callbacks whose results are not used",
            )
        )


@attrs.define(eq=False, repr=False)
class Lowered(Stage):
    """A program after the passes, emitted for XLA."""

    program: Program
    traced: Traced
    executable: Executable
    explanations: Explanations
    platforms: tuple[str, ...] = ()
    stripped: list[str] = attrs.Factory(list)
    """The host effects that were left out on request."""
    times: dict[str, float] = attrs.Factory(dict)
    _lowered: Any = None

    @property
    def jax_lowered(self) -> Any:
        """JAX's own lowering of the program."""
        if self._lowered is None:
            start = time.perf_counter()
            self._lowered = self._lower({})
            self.times["lower"] = time.perf_counter() - start
        return self._lowered

    def _lower(self, options: dict[str, Any]) -> Any:
        if self.platforms:
            options = {"lowering_platforms": self.platforms, **options}
        with paused_gc():
            donated, kept, args, kwargs = self._example()
            return self.executable.jit.trace(donated, kept, *args, **kwargs).lower(**options)

    def _for_text(self, native: bool, options: dict[str, Any] | None = None) -> Any:
        """JAX's lowering; without ``native``, one that names no function of this process."""
        if not native and next(self.program.walk(*EVENT_OPS), None) is not None:
            options = {**(options or {}), **_jax.lowering_without_foreign_calls()}
        return self.jax_lowered if options is None else self._lower(options)

    @property
    def states(self) -> dict[str, State[Any]]:
        """The live States behind the program's symbols, by path."""
        return {**self.traced.trace.states, **self.traced.trace.born}

    def _example(self) -> tuple[Any, ...]:
        executable = self.executable
        lies = {} if executable.placement is None else executable.placement.states
        places = [lies.get(leaf) for leaf in (*executable.donated, *executable.kept)]
        structs = [
            _struct(aval, sharding)
            for aval, sharding in itertools.zip_longest(executable.input_avals, places)
        ]
        n, m = len(executable.donated), len(executable.kept) + len(self.program.captured)
        args, kwargs = jax.tree.unflatten(executable.in_tree, structs[n + m :])
        return structs[:n], structs[n : n + m], args, kwargs

    def compile(self) -> Compiled:
        """Compile with XLA for this machine."""
        if self.platforms and jax.default_backend() not in {
            "gpu" if p in ("cuda", "rocm") else p for p in self.platforms
        }:
            raise LoweringError(
                f"the program was lowered for {', '.join(self.platforms)}, and this machine runs {jax.default_backend()}; "
                "use .as_text('stablehlo') or export it"
            )
        lowered = self.jax_lowered if len(self.platforms) < 2 else self._lower(HERE)
        start = time.perf_counter()
        compiled = lowered.compile()
        times = {**self.times, "compile": time.perf_counter() - start}
        return Compiled(self.program, self, compiled, times)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        raise self._refuse_to_pickle()

    def as_text(self, dialect: str = "stategraph", *, native: bool = False) -> str:
        """The program as ``stategraph``, ``jaxpr``, ``stablehlo`` or (compiled) ``hlo`` text.

        Event products are written out in the last two, as programs that are exported have them; with ``native`` they
        are calls of native kernels, as in the program that runs here.
        """
        if dialect == "stategraph":
            return str(self.program)
        if dialect == "jaxpr":
            return str(self.executable.body)
        if dialect == "stablehlo":
            return str(self._for_text(native).as_text())
        if dialect == "hlo":
            lowered = self._for_text(native, HERE if len(self.platforms) > 1 else None)
            if lowered is not self._lowered:
                return str(lowered.compile().as_text())
            return self.compile().as_text("hlo")
        raise ValueError(f"dialect is 'stategraph', 'jaxpr', 'stablehlo' or 'hlo', not {dialect!r}")

    def cost_analysis(self) -> Any:
        """XLA's estimate of operations and bytes, before compiling."""
        return self.jax_lowered.cost_analysis()

    def explain(self) -> Explanations:
        """One record per decision: which State or op, where, which pass, what, why, figures, how to change
        it.
        """
        found = Explanations(self.traced.explain())
        found += self.explanations
        donated = {path for path, _ in self.executable.donated}
        for path, symbol in self.program.states.items():
            if path in donated:
                found.append(
                    Explanation(
                        "xla",
                        f"@{path}",
                        symbol.location,
                        "is updated in place",
                        "it is read and written",
                        {"bytes": symbol.nbytes},
                    )
                )
        return found

    def export(self, **options: Any) -> Any:
        """A self-contained artefact: StableHLO, State signature and initial values. See
        ``stategraph.export``.
        """
        from stategraph.tracing.export import export_lowered

        return export_lowered(self, **options)


def _struct(aval: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type, sharding=sharding)


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
                        why="a State or an attribute that the program depends on was replaced, or a State has another structure",
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

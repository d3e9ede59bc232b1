"""The stages of a program: ``Traced`` → ``Lowered`` → ``Compiled``, with JAX's nouns.

traced = stategraph.trace(model, x)      # the program as traced
lowered = traced.lower()                 # after the passes, ready for XLA
compiled = lowered.compile()             # an executable
y = compiled(x)                          # reads and writes the live States
y, new = compiled.functional(states, x)  # touches none
"""

from __future__ import annotations

import importlib.util
import itertools
import time
from collections.abc import Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends.xla import Executable, build, strip_host_effects
from stategraph.errors import LoweringError, TraceError, describe
from stategraph.ir.core import Program
from stategraph.ir.event_ops import EVENT_OPS
from stategraph.ir.shards import sharding_text
from stategraph.passes import hooks
from stategraph.passes.base import Pass
from stategraph.passes.context import Explanation
from stategraph.passes.manager import PassManager
from stategraph.state import State
from stategraph.tracing.compiled import Compiled
from stategraph.tracing.pause import paused_gc
from stategraph.tracing.shardings import Shardings
from stategraph.tracing.stage import Explanations, Stage
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

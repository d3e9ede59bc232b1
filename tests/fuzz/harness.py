"""One generated program, run in every way, and what differs.

(a) plain Python under ``jax.disable_jit``; (b) the reference interpreter on the traced program; (c)
compiled, with the default passes, and every few programs with kernels of generated code wherever one can be made;
(d) the reference interpreter after random pipelines. Results, States and printed output have to agree.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import linecache
import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import jax
import jax.numpy as jnp

from stategraph.backends import reference
from stategraph.backends.checks import CheckFailure
from stategraph.backends.reference_compare import EXACT, FAST_MATH, REDUCTION_ORDER, differs
from stategraph.errors import CheckError, StateGraphError
from stategraph.ir.core import Program
from stategraph.passes import DEFAULT, Verify, run_passes
from stategraph.tracing.tracer import trace_function
from tests.support import EventFacts, contraction_free, roundtrip, verify


@attrs.frozen
class Failure:
    """What went wrong, and in which way of running."""

    stage: str
    message: str
    pipeline: str = ""
    program: str = ""
    """The text of the traced program, if it got so far."""

    @property
    def key(self) -> tuple[str, str]:
        """What a reduced program has to keep: the stage and the kind of trouble, without names and
        numbers."""
        first = self.message.split("\n")[0]
        return (self.stage, re.sub(r"[\d.]+|'[^']*'|@\w+|%\w+|\[.*\]", "", first)[:60])

    def __str__(self) -> str:
        return f"{self.stage}{f' after {self.pipeline}' if self.pipeline else ''}: {self.message}"


class Invalid(Exception):
    """The generated program is no legal Python or JAX: not our fault."""


@attrs.define
class Outcome:
    """All that one run shows."""

    results: list[Any]
    states: dict[str, list[Any]]
    ordered: list[str]
    unordered: list[str]
    log: list[Any]
    failed: str = ""
    """The runtime check that ended the run, if one did."""


CALLS = 2
"""How often each program is called, State going from call to call."""
_COUNT = 0


def load(source: str) -> dict[str, Any]:
    """Execute a generated module."""
    global _COUNT
    _COUNT += 1
    filename = f"generated_{_COUNT}.py"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    namespace: dict[str, Any] = {"__name__": "generated"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(source, filename, "exec"), namespace)
    return namespace


@contextlib.contextmanager
def printed() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        yield stream
        jax.effects_barrier()


def until_a_check_fails(call: Callable[[], Any]) -> tuple[list[Any], str]:
    """What ``CALLS`` calls return, and the check that failed and ended them."""
    results: list[Any] = []
    for _ in range(CALLS):
        try:
            results.append(call())
        except (CheckError, CheckFailure) as error:
            found = re.search(r"check f\d+ failed", str(error))
            if found is None:
                raise
            return results, found.group()
    return results, ""


def outcome(results: Any, states: dict[str, Any], text: str, log: list[Any], failed: str) -> Outcome:
    lines = re.findall(r"^[ou] p\d+ (?:(?!^[ou] p).)*", text, re.MULTILINE | re.DOTALL)
    ordered = [line.strip() for line in lines if line.startswith("o")]
    unordered = sorted(line.strip() for line in lines if line.startswith("u"))
    leaves = {name: [jnp.asarray(leaf) for leaf in jax.tree.leaves(value)] for name, value in states.items()}
    return Outcome(
        [jnp.asarray(leaf) for leaf in jax.tree.leaves(results)],
        leaves,
        ordered,
        unordered,
        list(log),
        failed,
    )


def run_eagerly(source: str) -> Outcome:
    module = load(source)
    module["checkpoint"] = lambda function: function  # jax.checkpoint traces even under disable_jit
    program, args, states = module["make"]()
    with printed() as stream, jax.disable_jit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results, failed = until_a_check_fails(lambda: program(*args))
    after = {name: state.value for name, state in states.items()}
    return outcome(results, after, stream.getvalue(), module["LOG"], failed)


class Traced:
    """A traced program and what the reference interpreter needs to run it."""

    def __init__(self, source: str) -> None:
        self.module = load(source)
        self.function, self.args, self.states = self.module["make"]()
        self.trace = trace_function(self.function, self.args, {})
        self.names = {
            path: next(n for n, s in self.states.items() if s is live)
            for path, live in self.trace.states.items()
        }

    @property
    def program(self) -> Program:
        return self.trace.program

    def interpret(self, program: Program) -> Outcome:
        self.module["LOG"].clear()
        values = {path: tuple(jax.tree.leaves(state.value)) for path, state in self.trace.states.items()}
        after: dict[str, Any] = dict(values)

        def call() -> Any:
            found, states = reference.run(
                program, jax.tree.leaves((self.args, {})), after, watcher=EventFacts(program, after)
            )
            after.update(states)
            return found

        with printed() as stream:
            results, failed = until_a_check_fails(call)
        final = {name: state.value for name, state in self.states.items()}
        final.update({self.names[path]: leaves for path, leaves in after.items() if path in self.names})
        return outcome(results, final, stream.getvalue(), self.module["LOG"], failed)


def run_compiled(source: str, passes: Any = "default") -> Outcome:
    from stategraph.compile import jit

    module = load(source)
    program, args, states = module["make"]()
    with printed() as stream, warnings.catch_warnings():
        warnings.filterwarnings("error", "a kernel could not be made")
        compiled = jit(program, passes=passes)
        results, failed = until_a_check_fails(lambda: compiled(*args))
    after = {name: state.value for name, state in states.items()}
    return outcome(results, after, stream.getvalue(), module["LOG"], failed)


def without_signs_of_zeros(outcome: Outcome) -> Outcome:
    """All zeros positive, those in texts too. XLA compiles ``astype(float) * x`` of a bool as
    ``where(b, x, 0.0)``, so a product of 0.0 with a negative number is 0.0 in compiled code, under plain
    ``jax.jit`` too, and -0.0 elsewhere.
    """
    zero = re.compile(r"-(0\.0*(?:e[+-]?0+)?(?![\d.e]))")

    def plain(leaf: Any) -> Any:
        return leaf + jnp.zeros_like(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf

    def text(line: str) -> str:
        return " ".join(zero.sub(r"\1", line).split()).replace("[ ", "[")

    def seen(value: Any) -> Any:
        return [seen(item) for item in value] if isinstance(value, list) else value + 0

    return Outcome(
        [plain(leaf) for leaf in outcome.results],
        {name: [plain(leaf) for leaf in leaves] for name, leaves in outcome.states.items()},
        [text(line) for line in outcome.ordered],
        sorted(text(line) for line in outcome.unordered),
        seen(outcome.log),
        outcome.failed,
    )


def difference(expected: Outcome, found: Outcome, exactness: str) -> str:
    """What differs first; empty if nothing does. Where a check failed, only what was returned before can be
    compared: eager code stops at once, a program commits its States first.
    """
    if expected.failed != found.failed:
        return f"{found.failed or 'no check failed'!r} instead of {expected.failed or 'no check failed'!r}"
    for i, (a, b) in enumerate(zip(expected.results, found.results, strict=True)):
        if text := differs(a, b, exactness):
            return f"result {i} {text}"
    if expected.failed:
        return ""
    for name, leaves in expected.states.items():
        for i, (a, b) in enumerate(zip(leaves, found.states[name], strict=True)):
            if text := differs(a, b, exactness):
                return f"State {name!r} leaf {i} {text}"
    for kind in ("ordered", "unordered"):
        a, b = getattr(expected, kind), getattr(found, kind)
        if exactness != EXACT:
            a, b = _tags(a), _tags(b)
        if a != b:
            return f"{kind} prints are {b} instead of {a}"
    if len(expected.log) != len(found.log) or (exactness == EXACT and str(expected.log) != str(found.log)):
        return f"the callbacks saw {found.log} instead of {expected.log}"
    return ""


def _tags(lines: list[str]) -> list[str]:
    return [" ".join(line.split()[:2]) for line in lines]


EAGER = {
    "batch-loops": "batch-loops{stack_price=0}",
    "derive-outputs": "derive-outputs{min_bytes=0}",
    "outline-native": "outline-native{min_ops=1,scope=all}",
    "rewrite-events": "rewrite-events{mode=always}",
}
"""Passes with options that let them do what they would do in larger programs only."""

KERNELS = ",".join([*(name for name in DEFAULT if name != "outline-native"), EAGER["outline-native"]])
"""The default passes, and all that a kernel can hold in kernels."""
KERNELS_EVERY = 4
"""Of so many programs one is compiled with kernels too."""


def random_pipeline(rng: random.Random) -> str:
    """Passes of the default pipeline in any order, any number of times."""
    default = [EAGER.get(name, name) for name in DEFAULT]
    names = list(dict.fromkeys(default))
    style = rng.random()
    if style < 0.3:
        return ",".join(default[: rng.randrange(1, len(default) + 1)])
    chosen = [rng.choice(names) for _ in range(rng.randrange(1, 8))]
    if "expand-transforms" in chosen:  # it needs bodies without checks and State, and says so
        chosen.insert(chosen.index("expand-transforms"), "lower-checks,hoist-state")
    return ",".join(chosen)


def check(
    source: str, seed: int = 0, *, pipelines: int = 2, compiled: bool = True, only: str = ""
) -> Failure | None:
    """Run a program in every way; None if all agree. Raises ``Invalid`` if the program itself is wrong."""
    try:
        expected = run_eagerly(source)
    except (StateGraphError, jax.errors.UnexpectedTracerError) as error:
        return Failure("eager", _explain(error))
    except Exception as error:
        raise Invalid(f"{type(error).__name__}: {error}") from error
    exact = "EXACT = True" in source
    loose = FAST_MATH
    try:
        traced = Traced(source)
    except Exception as error:
        return Failure("trace", _explain(error))
    text = ""
    try:
        verify(traced.program)
        text = str(traced.program)
        roundtrip(traced.program)
    except Exception as error:
        return Failure("text", _explain(error), program=text)
    try:
        found = traced.interpret(traced.program)
    except Exception as error:
        return Failure("reference", _explain(error), program=text)
    if message := difference(expected, found, EXACT if exact else loose):
        return Failure("reference", message, program=text)
    rng = random.Random(seed)
    for pipeline in [only] if only else ["default", *(random_pipeline(rng) for _ in range(pipelines))]:
        try:
            after = run_passes(traced.program, pipeline, instruments=[Verify()]).program
        except Exception as error:
            return Failure("passes", _explain(error), pipeline, text)
        try:
            changed = traced.interpret(after)
        except Exception as error:
            return Failure("rewritten", _explain(error), pipeline, text)
        if message := difference(found, changed, EXACT if exact else loose):
            return Failure("rewritten", message, pipeline, text)
    ways = ["default"] if compiled and only != KERNELS else []
    if compiled and (only == KERNELS or seed % KERNELS_EVERY == 0) and importlib.util.find_spec("llvmlite"):
        ways.append(KERNELS)
    for passes in ways:
        pipeline = passes if passes == KERNELS else ""
        try:
            ran = run_compiled(source, passes)
        except Exception as error:
            return Failure("compiled", _explain(error), pipeline, text)
        expected, ran = without_signs_of_zeros(found), without_signs_of_zeros(ran)
        if message := difference(expected, ran, EXACT if exact and contraction_free() else loose):
            return Failure("compiled", message, pipeline, text)
    return None


def _explain(error: BaseException) -> str:
    """The error in one line, then where it came from."""
    notes = "\n".join(getattr(error, "__notes__", []))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/stategraph/" in f.filename][-4:]
    places = "\n".join(
        f"    {f.filename.split('/stategraph/', 1)[1]}:{f.lineno} in {f.name}: {f.line}" for f in frames
    )
    return f"{type(error).__name__}: {error}\n{notes}\n{places}"


__all__ = ["REDUCTION_ORDER", "Failure", "Invalid", "check"]

"""The stages of a program: ``Traced`` → ``Lowered`` → ``Compiled``, with JAX's nouns.

    traced = stategraph.trace(model, x)      # the program as traced
    lowered = traced.lower()                 # after the passes, ready for XLA
    compiled = lowered.compile()             # an executable
    y = compiled(x)                          # reads and writes the live States
    y, new = compiled.functional(states, x)  # touches none
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends.xla import Executable, SignatureMiss, build, strip_host_effects
from stategraph.errors import CallError, LoweringError, TraceError, describe
from stategraph.graph.node import Node
from stategraph.graph.walk import path_text, walk
from stategraph.ir.core import Program
from stategraph.passes.context import Explanation
from stategraph.passes.manager import PassManager
from stategraph.state import EPOCHS, Cell, State
from stategraph.tracing.pause import paused_gc
from stategraph.tracing.functions import PLAIN, nodes_among, of_dynamic, split
from stategraph.tracing.plan import Plan
from stategraph.tracing.tracer import Trace, program_name, trace_function

DEVICES = {"gpu": ("cuda",)}


@attrs.frozen
class Row:
    """One line of a signature table."""

    group: str
    name: str
    type: str
    nbytes: int


@attrs.frozen
class SignatureTable:
    """Inputs, States read, results and States written, by name."""

    rows: list[Row]

    def __str__(self) -> str:
        widths = [max([len(str(getattr(row, field))) for row in self.rows] + [len(field)]) for field in ("group", "name", "type")]
        lines = []
        for row in self.rows:
            cells = [str(getattr(row, field)).ljust(width) for field, width in zip(("group", "name", "type"), widths, strict=True)]
            lines.append("  ".join([*cells, f"{row.nbytes:>12,} B"]))
        return "\n".join(lines)

    def __iter__(self) -> Any:
        return iter(self.rows)

    def names(self, group: str) -> list[str]:
        """The names in one group: ``inputs``, ``state in``, ``captured``, ``results`` or ``state out``."""
        return [row.name for row in self.rows if row.group == group]


def signature_table(program: Program) -> SignatureTable:
    """What goes into a program and what comes out, by name."""
    rows = []
    values = program.body.args
    for name, value in zip(program.argument_names, values, strict=True):
        rows.append(Row("captured" if name in program.captured else "inputs", name, str(value.type), value.type.nbytes))
    read = {op.symbol for op in program.walk("state.read")}
    written = {op.symbol for op in program.walk("state.write")}
    for group, paths in (("state in", read), ("state out", written | {p for p, s in program.states.items() if s.born})):
        for path, symbol in program.states.items():
            if path in paths:
                types = symbol.types if group == "state in" else symbol.result_types
                rows.append(Row(group, f"@{path}", ", ".join(map(str, types)), sum(t.nbytes for t in types)))
    for name, value in zip(program.result_names, program.results, strict=True):
        rows.append(Row("results", name, str(value.type), value.type.nbytes))
    return SignatureTable(rows)


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
          exactness: what the passes may do to floating point: ``exact``, ``reduction-order`` or ``fast-math``.
          platforms: compile for these instead of this machine: any of ``cpu``, ``cuda``, ``rocm``, ``tpu``.
          strip_host_effects: drop callbacks and debug prints, which cannot be lowered for other platforms; ``Lowered.stripped`` lists them.
          instruments: of ``stategraph.passes``, to verify, time or print after each pass.
        """
        if args or kwargs:
            raise TraceError("this program is already traced at its arguments; call .lower() without any, or trace(function).lower(*args)")
        level = exactness or self.exactness
        manager = PassManager(passes if passes is not None else self.passes, exactness=level, instruments=instruments)
        start = time.perf_counter()
        with paused_gc():
            outcome = manager.run(self.program)
        middle = time.perf_counter()
        program = outcome.program
        stripped = strip_host_effects_of(program, platforms, strip_host_effects)
        executable = build(program, self.trace.in_tree, self.trace.out_tree)
        times = {**self.times, "passes": middle - start, "emit": time.perf_counter() - middle}
        return Lowered(program, self, executable, Explanations(outcome.explanations), tuple(platforms or ()), stripped, times)

    def explain(self) -> Explanations:
        """One record per State: what it is and where the program touches it."""
        found = Explanations()
        for path, symbol in self.program.states.items():
            reads = sum(op.symbol == path for op in self.program.walk("state.read"))
            writes = sum(op.symbol == path for op in self.program.walk("state.write"))
            found.append(
                Explanation("trace", f"@{path}", symbol.location, "is a State of the program", "", {"reads": reads, "writes": writes, "bytes": symbol.nbytes})
            )
        for name, array in self.program.captured.items():
            found.append(
                Explanation(
                    "trace", f"%{name}", self.program.location, "is a captured array", "the code closes over it", {"bytes": int(array.nbytes)},
                    "make it a State or an argument when it is to change",
                )
            )
        return found

    def as_text(self, dialect: str = "stategraph") -> str:
        """The program as text; ``stategraph`` is the only dialect before lowering."""
        if dialect != "stategraph":
            raise LoweringError(f"a traced program has no {dialect} text yet; write .lower().as_text({dialect!r})")
        return str(self.program)


def strip_host_effects_of(program: Program, platforms: Sequence[str] | None, strip: bool) -> list[str]:
    """Drop host effects when asked; refuse them when the program is for another platform."""
    if strip:
        return [f"{op.name} at {op.location}" for op in strip_host_effects(program)]
    if platforms is not None:
        refuse_host_effects(program, "lowered for other platforms")
    return []


def refuse_host_effects(program: Program, what: str) -> None:
    """Raise ``LoweringError`` naming the first host op."""
    for op in program.walk("host.debug_print", "host.debug_callback", "host.io_callback", "host.pure_callback"):
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
            jitted = jax.jit(self.executable.call, donate_argnums=(0, 5))
            options = {"lowering_platforms": self.platforms} if self.platforms else {}
            with paused_gc():
                self._lowered = jitted.trace(*self._example()).lower(**options)
            self.times["lower"] = time.perf_counter() - start
        return self._lowered

    def _example(self) -> tuple[Any, ...]:
        executable = self.executable
        structs = [_struct(aval) for aval in executable.input_avals]
        n, m = len(executable.donated), len(executable.kept)
        k = len(self.program.captured)
        args, kwargs = jax.tree.unflatten(executable.in_tree, structs[n + m + k :])
        return structs[:n], structs[n : n + m], structs[n + m : n + m + k], args, kwargs, ()

    def compile(self) -> Compiled:
        """Compile with XLA for this machine."""
        if self.platforms and jax.default_backend() not in {"gpu" if p in ("cuda", "rocm") else p for p in self.platforms}:
            raise LoweringError(
                f"the program was lowered for {', '.join(self.platforms)}, and this machine runs {jax.default_backend()}; "
                "use .as_text('stablehlo') or export it"
            )
        lowered = self.jax_lowered
        start = time.perf_counter()
        compiled = lowered.compile()
        times = {**self.times, "compile": time.perf_counter() - start}
        return Compiled(self.program, self, compiled, times)

    def as_text(self, dialect: str = "stategraph") -> str:
        """The program as ``stategraph``, ``jaxpr``, ``stablehlo`` or (compiled) ``hlo`` text."""
        if dialect == "stategraph":
            return str(self.program)
        if dialect == "jaxpr":
            return str(self.executable.body)
        if dialect == "stablehlo":
            return str(self.jax_lowered.as_text())
        if dialect == "hlo":
            return self.compile().as_text("hlo")
        raise ValueError(f"dialect is 'stategraph', 'jaxpr', 'stablehlo' or 'hlo', not {dialect!r}")

    def cost_analysis(self) -> Any:
        """XLA's estimate of operations and bytes, before compiling."""
        return self.jax_lowered.cost_analysis()

    def explain(self) -> Explanations:
        """One record per decision: which State or op, where, which pass, what, why, figures, how to change it."""
        found = Explanations(self.traced.explain())
        found += self.explanations
        donated = {path for path, _ in self.executable.donated}
        for path, symbol in self.program.states.items():
            if path in donated:
                found.append(Explanation("xla", f"@{path}", symbol.location, "is updated in place", "it is read and written", {"bytes": symbol.nbytes}))
        return found

    def export(self, **options: Any) -> Any:
        """A self-contained artefact: StableHLO, State signature and initial values. See ``stategraph.export``."""
        from stategraph.tracing.export import export_lowered

        return export_lowered(self, **options)


def _struct(aval: Any) -> Any:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


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
            return plan(args, kwargs)
        except SignatureMiss:
            raise self._mismatch(args, kwargs, plan) from None

    def _mismatch(self, args: Any, kwargs: Any, plan: Plan) -> CallError:
        names = [*(f"@{p}" for p, _ in plan.executable.donated), *(f"@{p}" for p, _ in plan.executable.kept)]
        cells = [*plan.donated, *plan.kept]
        leaves, tree = jax.tree.flatten((args, kwargs))
        if tree != plan.executable.in_tree:
            return CallError(
                f"{self.program.name!r} was compiled for arguments of another structure\n  given:    {tree}\n  compiled: {plan.executable.in_tree}\n"
                "  fix:   compile again at these arguments, or use stategraph.compile.jit"
            )
        inputs = [*(c.v for c in cells), *plan.captured, *leaves]
        names += list(self.program.captured) + [n for n in self.program.argument_names if n not in self.program.captured]
        wrong = [
            f"{name} is {_jax.type_of(_jax.typeof(value))} and was compiled as {_jax.type_of(expected)}"
            for name, value, expected in zip(names, inputs, plan.executable.input_avals, strict=True)
            if str(_jax.type_of(_jax.typeof(value))) != str(_jax.type_of(expected))
        ]
        return CallError(
            f"{self.program.name!r} was compiled for other types: " + "; ".join(wrong) + "\n  fix:   compile again, or use stategraph.compile.jit"
        )

    def functional(self, states: Mapping[str, Any], *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """``(result, new states)`` from a mapping of State values by path; no live State is touched."""
        executable = self.lowered.executable
        missing = sorted({path for path, _ in (*executable.donated, *executable.kept)} - set(states))
        if missing:
            raise CallError(f"the mapping of States has no {', '.join('@' + path for path in missing)}; it has {', '.join(sorted(states)) or 'nothing'}")
        leaves = {path: jax.tree.leaves(states[path]) for path in states}
        donated = [jax.numpy.array(leaves[path][i], copy=True) for path, i in executable.donated]
        kept = [leaves[path][i] for path, i in executable.kept]
        try:
            result, new = _call_compiled(self.executable, executable, donated, kept, list(self.program.captured.values()), args, kwargs)
        except SignatureMiss:
            raise CallError(f"{self.program.name!r} was compiled for arguments or States of other types or structure") from None
        return result, _updated(self.program, executable, states, leaves, new)

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


def _updated(program: Program, executable: Executable, states: Mapping[str, Any], leaves: dict[str, list[Any]], new: Sequence[Any]) -> dict[str, Any]:
    """The mapping of States after a call."""
    from stategraph.backends.params import treedef_of

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


def _call_compiled(compiled: Any, executable: Executable, donated: Any, kept: Any, captured: Any, args: Any, kwargs: Any) -> Any:
    leaves, tree = jax.tree.flatten((args, kwargs))
    inputs = [*donated, *kept, *captured, *leaves]
    if tree != executable.in_tree or len(inputs) != len(executable.input_avals):
        raise SignatureMiss
    for value, expected in zip(inputs, executable.input_avals, strict=True):
        try:
            aval = _jax.typeof(value)
        except TypeError:
            raise SignatureMiss from None
        if aval.shape != expected.shape or aval.dtype != expected.dtype:
            raise SignatureMiss
    return compiled(donated, kept, captured, args, kwargs, ())


class _Checked:
    """A compiled object that answers other types as ``jax.jit`` does through its cache: with ``SignatureMiss``."""

    def __init__(self, compiled: Any, plan: Plan) -> None:
        self.compiled = compiled
        self.plan = plan

    def __call__(self, donated: Any, kept: Any, captured: Any, args: Any, kwargs: Any, given: Any) -> Any:
        return _call_compiled(self.compiled, self.plan.executable, donated, kept, captured, args, kwargs)


# ------------------------------------------------------------------------------------------------------------ entry points


@attrs.define(eq=False)
class Untraced:
    """A function whose arguments are not known yet: ``trace(model).lower(x)``."""

    function: Callable[..., Any]
    options: dict[str, Any]

    def lower(self, *args: Any, passes: Any = None, exactness: str | None = None, platforms: Any = None, strip_host_effects: bool = False, **kwargs: Any) -> Lowered:
        """Trace at these arguments and lower."""
        traced = trace(self.function, *args, **kwargs, **self.options)
        return traced.lower(passes=passes, exactness=exactness, platforms=platforms, strip_host_effects=strip_host_effects)

    @property
    def program(self) -> Program:
        raise TraceError(self._advice("has no program yet"))

    def _advice(self, what: str) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return (
            f"{name} {what}, since its arguments are not known\n"
            f"  fix:   write trace({name}, x).program or trace({name}).lower(x), with arrays or jax.ShapeDtypeStruct(shape, dtype); "
            "or give the model an attribute example_args = (x,)"
        )


def trace(function: Callable[..., Any], /, *args: Any, passes: Any = "default", exactness: str = "reduction-order", **kwargs: Any) -> Any:
    """Trace a model or function into a program.

    Args:
      function: a Node with ``__call__`` or ``update``, or any callable.
      *args: arrays, scalars or ``jax.ShapeDtypeStruct``s. May be left out when the call takes none, when the model has
        ``example_args``, or to give them to ``.lower(...)`` instead.
      passes, exactness: defaults for ``.lower``.

    Returns:
      ``Traced``; an object with only ``.lower`` when arguments are needed and none were given.

    Example:

    >>> import stategraph as sg
    >>> count = sg.State(0)
    >>> def step():
    ...     count.value += 1
    >>> print(sg.trace(step).program.to_text(locations=False).splitlines()[0])  # doctest: +ELLIPSIS
    program @step...
    """
    target, roots = _callable_of(function)
    if not args and not kwargs and _needs_arguments(target):
        example = getattr(function, "example_args", None)
        if example is None:
            return Untraced(function, {"passes": passes, "exactness": exactness})
        args = tuple(example() if callable(example) else example)
    start = time.perf_counter()
    parts = split(PLAIN, args, kwargs)
    names = None if parts.key[1] else _names_of(target, args, kwargs)
    record = trace_function(
        of_dynamic(target, parts),
        parts.args,
        parts.kwargs,
        roots=roots,
        objects=nodes_among(target, parts),
        name=_model_name(function) or program_name(target),
        argument_names=names,
    )
    traced = Traced(record.program, record, exactness, passes)
    traced.times["trace"] = time.perf_counter() - start
    return traced


def _callable_of(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(what to run, where to look for names): a Node runs as it is called."""
    if isinstance(function, Node):
        if callable(function):
            return function, function
        raise TraceError(f"{type(function).__name__} cannot be called; give it a __call__ or update method")
    inner = getattr(function, "__stategraph_function__", None)
    if inner is not None:
        return inner, inner
    if not callable(function):
        raise TraceError(f"trace needs a model or function, not a {type(function).__name__}")
    return function, function


def _model_name(function: Any) -> str | None:
    return type(function).__name__ if isinstance(function, Node) else None


def _needs_arguments(function: Callable[..., Any]) -> bool:
    import inspect

    target = getattr(function, "update", function) if isinstance(function, Node) else function
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)


def _names_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str] | None:
    """Leaf names from the function's parameter names: ``x``, ``batch['image']``."""
    import inspect

    target = getattr(function, "update", function) if isinstance(function, Node) else function
    try:
        bound = inspect.signature(target).bind(*args, **kwargs)
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return None
    positional: list[str] = []
    for parameter in parameters:
        if parameter.name not in bound.arguments:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += [f"{parameter.name}[{i}]" for i in range(len(bound.arguments[parameter.name]))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) and parameter.name not in kwargs:
            positional.append(parameter.name)
    if len(positional) != len(args):
        return None
    names = []
    for path, _ in jax.tree_util.tree_flatten_with_path((tuple(args), dict(kwargs)))[0]:
        which, key, *rest = path
        root = positional[key.idx] if which.idx == 0 else str(key.key)
        names.append(root + jax.tree_util.keystr(tuple(rest)))
    return names if len(set(names)) == len(names) else None


def lower(program: Program, states: Any = None, *, passes: Any = "default", exactness: str = "reduction-order", platforms: Any = None, strip_host_effects: bool = False) -> Lowered:
    """Lower an edited or parsed program.

    Args:
      program: as from ``stategraph.ir.parse`` or ``traced.program.copy()``.
      states: a model (States are found by path), a mapping of paths to States or values, or nothing: then ``initial`` values of
        the symbols are used.

    Raises ``CallError`` naming States that are missing or of another type.
    """
    from stategraph.backends.params import treedef_of
    from stategraph.ir.verifier import verify

    verify(program)
    live = _states_for(program, states)
    born = {path: live[path] for path, symbol in program.states.items() if symbol.born}
    record = Trace(
        program=program,
        states={path: state for path, state in live.items() if path not in born},
        born=born,
        replays=[],
        guards=[],
        containers=[],
        in_tree=treedef_of(program.argument_tree),
        out_tree=treedef_of(program.result_tree),
    )
    traced = Traced(program, record, exactness, passes)
    return traced.lower(platforms=platforms, strip_host_effects=strip_host_effects)


def _states_for(program: Program, given: Any) -> dict[str, State[Any]]:
    available: dict[str, Any] = {}
    if isinstance(given, Mapping):
        available = {path_text(key) if isinstance(key, tuple) else str(key): value for key, value in given.items()}
    elif given is not None:
        available = {path_text(path): obj for path, obj in walk(given) if isinstance(obj, State)}
    found: dict[str, State[Any]] = {}
    for path, symbol in program.states.items():
        value = available.get(path)
        if value is None:
            value = _by_suffix(path, available)
        if value is None and symbol.initial is not None:
            from stategraph.backends.params import treedef_of

            value = jax.tree.unflatten(treedef_of(symbol.tree), [jax.numpy.asarray(leaf) for leaf in symbol.initial])
        if value is None and symbol.born:
            value = State(0)
            value._cells = tuple(Cell(None) for _ in symbol.types)
        if value is None:
            raise CallError(
                f"no State @{path} was given to lower(); given: {', '.join(sorted(available)) or 'nothing'}\n"
                "  fix:   lower(program, states=model) or states={'path': value}"
            )
        found[path] = value if isinstance(value, State) else State(value)
    return found


def _by_suffix(path: str, available: Mapping[str, Any]) -> Any:
    """A closure's ``net.E.V`` is the model's ``E.V``, and the other way round, when only one fits."""
    fits = [value for name, value in available.items() if path.endswith("." + name) or name.endswith("." + path)]
    return fits[0] if len(fits) == 1 else None

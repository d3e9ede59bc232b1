"""``stategraph dump``: the program of a model at any stage, and tracing for the commands that need it."""

from __future__ import annotations

from typing import Any

from stategraph.cli.arguments import parse_arguments
from stategraph.cli.console import OK, CommandError, UsageError
from stategraph.cli.output import (
    instruments,
    load_files,
    offer_backend,
    render,
    show_explanations,
    show_timing,
    write,
)
from stategraph.cli.targets import call_of, example_args, load_target, user_code
from stategraph.errors import LoweringError
from stategraph.ir.core import Program

LAST = {"hoisted": "eliminate-local-state", "events": "rewrite-events"}
"""The pass that makes a stage: after it State is only read at entry and written at exit; products of events are found.
"""
OF_JAX = ("jaxpr", "stablehlo", "hlo")


def run(options: Any) -> int:
    _check(options)
    load_files(options.load)
    traced = trace_target(options)
    offer_backend(traced.program)
    watchers, timing = instruments(options)
    if options.stage in OF_JAX:
        text, explanations, times = _lowered(traced, options, watchers)
        write(text, options.output)
    else:
        program, explanations = _program(traced, options, watchers)
        times = dict(traced.times)
        write(render(program, options), options.output, is_program=options.format == "text")
    if options.explain:
        show_explanations(explanations)
    if options.timing:
        show_timing(timing, times)
    return OK


def _check(options: Any) -> None:
    stage = options.stage
    if stage in OF_JAX and options.format != "text":
        raise UsageError(f"--format {options.format} is for programs of StateGraph; {stage} is text only")
    if stage in OF_JAX and options.no_locations:
        raise UsageError(f"--no-locations is for programs of StateGraph, not for {stage}")
    if options.platform and stage not in ("stablehlo", "hlo"):
        raise UsageError(f"--platform makes no difference to --stage {stage}; use it with --stage stablehlo")
    if options.strip_host_effects and stage not in OF_JAX:
        raise UsageError(
            f"--strip-host-effects makes no difference to --stage {stage}; use it with --stage stablehlo"
        )
    if stage == "traced" and (options.passes is not None or options.validate_each):
        option = "--validate-each" if options.passes is None else "--passes"
        raise UsageError(f"{option} makes no difference to --stage traced: no pass has run there")


def trace_target(options: Any) -> Any:
    """What ``FILE.py:NAME`` traces to at the types of ``--args``, or at the model's ``example_args``, with the settings of
    ``--set``.
    """
    from stategraph import environ

    try:
        with environ.context(**dict(options.set or ())):
            return _traced(options.target, options.args)
    except environ.EnvironError as error:
        error.add_note("note:  the command has --set for this, as in --set dt=0.1 --set t=0.0")
        raise


def _traced(spec: str, args: str | None) -> Any:
    from stategraph.tracing.entry import trace

    target = load_target(spec)
    example = example_args(target)
    if args is not None:
        positional, named = parse_arguments(args)
    elif example is not None:
        with user_code():
            found = example() if callable(example) else example
        positional, named = (tuple(found) if isinstance(found, (tuple, list)) else (found,)), {}
    else:
        positional, named = (), {}
        if _needs_arguments(target):
            raise UsageError(
                f"{spec} takes arguments {call_of(target)}: give their types, as in --args 'f32[32,8], "
                f"i32[]'",
                "or give the model example_args",
            )
    _check_call(target, spec, positional, named)
    with user_code():
        if hasattr(target, "__stategraph_function__"):
            return target.trace(*positional, **named)  # knows its static arguments and its passes
        return trace(target, *positional, **named)


def _needs_arguments(target: Any) -> bool:
    from stategraph.tracing.entry import _needs_arguments as needs

    return needs(
        getattr(target, "function", target) if hasattr(target, "__stategraph_function__") else target
    )


def _check_call(target: Any, spec: str, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Arguments that do not fit are a mistake in ``--args``, not in the model."""
    import inspect

    from stategraph.graph.node import Node

    function: Any = getattr(target, "update", target) if isinstance(target, Node) else target
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        raise UsageError(f"{spec}{signature} cannot be called with these arguments: {error}") from None


def _program(traced: Any, options: Any, watchers: list[Any]) -> tuple[Program, Any]:
    """(program, explanations) of a stage of ours. Nothing is emitted: what XLA cannot run can be looked at
    all the same.
    """
    if options.stage == "traced":
        return traced.program, traced.explain()
    from stategraph.passes.manager import PassManager

    passes = options.passes if options.passes is not None else traced.passes
    level = options.exactness or traced.exactness
    manager = PassManager(passes, exactness=level, instruments=watchers)
    last = LAST.get(options.stage)
    if last is not None:
        names = [pass_.name for pass_ in manager.pipeline]
        if last not in names:
            raise UsageError(
                f"there is no {options.stage} stage: the pipeline {str(manager.pipeline)!r} has no {last}"
            )
        manager = PassManager(
            manager.pipeline[: names.index(last) + 1], exactness=level, instruments=watchers
        )
    with user_code():
        outcome = manager.run(traced.program)
    return outcome.program, [*traced.explain(), *outcome.explanations]


def _lowered(traced: Any, options: Any, watchers: list[Any]) -> tuple[str, Any, dict[str, float]]:
    try:
        with user_code():
            lowered = traced.lower(
                passes=options.passes,
                exactness=options.exactness,
                platforms=options.platform,
                strip_host_effects=options.strip_host_effects,
                instruments=watchers,
            )
    except LoweringError as error:
        raise CommandError(
            str(error).replace("pass strip_host_effects=True", "give --strip-host-effects")
        ) from error
    if options.stage == "hlo":
        compiled = lowered.compile()
        return compiled.as_text("hlo"), lowered.explain(), dict(compiled.times)
    return lowered.as_text(options.stage), lowered.explain(), dict(lowered.times)

"""Writing programs and tables, and running pipelines with the instruments that a command asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stategraph.cli.console import CommandError, UsageError, highlight
from stategraph.ir.core import Program
from stategraph.passes import hooks
from stategraph.passes.base import Pass
from stategraph.passes.instruments import Instrument, Timing, Validate, Verify, table
from stategraph.passes.registry import load_file

CHUNK = 1 << 15
"""Characters written at once. Under ``python -u`` one large write to a closed pipe ends half-way without an
error; the next one has it.
"""


def render(program: Program, options: Any) -> str:
    """A program in the format that was asked for."""
    if options.format != "text" and options.no_locations:
        raise UsageError(f"--no-locations is for text, not for {options.format}")
    if options.format == "text":
        return program.to_text(locations=not options.no_locations)
    if options.format == "json":
        from stategraph.ir.json_form import to_json

        return json.dumps(to_json(program), indent=1) + "\n"
    if options.format == "dot":
        from stategraph.ir.dot import to_dot

        return to_dot(program)
    from stategraph.ir.svg import to_svg

    return to_svg(program)


def write(text: str, output: str | None, *, is_program: bool = False) -> None:
    """Write a dump to stdout, or to a file."""
    text = text if text.endswith("\n") else text + "\n"
    if output is None or output == "-":
        text = highlight(text, sys.stdout) if is_program else text
        for start in range(0, len(text), CHUNK):
            sys.stdout.write(text[start : start + CHUNK])
        return
    try:
        Path(output).write_text(text, encoding="utf-8", errors="surrogatepass")
    except OSError as error:
        raise CommandError(f"cannot write {output!r}: {error.strerror}") from error


def read_program(name: str) -> Program:
    """The program in a file (``-``: stdin), as text or JSON; verified."""
    from stategraph.ir.json_form import from_json
    from stategraph.ir.parser import parse
    from stategraph.ir.verifier import verify

    text = _read(name)
    shown = "<stdin>" if name == "-" else name
    if text.lstrip().startswith("{"):
        try:
            program = from_json(json.loads(text))
        except json.JSONDecodeError as error:
            raise CommandError(
                f"{shown}:{error.lineno}:{error.colno}: this is no JSON: {error.msg}"
            ) from None
    else:
        program = parse(text, shown)
    verify(program)
    return program


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    from stategraph.cli.console import suggestion

    file = Path(name)
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = (
            [
                str(file.parent / other.name) if os.sep in name else other.name
                for other in file.parent.glob("*")
            ]
            if file.parent.is_dir()
            else []
        )
        raise CommandError(f"there is no file {name!r}{suggestion(name, beside)}") from None
    except OSError as error:
        raise CommandError(f"cannot read {name!r}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CommandError(
            f"{name!r} is no text: a program is a .sg file as `stategraph dump` prints it"
        ) from None


def load_files(files: Iterable[str]) -> None:
    """Import files with passes; the directory of each is searched first for what it imports."""
    from stategraph.cli.targets import search_first, user_code

    for file in files:
        search_first(Path(file).resolve().parent)
        with user_code():
            if not load_file(file):
                raise CommandError(
                    f"{file} registers no pass",
                    "put @stategraph.passes.register above a function or pass class",
                )


def instruments(options: Any) -> tuple[list[Instrument], Timing]:
    """What watches the pipeline: verification and validation, if wanted, and the clock."""
    timing = Timing()
    watchers: list[Instrument] = [
        *([Verify()] if options.verify_each else []),
        *([Validate()] if options.validate_each else []),
    ]
    return [*watchers, timing], timing


def offer_backend(program: Program) -> None:
    """Let passes compare programs, and load the backend's part of what this program needs,
    only when it is needed.
    """
    if hooks.validator() is None:
        hooks.install(validate=_validate)
    if any(op.name.startswith("xform.") for op in program.walk()):
        import stategraph.backends.grad as gradients
        import stategraph.backends.vmap as lanes

        _ = (gradients, lanes)


def _validate(before: Program, after: Program, pass_: Pass) -> None:
    from stategraph.backends import reference_compare

    reference_compare.validate_pass(before, after, pass_)


def show_timing(timing: Timing | None, stages: Mapping[str, float]) -> None:
    """Tables of the time that passes and stages took, on stderr."""
    if timing is not None and timing.seconds:
        print(timing.as_text(), file=sys.stderr)
    if stages:
        rows: list[tuple[str, ...]] = [(name, f"{1e3 * seconds:.3f}") for name, seconds in stages.items()]
        print(table(("stage", "ms"), rows), file=sys.stderr)


def show_explanations(found: Iterable[Any]) -> None:
    """One decision a line, on stderr."""
    for explanation in found:
        print(explanation, file=sys.stderr)

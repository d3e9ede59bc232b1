"""The entry point: parse the command line, run the command, turn failures into messages and exit codes."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from stategraph.cli import console
from stategraph.cli.options import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``stategraph`` command; returns the exit code (see ``console``)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with_traceback = "--traceback" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a terminal that has not all characters
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            try:
                return _run(arguments)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            _drop_stdout()
            return console.CLOSED_PIPE
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return console.INTERRUPTED
        except SystemExit as error:  # --help and --version
            return error.code if isinstance(error.code, int) else console.OK
        except Exception as error:
            return console.report(error, with_traceback)


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not options.command:
        parser.print_help(sys.stderr)
        return console.USAGE
    module = importlib.import_module(f"stategraph.cli.{options.command}")
    code: int = module.run(options)
    return code


def _show_warning(message: Any, category: Any, *where: Any, **more: Any) -> None:
    console.say("warning", str(message))


def _drop_stdout() -> None:
    """Nobody reads stdout: keep Python from complaining when it flushes it at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass

"""What the commands take: one parser with a subparser per command, and suggestions for what is misspelt."""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from stategraph._version import __version__
from stategraph.cli.console import UsageError, suggestion

STAGES = ("traced", "hoisted", "events", "optimized", "jaxpr", "stablehlo", "hlo")
FORMATS = ("text", "json", "dot", "svg")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
EXIT_CODES = """\
exit codes: 0 success, 1 the program or a file is wrong, 2 the command line is wrong, 3 a bug in StateGraph"""


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises ``UsageError``, with a suggestion where it can make one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"{self.prog} --help lists what there is")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            known = [
                option
                for parser in self._reached(parsed)
                for action in parser._actions
                for option in action.option_strings
            ]
            raise UsageError(
                f"unknown argument {rest[0]!r}{suggestion(rest[0].partition('=')[0], known)}",
                f"{self.prog} --help lists what there is",
            )
        return parsed

    def _reached(self, parsed: Any) -> list[argparse.ArgumentParser]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and parsed.command in action.choices:
                return [self, action.choices[parsed.command]]
        return [self]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = None if action.choices is None else list(action.choices)
        if choices is not None and value not in choices:
            what = action.option_strings[-1] if action.option_strings else (action.metavar or action.dest)
            raise UsageError(
                f"{what}: there is no {value!r}{suggestion(str(value), choices)} (there are "
                f"{', '.join(choices)})"
            )


def _names(choices: Sequence[str] | None = None) -> Callable[[str], list[str]]:
    """The type of an option that takes names separated by commas."""

    def read(text: str) -> list[str]:
        found = [name for name in re.split(r"[,\s]+", text) if name]
        for name in found:
            if choices is not None and name not in choices:
                raise argparse.ArgumentTypeError(
                    f"there is no {name!r}{suggestion(name, choices)} (there are {', '.join(choices)})"
                )
        return found

    return read


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no setting: write NAME=VALUE, as in dt=0.1")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (SyntaxError, ValueError):
        return name.strip(), value.strip()


def build_parser() -> Parser:
    """The parser of the whole command."""
    parser = Parser(
        prog="stategraph",
        description="Look at the programs of stateful models, and run passes on them.",
        epilog="Dumps go to stdout, messages to stderr. `stategraph COMMAND --help` has the options.\n"
        + EXIT_CODES,
    )
    parser.add_argument(
        "--version", action="version", version=f"stategraph {__version__} (Python {sys.version.split()[0]})"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    _dump(commands)
    _explain(commands)
    _opt(commands)
    _verify(commands)
    _run(commands)
    _passes(commands)
    return parser


def _command(commands: Any, name: str, summary: str, description: str, examples: str = "") -> Parser:
    epilog = (f"examples:\n{examples}\n" if examples else "") + EXIT_CODES
    parser: Parser = commands.add_parser(name, help=summary, description=description, epilog=epilog)
    parser.add_argument(
        "--traceback", action="store_true", help="show Python's traceback of an error as well"
    )
    return parser


def _dump(commands: Any) -> None:
    parser = _command(
        commands,
        "dump",
        "print the program of a model or function, at any stage",
        "Trace a model or function and print its program.",
        "  stategraph dump model.py:net --args 'f32[32,8]'\n"
        "  stategraph dump model.py:train_step --stage traced --args '{image: f32[8,8], label: i32[]}, "
        "lr=f32[]*'\n"
        "  stategraph dump 'model.py:Net(100)' --set dt=0.1 --validate-each\n"
        "  stategraph dump model.py:net --stage hlo --timing > net.hlo\n",
    )
    _target(parser)
    parser.add_argument(
        "--stage",
        choices=STAGES,
        default="optimized",
        metavar="STAGE",
        help="traced: as the user's code ran; hoisted: State read at entry and written at exit; "
        "events: what is known of spikes, and their products; "
        "optimized: after all passes (default); "
        "jaxpr, stablehlo: what JAX gets; hlo: as XLA compiled it",
    )
    _format(parser)
    _pipeline(parser)
    parser.add_argument(
        "--platform",
        type=_names(PLATFORMS),
        metavar="NAMES",
        help=f"write stablehlo for these instead of this machine: {', '.join(PLATFORMS)}",
    )
    parser.add_argument(
        "--strip-host-effects",
        action="store_true",
        help="leave out debug prints and callbacks, which other platforms cannot run",
    )
    _watching(parser)
    parser.add_argument(
        "--explain", action="store_true", help="tell what was decided about each State and op"
    )


def _explain(commands: Any) -> None:
    parser = _command(
        commands,
        "explain",
        "tell what the compiler decided about each State and op, and why",
        "Trace and lower a model or function, and print the decisions of the passes: where, what, why, "
        "and how to change it.",
        "  stategraph explain model.py:net --args 'f32[32,8]'\n"
        "  stategraph explain model.py:net --only rewrite-events --format json\n",
    )
    _target(parser)
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        metavar="FORMAT",
        help="text (default): a table; or json",
    )
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="short for --format json"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write it to this file")
    parser.add_argument(
        "--only",
        type=_names(),
        metavar="NAMES",
        help="the decisions of these passes or stages, as in 'trace,licm'",
    )
    _pipeline(parser)
    parser.add_argument(
        "--platform",
        type=_names(PLATFORMS),
        metavar="NAMES",
        help=f"decide for these instead of this machine: {', '.join(PLATFORMS)}",
    )


def _opt(commands: Any) -> None:
    parser = _command(
        commands,
        "opt",
        "run passes on the text of a program",
        "Read a program (.sg text, or its JSON form), run passes, print it.",
        "  stategraph opt step.sg -p 'cse,dce'\n"
        "  stategraph opt step.sg --load my_pass.py -p 'my-pass{x=1}' --statistics json -o /dev/null\n"
        "  stategraph dump model.py:net --stage traced | stategraph opt - --print-after-change\n",
    )
    _file(parser)
    parser.add_argument(
        "-p",
        "--passes",
        metavar="PIPELINE",
        default="default",
        help="passes, as in 'cse,my-pass{x=1}' (default: the default pipeline; '' runs none)",
    )
    _loading(parser)
    _format(parser)
    _watching(parser)
    parser.add_argument(
        "--statistics",
        choices=("text", "json"),
        metavar="FORMAT",
        help="the size of the program around each pass and what it reported: text or json, on stderr",
    )
    parser.add_argument(
        "--print-after-all", action="store_true", help="print the program after each pass, on stderr"
    )
    parser.add_argument(
        "--print-after-change", action="store_true", help="print it after each pass that changed it"
    )
    parser.add_argument(
        "--print-after",
        action="extend",
        type=_names(),
        default=[],
        metavar="PASSES",
        help="print it after these passes",
    )
    parser.add_argument(
        "--print-before",
        action="extend",
        type=_names(),
        default=[],
        metavar="PASSES",
        help="print it before these passes",
    )
    parser.add_argument(
        "--bisect", type=_count, metavar="N", help="run only the first N passes, and say which was the last"
    )
    parser.add_argument(
        "--explain", action="store_true", help="tell what was decided about each State and op"
    )


def _verify(commands: Any) -> None:
    parser = _command(
        commands,
        "verify",
        "check that programs obey the rules of the IR",
        "Read programs (.sg text or JSON) and verify them.",
        "  stategraph verify *.sg\n",
    )
    parser.add_argument("files", nargs="+", metavar="FILE.sg", help="files to verify; - is stdin")


def _run(commands: Any) -> None:
    parser = _command(
        commands,
        "run",
        "run a program op by op in the reference interpreter",
        "Run a program's text in the reference interpreter and print its results and the States afterwards.\n"
        "Arguments and States are taken from --inputs, then from the initial values in the text, then "
        "at random.",
        "  stategraph run step.sg\n  stategraph run step.sg --inputs inputs.npz --output results.npz\n",
    )
    _file(parser)
    parser.add_argument(
        "--inputs",
        metavar="FILE.npz",
        help="values by name, as in numpy.savez(FILE, **{'x': x, '@net.h': h}); "
        "the leaves of a nested State are @net.h.0, @net.h.1",
    )
    parser.add_argument(
        "--output", "-o", metavar="FILE.npz", help="write the results and States to this file as well"
    )
    parser.add_argument(
        "--seed", type=_count, default=0, metavar="N", help="seed of the random values (default: 0)"
    )


def _passes(commands: Any) -> None:
    parser = _command(
        commands,
        "passes",
        "list the passes, with their options and where they come from",
        "List all passes: built in, of installed packages, and of files given with --load. With names: "
        "tell more about these.",
        "  stategraph passes\n  stategraph passes simplify-loops --json\n",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="passes to describe in full")
    _loading(parser, exactness=False)
    parser.add_argument("--json", action="store_true", help="print JSON")


# -------------------------------------------------------------------------------- options of several commands


def _target(parser: Parser) -> None:
    parser.add_argument(
        "target",
        metavar="FILE.py:NAME",
        help="what to trace (or package.module:NAME): a model, a model class, a function, or an expression "
        "such as 'Net(100)'; without NAME, tells what there is",
    )
    parser.add_argument(
        "--args",
        metavar="TYPES",
        help="types of the arguments, as in 'f32[32,8], mask=bool[32]' (default: the model's example_args)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="a setting of stategraph.environ while the model is made and traced, as in dt=0.1 (may be repeated)",
    )


def _file(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE.sg", help="the program; - is stdin")


def _format(parser: Parser) -> None:
    parser.add_argument(
        "--format", choices=FORMATS, default="text", metavar="FORMAT", help="text (default), json, dot or svg"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the dump to this file")
    parser.add_argument("--no-locations", action="store_true", help="leave out where ops come from")


def _pipeline(parser: Parser) -> None:
    parser.add_argument(
        "-p",
        "--passes",
        metavar="PIPELINE",
        help="passes, as in 'default,my-pass{x=1}' (default: those of the jitted function, "
        "else the default pipeline)",
    )
    _loading(parser)


def _loading(parser: Parser, exactness: bool = True) -> None:
    parser.add_argument(
        "--load",
        action="append",
        default=[],
        metavar="FILE.py",
        help="import a file with passes (may be repeated)",
    )
    if exactness:
        levels = ("exact", "reduction-order", "fast-math")
        parser.add_argument(
            "--exactness",
            choices=levels,
            metavar="LEVEL",
            help="what passes may do to floating point: exact, reduction-order or fast-math "
            "(default: that of the jitted function, else reduction-order)",
        )


def _watching(parser: Parser) -> None:
    parser.add_argument(
        "--verify-each",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="verify the program after each pass (default: yes)",
    )
    parser.add_argument(
        "--validate-each",
        action="store_true",
        help="run the program before and after each pass on random values and compare",
    )
    parser.add_argument("--timing", action="store_true", help="tell how long each pass and stage took")

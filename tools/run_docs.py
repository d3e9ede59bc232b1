"""Execute the examples of one Markdown document, top to bottom, as a reader would.

    python tools/run_docs.py README.md

A *block* is a fenced piece of the document. What its fence says decides what happens to it:

    ```python                  run; all blocks of a document share one namespace, that of `__main__`
    ```python file=mine.py     written to that file as well, so that later commands can use it
    ```python requires=flax    run where that package is installed, and skipped elsewhere
    ```python no-run           shown only
    ```console                 each `$ stategraph ...` line is run and has to exit with 0
    ```console exit=2          ... or with the code given

Everything happens in an empty temporary directory that has a link to the repository's `examples`.
"""

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^[ ]*(?P<fence>`{3,})[ ]*(?P<language>\w*)[ ]*(?P<options>[^`]*)$")
KNOWN_OPTIONS = {"python": {"no-run", "file", "requires"}, "console": {"exit"}}


@dataclass(frozen=True)
class Block:
    """A fenced piece of a document; `line` is the number of its first line of text."""

    language: str
    options: dict[str, str]
    text: str
    line: int


def blocks(document: str) -> Iterator[Block]:
    """Yield the python and console blocks of a Markdown text, in order."""
    lines = iter(enumerate(document.splitlines(), start=1))
    for number, line in lines:
        if not (opening := FENCE.match(line)):
            continue
        body = []
        for _, inner in lines:
            closing = inner.strip()
            if closing.startswith(opening["fence"]) and not closing.strip("`"):
                break
            body.append(inner)
        else:
            raise ValueError(f"line {number}: this block is never closed")
        if opening["language"] in KNOWN_OPTIONS:
            options = _options(opening["language"], opening["options"], number)
            yield Block(opening["language"], options, textwrap.dedent("\n".join(body)) + "\n", number + 1)


def _options(language: str, words: str, line: int) -> dict[str, str]:
    options = dict(word.partition("=")[::2] for word in words.split())
    known = KNOWN_OPTIONS[language]
    if unknown := options.keys() - known:
        raise ValueError(f"line {line}: {language} blocks know {sorted(known)}, not {sorted(unknown)}")
    return options


def run(path: Path) -> None:
    """Run every block of the document in the current directory; raises at the first that fails."""
    main = types.ModuleType("__main__")  # a real module, so that classes of the document can be pickled
    sys.modules["__main__"] = main
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "console":
            _run_commands(block, path)
        elif "no-run" not in block.options and _is_installed(block.options.get("requires")):
            if name := block.options.get("file"):
                Path(name).write_text(block.text, encoding="utf-8")
            # Padding keeps the document's own line numbers in tracebacks and in recorded locations.
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(path), "exec", dont_inherit=True), main.__dict__)


def _is_installed(package: str | None) -> bool:
    return package is None or importlib.util.find_spec(package) is not None


def _run_commands(block: Block, path: Path) -> None:
    expected = int(block.options.get("exit", "0"))
    for line in block.text.replace("\\\n", " ").splitlines():
        if not line.startswith("$ stategraph"):
            continue
        print(line, flush=True)
        code = subprocess.run(line.removeprefix("$ "), shell=True, stdin=subprocess.DEVNULL).returncode
        if code != expected:
            sys.exit(f"{path}:{block.line}: exit code {code}, expected {expected}: {line}")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/run_docs.py DOCUMENT.md")
    path = Path(sys.argv[1]).resolve()
    os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ.get("PATH", "")
    os.environ.setdefault("MPLBACKEND", "agg")
    with tempfile.TemporaryDirectory() as directory:
        os.symlink(ROOT / "examples", Path(directory, "examples"))
        os.chdir(directory)
        sys.path[0] = directory
        run(path)


if __name__ == "__main__":
    main()

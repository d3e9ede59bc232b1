"""``stategraph passes``: which passes there are."""

from __future__ import annotations

import json
import sys
from typing import Any

from stategraph.cli.console import OK, paint
from stategraph.cli.output import load_files
from stategraph.passes.base import Pass, spell
from stategraph.passes.pipeline import DEFAULT
from stategraph.passes.registry import available, lookup, origin

BUILT_IN = "built in"


def run(options: Any) -> int:
    load_files(options.load)
    found = [lookup(name) for name in options.names] if options.names else available()
    if options.json:
        json.dump([describe(cls) for cls in found], sys.stdout, indent=1)
        print()
    elif options.names:
        print("\n\n".join(map(_in_full, found)))
    else:
        _print_list(found)
    return OK


def describe(cls: type[Pass]) -> dict[str, Any]:
    """A pass as JSON data."""
    return {
        "name": cls.name,
        "exactness": cls.exactness,
        "summary": cls.summary(),
        "origin": origin(cls),
        "in_default_pipeline": cls.name in DEFAULT,
        "options": [
            {"name": o.name, "type": o.type_name, "default": spell(o.default), "summary": o.summary}
            for o in cls.options()
        ],
    }


def _print_list(found: list[type[Pass]]) -> None:
    names = max((len(cls.name) for cls in found), default=0)
    levels = max((len(cls.exactness) for cls in found), default=0)
    for cls in found:
        print(
            f"{paint(cls.name.ljust(names), '1', sys.stdout)}  {cls.exactness.ljust(levels)}  "
            f"{cls.summary()}{_more(cls)}"
        )
    print(f"\ndefault = {','.join(DEFAULT)}")


def _more(cls: type[Pass]) -> str:
    options = "; ".join(map(str, cls.options()))
    text = f" {{{options}}}" if options else ""
    return text if origin(cls) == BUILT_IN else f"{text} [from {origin(cls)}]"


def _in_full(cls: type[Pass]) -> str:
    lines = [f"{cls.name} ({cls.exactness}, {origin(cls)})", f"  {cls.summary()}"]
    for option in cls.options():
        lines.append(f"  {option}" + (f"\n      {option.summary}" if option.summary else ""))
    return "\n".join(lines)

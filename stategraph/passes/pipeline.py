"""Pipelines: which passes run in which order, and how that is written.

    'inline-calls,simplify-loops{last=false},my-pass{sizes=(1, 2) label="a b"},default'

Passes are separated by commas, options stand in braces as ``name=value``. Values are ``true``/``false``,
numbers, words or quoted strings, tuples, and ``none`` where an option allows it; the type is that of the
option. ``default`` stands for the default pipeline.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterable
from typing import Any

from stategraph.ir.errors import caret
from stategraph.passes.base import Pass, PassError, allows, check_exactness, union_member
from stategraph.passes.registry import closest, lookup, pass_of

DEFAULT = (
    "lower-checks",  # runtime checks become State, which hoisting threads
    "inline-calls",  # State is touched where the accesses of its neighbours are seen
    "hoist-state",
    "forward-state",
    "eliminate-local-state",
    "infer-events",  # facts that the ops of gradients would lose
    "rewrite-events",  # an event product has derivatives of its own
    "expand-transforms",  # gradients become ordinary ops
    "inline-calls",  # the calls in them, which were kept because equal calls are differentiated once
    "fold-constants",
    "simplify-branches",
    "simplify-loops",  # what a loop does not change is no carry, so that cse and licm see through it
    "algebra",
    "cse",
    "licm",
    "batch-loops",  # products that need no carry, once for all steps
    "simplify-loops",  # outputs that licm has shown to be the same on every trip
    "derive-outputs",  # and those that follow from others
    "dce",
    "accumulate-events",  # after whatever looks for event.csr
    "outline-native",  # loops with events in them become kernels
    "outline-recording",  # so does what the others record
)
"""The default pipeline."""


class Pipeline(tuple[Pass, ...]):
    """Passes in the order in which they run; ``str`` is the spelling that ``parse_pipeline`` reads back."""

    __slots__ = ()

    def __str__(self) -> str:
        return ",".join(map(str, self))


Passes = str | Pass | type[Pass] | Iterable[Any] | None
"""What the user may give: text, a pass (object, class, registered function), a sequence of these, or None for
the default.
"""


def default_pipeline(exactness: str = "reduction-order") -> Pipeline:
    """The passes of the default pipeline that the level allows."""
    classes = [lookup(name) for name in DEFAULT]
    return Pipeline(cls() for cls in classes if allows(check_exactness(exactness), cls.exactness))


def parse_pipeline(passes: Passes, *, exactness: str = "reduction-order") -> Pipeline:
    """Turn text or passes into a ``Pipeline``.

    Passes of the default pipeline beyond ``exactness`` are left out; naming such a pass yourself is an error,
    as are unknown passes, unknown options and values of the wrong type, each with the place in the text.
    """
    check_exactness(exactness)
    if passes is None:
        return default_pipeline(exactness)
    found = _Parser(passes, exactness).pipeline() if isinstance(passes, str) else _passes(passes, exactness)
    for item in found:
        if not allows(exactness, item.exactness):
            raise PassError(
                f"pass {item.name!r} is {item.exactness}, but only {exactness} is allowed; "
                f"allow it with exactness={item.exactness!r}"
            )
    return Pipeline(found)


def _passes(given: Any, exactness: str) -> list[Pass]:
    if isinstance(given, Pass):
        return [given]
    cls = pass_of(given)
    if cls is not None:
        return [cls()]
    if isinstance(given, str):
        return _Parser(given, exactness).pipeline()
    if isinstance(given, Iterable):
        return [found for item in given for found in _passes(item, exactness)]
    hint = "; decorate it with @stategraph.passes.register" if callable(given) else ""
    raise PassError(f"{given!r} is no pass{hint}")


class _Parser:
    """Reads one spelling; errors point into it."""

    def __init__(self, text: str, exactness: str) -> None:
        self.text = text
        self.exactness = exactness
        self.position = 0

    def pipeline(self) -> list[Pass]:
        found: list[Pass] = []
        if not self.text.strip():
            return found
        while True:
            found += self.item()
            if not self.take(","):
                break
        if self.space() < len(self.text):
            self.fail("expected ',' between passes")
        return found

    def item(self) -> Iterable[Pass]:
        start = self.space()
        name = self.match(r"[^\s,{}=()]+")
        if name is None:
            self.fail("expected the name of a pass")
        if name == "default":
            return default_pipeline(self.exactness)
        try:
            cls = lookup(name)
        except PassError as error:
            self.fail(str(error), start)
        return [cls(**self.options(cls))]

    def options(self, cls: type[Pass]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if not self.take("{"):
            return values
        known = {option.name: option for option in cls.options()}
        while not self.take("}"):
            start = self.space()
            name = self.match(r"[A-Za-z_]\w*")
            if name is None:
                self.fail("expected an option as name=value, or '}'")
            if name not in known:
                offered = (
                    "; its options are: " + ", ".join(map(str, known.values()))
                    if known
                    else "; it has no options"
                )
                self.fail(f"pass {cls.name!r} has no option {name!r}{closest(name, known)}{offered}", start)
            if name in values:
                self.fail(f"option {name!r} is given twice", start)
            if not self.take("="):
                self.fail(f"expected '=' after option {name!r}")
            start = self.space()
            raw = self.value()
            try:
                values[name] = _convert(raw, known[name].type)
            except ValueError:
                wanted, given = known[name].type_name, self.text[start : self.position]
                self.fail(f"option {name!r} of {cls.name!r} is of type {wanted}, and {given} is not", start)
            self.take(",")
        return values

    def value(self) -> Any:
        """Raw text of a value: a ``_Quoted`` string, a bare word, or a tuple of these."""
        if self.take("("):
            items = []
            while not self.take(")"):
                items.append(self.value())
                if not self.take(",") and self.peek() != ")":
                    self.fail("expected ',' or ')' in a tuple")
            return tuple(items)
        quoted = self.match(r'"(?:[^"\\]|\\.)*"')
        if quoted is not None:
            return _Quoted(json.loads(quoted))
        word = self.match(r"[^\s,{}=()\"]+")
        if word is None:
            self.fail("expected a value")
        return word

    def space(self) -> int:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1
        return self.position

    def peek(self) -> str:
        return self.text[self.space() : self.position + 1]

    def take(self, character: str) -> bool:
        if self.peek() != character:
            return False
        self.position += 1
        return True

    def match(self, pattern: str) -> str | None:
        found = re.compile(pattern).match(self.text, self.space())
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def fail(self, message: str, position: int | None = None) -> typing.NoReturn:
        column = (self.position if position is None else position) + 1
        raise PassError(f"{message}\n{caret(self.text, column)}") from None


class _Quoted(str):
    """A quoted string: never a number, a bool or none."""


def _convert(raw: Any, type_: Any) -> Any:
    """The value that ``raw`` spells for an option of this type; ``ValueError`` when it spells none."""
    member = union_member(type_)
    if member is not None:
        return None if raw == "none" and not isinstance(raw, _Quoted) else _convert(raw, member)
    if typing.get_origin(type_) is tuple:
        if not isinstance(raw, tuple):
            raise ValueError
        return tuple(_convert(item, typing.get_args(type_)[0]) for item in raw)
    if isinstance(raw, tuple) or (isinstance(raw, _Quoted) and type_ is not str):
        raise ValueError
    if type_ is bool and raw not in ("true", "false"):
        raise ValueError
    return raw == "true" if type_ is bool else type_(str(raw))

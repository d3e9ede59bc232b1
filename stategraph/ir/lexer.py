"""Text into tokens, with positions.

Space and ``//`` comments separate tokens and mean nothing else, except that an op's operands begin on the
line of its name.
"""

from __future__ import annotations

import re
from typing import NoReturn

from stategraph.ir.errors import ParseError
from stategraph.ir.spelling import PATH, SHAPE, STRING, WORD, unquote

_TOKEN = re.compile(
    rf"""
      (?P<space>(?:[ \t\r\n]+|//[^\n]*)+)
    | (?P<type>[^\W\d]\w*{SHAPE}\*?|key<[^\W\d]\w*>{SHAPE})
    | (?P<number>-?(?:0x[0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|(?:inf|nan)(?![\w.])))
    | (?P<value>%[\w.]+)
    | (?P<path>@(?:{PATH}|{STRING}))
    | (?P<location>\#\d+)
    | (?P<resource>\$\d+)
    | (?P<string>{STRING})
    | (?P<word>{WORD})
    | (?P<mark>\{{-\#|\#-\}}|->|[()\[\]{{}}<>,:=*])
    """,
    re.VERBOSE,
)

END = "end of text"
_NAMES = {
    "value": "a value such as %x",
    "path": "a path such as @net.h",
    "word": "a word",
    "string": "a string",
}
_NAMES |= {"number": "a number", "type": "a type such as f32[3]", "resource": "a resource such as $0"}


class Tokens:
    """The tokens of a text and a position among them. ``kind`` and ``text`` are those of the current
    token."""

    __slots__ = ("filename", "index", "kind", "kinds", "source", "starts", "text", "texts")

    def __init__(self, source: str, filename: str = "<text>") -> None:
        self.source = source
        self.filename = filename
        self.kinds: list[str] = []
        self.texts: list[str] = []
        self.starts: list[int] = []
        end = 0
        for match in _TOKEN.finditer(source):
            start = match.start()
            if start != end:
                break
            end = match.end()
            kind = match.lastgroup
            if kind != "space":
                self.kinds.append(kind or "")
                self.texts.append(match[0])
                self.starts.append(start)
        if end != len(source):
            what = (
                "this string does not end"
                if source[end] == '"'
                else f"{source[end]!r} begins nothing that is known here"
            )
            raise ParseError(what, source, end, filename)
        self.kinds.append("end")
        self.texts.append(END)
        self.starts.append(len(source))
        self.seek(0)

    def seek(self, index: int) -> None:
        self.index = index
        self.kind = self.kinds[index]
        self.text = self.texts[index]

    def next(self) -> str:
        """The text of the current token, after which the following one is current."""
        text = self.text
        if self.kind != "end":
            self.index = index = self.index + 1
            self.kind = self.kinds[index]
            self.text = self.texts[index]
        return text

    def at(self, text: str) -> bool:
        """Whether the current token is this mark or word."""
        return self.text == text and self.kind != "string"

    def accept(self, text: str) -> bool:
        """Step over this mark or word if it stands here."""
        if self.text != text or self.kind == "string":
            return False
        self.next()
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.found()}")

    def take(self, kind: str, what: str = "") -> str:
        """The text of the current token, which has to be of this kind."""
        if self.kind != kind:
            self.fail(f"expected {what or _NAMES.get(kind, kind)}, found {self.found()}")
        return self.next()

    def take_string(self, what: str = "") -> str:
        position = self.index
        try:
            return unquote(self.take("string", what))
        except (ValueError, OverflowError) as error:
            self.fail(str(error), position)

    def take_name(self, what: str) -> str:
        """A word, or a quoted name."""
        return self.take_string(what) if self.kind == "string" else self.take("word", what)

    def take_path(self) -> str:
        position = self.index
        text = self.take("path")
        if not text.startswith('@"'):
            return text[1:]
        try:
            return unquote(text[1:])
        except (ValueError, OverflowError) as error:
            self.fail(str(error), position)

    def take_int(self, what: str = "a whole number") -> int:
        position = self.index
        try:
            return int(self.take("number", what))
        except ValueError:
            self.fail(f"expected {what}, found {self.texts[position]}", position)

    def on_same_line(self) -> bool:
        """Whether the current token stands on the line where the previous one ended."""
        previous = self.index - 1
        end = self.starts[previous] + len(self.texts[previous])
        return "\n" not in self.source[end : self.starts[self.index]]

    def found(self) -> str:
        return (
            END
            if self.kind == "end"
            else repr(self.text)
            if len(self.text) < 40
            else repr(self.text[:37] + "...")
        )

    def fail(self, message: str, index: int | None = None) -> NoReturn:
        """Raise the error at a token, the current one if none is given."""
        position = self.starts[self.index if index is None else index]
        raise ParseError(message, self.source, position, self.filename)

"""How words, strings and State paths are spelt in the text form.

The printer asks here whether something can be written bare; the lexer uses the same patterns, so the two
cannot disagree.
"""

from __future__ import annotations

import functools
import re

WORD = r"[^\W\d]\w*(?:\.\w+)*"
"""``flow.scan``, ``trainable``, ``GatherScatterMode.CLIP``."""
PATH = r"[^\W\d]\w*(?:\.\w+|\[(?:\d+|'[^'\\\n\"]*')\])*"
"""``net.layers[0].W``, ``cells['E'].V``; any other path is quoted: ``@"..."``."""
STRING = r'"(?:[^"\\\n]|\\.)*"'
SHAPE = r"\[(?:\d+(?:,\d+)*)?\]"

RESERVED = frozenset({"true", "false", "none", "inf", "nan"})

_word = re.compile(WORD).fullmatch
_path = re.compile(PATH).fullmatch
_escaped = re.compile(r"\\(?:u\{([0-9a-f]+)\}|(.))", re.DOTALL)
_NAMED = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
_LETTERS = {"n": "\n", "t": "\t"}


def is_word(text: str) -> bool:
    """Whether ``text`` can stand without quotes where a name is expected."""
    return _word(text) is not None and text not in RESERVED and not text.startswith(("inf.", "nan."))


def is_simple_word(text: str) -> bool:
    """A word without dots."""
    return "." not in text and is_word(text)


def quote(text: str) -> str:
    """``text`` as a string of the text form: printable on one line, whatever it holds."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return (
        '"' + "".join(_NAMED.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text) + '"'
    )


def unquote(token: str) -> str:
    """The inverse of ``quote``; ``ValueError`` for an escape that does not exist."""
    return _escaped.sub(_unescape, token[1:-1]) if "\\" in token else token[1:-1]


def _unescape(match: re.Match[str]) -> str:
    if match[1] is not None:
        return chr(int(match[1], 16))
    letter = match[2]
    if letter in '"\\':
        return letter
    if letter not in _LETTERS:
        raise ValueError(f"there is no escape \\{letter}")
    return _LETTERS[letter]


@functools.lru_cache(4096)
def word(text: str) -> str:
    """``text`` bare where possible, quoted otherwise."""
    return text if is_word(text) else quote(text)


@functools.lru_cache(4096)
def path(text: str) -> str:
    """A State path or function name with its ``@``."""
    return f"@{text}" if _path(text) else f"@{quote(text)}"

"""Types, trees, literals and attribute values from tokens: the inverse of ``attribute_text``."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from stategraph.ir.arrays import from_elements
from stategraph.ir.attributes import Dense, DType, EnumValue, Opaque, Record, RegionRef, Symbol
from stategraph.ir.core import Constant
from stategraph.ir.lexer import Tokens
from stategraph.ir.spelling import unquote
from stategraph.ir.tree import LEAF, NONE, Tree
from stategraph.ir.types import EVENTS, KeyType, OpaqueType, TensorType, Type, numpy_dtype

Refined = tuple[Type, str | None]
"""A type, and what is known of the value beyond it."""


class ValueParser:
    """Reads values from ``tokens``; ``resources`` are the arrays that ``$0``, ``$1``, … stand for."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.resources: dict[str, Any] = {}
        self._types: dict[str, Type] = {}

    # ---------------------------------------------------------------------------------------- building blocks

    def list_until(self, end: str, item: Callable[[], Any]) -> list[Any]:
        """Items separated by commas, up to and with ``end``; a comma may follow the last."""
        tokens, items = self.tokens, []
        while not tokens.accept(end):
            items.append(item())
            if not tokens.accept(","):
                if not tokens.at(end):
                    tokens.fail(f"expected ',' or {end!r}, found {tokens.found()}")
        return items

    def resource(self) -> Any:
        tokens = self.tokens
        index = tokens.index
        name = tokens.take("resource")
        if name not in self.resources:
            tokens.fail(f"there is no resource {name} at the end of the text", index)
        return self.resources[name]

    # -------------------------------------------------------------------------------------------------- types

    def type(self) -> Type:
        tokens = self.tokens
        if tokens.kind == "type":
            text = tokens.text
            found = self._types.get(text)
            if found is None:
                found = self._types[text] = self._plain_type(text)
            tokens.next()
            return found
        if tokens.accept("opaque"):
            return OpaqueType(self._in_angles(lambda: tokens.take_string("the name of the type")))
        if tokens.accept("key"):
            impl = self._in_angles(lambda: tokens.take_name("the name of a key implementation"))
            tokens.expect("[")
            return KeyType(impl, tuple(self.list_until("]", tokens.take_int)))
        tokens.fail(f"expected a type such as f32[3], found {tokens.found()}")

    def refined(self) -> Refined:
        """A type, or a refined one: ``event<f32[3]>``, ``event<f32[3], entry>``."""
        tokens = self.tokens
        if not (tokens.at("event") and tokens.texts[tokens.index + 1] == "<"):
            return self.type(), None
        tokens.next()
        return self._in_angles(self._event)  # type: ignore[no-any-return]

    def _event(self) -> Refined:
        type, event = self.type(), "binary"
        if self.tokens.accept(","):
            index = self.tokens.index
            event = self.tokens.take("word", "entry or sparse")
            if event not in EVENTS:
                self.tokens.fail(f"expected entry or sparse, found {event!r}", index)
        return type, event

    def _plain_type(self, text: str) -> Type:
        name, _, rest = text.partition("[")
        shape = tuple(map(int, filter(None, rest.rstrip("*]").split(","))))
        if name.startswith("key<"):
            return KeyType(name[4:-1], shape)
        try:
            numpy_dtype(name)
        except TypeError:
            self.tokens.fail(f"there is no dtype {name!r}")
        return TensorType(name, shape, text.endswith("*"))

    def types(self) -> list[Refined]:
        found = [self.refined()]
        while self.tokens.accept(","):
            found.append(self.refined())
        return found

    def _in_angles(self, item: Callable[[], Any]) -> Any:
        self.tokens.expect("<")
        value = item()
        self.tokens.expect(">")
        return value

    # -------------------------------------------------------------------------------------------------- trees

    def tree(self, leaf: Callable[[], None] | None = None) -> Tree:
        """A tree; where a leaf may stand, ``*`` or what ``leaf`` reads."""
        tokens = self.tokens
        if tokens.accept("none"):
            return NONE
        if tokens.accept("("):
            return Tree("tuple", tuple(self.list_until(")", lambda: self.tree(leaf))))
        if tokens.accept("["):
            return Tree("list", tuple(self.list_until("]", lambda: self.tree(leaf))))
        if tokens.accept("{"):
            items = self.list_until("}", lambda: self._item(":", self.attribute, leaf))
            return Tree("dict", tuple(t for _, t in items), tuple(k for k, _ in items))
        if tokens.kind in ("word", "string") and tokens.texts[tokens.index + 1] == "(":
            name = tokens.take_name("the name of a class")
            tokens.expect("(")
            items = self.list_until(")", lambda: self._item("=", self._field_key, leaf))
            keys = () if all(key is None for key, _ in items) else tuple(key for key, _ in items)
            return Tree("custom", tuple(t for _, t in items), keys, name)
        if leaf is None:
            if not tokens.accept("*"):
                tokens.fail(f'expected a tree such as (*, {{"a": *}}), found {tokens.found()}')
        else:
            leaf()
        return LEAF

    def _item(self, mark: str, key: Callable[[], Any], leaf: Callable[[], None] | None) -> tuple[Any, Tree]:
        name = key()
        if mark == ":" or name is not _POSITIONAL:
            self.tokens.expect(mark)
        return (None if name is _POSITIONAL else name, self.tree(leaf))

    def _field_key(self) -> Any:
        """The key of a custom node's field, ``_POSITIONAL`` when it has none: a key is what ``=`` follows."""
        tokens = self.tokens
        start = tokens.index
        depth = 0
        for index in range(start, len(tokens.texts)):
            kind, text = tokens.kinds[index], tokens.texts[index]
            if kind != "mark":
                continue
            if depth == 0 and text == "=":
                break
            if depth == 0 and text in ",)":
                return _POSITIONAL
            depth += (text in "([{<") - (text in ")]}>")
        if tokens.kind == "word" and "." not in tokens.text:
            return tokens.next()
        return self.attribute()

    # ----------------------------------------------------------------------------------------------- literals

    def constant(self) -> Constant:
        """A literal with its type, ``1.0:f32[]``."""
        index = self.tokens.index
        literal = self.literal()
        self.tokens.expect(":")
        return self.make_constant(literal, self.type(), index)

    def literal(self) -> Any:
        """A resource's array, or a flat list of elements; ``make_constant`` makes sense of it."""
        if self.tokens.kind == "resource":
            return self.resource()
        elements: list[Any] = []
        self._elements(elements)
        return elements

    def make_constant(self, literal: Any, type: Type, index: int) -> Constant:
        if not isinstance(literal, list):
            return Constant(literal, type)
        if not isinstance(type, TensorType):
            self.tokens.fail(f"a literal has a tensor type, not {type}", index)
        try:
            return Constant(from_elements(literal, type.dtype, type.shape), type)
        except (ValueError, OverflowError, TypeError) as error:
            self.tokens.fail(str(error), index)

    def _elements(self, out: list[Any]) -> None:
        if self.tokens.accept("["):
            self.list_until("]", lambda: self._elements(out))
        else:
            out.append(self._element())

    def _element(self) -> Any:
        tokens = self.tokens
        if tokens.kind == "number":
            return _number(tokens.next())
        if tokens.at("true") or tokens.at("false"):
            return tokens.next() == "true"
        if tokens.accept("complex"):
            return self._pair(self._element)
        tokens.fail(f"expected a value such as %x or a literal such as 1.0:f32[], found {tokens.found()}")

    def _pair(self, part: Callable[[], Any]) -> tuple[Any, Any]:
        self.tokens.expect("(")
        first = part()
        self.tokens.expect(",")
        second = part()
        self.tokens.expect(")")
        return (first, second)

    # --------------------------------------------------------------------------------------------- attributes

    def attributes(self, end: str) -> dict[str, Any]:
        """``key = value, …`` up to and with ``end``."""
        found: dict[str, Any] = {}
        self.list_until(end, lambda: self._attribute_item(found))
        return found

    def _attribute_item(self, found: dict[str, Any]) -> None:
        index = self.tokens.index
        key = self.tokens.take_name("the name of an attribute")
        if key in found:
            self.tokens.fail(f"attribute {key!r} is given twice", index)
        self.tokens.expect("=")
        found[key] = self.attribute()

    def attribute(self) -> Any:
        """Any attribute value."""
        tokens = self.tokens
        kind = tokens.kind
        if kind == "number":
            return self._python_number()
        if kind == "string":
            return tokens.take_string()
        if kind == "type":
            return self.type()
        if kind == "path":
            return Symbol(tokens.take_path())
        if kind == "word":
            return self._worded()
        if tokens.accept("("):
            return tuple(self.list_until(")", self.attribute))
        if tokens.accept("["):
            return self.list_until("]", self.attribute)
        if tokens.accept("{"):
            return dict(self.list_until("}", self._dict_item))
        tokens.fail(f"expected the value of an attribute, found {tokens.found()}")

    def _dict_item(self) -> tuple[Any, Any]:
        index = self.tokens.index
        key = self.attribute()
        self.tokens.expect(":")
        try:
            hash(key)
        except TypeError:
            self.tokens.fail("this cannot be a key", index)
        return key, self.attribute()

    def _python_number(self) -> Any:
        index = self.tokens.index
        value = _number(self.tokens.next())
        if isinstance(value, str):
            self.tokens.fail(
                "bits in hexadecimal stand for an element of an array only; write float<0x...>", index
            )
        return value

    def _float(self) -> float:
        tokens = self.tokens
        if tokens.accept("float"):
            return self._bits()
        return float(self._python_number())

    def _bits(self) -> float:
        tokens = self.tokens
        text: str = self._in_angles(lambda: tokens.take("number"))
        if len(text) != 18 or not text.startswith("0x"):
            tokens.fail("expected the 16 hexadecimal digits of a float", tokens.index - 2)
        value: float = struct.unpack("<d", struct.pack("<Q", int(text, 16)))[0]
        return value

    def _worded(self) -> Any:
        tokens = self.tokens
        word = tokens.text
        following = tokens.texts[tokens.index + 1]
        if following == "<" and word == "key":
            return self.type()
        if following == "<" and word in _ANGLED:
            tokens.next()
            return _ANGLED[word](self)
        if word in _WORDS:
            tokens.next()
            return _WORDS[word]
        tokens.next()
        if following == "(":
            return complex(*self._pair(self._float)) if word == "complex" else self._fields(word)
        enum, _, member = word.partition(".")
        if "." in member:
            tokens.fail(f"expected a dtype, ENUM.MEMBER or another value, found {word!r}", tokens.index - 1)
        return EnumValue(enum, member) if member else DType(word)

    def _fields(self, name: str) -> Record:
        self.tokens.expect("(")
        return Record(name, tuple(self.list_until(")", self._field)))

    def _field(self) -> tuple[str, Any]:
        name = self.tokens.take_name("the name of a field")
        self.tokens.expect("=")
        return name, self.attribute()

    def _string(self) -> str:
        return self.tokens.take_string()

    def _enum(self) -> EnumValue:
        enum = self._string()
        self.tokens.expect(",")
        return EnumValue(enum, self._string())

    def _bytes(self) -> bytes:
        index = self.tokens.index
        try:
            return bytes.fromhex(unquote(self.tokens.take("string")))
        except ValueError:
            self.tokens.fail("expected bytes in hexadecimal", index)

    def _dense(self) -> Dense:
        if self.tokens.kind == "resource":
            return Dense(self.resource())
        return Dense(self.constant().data)


_POSITIONAL = object()
_WORDS = {"none": None, "true": True, "false": False}
_ANGLED: dict[str, Callable[[ValueParser], Any]] = {
    "float": lambda p: p._bits(),
    "bytes": lambda p: p._in_angles(p._bytes),
    "tree": lambda p: p._in_angles(p.tree),
    "type": lambda p: p._in_angles(p.type),
    "dtype": lambda p: DType(p._in_angles(p._string)),
    "enum": lambda p: p._in_angles(p._enum),
    "record": lambda p: p._fields(p._in_angles(p._string)),
    "region": lambda p: RegionRef(p._in_angles(p.tokens.take_int)),
    "opaque": lambda p: Opaque(p._in_angles(p._string)),
    "dense": lambda p: p._in_angles(p._dense),
}


def _number(text: str) -> int | float | str:
    """A number; bits in hexadecimal stay a str."""
    if "0x" in text:
        return text
    return int(text) if text.lstrip("-").isdigit() else float(text)

"""Attributes, types, trees and constants as text. ``value_parser`` reads what this writes."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from stategraph.ir.arrays import Resources, can_inline, dtype_name, host_data, inline_text, key_impl
from stategraph.ir.attributes import Dense, DType, EnumValue, Opaque, Record, RegionRef, Symbol
from stategraph.ir.core import Constant, Value
from stategraph.ir.spelling import is_simple_word, is_word, path, quote, word
from stategraph.ir.tree import Tree
from stategraph.ir.types import KeyType, OpaqueType, TensorType, Type, refined_text

_CANONICAL_NAN = struct.pack("<d", math.nan)


class AttributeWriter:
    """Writes attribute values. ``resources`` collects large arrays, ``opaque`` the names of what has no text
    form."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.opaque: list[str] = []
        self._types: dict[Type, str] = {}
        self._constants: dict[tuple[Any, ...], str] = {}

    def type(self, type: Type) -> str:
        text = self._types.get(type)
        if text is None:
            text = self._types[type] = str(type)
        return text

    def types(self, types: Iterable[Type]) -> str:
        return ", ".join(map(self.type, types))

    def refined(self, value: Value) -> str:
        """The type of a value with what is known of it: ``event<f32[3]>``."""
        text = self.type(value.type)
        return text if value.event is None else refined_text(text, value.event)

    def constant(self, constant: Constant) -> str:
        """The literal without its type."""
        key = (constant.type, constant.data.dtype, constant.data.shape, constant.data.tobytes())
        text = self._constants.get(key)
        if text is None:
            text = self._constants[key] = self._literal(constant)
        return text

    def _literal(self, constant: Constant) -> str:
        type, data = constant.type, constant.data
        matches = isinstance(type, TensorType) and (dtype_name(data.dtype), data.shape) == (
            type.dtype,
            type.shape,
        )
        return inline_text(data) if matches and can_inline(data) else self.resources.reference(data)

    def attributes(self, attributes: dict[str, Any], brackets: str = "{}") -> str:
        """``{key = value, …}`` sorted by key; empty when there are none."""
        if not attributes:
            return ""
        items = (f"{word(key)} = {self.attribute(attributes[key])}" for key in sorted(attributes))
        return f"{brackets[0]}{', '.join(items)}{brackets[1]}"

    def attribute(self, value: Any) -> str:
        """Any attribute value; something that is none prints as an opaque with the name of its class."""
        rule = _RULES.get(type(value))
        if rule is not None:
            text: str = rule(self, value)
            return text
        if isinstance(value, np.generic) and not isinstance(value, np.void):
            return self.attribute(value.item())
        if isinstance(value, np.ndarray):
            return self._dense(Dense(value))
        for plain in _PLAIN:  # a subclass prints as what it is made of
            if isinstance(value, plain):
                return self.attribute(plain(value))
        return self._opaque(Opaque(type(value).__qualname__))

    def _sequence(self, values: Iterable[Any]) -> str:
        return ", ".join(map(self.attribute, values))

    def _tuple(self, values: tuple[Any, ...]) -> str:
        return f"({self._sequence(values)}{',' if len(values) == 1 else ''})"

    def _dict(self, values: dict[Any, Any]) -> str:
        return "{" + ", ".join(f"{self.attribute(k)}: {self.attribute(v)}" for k, v in values.items()) + "}"

    def _record(self, record: Record) -> str:
        name = (
            record.name
            if is_word(record.name) and record.name != "complex"
            else f"record<{quote(record.name)}>"
        )
        return f"{name}({', '.join(f'{word(k)} = {self.attribute(v)}' for k, v in record.fields)})"

    def _dense(self, dense: Dense) -> str:
        data = host_data(dense.data)
        if key_impl(dense.data) is not None or not can_inline(data):
            return f"dense<{self.resources.reference(dense.data)}>"
        return f"dense<{inline_text(data)}:{TensorType(dtype_name(data.dtype), data.shape)}>"

    def _opaque(self, opaque: Opaque) -> str:
        self.opaque.append(opaque.name)
        return f"opaque<{quote(opaque.name)}>"

    def tree(self, tree: Tree, leaves: Iterator[str] | None = None) -> str:
        """A tree with ``*`` at its leaves, or the given texts."""
        if tree.kind == "leaf":
            return "*" if leaves is None else next(leaves, "*")
        if tree.kind == "none":
            return "none"
        inner = [self.tree(child, leaves) for child in tree.children]
        if tree.kind == "tuple":
            return f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
        if tree.kind == "list":
            return f"[{', '.join(inner)}]"
        keys = tree.keys
        if tree.kind == "dict":
            return (
                "{" + ", ".join(f"{self.attribute(k)}: {t}" for k, t in zip(keys, inner, strict=False)) + "}"
            )
        if keys:
            inner = [f"{self._key(key)} = {text}" for key, text in zip(keys, inner, strict=False)]
        return f"{word(tree.name)}({', '.join(inner)})"

    def _key(self, key: Any) -> str:
        return key if isinstance(key, str) and is_simple_word(key) else self.attribute(key)


def float_text(value: float) -> str:
    """A Python float; a NaN other than the usual one as its bits."""
    if value != value and struct.pack("<d", value) != _CANONICAL_NAN:
        return f"float<0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}>"
    return repr(value)


def _enum(value: EnumValue) -> str:
    if is_simple_word(value.enum) and is_simple_word(value.member):
        return f"{value.enum}.{value.member}"
    return f"enum<{quote(value.enum)}, {quote(value.member)}>"


_PLAIN: tuple[type[Any], ...] = (int, float, str, tuple)
_RULES: dict[type, Any] = {
    type(None): lambda w, v: "none",
    bool: lambda w, v: "true" if v else "false",
    int: lambda w, v: str(v),
    float: lambda w, v: float_text(v),
    complex: lambda w, v: f"complex({float_text(v.real)}, {float_text(v.imag)})",
    str: lambda w, v: quote(v),
    bytes: lambda w, v: f'bytes<"{v.hex()}">',
    tuple: AttributeWriter._tuple,
    list: lambda w, v: f"[{w._sequence(v)}]",
    dict: AttributeWriter._dict,
    Tree: lambda w, v: f"tree<{w.tree(v)}>",
    TensorType: lambda w, v: w.type(v),
    KeyType: lambda w, v: w.type(v),
    OpaqueType: lambda w, v: f"type<{w.type(v)}>",
    DType: lambda w, v: v.name if is_simple_word(v.name) else f"dtype<{quote(v.name)}>",
    Symbol: lambda w, v: path(v.path),
    EnumValue: lambda w, v: _enum(v),
    Record: AttributeWriter._record,
    RegionRef: lambda w, v: f"region<{v.index}>",
    Opaque: AttributeWriter._opaque,
    Dense: AttributeWriter._dense,
}

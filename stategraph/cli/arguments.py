"""``--args``: the types that a model is traced at, spelt as the IR prints them.

f32[32,8,8], i32[32]            two arrays
f32[], f32[]*, bool[4]          a scalar, a weakly typed scalar, booleans
key<fry>[]                      a typed PRNG key
(f32[3], i32[]), [f32[2]]       a tuple, a list; parentheses always make a tuple
{image: f32[8,8], label: i32[]} a dict; keys that are no words stand in double quotes
mask=bool[4]                    an argument given by name
3, 0.5, true, "relu", none      Python values, for static arguments
"""

from __future__ import annotations

import re
from typing import Any

from stategraph.cli.console import UsageError
from stategraph.ir.errors import ParseError
from stategraph.ir.lexer import Tokens
from stategraph.ir.types import KeyType, TensorType, Type
from stategraph.ir.value_parser import ValueParser

_SPACED_SHAPE = re.compile(r"(?<=[\w>])\[\s*(?:\d+(?:\s*,\s*\d+)*\s*,?\s*)?\]")


def parse_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional, by name) with ``jax.ShapeDtypeStruct``s for types. Raises ``UsageError`` that points into
    the text.
    """
    text = _SPACED_SHAPE.sub(lambda match: re.sub(r"\s|,\s*(?=\])", "", match[0]), text)
    try:
        return _Arguments(Tokens(text, "--args")).all()
    except ParseError as error:
        raise UsageError(
            f"--args: {str(error).partition(': ')[2]}",
            "types are spelt like f32[32,8], i32[], bool[4], key<fry>[]",
        ) from None


class _Arguments(ValueParser):
    def all(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tokens = self.tokens
        positional: list[Any] = []
        named: dict[str, Any] = {}
        while tokens.kind != "end":
            if tokens.kind == "word" and tokens.texts[tokens.index + 1] == "=":
                name = tokens.next()
                if name in named:
                    tokens.fail(f"argument {name!r} is given twice", tokens.index - 1)
                tokens.expect("=")
                named[name] = self.value()
            elif named:
                tokens.fail("an argument without a name cannot follow one with a name")
            else:
                positional.append(self.value())
            if tokens.kind != "end":
                tokens.expect(",")
        return tuple(positional), named

    def value(self) -> Any:
        tokens = self.tokens
        if tokens.accept("("):
            return tuple(self.list_until(")", self.value))
        if tokens.accept("["):
            return self.list_until("]", self.value)
        if tokens.accept("{"):
            return dict(self.list_until("}", self.item))
        if tokens.kind == "string":
            return tokens.take_string()
        if tokens.kind == "number":
            return self._python_number()
        if tokens.kind == "word" and tokens.text in _VALUES:
            return _VALUES[tokens.next()]
        index = tokens.index
        try:
            return struct(self.type())
        except TypeError as error:
            tokens.fail(str(error), index)

    def item(self) -> tuple[Any, Any]:
        tokens = self.tokens
        if tokens.kind == "number":
            key = self._python_number()
        else:
            key = tokens.take_name('a key such as image or "my image"')
        tokens.expect(":")
        return key, self.value()


_VALUES = {"true": True, "false": False, "none": None, "True": True, "False": False, "None": None}


def struct(type: Type) -> Any:
    """What stands for an array of this type; ``TypeError`` when this process has no such arrays."""
    import jax

    from stategraph import _jax

    if not isinstance(type, (TensorType, KeyType)):
        raise TypeError(f"a value of type {type} cannot be an argument")
    aval = _jax.aval_of(type)
    if isinstance(type, TensorType) and jax.dtypes.canonicalize_dtype(aval.dtype) != aval.dtype:
        raise TypeError(f"JAX has no {type.dtype} unless JAX_ENABLE_X64=1 is set in the environment")
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=bool(aval.weak_type))

"""Types of IR values.

A *tensor type* is a dtype, a shape and JAX's weak-type flag, written ``f32[3,4]`` (``f32[]*`` when weak).
PRNG keys have a type of their own, ``key<fry>[2]``. Anything else that a JAX program may carry (references,
tokens) is an *opaque type* with a name: it can be printed, but no pass looks inside.

dtypes are short strings (``f32``, ``bf16``, ``i32``, ``bool``) so that this package needs no JAX.
"""

from __future__ import annotations

import functools
import math

import attrs
import ml_dtypes
import numpy as np

from stategraph.ir.spelling import is_simple_word, quote

_PREFIXES = {"float": "f", "int": "i", "uint": "u", "complex": "c"}
_SPECIAL = {"bfloat16": "bf16", "bool": "bool", "float0": "f0", "void": "f0"}


@functools.cache
def short_dtype(name: str) -> str:
    """The short spelling of a NumPy dtype name: ``float32`` -> ``f32``, ``float8_e4m3fn`` ->
    ``f8_e4m3fn``."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    for prefix in ("uint", "int", "complex", "float"):
        if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1].isdigit():
            return _PREFIXES[prefix] + name[len(prefix) :]
    return name


@functools.cache
def numpy_dtype(short: str) -> np.dtype:
    """The NumPy dtype of a short spelling; raises ``TypeError`` when there is none."""
    for long, special in _SPECIAL.items():
        if short == special:
            return np.dtype([("float0", np.void, 0)]) if long == "float0" else np.dtype(long)
    for long, letter in _PREFIXES.items():
        if short.startswith(letter) and short[1:2].isdigit():
            name = long + short[1:]
            return np.dtype(getattr(ml_dtypes, name, name))
    return np.dtype(short)


@attrs.frozen(slots=True, cache_hash=True)
class TensorType:
    """A dense array: short dtype, shape, and whether JAX may promote it freely (weak type)."""

    dtype: str
    shape: tuple[int, ...] = ()
    weak: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.ceil(self.size * itemsize_bits(self.dtype) / 8)

    def strong(self) -> TensorType:
        """The same type without the weak flag: what a State holds."""
        return TensorType(self.dtype, self.shape) if self.weak else self

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]{'*' if self.weak else ''}"


@attrs.frozen(slots=True, cache_hash=True)
class KeyType:
    """An array of typed PRNG keys of one implementation (``fry`` is threefry)."""

    impl: str
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        return 8 * math.prod(self.shape)

    def __str__(self) -> str:
        impl = self.impl if is_simple_word(self.impl) else quote(self.impl)
        return f"key<{impl}>[{','.join(map(str, self.shape))}]"


@attrs.frozen(slots=True, cache_hash=True)
class OpaqueType:
    """A type that only JAX understands, such as a mutable reference."""

    name: str

    @property
    def nbytes(self) -> int:
        return 0

    def __str__(self) -> str:
        return f"opaque<{quote(self.name)}>"


Type = TensorType | KeyType | OpaqueType

EVENTS = ("binary", "entry", "sparse")
"""What may be known of a value beyond its type, strongest first, with the spelling of the refined type:

``binary``  ``event<f32[3]>``          every element is 0 or 1;
``entry``   ``event<f32[3], entry>``   so it is if the States with the attribute ``event`` held 0 and 1 at entry;
``sparse``  ``event<f32[3], sparse>``  elements are expected to be mostly zero; of the others nothing is known.

Only ``binary`` may be relied on. What is ``entry`` can hold any numbers: event products test each against zero.
"""


def refined_text(text: str, event: str | None) -> str:
    """The text of a type, refined by what is known of the value."""
    if event is None:
        return text
    return f"event<{text}>" if event == "binary" else f"event<{text}, {event}>"


@functools.cache
def itemsize_bits(dtype: str) -> int:
    """Bits that one element takes: 4 for ``i4``, 8 for ``bool``, 32 for ``f32``."""
    if dtype in ("i4", "u4"):
        return 4
    if dtype in ("i2", "u2"):
        return 2
    return numpy_dtype(dtype).itemsize * 8

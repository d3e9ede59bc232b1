"""Attribute values: the compile-time parameters of an op.

An attribute is plain data: ``None``, ``bool``, ``int``, ``float``, ``complex``, ``str``, ``bytes``, a tuple,
a dict, a ``Tree``, a tensor type, or one of the classes here. Everything but ``Opaque`` can be written as
text and read back.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np


@attrs.frozen(slots=True, cache_hash=True)
class DType:
    """A dtype used as a parameter, by its short name, such as ``dtype<f32>``."""

    name: str


@attrs.frozen(slots=True, cache_hash=True)
class Symbol:
    """A reference to a State by its path, written ``@net.h``."""

    path: str


@attrs.frozen(slots=True, cache_hash=True)
class EnumValue:
    """A member of an enumeration of JAX's, such as ``GatherScatterMode.CLIP``."""

    enum: str
    member: str


@attrs.frozen(slots=True)
class Record:
    """A named record of JAX's, such as ``GatherDimensionNumbers``: fields in order."""

    name: str
    fields: tuple[tuple[str, Any], ...]

    def get(self, field: str) -> Any:
        return dict(self.fields)[field]


@attrs.frozen(slots=True)
class RegionRef:
    """A parameter that is a function body: it stands as region ``index`` of its op."""

    index: int


@attrs.frozen(slots=True)
class Opaque:
    """A parameter without a text form (a Python callable, a sharding): only its name is printed.

    A program read from text has no ``payload`` here and is refused when lowered, naming the op.
    """

    name: str
    payload: Any = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen(slots=True, eq=False)
class Dense:
    """An array as a parameter, compared by dtype, shape and bits."""

    data: np.ndarray

    def key(self) -> tuple[str, tuple[int, ...], bytes]:
        return (str(self.data.dtype), self.data.shape, self.data.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dense) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

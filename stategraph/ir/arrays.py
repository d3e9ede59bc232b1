"""Arrays in text: a few elements in place, many as a *resource*, always bit for bit.

An element is written in decimal where that reads back to the same bits, and as its bits in hexadecimal
otherwise (a NaN with a payload). Arrays may be JAX arrays: everything here goes by duck typing, so that this
package needs no JAX.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import weakref
from typing import Any

import attrs
import numpy as np

from stategraph.ir.types import numpy_dtype, short_dtype

INLINE_SIZE = 16
"""Constants with more elements go to the resources."""


@attrs.frozen(eq=False)
class KeyData:
    """Typed PRNG keys read from text: the implementation's short name and the keys' raw data."""

    impl: str
    data: np.ndarray

    @property
    def dtype(self) -> str:
        return f"key<{self.impl}>"

    @property
    def _base_array(self) -> np.ndarray:
        return self.data

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape[:-1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyData) and array_key(self) == array_key(other)

    def __hash__(self) -> int:
        return hash(array_key(self))


def key_impl(array: Any) -> str | None:
    """The implementation of an array of typed PRNG keys, None for every other array."""
    dtype = str(getattr(array, "dtype", ""))
    return dtype[4:-1] if dtype.startswith("key<") else None


def host_data(array: Any) -> np.ndarray:
    """The array on the host; of typed keys their raw data."""
    return np.asarray(array if key_impl(array) is None else array._base_array)


@functools.cache
def dtype_name(dtype: np.dtype) -> str:
    """The short name of a NumPy dtype; JAX's ``float0`` is NumPy's empty record."""
    return "f0" if dtype.kind == "V" and dtype.itemsize == 0 else short_dtype(dtype.name)


def array_key(array: Any) -> tuple[str | None, str, tuple[int, ...], bytes]:
    """Key implementation, dtype, shape and bits: equal for equal arrays only."""
    data = host_data(array)
    return (key_impl(array), dtype_name(data.dtype), data.shape, data.tobytes())


def nbytes(array: Any) -> int:
    data = array if key_impl(array) is None else array._base_array
    return int(data.nbytes) if hasattr(data, "nbytes") else np.asarray(data).nbytes


def size_text(size: float) -> str:
    """A number of bytes for people: ``512 B``, ``1.5 MB``."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"


def digest(array: Any) -> tuple[str | None, str, tuple[int, ...], str]:
    """Key implementation, dtype, shape and a hash of the bits; computed once for an immutable array."""
    known = _DIGESTS.get(id(array))
    if known is not None and known[0]() is array:
        return known[1]
    impl, dtype, shape, bits = array_key(array)
    found = (impl, dtype, shape, hashlib.sha256(bits).hexdigest())
    if len(bits) > 4096 and not (isinstance(array, np.ndarray) and array.flags.writeable):
        key = id(array)
        _DIGESTS[key] = (weakref.ref(array, lambda _: _DIGESTS.pop(key, None)), found)
    return found


_DIGESTS: dict[int, tuple[Any, tuple[str | None, str, tuple[int, ...], str]]] = {}


class Resources:
    """The arrays that a text refers to as ``$0``, ``$1``, …

    Equal arrays share a number. Without ``bits``, where the text will not hold them, only one object does:
    the data of large arrays is not looked at.
    """

    def __init__(self) -> None:
        self.bits = True
        self.arrays: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def reference(self, array: Any) -> str:
        key = digest(array) if self.bits else id(array)
        number = self._numbers.setdefault(key, len(self.arrays))
        if number == len(self.arrays):
            self.arrays.append(array)
        return f"${number}"


def encode(array: Any) -> str:
    """The bits in base64."""
    return base64.b64encode(host_data(array).tobytes()).decode()


def decode(text: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``encode``; ``ValueError`` when the bits do not fill the shape."""
    raw = base64.b64decode(text, validate=True)
    numpy_type = numpy_dtype(dtype)
    if numpy_type.itemsize == 0:
        return np.zeros(shape, numpy_type)
    size = int(np.prod(shape, dtype=np.int64))
    if len(raw) != size * numpy_type.itemsize:
        raise ValueError(f"{dtype}{list(shape)} takes {size * numpy_type.itemsize} bytes, found {len(raw)}")
    array = np.frombuffer(bytearray(raw), numpy_type).reshape(shape)
    array.setflags(write=False)
    return array


def can_inline(data: np.ndarray) -> bool:
    """Whether the array is small and of a dtype whose elements have a spelling."""
    return data.size <= INLINE_SIZE and dtype_name(data.dtype) != "f0" and _family(data.dtype) != "?"


def inline_text(data: np.ndarray) -> str:
    """Elements in nested brackets: ``1.0``, ``[1, 2]``, ``[[true], [false]]``."""
    if data.size == 0:
        return "[]"
    if data.ndim == 0:
        return _element_text(data[()], data.dtype)
    return "[" + ", ".join(inline_text(np.asarray(row, data.dtype)) for row in data) + "]"


def from_elements(elements: list[Any], dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a flat list of spelt elements: bool, number, hexadecimal bits as a str, or a pair of them
    (complex)."""
    array = np.zeros(shape, numpy_dtype(dtype))
    if len(elements) != array.size:
        raise ValueError(f"{dtype}{list(shape)} takes {array.size} elements, found {len(elements)}")
    flat = array.reshape(-1)
    for i, element in enumerate(elements):
        flat[i] = _element(element, array.dtype)
    array.setflags(write=False)
    return array


@functools.cache
def _family(dtype: np.dtype) -> str:
    short = short_dtype(dtype.name)
    if short == "bool":
        return "bool"
    if short[1:2].isdigit() or short == "bf16":
        return {"i": "int", "u": "int", "f": "float", "b": "float", "c": "complex"}.get(short[0], "?")
    return "?"


def _element_text(value: Any, dtype: np.dtype) -> str:
    family = _family(dtype)
    if family == "bool":
        return "true" if value else "false"
    if family == "int":
        return str(int(value))
    if family == "complex":
        real, imaginary = (_float_text(part, part.dtype) for part in (value.real, value.imag))
        return f"complex({real}, {imaginary})"
    return _float_text(value, dtype)


def _float_text(value: Any, dtype: np.dtype) -> str:
    scalar = np.asarray(value, dtype)
    bits = scalar.tobytes()
    for text in _candidates(scalar):
        if _element(float(text), dtype).tobytes() == bits:
            return text
    return f"0x{int.from_bytes(bits, 'little'):0{2 * dtype.itemsize}x}"


def _candidates(scalar: np.ndarray) -> list[str]:
    number = float(scalar)
    if number != number:
        return ["nan"]
    if number in (float("inf"), -float("inf")):
        return [repr(number)]
    if scalar.dtype == np.float64:
        return [repr(number)]
    if scalar.dtype == np.float32:
        return [str(scalar[()]), repr(number)]
    if number.is_integer() and abs(number) < 1e16:
        return [repr(number)]
    return [*(repr(float(f"{number:.{digits}g}")) for digits in range(1, 10)), repr(number)]


def _element(element: Any, dtype: np.dtype) -> np.ndarray:
    """One spelt element as a zero-dimensional array."""
    if isinstance(element, tuple):
        part = np.dtype(f"f{dtype.itemsize // 2}")
        out = np.zeros((), dtype)
        out.real, out.imag = _element(element[0], part), _element(element[1], part)
        return out
    if isinstance(element, str):
        return np.frombuffer(int(element, 16).to_bytes(dtype.itemsize, "little"), dtype).reshape(())
    family = _family(dtype)
    if (family == "bool") != isinstance(element, bool):
        raise ValueError(f"{str(element).lower()} is no {short_dtype(dtype.name)}")
    if family == "int" and not isinstance(element, int):
        raise ValueError(f"{element} is no {short_dtype(dtype.name)}")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.array(element, dtype)

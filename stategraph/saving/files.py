"""Checkpoints as single files: safetensors, or NumPy's .npz where that package is missing.

Both hold the arrays by name, and a header as JSON behind its CRC-32: ``version``, ``objects`` (how many), ``arrays`` (name to
type and checksum) and ``metadata``. dtypes that a format does not know are stored as bytes.
"""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stategraph import _extras
from stategraph.errors import CheckpointError, describe
from stategraph.ir.types import numpy_dtype, short_dtype

HEADER = "stategraph"
_SAFETENSORS_DTYPES = frozenset(
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    + ["float16", "bfloat16", "float32", "float64", "complex64"]
)


def default_format(path: Path) -> str:
    """The format that a path means: by its suffix, else the best that is installed."""
    if path.suffix in (".safetensors", ".npz"):
        return path.suffix[1:]
    return "safetensors" if importlib.util.find_spec("safetensors") is not None else "npz"


def pack(format: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a file."""
    text = _sealed(json.dumps(header, separators=(",", ":")))
    if format == "safetensors":
        safetensors = _extras.load("safetensors.numpy", "save", "Saving as safetensors")
        stored = {name: _plain(array, _SAFETENSORS_DTYPES) for name, array in arrays.items()}
        data: bytes = safetensors.save(stored, metadata={HEADER: text})
        return data
    file = io.BytesIO()
    native = frozenset(array.dtype.name for array in arrays.values() if array.dtype.kind in "biufc")
    named: dict[str, Any] = {f"array/{name}": _plain(array, native) for name, array in arrays.items()}
    named[HEADER] = np.frombuffer(text.encode(), np.uint8)
    np.savez(file, **named)
    return file.getvalue()


def _sealed(text: str) -> str:
    """A header with its checksum in front, eight digits."""
    return f"{zlib.crc32(text.encode()):08x}{text}"


def _opened(text: str, source: str) -> dict[str, Any]:
    if _sealed(text[8:]) != text:
        raise damaged(source, "the checksum of its header does not fit")
    found: dict[str, Any] = json.loads(text[8:])
    return found


def _plain(array: np.ndarray, known: frozenset[str]) -> np.ndarray:
    """An array of a dtype that the format knows: as it is, or its bytes along a new last axis."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.name in known:
        return array
    return array.reshape(*array.shape, 1).view(np.uint8)


def unpack(data: bytes, source: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of a file.

    Raises:
      CheckpointError: for a file that is cut off, damaged, or none that ``save`` wrote.
    """
    if data[:4] == b"PK\x03\x04":
        header, found = _unpack_npz(data, source)
    else:
        header, found = _unpack_safetensors(data, source)
    arrays = {}
    for name, kind in header["arrays"].items():
        if name not in found:
            raise damaged(source, f"the array {name!r} is missing")
        arrays[name] = _typed(found[name], kind)
    return header, arrays


def _typed(stored: Any, kind: Mapping[str, Any]) -> np.ndarray:
    """An array from what is stored: bytes, or an array whose bytes count."""
    dtype = np.dtype(np.uint32) if "key" in kind else numpy_dtype(short_dtype(kind["dtype"]))
    raw = stored if isinstance(stored, (bytes, bytearray)) else np.ascontiguousarray(stored).tobytes()
    flat = np.frombuffer(raw, dtype)
    return flat.reshape(*kind["shape"], -1) if "key" in kind else flat.reshape(kind["shape"])


def _unpack_safetensors(data: bytes, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or data[8:9] != b"{":
        raise foreign(source, data)
    if len(data) < 8 + length:
        raise damaged(source, f"it ends after {len(data)} bytes, in its header")
    try:
        table = json.loads(data[8 : 8 + length])
    except ValueError:
        raise foreign(source, data) from None
    if HEADER not in table.get("__metadata__", {}):
        raise foreign(source, data)
    header = checked_header(_opened(table["__metadata__"][HEADER], source), source)
    safetensors = _extras.load("safetensors", "save", "Loading safetensors")
    try:
        found = {name: spec["data"] for name, spec in safetensors.deserialize(data)}
    except Exception as error:  # its own class of error differs between versions
        raise damaged(source, str(error)) from error
    return header, found


def _unpack_npz(data: bytes, source: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, KeyError) as error:
        raise damaged(source, str(error)) from error
    if HEADER not in found:
        raise foreign(source, data)
    header = checked_header(_opened(found.pop(HEADER).tobytes().decode(errors="replace"), source), source)
    return header, {name.removeprefix("array/"): array for name, array in found.items()}


VERSION = 1


def checked_header(header: dict[str, Any], source: str) -> dict[str, Any]:
    """A header, if this version of the package reads it."""
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{source} has version {header.get('version')} of the format, and this StateGraph reads version {VERSION}"
        )
    return header


def foreign(source: str, data: bytes = b" ") -> CheckpointError:
    """What to raise for a file that ``save`` did not write."""
    return CheckpointError(
        f"{source} is no checkpoint written by stategraph.save" + ("" if data else ": it is empty")
    )


def damaged(source: str, why: str) -> CheckpointError:
    """What to raise for a file that is not as it was written."""
    return CheckpointError(
        describe(
            f"{source} is cut off or damaged.", why=why, fix="use another checkpoint; nothing was changed"
        )
    )

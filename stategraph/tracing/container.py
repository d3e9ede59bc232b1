"""The file that an exported program is: one container for StableHLO, text and arrays.

All integers are little-endian.

    offset  bytes  what
    0       8      89 53 47 58 0D 0A 1A 0A ("SGX", with bytes that show a transfer in text mode)
    8       4      version of this layout, 1
    12      8      length of the header, n
    20      32     SHA-256 of all bytes from offset 52 to the end
    52      n      header: JSON in UTF-8; "blobs" is a list of {"name": …, "length": …}
    52+n           the blobs, one after the other, in that order

What a blob holds, its name tells: ``stablehlo`` (as ``jax.export`` serialises it), ``program`` (the .sg text,
compressed with zlib), and ``array/0``, ``array/1``, … (NumPy's .npy, without pickle). The rest of the header
is described in ``docs/export.md``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from typing import Any

import numpy as np

from stategraph._files import write_atomically
from stategraph.errors import ExportError
from stategraph.ir.types import numpy_dtype, short_dtype

MAGIC = b"\x89SGX\r\n\x1a\n"
VERSION = 1
_PREFIX = struct.Struct("<8sIQ32s")


def pack(header: dict[str, Any], blobs: dict[str, bytes]) -> bytes:
    """One container of a header and named blobs."""
    header = {**header, "blobs": [{"name": name, "length": len(blob)} for name, blob in blobs.items()]}
    text = json.dumps(header, separators=(",", ":")).encode()
    digest = hashlib.sha256(text)
    for blob in blobs.values():
        digest.update(blob)
    return b"".join([_PREFIX.pack(MAGIC, VERSION, len(text), digest.digest()), text, *blobs.values()])


def unpack(data: bytes, source: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(header, blobs) of a container. Raises ``ExportError`` for anything else; ``source`` names it there."""
    if data[:8] != MAGIC:
        if data[:4] == MAGIC[:4]:
            raise ExportError(
                f"{source} was damaged by a transfer that changes line ends; transfer it as binary"
            )
        raise ExportError(
            f"{source} is no program exported by StateGraph" + (": it is empty" if not data else "")
        )
    if len(data) < _PREFIX.size:
        raise _truncated(source, len(data))
    _, version, length, digest = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise ExportError(
            f"{source} has version {version} of the format, and this StateGraph reads version {VERSION}"
        )
    body = memoryview(data)[_PREFIX.size :]
    if length > len(body):
        raise _truncated(source, len(data))
    if hashlib.sha256(body).digest() != digest:
        missing = _missing(body, length)
        raise (
            _truncated(source, len(data))
            if missing
            else ExportError(f"{source} is damaged: its checksum does not fit")
        )
    header = json.loads(bytes(body[:length]))
    blobs, start = {}, length
    for entry in header["blobs"]:
        blobs[entry["name"]] = bytes(body[start : start + entry["length"]])
        start += entry["length"]
    return header, blobs


def _missing(body: memoryview, length: int) -> bool:
    """Whether the header is whole and tells of more bytes than there are."""
    try:
        return bool(
            sum(entry["length"] for entry in json.loads(bytes(body[:length]))["blobs"]) > len(body) - length
        )
    except (ValueError, KeyError, TypeError):
        return False


def _truncated(source: str, size: int) -> ExportError:
    return ExportError(f"{source} is cut off: it ends after {size} bytes, in the middle of the program")


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ExportError(f"cannot write {os.fspath(path)!r}: {error.strerror}") from error


# ----------------------------------------------------------------------------------------------------- arrays


def pack_array(array: np.ndarray) -> tuple[str, bytes]:
    """(short dtype, .npy bytes). Dtypes that .npy does not know, such as bf16, are written as unsigned
    integers of their size.
    """
    short = short_dtype(array.dtype.name)
    if array.dtype.kind not in "biufc":
        array = array.copy().view(f"u{array.dtype.itemsize}")
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return short, file.getvalue()


def unpack_array(short: str, data: bytes) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    dtype = numpy_dtype(short)
    return array if array.dtype == dtype else array.view(dtype)
